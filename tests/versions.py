"""Copies of the package that are of another version: another schema, and fields added."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from flask_chsk.brokers.redis.schema import SCHEMA
from tests.process import ROOT

ADDED = {
    "scripts.py": {
        "flush}, ' ')": "flush, 'later'}, ' ')",  # the head of an event
        "'b', exclude)": "'b', exclude, 'n', 'new')",  # an entry of a history
        "digest, kept": "digest, kept, 'extra'",  # what is known of a client
        "' P ' .. m.epoch .. ' ' .. o)": "' P ' .. m.epoch .. ' ' .. o .. ' later')",
        # A kind of message that the version before does not know.
        "redis.call('PUBLISH', base .. 'w:' .. ARGV[1], SCHEMA .. ' P '": (
            "for _, one in ipairs(redis.call('ZRANGE', base .. 'leases', 0, -1)) do"
            " redis.call('PUBLISH', base .. 'w:' .. one, SCHEMA .. ' N hello') end\n"
            "redis.call('PUBLISH', base .. 'w:' .. ARGV[1], SCHEMA .. ' P '"
        ),
    },
    "subscription.py": {
        "elif schema == SCHEMA:": 'elif kind != b"N " and schema == SCHEMA:',
    },
}


def version(folder: Path, ahead: int) -> Path:
    """A folder with the package as it will be *ahead* versions from now, and these tests."""
    there = folder / f"version-{ahead}"
    if there.exists():
        return there
    for name in ("flask_chsk", "tests"):
        shutil.copytree(
            ROOT / name, there / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules")
        )
    brokers = there / "flask_chsk" / "brokers" / "redis"
    schema = (brokers / "schema.py").read_text()
    changed = re.sub(rf"^SCHEMA = {SCHEMA}$", f"SCHEMA = {SCHEMA + ahead}", schema, flags=re.M)
    assert changed != schema
    (brokers / "schema.py").write_text(changed)
    for name, changes in ADDED.items():
        text = (brokers / name).read_text()
        for old, new in changes.items():
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        (brokers / name).write_text(text)
    return there


def in_version(folder: Path, command: list[str]) -> list[str]:
    """*command*, with the package of :func:`version`'s folder."""
    return ["env", "-C", str(folder), f"PYTHONPATH={folder}", *command]


def run(folder: Path, program: str, *args: str) -> str:
    """What *program* prints in that version; its error, where it fails."""
    done = subprocess.run(
        in_version(folder, [sys.executable, "-c", program, *args]),
        timeout=60,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip()

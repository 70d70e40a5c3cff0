"""``make test`` runs every test there is, each in exactly one of its parts."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from functools import cache
from glob import glob
from itertools import chain
from pathlib import Path

from tests.process import ROOT, program

# A make above this one has its own ideas, and would have this one follow them.
ENVIRON = {name: value for name, value in os.environ.items() if "MAKE" not in name}
ENVIRON["PYTHONHASHSEED"] = "0"  # sets have one order, so that tests have one name
PYTEST = f"{sys.executable} -m pytest"


@cache
def recipe(target: str) -> tuple[str, ...]:
    """The commands of ``make target``."""
    command = [program("make"), "--dry-run", target, f"PYTEST={PYTEST}"]
    ran = subprocess.run(command, cwd=ROOT, env=ENVIRON, capture_output=True, text=True, check=True)
    return tuple(ran.stdout.splitlines())


def pytests(target: str) -> list[str]:
    """Those of them that run pytest."""
    return [command for command in recipe(target) if command.startswith(PYTEST)]


#: Collects for each of a list of arguments, in one process that imports each module once.
COLLECT = """
import json, sys, pytest

class Names:
    def pytest_collection_finish(self, session):
        self.names = [item.nodeid for item in session.items]

found = []
for arguments in json.loads(sys.argv[1]):
    names = Names()
    # Modules are rewritten for asserts at their first import only: no matter here.
    quiet = ["-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    code = pytest.main([*arguments, "--collect-only", *quiet], [names])
    assert code == 0, arguments
    found.append(names.names)
with open(sys.argv[2], "w") as file:
    json.dump(found, file)
"""


def expanded(command: str) -> list[str]:
    """The arguments of a command that runs pytest, as the shell gives them."""
    words = shlex.split(command.removeprefix(PYTEST))
    lists = [sorted(glob(word, root_dir=ROOT)) if "*" in word else [word] for word in words]
    return list(chain.from_iterable(lists))


def steady(name: str) -> str:
    """*name* without what varies: addresses, and what pytest escapes at each collection again."""
    return re.sub(r"\\+", r"\\", re.sub(r" at 0x[0-9a-f]+>", ">", name))


def test_every_test_runs_in_exactly_one_part(tmp_path: Path) -> None:
    commands = json.dumps([*map(expanded, pytests("test")), []])
    script = [sys.executable, "-c", COLLECT, commands, tmp_path / "names"]
    ran = subprocess.run(script, cwd=ROOT, env=ENVIRON, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads((tmp_path / "names").read_text())
    *parts, everything = (Counter(map(steady, names)) for names in found)
    together = sum(parts, Counter())
    assert sum(everything.values()) > 4000
    assert {"never": everything - together, "twice": together - everything} == {
        "never": {},
        "twice": {},
    }


def test_unit_integration_and_e2e_are_the_parts_of_test() -> None:
    parts = [command for name in ("unit", "integration", "e2e") for command in pytests(name)]
    assert sorted(parts) == sorted(pytests("test"))


def test_what_else_must_pass_is_part_of_test() -> None:
    for target in ("style", "types", "js", "tools"):
        assert set(recipe(target)) <= set(recipe("test")), target


def test_continuous_integration_runs_make_test() -> None:
    script = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    assert script[-1].startswith("exec make test ")


def test_every_test_of_javascript_runs(tmp_path: Path) -> None:
    """By the script that make runs, with a node that writes down what it is given."""
    written = sorted(path.name for path in (ROOT / "tests/js").glob("**/*.test.*") if here(path))
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    shutil.copytree(
        ROOT / "tests/js", tmp_path / "tests/js", ignore=shutil.ignore_patterns("node_modules")
    )
    for name in ("node", "npm"):
        stub = tmp_path / "bin" / name
        stub.parent.mkdir(exist_ok=True)
        stub.write_text(
            f'#!/bin/sh\n[ "$1" = --test ] && echo {name} "$@"\nmkdir -p node_modules\n'
        )
        stub.chmod(0o755)
    ran = subprocess.run(
        ["sh", tmp_path / "scripts/js.sh"],
        env={**ENVIRON, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    name, *arguments = ran.stdout.split()
    assert name == "node"
    assert sorted(word for word in arguments if not word.startswith("--")) == written
    assert len(written) >= 7


def here(path: Path) -> bool:
    return "node_modules" not in path.parts

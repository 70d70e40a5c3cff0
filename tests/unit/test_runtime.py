"""Clock, timers, greenlets, locks, random numbers and tokens come from the hub.

So a simulated hub can take its place (``tests/sim``). What a worker's modules take from elsewhere
is listed here, with the reason.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "flask_chsk"
FOLDERS = ("server", "brokers", "protocol", "transports")
SOURCES = {"gevent", "random", "secrets", "threading", "time", "uuid"}

ELSEWHERE = {
    "protocol/backoff.py": {"random"},  # a default for applications; ours give their own
    "protocol/uids.py": {"uuid"},  # a type
    "server/admission.py": {"threading"},  # counts requests, in whatever thread
    "server/recv.py": {"gevent", "threading"},  # a queue for the application's own threads
    "transports/link.py": {"gevent"},  # waits within a WSGI call
    "transports/upgrade.py": {"gevent"},  # takes a socket from the server
}


def imported(path: Path) -> Iterator[str]:
    """The packages that a module imports anywhere, types apart."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typed = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typed:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.partition(".")[0]


MODULES = sorted(
    path.relative_to(PACKAGE).as_posix()
    for folder in FOLDERS
    for path in (PACKAGE / folder).rglob("*.py")
)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_takes_its_runtime_from_the_hub(module: str) -> None:
    assert SOURCES.intersection(imported(PACKAGE / module)) == ELSEWHERE.get(module, set())


def test_no_exception_outlives_its_module() -> None:
    assert set(ELSEWHERE) <= set(MODULES)


def test_what_is_imported_is_found(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        "import time\nif TYPE_CHECKING:\n    import uuid\n"
        "def later():\n    from gevent.event import Event\nfrom . import random\n"
    )
    assert set(imported(module)) == {"time", "gevent"}

"""What the package uses of others beyond their documentation: it is there, and in one place each.

``make matrix`` runs the same checks with the lowest and the newest versions.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.matrix import internals
from tests.process import ROOT

PACKAGE = ROOT / "flask_chsk"
# Where names that are not promised stand: redis-py's, gevent's, Flask's.
PLACES = {"brokers/redis/internals.py", "internals.py", "web/internals.py"}


@pytest.mark.parametrize(
    "check", [check.__name__ for checks in internals.CHECKS.values() for check in checks]
)
def test_what_is_used_of_others_is_there(check: str) -> None:
    # In a process of its own: gevent's and gunicorn's leave traces.
    code = f"from tests.matrix import internals; print(internals.{check}())"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


def private(path: Path) -> Iterator[str]:
    """The private names of other packages that a module imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            first, *rest = name.split(".")
            known = first in sys.stdlib_module_names or first == "_typeshed"
            if not known and any(part.startswith("_") for part in rest):
                yield name


def test_private_names_are_imported_in_their_places_only() -> None:
    found = {
        str(path.relative_to(PACKAGE)): names
        for path in PACKAGE.rglob("*.py")
        if (names := [*private(path)])
    }
    assert found.keys() <= PLACES, found

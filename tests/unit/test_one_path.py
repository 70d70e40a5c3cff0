"""One worker runs the code of many: what asks whether there are others is listed here."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "flask_chsk"

# Where a module asks whether there is another worker (``Broker.local``), and how often. Each place
# is a difference that clients or brokers notice, and says so in a comment. May only become fewer.
ASKING = {
    "server/clients.py": 1,  # the code by which a replaced connection is closed
    "server/idempotency.py": 1,  # whether another worker may have a keyed send
    "server/receiver.py": 1,  # whether a client's next POST may reach another worker
}


def asks(source: str) -> int:
    """How often a module reads an attribute of that name."""
    return sum(
        isinstance(node, ast.Attribute) and node.attr == "local"
        for node in ast.walk(ast.parse(source))
    )


def test_nothing_else_asks_whether_there_are_other_workers() -> None:
    found = Counter[str]()
    for path in PACKAGE.rglob("*.py"):
        if not path.is_relative_to(PACKAGE / "brokers"):
            found[path.relative_to(PACKAGE).as_posix()] += asks(path.read_text(encoding="utf-8"))
    assert +found == ASKING


def test_what_asks_is_found() -> None:
    assert asks("if broker.local:\n    local = not self._broker.local") == 2

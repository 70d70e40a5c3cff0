"""The ladder of DESIGN 5: imports go down only, and the lower layers stay pure.

Read from the syntax tree, imports inside functions included; what stands under
``if TYPE_CHECKING`` names types only, and is free.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "flask_chsk"

# Lowest first. A layer may import itself (each module the ones it builds on) and what is below.
LADDER = [
    [
        "errors",
        "values",
        "uids",
        "event",
        "config",
        "backoff",
        "plain",
        "printable",
        "origins",
        "interrupts",
        "twice",
    ],
    ["packers"],
    ["wire", "push", "frames", "session", "generations", "registry", "router"],
    ["intake", "topics", "rates", "security"],
    ["admission", "logs", "forks", "hub", "link", "upgrade", "websocket", "longpoll", "brokers"],
    ["closes", "connection", "replies", "asks", "dispatch", "delivery", "presence", "history"],
    ["recv", "attachments", "closing", "inbound", "polls", "server", "client", "publisher"],
    # `Chsk.test_client` reaches for testing, which is made of all the others here.
    [
        "contexts",
        "internals",
        "neighbours",
        "readonly",
        "form",
        "hooks",
        "cookieless",
        "responding",
        "views",
        "cli",
        "extension",
        "testing",
        "__pyinstaller",
        "migrants",
    ],
    ["__init__"],
]
LAYER = {name: number for number, names in enumerate(LADDER) for name in names}
PURE = 3  # up to this layer: the standard library, and nothing of it that waits or logs

# A packer may need its codec, and frames take a C mask where there is one.
FOREIGN = {
    "packers.msgpack": {"msgpack"},
    "packers.transit": {"msgpack"},
    "frames": {"websockets"},
}
# A protocol has no socket, thread, clock or log (DESIGN 4.1): these come from the layers above.
IMPURE = {"asyncio", "logging", "select", "selectors", "socket", "ssl", "threading", "time"}


def modules() -> dict[str, Path]:
    """Each module under its name below ``flask_chsk``: ``"packers.edn"``, ``"__init__"``."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
        if len(parts) > 1 and parts[-1] == "__init__":
            parts.pop()
        found[".".join(parts)] = path
    return found


def imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Absolute names that *tree* imports; *package* is what its relative imports start from."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for branch in node.orelse:
                yield from imported(ast.Module([branch], []), package)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package.split(".")[: len(package.split(".")) + 1 - node.level]
            base = ".".join([*(start if node.level else []), *filter(None, [node.module])])
            # `from . import errors` names a module, `from .errors import ChskError` does not:
            # the longer name tells both apart, since only its first parts are looked at.
            yield from (f"{base}.{alias.name}" for alias in node.names)
        else:
            yield from imported(node, package)


def imports_of(module: str, path: Path) -> set[str]:
    package = "flask_chsk" if "." not in module else f"flask_chsk.{module.rpartition('.')[0]}"
    if path.name == "__init__.py" and module != "__init__":
        package = f"flask_chsk.{module}"
    return set(imported(ast.parse(path.read_text(encoding="utf-8")), package))


def sibling(name: str) -> str | None:
    """The module of the ladder that ``flask_chsk.…`` *name* lies in; None for foreign names."""
    parts = name.split(".")
    if parts[0] != "flask_chsk":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in LAYER else "__init__"


MODULES = modules()


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_its_layer(module: str) -> None:
    assert module.split(".")[0] in LAYER, f"give {module} a layer, here and in the design"


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module: str) -> None:
    layer = LAYER.get(module.split(".")[0], len(LADDER))
    upward = {
        name
        for name in imports_of(module, MODULES[module])
        if (into := sibling(name)) is not None and LAYER[into] > layer
    }
    assert upward == set()


@pytest.mark.parametrize("module", [m for m in MODULES if LAYER.get(m.split(".")[0], 9) <= PURE])
def test_the_lower_layers_need_only_the_standard_library(module: str) -> None:
    roots = {name.split(".")[0] for name in imports_of(module, MODULES[module])}
    foreign = roots - set(sys.stdlib_module_names) - {"flask_chsk"} - FOREIGN.get(module, set())
    assert foreign == set()


@pytest.mark.parametrize("module", [m for m in MODULES if LAYER.get(m.split(".")[0], 9) <= PURE])
def test_the_lower_layers_neither_wait_nor_log(module: str) -> None:
    roots = {name.split(".")[0] for name in imports_of(module, MODULES[module])}
    assert roots & IMPURE == set()


def test_imports_are_found_wherever_they_stand() -> None:
    source = """
import a.b
from typing import TYPE_CHECKING
from . import errors
from .packers.edn import pack
from .. import up
if TYPE_CHECKING:
    import typed
else:
    import untyped
def later():
    try:
        import speedups
    except ImportError:
        from flask_chsk.server import Server
"""
    assert set(imported(ast.parse(source), "flask_chsk.brokers")) == {
        "a.b",
        "typing.TYPE_CHECKING",
        "flask_chsk.brokers.errors",
        "flask_chsk.brokers.packers.edn.pack",
        "flask_chsk.up",
        "untyped",
        "speedups",
        "flask_chsk.server.Server",
    }


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("flask_chsk.errors.ChskError", "errors"),
        ("flask_chsk.packers.edn", "packers"),
        ("flask_chsk.Chsk", "__init__"),
        ("flask_chsk", "__init__"),
        ("flask.Flask", None),
    ],
)
def test_a_name_belongs_to_a_module_of_the_ladder(name: str, module: str | None) -> None:
    assert sibling(name) == module

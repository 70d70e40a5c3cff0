"""The house: what each folder may import. Imports go down only, and make no circle.

Read from the syntax tree: imports inside functions and under ``if TYPE_CHECKING`` count too.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "flask_chsk"

# Lowest first. A layer may import itself and every layer below it. A name is a folder of the
# package, or a module at its root.
LAYERS = {
    "ground": [
        "errors",
        "values",
        "config",
        "origins",
        "plain",
        "printable",
        "interrupts",
        "figures",
    ],
    "packers": ["packers"],
    "protocol": ["protocol", "security"],
    "runtime": ["internals", "logs", "forks", "semaphore", "hub", "after_commit"],
    "transports": ["transports"],
    "brokers": ["brokers"],
    "server": ["server"],
    "client": ["client"],
    "publisher": ["publisher", "inspector"],
    "flask": [
        *("web", "cli", "doctor", "extension", "serving", "state", "testing", "metrics"),
        "__pyinstaller",
    ],
    "public": ["__init__"],
}
LAYER = {name: number for number, names in enumerate(LAYERS.values()) for name in names}
ORDER = list(LAYERS)
# Layers that do not see each other, although one stands below the other in the list.
APART = {
    "transports": {"brokers"},
    "brokers": {"transports"},
    "client": {"transports", "brokers", "server"},
    "publisher": {"transports", "server", "client"},
    "flask": {"client"},
}
PURE = ORDER.index("protocol")  # up to here: the standard library, and nothing that waits or logs

FOREIGN = {"protocol.frames": {"websockets"}}  # its C mask, where there is one
# A protocol has no socket, thread, clock or log: these come from the layers above.
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
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package.split(".")[: len(package.split(".")) + 1 - node.level]
            base = ".".join([*(start if node.level else []), *filter(None, [node.module])])
            # `from . import errors` names a module, `from .errors import ChskError` does not:
            # the longer name tells both apart.
            yield from (f"{base}.{alias.name}" for alias in node.names)


def imports_of(module: str, path: Path) -> set[str]:
    package = "flask_chsk" if "." not in module else f"flask_chsk.{module.rpartition('.')[0]}"
    if path.name == "__init__.py" and module != "__init__":
        package = f"flask_chsk.{module}"
    return set(imported(ast.parse(path.read_text(encoding="utf-8")), package))


MODULES = modules()


def module_of(name: str) -> str | None:
    """The module that the imported *name* is, or lies in; None for foreign names."""
    parts = name.split(".")
    if parts[0] != "flask_chsk":
        return None
    while len(parts) > 1:
        if (module := ".".join(parts[1:])) in MODULES:
            return module
        parts.pop()
    return "__init__"


def below(module: str) -> set[str]:
    """The modules of the package that *module* imports."""
    names = map(module_of, imports_of(module, MODULES[module]))
    return {name for name in names if name is not None} - {module}


def layer(module: str) -> int:
    return LAYER[module.split(".")[0]]


def circles() -> list[set[str]]:
    """Sets of modules that reach each other by imports; ``__init__`` modules are exempt."""
    graph = {m: below(m) for m in MODULES if MODULES[m].name != "__init__.py"}
    reach: dict[str, set[str]] = {}
    for start in graph:
        seen: set[str] = set()
        todo = [start]
        while todo:
            for next_one in graph.get(todo.pop(), ()):
                if next_one in graph and next_one not in seen:
                    seen.add(next_one)
                    todo.append(next_one)
        reach[start] = seen
    found: list[set[str]] = []
    for one in graph:
        circle = {other for other in reach[one] if one in reach[other]}
        if circle and circle not in found:
            found.append(circle)
    return found


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_its_layer(module: str) -> None:
    assert module.split(".")[0] in LAYER, f"give {module} a layer, here and in docs/internals.rst"


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module: str) -> None:
    apart = APART.get(ORDER[layer(module)], set())
    upwards = {
        name for name in below(module) if layer(name) > layer(module) or ORDER[layer(name)] in apart
    }
    assert upwards == set()


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles() == []


@pytest.mark.parametrize("module", [m for m in MODULES if layer(m) <= PURE])
def test_the_lower_layers_need_only_the_standard_library(module: str) -> None:
    roots = {name.split(".")[0] for name in imports_of(module, MODULES[module])}
    foreign = roots - set(sys.stdlib_module_names) - {"flask_chsk"} - FOREIGN.get(module, set())
    assert foreign == set()


@pytest.mark.parametrize("module", [m for m in MODULES if layer(m) <= PURE])
def test_the_lower_layers_neither_wait_nor_log(module: str) -> None:
    roots = {name.split(".")[0] for name in imports_of(module, MODULES[module])}
    assert roots & IMPURE == set()


@pytest.mark.parametrize(
    "path",
    sorted({*PACKAGE.rglob("*/__init__.py")} - {PACKAGE / "client/__init__.py"}),
    ids=lambda path: path.parent.name,
)
def test_the_init_of_a_folder_imports_names_at_most(path: Path) -> None:
    """Those of ``client/`` are imported when they are first asked for."""
    if path.parent.name == "__pyinstaller":
        return
    kinds = (ast.Expr, ast.ImportFrom, ast.Assign)  # a docstring, imports, __all__
    assert all(isinstance(node, kinds) for node in ast.parse(path.read_text()).body)


def test_imports_are_found_wherever_they_stand() -> None:
    source = """
import a.b
from . import errors
from .packers.edn import pack
from .. import up
if TYPE_CHECKING:
    import typed
def later():
    try:
        import speedups
    except ImportError:
        from flask_chsk.server.worker import Server
"""
    assert set(imported(ast.parse(source), "flask_chsk.brokers")) == {
        "a.b",
        "flask_chsk.brokers.errors",
        "flask_chsk.brokers.packers.edn.pack",
        "flask_chsk.up",
        "typed",
        "speedups",
        "flask_chsk.server.worker.Server",
    }


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("flask_chsk.errors.ChskError", "errors"),
        ("flask_chsk.packers.edn.EdnPacker", "packers.edn"),
        ("flask_chsk.packers.Packer", "packers"),
        ("flask_chsk.Chsk", "__init__"),
        ("flask_chsk", "__init__"),
        ("flask.Flask", None),
    ],
)
def test_a_name_belongs_to_a_module(name: str, module: str | None) -> None:
    assert module_of(name) == module

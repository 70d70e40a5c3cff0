"""Classes and functions that a reader can take in at once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process import ROOT

MAX_METHODS = 25  # public ones of a class
MAX_LINES = 50  # of a function, with its signature and docstring

PACKAGE = ROOT / "flask_chsk"
FILES = sorted(PACKAGE.rglob("*.py"))


def too_large(tree: ast.AST) -> Iterator[str]:
    """Names of classes with too many methods, and of functions with too many lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            methods = [one for one in node.body if isinstance(one, ast.FunctionDef)]
            if sum(not one.name.startswith("_") for one in methods) > MAX_METHODS:
                yield node.name
        elif isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            if node.end_lineno - node.lineno + 1 > MAX_LINES:
                yield node.name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_in_a_file_is_too_large(path: Path) -> None:
    assert list(too_large(ast.parse(path.read_text(encoding="utf-8")))) == []


def test_what_is_too_large_is_found() -> None:
    methods = "".join(f"    def m{number}(self): ...\n" for number in range(26))
    lines = "def long():\n" + "    x = 1\n" * 50
    assert list(too_large(ast.parse(f"class Many:\n{methods}"))) == ["Many"]
    assert list(too_large(ast.parse(lines))) == ["long"]
    assert list(too_large(ast.parse(lines[: -len("    x = 1\n")]))) == []

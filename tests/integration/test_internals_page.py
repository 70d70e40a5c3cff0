"""docs/internals.rst names what is there, and draws the house as test_layers.py holds it."""

from __future__ import annotations

import re

from tests.pages import read, tables, words
from tests.unit.test_layers import APART, LAYERS, ORDER, PACKAGE

PAGE = "internals.rst"


def test_the_house() -> None:
    """The rows, from the top, name the layers from the top, each with all that belongs to it."""
    rows = tables(PAGE, "The house")[0]
    layers = [{name for name in LAYERS[layer] if not name.startswith("__")} for layer in ORDER]
    drawn = [{name.removesuffix("/").removesuffix(".py") for name in words(row[0])} for row in rows]
    assert drawn == [names for names in reversed(layers) if names]
    for row in rows:
        for name in words(row[0]):
            assert (PACKAGE / name).exists(), name


def test_what_layers_do_not_see() -> None:
    rows = tables(PAGE, "The house")[0]
    assert words(rows[0][2]) == [f"{name}/" for name in APART["flask"]]


def test_files_that_are_named_exist() -> None:
    """As seen from the package: ``server/polls.py``."""
    named = set(re.findall(r"``(\w[\w/]*(?:/|\.py|\.js))``", read(PAGE)))
    assert len(named) > 20
    missing = {name for name in named if not (PACKAGE / name).exists()}
    assert {name for name in missing if not (PACKAGE.parent / name).exists()} == set()

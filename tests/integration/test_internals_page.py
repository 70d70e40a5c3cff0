"""docs/internals.rst names what is there, and draws the house as test_layers.py holds it."""

from __future__ import annotations

import re

import pytest

from flask_chsk.hub import Hub
from tests.pages import read, tables, words
from tests.unit.test_layers import APART, LAYERS, ORDER, PACKAGE

PAGE = "internals.rst"
CODE = {"".join(code.split()) for code in re.findall(r"``([^`]+)``", read(PAGE))}
FILES = sorted(code for code in CODE if re.fullmatch(r"\w[\w/]*(?:/|\.py|\.js)", code))


def test_the_house() -> None:
    """The rows, from the top, name the layers from the top, each with all that belongs to it."""
    rows = tables(PAGE, "The house")[0]
    layers = [{name for name in LAYERS[layer] if not name.startswith("__")} for layer in ORDER]
    drawn = [{name.removesuffix("/").removesuffix(".py") for name in words(row[0])} for row in rows]
    assert drawn == [names for names in reversed(layers) if names]


def test_what_layers_do_not_see() -> None:
    rows = tables(PAGE, "The house")[0]
    assert words(rows[0][2]) == [f"{name}/" for name in APART["flask"]]


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_named_exists(name: str) -> None:
    assert (PACKAGE / name).exists() or (PACKAGE.parent / name).exists()


def test_calls_of_the_hub_that_are_named_exist() -> None:
    calls = [word for row in tables(PAGE, "Threads and greenlets")[0] for word in words(row[0])]
    assert [call for call in calls if not hasattr(Hub, call.removeprefix("Hub."))] == []

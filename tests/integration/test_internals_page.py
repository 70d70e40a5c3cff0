"""docs/internals.rst names what is there, and draws the house as test_layers.py holds it."""

from __future__ import annotations

import re
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest

from flask_chsk.hub import Hub
from tests.pages import read, tables, words
from tests.unit.test_layers import APART, LAYERS, ORDER, PACKAGE

PAGE = "internals.rst"
CODE = {"".join(code.split()) for code in re.findall(r"``([^`]+)``", read(PAGE))}
FILES = sorted(code for code in CODE if re.fullmatch(r"\w[\w/]*(?:/|\.py|\.js)", code))
TOPS = "|".join(path.name.removesuffix(".py") for path in PACKAGE.iterdir())
NAMES = sorted(code for code in CODE - {*FILES} if re.fullmatch(rf"(?:{TOPS})(?:\.\w+)+", code))


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


@pytest.mark.parametrize("name", NAMES)
def test_code_that_is_named_exists(name: str) -> None:
    """As seen from the package: ``server.polls.Polls.get``."""
    found: Any = import_module("flask_chsk")
    for part in name.split("."):
        inner = f"{found.__name__}.{part}"
        is_module = hasattr(found, "__path__") and find_spec(inner) is not None
        found = import_module(inner) if is_module else getattr(found, part)


@pytest.mark.parametrize("folder", ["protocol", "server", "transports", "web"])
def test_every_module_is_named(folder: str) -> None:
    there = {path.stem for path in (PACKAGE / folder).glob("*.py")} - {"__init__"}
    named = {name.split(".")[1] for name in NAMES if name.startswith(f"{folder}.")}
    assert there - named == set()


def test_calls_of_the_hub_that_are_named_exist() -> None:
    calls = [word for row in tables(PAGE, "Threads and greenlets")[0] for word in words(row[0])]
    assert [call for call in calls if not hasattr(Hub, call.removeprefix("Hub."))] == []

"""The packers that come with the package."""

from __future__ import annotations

from typing import Any

import pytest

from flask_chsk.packers import BuiltinPacker
from flask_chsk.packers.builtin import BUILTIN, builtin
from flask_chsk.packers.gzip import GzipPacker

VALUE = ["chat/said", {"text": "zoë", "n": [1, 2.5, None, True]}]


@pytest.mark.parametrize("name", BUILTIN)
def test_each_gives_back_what_it_packed(name: str) -> None:
    packer = builtin(name)()
    assert packer.unpack(packer.pack(VALUE)) == VALUE


@pytest.mark.parametrize("name", BUILTIN)
def test_each_says_what_it_is(name: str) -> None:
    packer: Any = builtin(name)()
    assert packer.name == name
    assert "/" in packer.content_type
    assert isinstance(packer.pack(VALUE), bytes if packer.binary else str)


@pytest.mark.parametrize("name", [name for name in BUILTIN if name != "gzip"])
def test_each_has_our_limits(name: str) -> None:
    kind: Any = builtin(name)
    assert issubclass(kind, BuiltinPacker)
    assert builtin("gzip") is GzipPacker


@pytest.mark.parametrize("name", BUILTIN)
def test_a_class_is_imported_once(name: str) -> None:
    assert builtin(name) is builtin(name)


def test_an_unknown_name_has_no_class() -> None:
    with pytest.raises(KeyError):
        builtin("ednn")

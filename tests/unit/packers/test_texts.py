"""Names, characters and UUIDs."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from flask_chsk.errors import PackError, UnpackError
from flask_chsk.packers.texts import char_of, check_char, keyword_of, symbol_of, unwritable, uuid_of
from flask_chsk.values import Char, Keyword, Symbol

from . import typed

ID = "12345678-9abc-DEF0-1234-56789abcdef0"


@pytest.mark.parametrize("name", ["a", "a/b", "a b", "1", "é", "a:b"])
def test_transit_and_messagepack_have_any_name(name: str) -> None:
    assert typed(keyword_of(name)) == typed(Keyword(name))
    assert typed(symbol_of(name)) == typed(Symbol(name))


@pytest.mark.parametrize("name", ["", ":", ":a"])
def test_no_name_is_empty_or_begins_with_a_colon(name: str) -> None:
    with pytest.raises(UnpackError, match="not a keyword"):
        keyword_of(name)
    with pytest.raises(UnpackError, match="not a symbol"):
        symbol_of(name)


def test_a_keyword_with_its_colon_is_told_what_to_do() -> None:
    assert str(unwritable(Keyword(":a"))).endswith("cannot be written: write it without the colon")
    assert str(unwritable(Keyword("a b"))) == "Keyword('a b') cannot be written"
    assert str(unwritable(Symbol(":a"))) == "Symbol(':a') cannot be written"


@pytest.mark.parametrize("text", ["a", "\uffff", " "])
def test_a_character_is_one_utf16_unit(text: str) -> None:
    assert typed(char_of(text)) == typed(Char(text))
    check_char(Char(text))


@pytest.mark.parametrize("text", ["", "ab", "\U00010000"])
def test_what_is_no_character_is_refused(text: str) -> None:
    with pytest.raises(UnpackError, match="not a character"):
        char_of(text)
    with pytest.raises(PackError, match="not one UTF-16 unit"):
        check_char(Char(text))


def test_a_uuid_is_read_in_either_case() -> None:
    assert uuid_of(ID) == uuid_of(ID.lower()) == UUID(ID)


@pytest.mark.parametrize(
    "value", [ID[:-1], ID.replace("-", ""), f"{{{ID}}}", ID + "\n", "", 5, None]
)
def test_what_is_no_uuid_is_refused(value: Any) -> None:
    with pytest.raises(UnpackError, match="not a UUID"):
        uuid_of(value)

"""Names, characters and UUIDs, where the packers have one rule for them."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

from ..errors import PackError, UnpackError
from ..values import Char, Keyword, Symbol
from .excerpts import short, shown

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def is_name(text: str) -> bool:
    """Whether Transit and MessagePack have a keyword or symbol of this name."""
    return text != "" and text[0] != ":"  # a colon there is a mistake, on either side


def keyword_of(text: str) -> Keyword:
    """The keyword of the name *text*.

    :raises UnpackError: where there is none.
    """
    if not is_name(text):
        raise UnpackError(f"not a keyword: {short(text)!r}")
    return Keyword(text)


def symbol_of(text: str) -> Symbol:
    """The symbol of the name *text*.

    :raises UnpackError: where there is none.
    """
    if not is_name(text):
        raise UnpackError(f"not a symbol: {short(text)!r}")
    return Symbol(text)


def unwritable(name: Keyword | Symbol) -> PackError:
    """What refuses a keyword or symbol."""
    colon = type(name) is Keyword and name.startswith(":")
    hint = ": write it without the colon" if colon else ""
    return PackError(f"{shown(name)} cannot be written{hint}")


def is_char(text: str) -> bool:
    """Whether *text* is one UTF-16 unit, as Clojure's characters are."""
    return len(text) == 1 and text <= "\uffff"


def char_of(text: str) -> Char:
    """The character that *text* is.

    :raises UnpackError: where it is none.
    """
    if not is_char(text):
        raise UnpackError(f"not a character: {short(text)!r}")
    return Char(text)


def check_char(value: Char) -> None:
    """:raises PackError: where *value* is no character of Clojure's."""
    if not is_char(value):
        raise PackError(f"{shown(value)} is not one UTF-16 unit, as Clojure's characters are")


def uuid_of(value: Any) -> UUID:
    """The UUID that the text *value* is.

    :raises UnpackError: for anything else.
    """
    if type(value) is not str or not _UUID.fullmatch(value):
        raise UnpackError(f"not a UUID: {shown(value)}")
    return UUID(int=int(value.replace("-", ""), 16))

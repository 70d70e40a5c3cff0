"""JSON, on the standard library's codec, for clients that have no EDN (docs/packers.rst).

Keywords, symbols, instants and UUIDs are written as strings and read as such: JSON cannot tell.
Strict both ways: NaN and infinities, keys that are no strings, keys that come twice are refused.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable
from datetime import datetime
from decimal import Decimal
from math import isinf
from types import NoneType
from typing import Any, ClassVar, NoReturn
from uuid import UUID

from ..errors import PackError, UnpackError
from ..values import Char, FrozenMap, Keyword, StrKey, Symbol
from .base import BuiltinPacker
from .excerpts import short, shown
from .limits import SHORT, SHORT_BYTES, VALUE_BYTES, too_many_values
from .numbers import LONGEST_NUMBER

_STRINGS = frozenset([str, Keyword, StrKey, Symbol, Char])
_SCALARS = _STRINGS | {NoneType, bool, int, float}
_AS_PLAIN: dict[type, Callable[[Any], Any]] = {
    datetime: datetime.isoformat,
    UUID: str,
    Decimal: str,
    set: list,
    frozenset: list,
    FrozenMap: dict,
}


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise UnpackError("an object has a key twice")
    return members


def _float(text: str) -> float:
    number = float(text)
    if isinf(number):
        raise UnpackError(f"a number too large: {short(text)}")
    return number


def _int(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise UnpackError(f"a number of more than {LONGEST_NUMBER} characters")
    return int(text)


def _no_constant(text: str) -> NoReturn:
    raise UnpackError(f"{text} is not JSON")


# A short text cannot hold a long number, so its integers need not be looked at one by one.
_read_short = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_float, parse_constant=_no_constant
).decode
_read_long = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_float, parse_constant=_no_constant, parse_int=_int
).decode

# Circles are found by their depth, before.
_write = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
).encode


_ATOMIC = "+" if sys.version_info >= (3, 11) else ""  # see edn.py
# Unterminated, too: without a match, each quote in it would be tried, up to the end of the text.
_QUOTED = re.compile(rf'"[^"\\]*(?:\\.[^"\\]*)*{_ATOMIC}"?', re.DOTALL)


def sized(text: str, most: int) -> int:
    """The bytes that JSON *text* holds in memory once it is read.

    :raises UnpackError: for over *most* values; an empty array counts as two of them.
    """
    length = len(text)
    if length <= SHORT:
        return SHORT_BYTES * length
    count = _values(text)
    if count > most:  # or there are commas in its strings
        if (text.count('"') - text.count('\\"')) // 2 > most:
            raise too_many_values(most)
        count = _values(_QUOTED.sub("", text))
        if count > most:
            raise too_many_values(most)
    return length + VALUE_BYTES * count


def _values(text: str) -> int:
    # Each stands behind one of these, but for the first key of an object.
    return 1 + text.count(",") + text.count(":") + text.count("[")


def _refuse_depth(value: Any, depth: int) -> None:
    level = [value]
    while level := [item for item in level if type(item) is list or type(item) is dict]:
        if depth == 0:
            raise UnpackError("nested too deep")
        depth -= 1
        level = [
            child for item in level for child in (item if isinstance(item, list) else item.values())
        ]


class JsonPacker(BuiltinPacker[str]):
    """JSON text."""

    name = "json"
    content_type = "application/json"
    native: ClassVar[frozenset[type]] = _SCALARS | {list, tuple, dict}

    def array(self, parts: Iterable[str]) -> str:
        """``[a,b]`` of the texts ``a`` and ``b``."""
        return "[" + ",".join(parts) + "]"

    def _unpack(self, text: str) -> tuple[Any, int]:
        size = sized(text, self.max_values)
        value = (_read_short if len(text) <= LONGEST_NUMBER else _read_long)(text)
        # What these look for takes long to find out, and can mostly be excluded at a glance.
        if len(text) > 2 * self.max_depth and text.count("[") + text.count("{") > self.max_depth:
            _refuse_depth(value, self.max_depth)
        if "\\u" in text and ("\\ud" in text or "\\uD" in text):
            _write(value).encode()  # refuses halves of surrogate pairs
        return value, size

    def _pack(self, value: Any) -> str:
        if not self._is_plain(value, self.max_pack_depth):
            value = self._plain(value, self.max_pack_depth)
        try:
            text = _write(value)
        except ValueError as exc:
            raise PackError(str(exc)) from None
        if not text.isascii():
            text.encode()  # refuses halves of surrogate pairs
        return text

    def _is_plain(self, value: Any, depth: int) -> bool:
        """Whether the codec writes *value* by our rules: it would turn the key ``1`` into "1"."""
        kind = type(value)
        if kind is dict:
            for key in value:
                if type(key) not in _STRINGS:
                    return False
            value = value.values()
        elif kind is not list and kind is not tuple:
            return kind in _SCALARS
        if depth <= 0:
            raise PackError("nested too deep")
        for item in value:
            if type(item) not in _SCALARS and not self._is_plain(item, depth - 1):
                return False
        return True

    def _plain(self, value: Any, depth: int) -> Any:
        """A copy of *value* that is plain."""
        kind = type(value)
        if kind in _SCALARS:
            return value
        if depth <= 0:
            raise PackError("nested too deep")
        if kind is dict:
            members = {
                self._plain_key(key): self._plain(item, depth - 1) for key, item in value.items()
            }
            if len(members) != len(value):
                raise PackError("a map has keys that become equal")
            return members
        if isinstance(value, list | tuple):
            return [self._plain(item, depth - 1) for item in value]
        return self._plain(self._plainer(value), depth - 1)

    def _plainer(self, value: Any) -> Any:
        if type(value) is datetime and value.utcoffset() is None:
            return self._aware(value)
        as_plain = _AS_PLAIN.get(type(value))
        return super()._plainer(value) if as_plain is None else as_plain(value)

    def _plain_key(self, key: Any) -> str:
        while type(key) not in _STRINGS:
            if type(key) in self.native:
                raise PackError(f"a key that is no string: {shown(key)}")
            key = self._plainer(key)
        return str(key)

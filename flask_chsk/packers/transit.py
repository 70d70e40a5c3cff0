"""Transit, as JSON: Clojure's values for whoever reads JSON fast (docs/packers.rst).

Text is parsed by the standard library's JSON codec, and what its strings say by one walk over
what that made. Written is the compact form, without cache codes, so that packed values stand for
themselves and can be joined; read are both forms, with cache codes or without. Transit over
MessagePack is another format, and not this packer.

Tags that nobody here knows are kept as `Tagged`; yours are read by functions that you give.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from json import JSONDecoder, JSONEncoder
from json.encoder import encode_basestring as _quoted
from math import isinf
from types import NoneType
from typing import Any, ClassVar, NoReturn
from uuid import UUID

from ..errors import ConfigError, PackError, UnpackError
from ..values import Char, FrozenMap, Keyword, StrKey, Symbol, Tagged
from .cache import Cache, Memo
from .conversions import PackDefault
from .excerpts import short, shown
from .json import sized
from .limits import MAX_BYTES, MAX_DEPTH, MAX_VALUES, too_much_referred, weight
from .numbers import (
    LONG,
    LONGEST_NUMBER,
    MOST_BITS,
    TOO_MANY_BITS,
    check_decimal,
    check_fraction,
    decimal_of,
)
from .reading import read_map, read_named, read_ratio, read_set
from .texts import char_of, check_char, is_name, keyword_of, symbol_of, unwritable, uuid_of
from .walk import LIKE_KEYWORD, WalkingPacker

Tags = Mapping[str, Callable[[Any], Any]]

_MAP = "^ "  # the head of a map that is written as an array
_QUOTE = '["~#\'",'  # what stands before a message's value that is no array
_MARKS = frozenset("~^")  # what begins a string that is not simply itself
_ESCAPED = frozenset("~^`")  # what a string that begins so gets another ~ before it
_NAMES = frozenset(["~:", "~$", "~#"])  # what is cached wherever it stands

_BEGIN_OF_CODE = re.compile(r'"\^[^ ]')  # in JSON; few writers use codes
_CODE_BASE, _CODE_ZERO = 44, 48  # cache codes are digits of that base, from "0" on
_CODES = _CODE_BASE * _CODE_BASE
_SHORTEST_CACHED = 4  # UTF-16 units

_EXACT = range(-(2**53) + 1, 2**53)  # integers that are JavaScript's numbers too

_INTEGER = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?")
_INSTANT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]+))?"
    r"(Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MILLISECOND = timedelta(milliseconds=1)
_HALF = 2**64 - 1


# Reading: strings -------------------------------------------------------------------------
# Each is given what stands behind the tilde and the character that chose it.


def _read_nil(text: str) -> None:
    if text:
        raise UnpackError("nil has nothing behind it")


def _read_bool(text: str) -> bool:
    return {"t": True, "f": False}[text]


def _read_int(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise UnpackError(f"a number of more than {LONGEST_NUMBER} characters")
    if not _INTEGER.fullmatch(text):
        raise UnpackError(f"no integer: {short(text)}")
    number = int(text)
    if number.bit_length() > MOST_BITS:
        raise UnpackError(TOO_MANY_BITS)
    return number


def _read_number(text: str) -> int | float:
    # JavaScript's writer has 1.5 as a key so.
    return _read_int(text) if _INTEGER.fullmatch(text) else _read_float(text)


def _read_float(text: str) -> float:
    if not _DECIMAL.fullmatch(text):
        raise UnpackError(f"no number: {short(text)}")
    number = float(text)
    if isinf(number):
        raise UnpackError(f"a number too large: {short(text)}")
    return number


def _read_special(text: str) -> float:
    return {"NaN": float("nan"), "INF": float("inf"), "-INF": float("-inf")}[text]


def _read_decimal(text: str) -> Decimal:
    if len(text) > LONGEST_NUMBER or not _DECIMAL.fullmatch(text):
        raise UnpackError(f"no decimal: {short(text)}")
    return decimal_of(text)


def _read_bytes(text: str) -> bytes:
    return b64decode(text, validate=True)


def _read_keyword(text: str) -> Keyword:
    keyword = keyword_of(text)
    _keywords.put("~:" + text, keyword)
    return keyword


def _read_millis(text: str) -> datetime:
    return _EPOCH + timedelta(milliseconds=_read_int(text))


def _read_instant(text: str) -> datetime:
    match = _INSTANT.fullmatch(text)
    if not match:
        raise UnpackError(f"not an instant: {short(text)!r}")
    moment, fraction, zone = match.groups()
    micros = f"{fraction or 0:<06}"[:6]
    zone = "+00:00" if zone == "Z" else zone
    return datetime.fromisoformat(f"{moment}.{micros}{zone}").astimezone(timezone.utc)


_STRINGS: dict[str, Callable[[str], Any]] = {
    "_": _read_nil,
    "?": _read_bool,
    "i": _read_number,
    "n": _read_int,
    "d": _read_float,
    "z": _read_special,
    "f": _read_decimal,
    "b": _read_bytes,
    ":": _read_keyword,
    "$": symbol_of,
    "c": char_of,
    "u": uuid_of,
    "m": _read_millis,
    "t": _read_instant,
    "'": str,
}


# Reading: what a tag stands before --------------------------------------------------------


def _read_cmap(items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise UnpackError("a map has a key without a value")
    return read_map(items[::2], items[1::2])


def _read_ratio(items: list[Any]) -> int | Fraction:
    numerator, denominator = items
    return read_ratio(numerator, denominator)


_COLLECTIONS: dict[str, Callable[[list[Any]], Any]] = {
    "set": read_set,
    "list": list,
    "cmap": _read_cmap,
    "ratio": _read_ratio,
}


def _of_string(read: Callable[[str], Any]) -> Callable[[Any], Any]:
    """*read*, for a string that stands behind a tag of its own: ``["~#t","2024-…"]``."""

    def read_tagged(value: Any) -> Any:
        if type(value) is not str:
            raise UnpackError("a tag that a string belongs to")
        return read(value)

    return read_tagged


def _tagged_millis(value: Any) -> datetime:
    return _read_millis(str(value) if type(value) is int else value)


def _tagged_uuid(value: Any) -> UUID:
    if type(value) is list:  # two signed integers
        high, low = value
        return UUID(int=(high & _HALF) << 64 | low & _HALF)
    return uuid_of(value)


_TAGGED: dict[str, Callable[[Any], Any]] = {
    **{tag: _of_string(read) for tag, read in _STRINGS.items()},
    "m": _tagged_millis,
    "u": _tagged_uuid,
    "'": lambda value: value,
}


# Reading: the walk ------------------------------------------------------------------------


class _Members(list[Any]):
    """A JSON object's pairs of a key and a value, as they were written."""


class _Tag(str):
    """What ``~#tag`` is until what it stands before is read."""

    __slots__ = ()


def _no_constant(text: str) -> NoReturn:
    raise UnpackError(f"{text} is not JSON")


# A short text cannot hold a long number, so its integers need not be looked at one by one.
_parse_short = JSONDecoder(
    object_pairs_hook=_Members, parse_float=_read_float, parse_constant=_no_constant
).decode
_parse_long = JSONDecoder(
    object_pairs_hook=_Members,
    parse_float=_read_float,
    parse_constant=_no_constant,
    parse_int=_read_int,
).decode
_unparse = JSONEncoder(ensure_ascii=False, check_circular=False).encode

_keywords: Cache[str, Keyword] = Cache()  # by what stands for them: ~:chat/say


class _Walk:
    """Through one message, from what JSON made of it to values."""

    __slots__ = ("_cached", "_remember", "_sizes", "_tags", "room")

    def __init__(self, tags: Tags, room: int | None) -> None:
        """:param room: bytes that codes may stand for; None: there are no codes."""
        self._tags = tags
        self._cached: list[Any] = []  # all that codes ever stood for, in order
        self._sizes: list[int] = []
        self._remember = room is not None
        self.room = room or 0

    def value(self, node: Any, depth: int) -> Any:
        """What *node* says; *depth* is how many levels may be opened."""
        kind = type(node)
        if kind is str:
            if node[:1] not in _MARKS:
                return node
            value = self._marked(node)
            if type(value) is _Tag:
                raise UnpackError(f"nothing stands behind the tag {short(value)}")
            return value
        if kind is list:
            return self._array(node, depth)
        if kind is _Members:
            return self._object(node, depth)
        return node

    def _array(self, nodes: list[Any], depth: int) -> Any:
        if depth <= 0:
            raise UnpackError("nested too deep")
        depth -= 1
        head = nodes[0] if nodes else None
        if type(head) is not str or head[:1] not in _MARKS:
            return [self.value(node, depth) for node in nodes]
        if head == _MAP:
            if len(nodes) % 2 == 0:
                raise UnpackError("a map has a key without a value")
            return self._map(nodes[1::2], nodes[2::2], depth)
        first = self._marked(head)
        if type(first) is not _Tag:
            return [first, *[self.value(node, depth) for node in nodes[1:]]]
        if len(nodes) != 2:
            raise UnpackError(f"one value stands behind a tag, which {short(first)} is")
        return self._tagged(first, nodes[1], depth)

    def _object(self, members: _Members, depth: int) -> Any:
        if depth <= 0:
            raise UnpackError("nested too deep")
        depth -= 1
        if len(members) == 1:
            ((key, node),) = members
            first = self._key(key)
            if type(first) is _Tag:
                return self._tagged(first, node, depth)
            return read_map([first], [self.value(node, depth)])
        return self._map([key for key, _ in members], [node for _, node in members], depth)

    def _map(self, keys: list[Any], values: list[Any], depth: int) -> dict[Any, Any]:
        remember = self._remember
        named = True
        for i, node in enumerate(keys):
            if type(node) is str:
                key: Any = _keywords.get(node)
                if key is None:
                    key = self._key(node)
                elif remember:
                    self._cache(node, key)
            else:
                key = self.value(node, depth)
            if type(key) is not Keyword:
                if type(key) is _Tag:
                    raise UnpackError(f"nothing stands behind the tag {short(key)}")
                named = False
            keys[i] = key
            node = values[i]
            if type(node) is not str or node[:1] in _MARKS:
                values[i] = self.value(node, depth)
        return read_named(keys, values) if named else read_map(keys, values)

    def _key(self, text: str) -> Any:
        """What *text* says as a key: long ones of any kind are cached."""
        if text[:1] == "^" or text[:2] in _NAMES:
            return self._marked(text)
        value = self._tilded(text) if text[:1] == "~" else text
        if self._remember:
            self._cache(text, value)
        return value

    def _cache(self, text: str, value: Any) -> None:
        if len(text) >= _SHORTEST_CACHED or _is_long(text):
            self._cached.append(value)
            self._sizes.append(weight(text))

    def _marked(self, text: str) -> Any:
        """What *text* says, which begins with one of the marks."""
        if text[0] == "^":
            return self._coded(text)
        value = _keywords.get(text)
        if value is None:
            value = self._tilded(text)
        if self._remember and text[:2] in _NAMES:
            self._cache(text, value)
        return value

    def _tilded(self, text: str) -> Any:
        kind, rest = text[1:2], text[2:]
        read = _STRINGS.get(kind)
        if read is not None:
            return read(rest)
        if kind == "#":
            if not rest:
                raise UnpackError("a tag without a name")
            return _Tag(rest)
        if kind in _ESCAPED:
            return text[1:]
        if not kind:
            raise UnpackError("nothing stands behind a ~")
        read = self._tags.get(kind)
        return Tagged(kind, rest) if read is None else read(rest)

    def _coded(self, code: str) -> Any:
        digits = [ord(digit) - _CODE_ZERO for digit in code[1:]]
        if not 1 <= len(digits) <= 2 or not all(0 <= digit < _CODE_BASE for digit in digits):
            raise UnpackError(f"no cache code: {short(code)}")
        index = digits[0] if len(digits) == 1 else digits[0] * _CODE_BASE + digits[1]
        # Writers begin again when they have used all codes: of those cached under this one, the
        # last counts.
        rounds = (len(self._cached) - 1 - index) // _CODES
        if rounds < 0:
            raise UnpackError(f"the cache code {code} stands for nothing yet")
        index += rounds * _CODES
        self.room -= self._sizes[index]
        if self.room < 0:
            raise too_much_referred()
        return self._cached[index]

    def _tagged(self, tag: _Tag, node: Any, depth: int) -> Any:
        collect = _COLLECTIONS.get(tag)
        if collect is not None:
            if type(node) is not list:
                raise UnpackError(f"an array stands behind the tag {tag}")
            return collect([self.value(item, depth) for item in node])
        value = self.value(node, depth)
        read = _TAGGED.get(tag) or self._tags.get(tag)
        return Tagged(str(tag), value) if read is None else read(value)


def _is_long(text: str) -> bool:
    length = len(text)
    if length < _SHORTEST_CACHED and not text.isascii():
        length = len(text.encode("utf-16-le")) // 2
    return length >= _SHORTEST_CACHED


# Writing ----------------------------------------------------------------------------------


def _write_name_key(key: str) -> str | None:
    return f'"~:{key}"' if LIKE_KEYWORD.fullmatch(key) else None


def _write_keyword(keyword: Keyword) -> str:
    if not is_name(keyword):
        raise unwritable(keyword)
    return _quoted("~:" + keyword)


def _write_str(value: str) -> str:
    return _quoted("~" + value if value[:1] in _ESCAPED else value)


def _write_int(value: int) -> str:
    return repr(value) if value in _EXACT else _write_int_key(value)


def _write_int_key(value: int) -> str:
    if value in LONG:
        return f'"~i{value}"'
    if value.bit_length() > MOST_BITS:
        raise PackError(TOO_MANY_BITS)
    return f'"~n{value}"'


def _write_float(value: float) -> str:
    text = repr(value)
    return _SPECIAL[text] if text[-1] in "fn" else text


def _write_float_key(value: float) -> str:
    text = repr(value)
    return _SPECIAL[text] if text[-1] in "fn" else f'"~d{text}"'


_SPECIAL = {"inf": '"~zINF"', "-inf": '"~z-INF"', "nan": '"~zNaN"'}


def _write_symbol(value: Symbol) -> str:
    if not is_name(value):
        raise unwritable(value)
    return _quoted("~$" + value)


def _write_char(value: Char) -> str:
    check_char(value)
    return _quoted("~c" + value)


def _write_decimal(value: Decimal) -> str:
    check_decimal(value)
    return f'"~f{value}"'


def _write_fraction(value: Fraction) -> str:
    if value.denominator == 1:
        return _write_int(value.numerator)
    check_fraction(value)
    return f'["~#ratio",["~n{value.numerator}","~n{value.denominator}"]]'


def _write_instant(value: datetime) -> str:
    since = value - _EPOCH
    if since.microseconds % 1000:
        moment = value.astimezone(timezone.utc).replace(tzinfo=None)
        return f'"~t{moment.isoformat(timespec="microseconds")}Z"'
    return f'"~m{since // _MILLISECOND}"'


def _write_uuid(value: UUID) -> str:
    return f'"~u{value}"'


def _write_bytes(value: bytes) -> str:
    return f'"~b{b64encode(value).decode()}"'


_SCALARS: dict[type, Callable[[Any], str]] = {
    str: _write_str,
    StrKey: _write_str,
    Keyword: Memo(_write_keyword).__getitem__,
    NoneType: {None: "null"}.__getitem__,
    bool: {True: "true", False: "false"}.__getitem__,
    int: _write_int,
    float: _write_float,
    Symbol: _write_symbol,
    Char: _write_char,
    Decimal: _write_decimal,
    Fraction: _write_fraction,
    datetime: _write_instant,
    UUID: _write_uuid,
    bytes: _write_bytes,
}

# As keys, which are strings; what is not here makes a composite map.
_KEYS: dict[type, Callable[[Any], str]] = {
    **{kind: write for kind, write in _SCALARS.items() if kind is not Fraction},
    NoneType: {None: '"~_"'}.__getitem__,
    bool: {True: '"~?t"', False: '"~?f"'}.__getitem__,
    int: _write_int_key,
    float: _write_float_key,
}


class TransitPacker(WalkingPacker[str]):
    """Transit, written in its compact form.

    *tags* names tags of yours, and what makes a value of what stands behind one; written they
    are as `Tagged`, which *pack_default* may make of your types.

    :raises ConfigError: for a tag that Transit has a type for.
    """

    name = "transit"
    content_type = "application/transit+json"
    native: ClassVar[frozenset[type]] = frozenset(
        [*_SCALARS, list, tuple, dict, FrozenMap, set, frozenset, Tagged]
    )
    scalars = _SCALARS
    key_scalars = _KEYS
    name_key = staticmethod(Memo(_write_name_key).__getitem__)

    def __init__(
        self,
        *,
        max_bytes: int = MAX_BYTES,
        max_depth: int = MAX_DEPTH,
        max_values: int | None = MAX_VALUES,
        pack_default: PackDefault | None = None,
        tags: Tags | None = None,
    ) -> None:
        super().__init__(
            max_bytes=max_bytes,
            max_depth=max_depth,
            max_values=max_values,
            pack_default=pack_default,
        )
        self._tags: Tags = tags or {}
        for tag in self._tags:
            if not _is_own(tag):
                raise ConfigError(f"Transit has a type for the tag {tag!r}: name yours otherwise")

    def array(self, parts: Iterable[str]) -> str:
        """``[a,b]`` of the texts ``a`` and ``b``."""
        return self._vector(
            [part[len(_QUOTE) : -1] if part.startswith(_QUOTE) else part for part in parts]
        )

    def _unpack(self, text: str) -> tuple[Any, int]:
        size = sized(text, self.max_values)
        parsed = (_parse_short if len(text) <= LONGEST_NUMBER else _parse_long)(text)
        has_escapes = "\\u" in text
        if has_escapes and ("\\ud" in text or "\\uD" in text):
            _unparse(parsed).encode()  # refuses halves of surrogate pairs
        has_codes = _BEGIN_OF_CODE.search(text) is not None or (has_escapes and "\\u005" in text)
        room = self._room(len(text)) if has_codes else None
        walk = _Walk(self._tags, room)
        value = walk.value(parsed, self.max_depth)
        return value, size + (room or 0) - walk.room

    def _pack(self, value: Any) -> str:
        text = self._any(value, self.max_pack_depth)
        if not text.isascii():
            text.encode()  # refuses halves of surrogate pairs
        return text if text[0] == "[" else f"{_QUOTE}{text}]"

    def _vector(self, items: list[str]) -> str:
        return f"[{','.join(items)}]"

    def _set(self, members: list[str]) -> str:
        return f'["~#set",[{",".join(members)}]]'

    def _map(self, parts: list[str]) -> str:
        return f'["^ ",{",".join(parts)}]' if parts else '["^ "]'

    def _composite_map(self, parts: list[str]) -> str:
        return f'["~#cmap",[{",".join(parts)}]]'

    def _tag(self, tag: Any) -> tuple[str, str]:
        if not isinstance(tag, str) or not tag:
            raise PackError(f"{shown(tag)} is no tag")
        if not _is_own(tag):
            raise PackError(f"the tag {tag} has a type of its own")
        return f"[{_quoted('~#' + tag)},", "]"


def _is_own(tag: str) -> bool:
    """Whether *tag* is the application's to use."""
    return tag not in _TAGGED and tag not in _COLLECTIONS

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
from . import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_VALUES,
    BuiltinPacker,
    Cache,
    PackDefault,
    all_differ,
    read_map,
    read_set,
    short,
    shown,
    too_much_referred,
    weight,
)
from .edn import _KeyTexts as _EdnKeyTexts
from .json import sized

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
_LONG = range(-(2**63), 2**63)
_LONGEST_NUMBER = 1024  # characters: int() of decimal digits takes quadratic time
_MOST_BITS = 3390  # of integers and fractions; so many always fit into those characters
_MOST_DIGITS = 1000  # of decimals; likewise
_LARGEST_EXPONENT = 6144  # decimal128's; int() of 1e999999999 would take all memory there is

_INTEGER = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
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
    if len(text) > _LONGEST_NUMBER:
        raise UnpackError(f"a number of more than {_LONGEST_NUMBER} characters")
    if not _INTEGER.fullmatch(text):
        raise UnpackError(f"no integer: {short(text)}")
    number = int(text)
    if number.bit_length() > _MOST_BITS:
        raise UnpackError(f"an integer of more than {_MOST_BITS} bits")
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
    if len(text) > _LONGEST_NUMBER or not _DECIMAL.fullmatch(text):
        raise UnpackError(f"no decimal: {short(text)}")
    number = Decimal(text)
    # Without an exponent, and so short, it is.
    short_enough = len(text) <= _MOST_DIGITS and "E" not in text and "e" not in text
    if not short_enough and not _is_moderate(number):
        raise UnpackError(f"decimal out of range: {short(text)}")
    return number


def _is_moderate(number: Decimal) -> bool:
    return (
        number.is_finite()
        and abs(number.adjusted()) <= _LARGEST_EXPONENT
        and len(number.as_tuple().digits) <= _MOST_DIGITS
    )


def _read_bytes(text: str) -> bytes:
    return b64decode(text, validate=True)


def _read_keyword(text: str) -> Keyword:
    if not _is_name(text):
        raise UnpackError(f"not a keyword: {short(text)!r}")
    keyword = Keyword(text)
    _keywords.put("~:" + text, keyword)
    return keyword


def _read_symbol(text: str) -> Symbol:
    if not _is_name(text):
        raise UnpackError(f"not a symbol: {short(text)!r}")
    return Symbol(text)


def _is_name(text: str) -> bool:
    return text != "" and text[0] != ":"  # a colon there is a mistake, on either side


def _read_char(text: str) -> Char:
    if len(text) != 1 or text > "\uffff":
        raise UnpackError(f"not a character: {short(text)!r}")
    return Char(text)


def _read_uuid(text: str) -> UUID:
    if not _UUID.fullmatch(text):
        raise UnpackError(f"not a UUID: {short(text)!r}")
    return UUID(int=int(text.replace("-", ""), 16))


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
    "$": _read_symbol,
    "c": _read_char,
    "u": _read_uuid,
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
    if type(numerator) is not int or type(denominator) is not int or not denominator:
        raise UnpackError("not a ratio")
    ratio = Fraction(numerator, denominator)
    return ratio.numerator if ratio.denominator == 1 else ratio


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
    return _read_uuid(value)


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
        if not named:
            return read_map(keys, values)
        result = dict(zip(keys, values, strict=True))
        if len(result) != len(keys):
            raise UnpackError("a map has a key twice")
        return result

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


class _NotAllKeywords(Exception):
    """A map has a plain string key that is not like a keyword."""


class _KeyTexts(Cache[str, str]):
    """Plain string keys, as the keywords that they become."""

    def __missing__(self, key: str) -> str:
        if not _EdnKeyTexts.LIKE_KEYWORD.fullmatch(key):
            raise _NotAllKeywords
        text = f'"~:{key}"'
        self.put(key, text)
        return text


class _KeywordTexts(Cache[Keyword, str]):
    """Keywords and their texts."""

    def __missing__(self, keyword: Keyword) -> str:
        if not _is_name(keyword):
            hint = ": write it without the colon" if keyword else ""
            raise PackError(f"{shown(keyword)} cannot be written{hint}")
        text = _quoted("~:" + keyword)
        self.put(keyword, text)
        return text


_key_text = _KeyTexts().__getitem__
_keyword_text = _KeywordTexts().__getitem__


def _write_str(value: str) -> str:
    return _quoted("~" + value if value[:1] in _ESCAPED else value)


def _write_int(value: int) -> str:
    return repr(value) if value in _EXACT else _write_int_key(value)


def _write_int_key(value: int) -> str:
    if value in _LONG:
        return f'"~i{value}"'
    if value.bit_length() > _MOST_BITS:
        raise PackError(f"an integer of more than {_MOST_BITS} bits")
    return f'"~n{value}"'


def _write_float(value: float) -> str:
    text = repr(value)
    return _SPECIAL[text] if text[-1] in "fn" else text


def _write_float_key(value: float) -> str:
    text = repr(value)
    return _SPECIAL[text] if text[-1] in "fn" else f'"~d{text}"'


_SPECIAL = {"inf": '"~zINF"', "-inf": '"~z-INF"', "nan": '"~zNaN"'}


def _write_symbol(value: Symbol) -> str:
    if not _is_name(value):
        raise PackError(f"{shown(value)} cannot be written")
    return _quoted("~$" + value)


def _write_char(value: Char) -> str:
    if len(value) != 1 or value > "\uffff":
        raise PackError(f"{shown(value)} is not one UTF-16 unit, as Clojure's characters are")
    return _quoted("~c" + value)


def _write_decimal(value: Decimal) -> str:
    if not _is_moderate(value):
        raise PackError(f"decimal out of range: {shown(value)}")
    return f'"~f{value}"'


def _write_fraction(value: Fraction) -> str:
    if value.denominator == 1:
        return _write_int(value.numerator)
    if value.numerator.bit_length() + value.denominator.bit_length() > _MOST_BITS:
        raise PackError(f"a fraction of more than {_MOST_BITS} bits")
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
    Keyword: _keyword_text,
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


class TransitPacker(BuiltinPacker[str]):
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
        self._scalars = {**_SCALARS, datetime: self._with_zone(_write_instant, self._any)}
        self._collections: dict[type, Callable[[Any, int], str]] = {
            **dict.fromkeys((list, tuple), self._vector),
            **dict.fromkeys((dict, FrozenMap), self._map),
            **dict.fromkeys((set, frozenset), self._set),
            Tagged: self._tagged,
        }

    def array(self, parts: Iterable[str]) -> str:
        """``[a,b]`` of the texts ``a`` and ``b``."""
        bare = [part[len(_QUOTE) : -1] if part.startswith(_QUOTE) else part for part in parts]
        return "[" + ",".join(bare) + "]"

    def _unpack(self, text: str) -> tuple[Any, int]:
        size = sized(text, self.max_values)
        parsed = (_parse_short if len(text) <= _LONGEST_NUMBER else _parse_long)(text)
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

    def _any(self, value: Any, depth: int) -> str:
        write = self._scalars.get(type(value))
        return write(value) if write is not None else self._collection(value, depth)

    def _collection(self, value: Any, depth: int) -> str:
        if depth <= 0:
            raise PackError("nested too deep")
        return self._collections.get(type(value), self._other)(value, depth - 1)

    def _vector(self, value: Iterable[Any], depth: int) -> str:
        return "[" + ",".join(self._all(value, depth)) + "]"

    def _set(self, value: Iterable[Any], depth: int) -> str:
        parts = self._all(value, depth)
        if not all_differ(parts):
            raise PackError("a set has members that become equal")
        return '["~#set",[' + ",".join(parts) + "]]"

    def _all(self, value: Iterable[Any], depth: int) -> list[str]:
        scalars = self._scalars
        parts = []
        for item in value:
            write = scalars.get(type(item))
            parts.append(write(item) if write is not None else self._collection(item, depth))
        return parts

    def _map(self, value: Mapping[Any, Any], depth: int) -> str:
        scalars = self._scalars
        text_of = _key_text
        parts: list[str] = []
        named = composite = True
        for key, item in value.items():
            kind = type(key)
            if kind is Keyword:
                parts.append(_keyword_text(key))
            else:
                if kind is not str:
                    if named:
                        named = False
                        composite = self._is_composite(value)
                    key = self._native_key(key)
                    kind = type(key)
                if kind is not str:
                    parts.append(self._any(key, depth) if composite else _KEYS[kind](key))
                else:
                    try:
                        parts.append(text_of(key))
                    except _NotAllKeywords:
                        text_of = _write_str
                        parts[::2] = self._requoted(value, parts[::2])
                        parts.append(_write_str(key))
            write = scalars.get(type(item))
            parts.append(write(item) if write is not None else self._collection(item, depth))
        if not named:
            if not all_differ(parts[::2]):
                raise PackError("a map has keys that become equal")
            if composite:
                return '["~#cmap",[' + ",".join(parts) + "]]"
        return '["^ ",' + ",".join(parts) + "]" if parts else '["^ "]'

    def _is_composite(self, keys: Iterable[Any]) -> bool:
        """Whether some of *keys* are not written as strings."""
        return any(type(self._native_key(key)) not in _KEYS for key in keys)

    def _requoted(self, keys: Iterable[Any], texts: list[str]) -> list[str]:
        """*texts* of the first of *keys*, plain strings as such: not all are like keywords."""
        natives = map(self._native_key, keys)
        return [
            _write_str(key) if type(key) is str else text
            for text, key in zip(texts, natives)  # noqa: B905
        ]

    def _tagged(self, value: Tagged, depth: int) -> str:
        tag = value.tag
        if not isinstance(tag, str) or not tag:
            raise PackError(f"{shown(tag)} is no tag")
        if not _is_own(tag):
            raise PackError(f"the tag {tag} has a type of its own")
        return f"[{_quoted('~#' + tag)},{self._any(value.value, depth)}]"

    def _other(self, value: Any, depth: int) -> str:
        if isinstance(value, tuple):  # named ones, such as events: too frequent for a copy
            return self._vector(value, depth)
        return self._any(self._plainer(value), depth)


def _is_own(tag: str) -> bool:
    """Whether *tag* is the application's to use."""
    return tag not in _TAGGED and tag not in _COLLECTIONS

"""MessagePack as Sente's packer writes it: small, binary, and close to EDN.

The extension types are in docs/protocol.rst, "Values".

Reading and writing are our own, and need nothing installed: names and numbers of keys depend on
where in the message they stand, which a general codec does not tell, and a general codec believes
what a header claims: a few bytes make it reserve gigabytes. Here nothing is reserved, whatever is
claimed. Not for everything: what Sente's packer would round or has no type for (`Decimal`, tags,
integers past 64 bits) is refused, and so are extension types that are not Sente's.

Sente shortens keys that were said before in the same message. That is read but not written, so
that packed values stand for themselves and can be joined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from functools import partial
from struct import Struct, unpack
from struct import error as StructError
from types import NoneType
from typing import Any, ClassVar, NoReturn
from uuid import UUID

from ..errors import PackError, UnpackError
from ..values import Char, FrozenMap, Keyword, StrKey, Symbol
from .cache import Cache, Memo
from .limits import (
    SHORT,
    SHORT_BYTES,
    VALUE_BYTES,
    too_many_values,
    too_much_referred,
    weight,
)
from .numbers import LONG
from .reading import read_map, read_named, read_ratio, read_set
from .texts import char_of, check_char, is_name, keyword_of, symbol_of, unwritable, uuid_of
from .walk import LIKE_KEYWORD, WalkingPacker

# Extension types of Sente's packer.
_KEYWORD, _SYMBOL, _CHAR, _RATIO, _SET = range(5)
_INT32S, _FLOAT32S, _FLOAT64S, _CACHED_KEY, _UUID, _TIMESTAMP = 5, 6, 7, 8, 9, 255  # 255 is -1

_FIXEXT1 = 0xD4
_CACHED = bytes([_FIXEXT1, _CACHED_KEY])
_MOST_CACHED = 256

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

_uint16, _uint32, _uint64 = Struct(">H"), Struct(">I"), Struct(">Q")
_int8, _int16, _int32, _int64 = Struct(">b"), Struct(">h"), Struct(">i"), Struct(">q")
_float32, _float64 = Struct(">f"), Struct(">d")
_timestamp64, _timestamp96 = Struct(">Q"), Struct(">Iq")


# Reading ----------------------------------------------------------------------------------
# A reader is given what follows the lead byte, and returns the value and where the next begins.
# A text that is cut short is read as far as it goes: what begins behind the end is found out by
# whoever reads on there, at last by `_unpack`.


class _Long:
    """What a message that is not short may still hold.

    :ivar values: how many more.
    :ivar room: how many more bytes its references may stand for.
    """

    __slots__ = ("_most", "_order", "_seen", "room", "shortens", "values")

    def __init__(self, values: int, room: int, shortens: bool) -> None:
        """:param shortens: some keys are references to keys before."""
        self._most = values
        self.values = values
        self.room = room
        self.shortens = shortens
        self._order: list[str] = []
        self._seen: set[tuple[type, str]] = set()  # the type too: :a equals "a"

    def refuse(self) -> NoReturn:
        """Say that there are more values than there may be."""
        raise too_many_values(self._most)

    def add(self, key: str) -> None:
        """Note *key*, which later ones may refer to: a keyword or a string."""
        known = (type(key), key)
        if known not in self._seen and len(self._order) < _MOST_CACHED:
            self._seen.add(known)
            self._order.append(key)

    def key(self, index: int) -> str:
        """What a reference stands for: keys are known by their first appearance."""
        if index >= len(self._order):
            raise UnpackError(f"no key {index} before")
        key = self._order[index]
        self.room -= weight(key)
        if self.room < 0:
            raise too_much_referred()
        return key


_Reader = Callable[[bytes, int, int, "_Long | None"], tuple[Any, int]]
_ExtReader = Callable[[bytes, int, int, int, "_Long | None"], Any]


def _items(
    data: bytes, at: int, count: int, depth: int, long: _Long | None
) -> tuple[list[Any], int]:
    """*count* values; *depth* is how many levels may be opened, this one included."""
    if depth <= 0:
        raise UnpackError("nested too deep")
    if count > len(data) - at:
        raise UnpackError("an array of more items than there are bytes")
    if long is not None:
        long.values -= count
        if long.values < 0:
            long.refuse()
    items: list[Any] = []
    append = items.append
    depth -= 1
    readers = _READERS
    for _ in range(count):
        lead = data[at]
        at += 1
        if lead < 0x80:
            append(lead)
        else:
            value, at = readers[lead](data, at, depth, long)
            append(value)
    return items, at


def _map(
    data: bytes, at: int, count: int, depth: int, long: _Long | None
) -> tuple[dict[Any, Any], int]:
    if depth <= 0:
        raise UnpackError("nested too deep")
    if 2 * count > len(data) - at:
        raise UnpackError("a map of more items than there are bytes")
    shortens = None
    if long is not None:
        long.values -= 2 * count
        if long.values < 0:
            long.refuse()
        if long.shortens:
            shortens = long
    names: list[Any] = []
    values: list[Any] = []
    simple = True
    depth -= 1
    readers = _READERS
    for _ in range(count):
        if shortens is None:
            name, at = readers[data[at]](data, at + 1, depth, long)
        elif data.startswith(_CACHED, at):
            name = shortens.key(data[at + 2])
            at += 3
        else:
            name, at = readers[data[at]](data, at + 1, depth, long)
            if type(name) is Keyword or type(name) is str:
                shortens.add(name)
        if type(name) is not Keyword:
            simple = False
        names.append(name)
        value, at = readers[data[at]](data, at + 1, depth, long)
        values.append(value)
    return (read_named(names, values) if simple else read_map(names, values)), at


def _never(data: bytes, at: int, depth: int, long: _Long | None) -> tuple[Any, int]:
    raise UnpackError("no value begins with the byte c1")


def _fixint(data: bytes, at: int, depth: int, long: _Long | None) -> tuple[int, int]:
    return data[at - 1], at


def _negative_fixint(data: bytes, at: int, depth: int, long: _Long | None) -> tuple[int, int]:
    return data[at - 1] - 256, at


def _fixmap(data: bytes, at: int, depth: int, long: _Long | None) -> tuple[Any, int]:
    return _map(data, at, data[at - 1] & 15, depth, long)


def _fixarray(data: bytes, at: int, depth: int, long: _Long | None) -> tuple[Any, int]:
    return _items(data, at, data[at - 1] & 15, depth, long)


def _fixstr(data: bytes, at: int, depth: int, long: _Long | None) -> tuple[str, int]:
    end = at + (data[at - 1] & 31)
    return str(data[at:end], "utf-8"), end


def _constant(value: Any) -> _Reader:
    return lambda data, at, depth, long: (value, at)


def _number(form: Struct) -> _Reader:
    read, size = form.unpack_from, form.size
    return lambda data, at, depth, long: (read(data, at)[0], at + size)


def _uint64_in_long(data: bytes, at: int, depth: int, long: _Long | None) -> tuple[int, int]:
    (number,) = _uint64.unpack_from(data, at)
    if number not in LONG:
        raise UnpackError("an integer past 64 bits, with its sign")
    return number, at + 8


# What has a length: one byte of it, two, or four.


def _sized(size: int, read: Callable[[bytes, int, int, int, _Long | None], Any]) -> _Reader:
    return lambda data, at, depth, long: read(
        data, at + size, int.from_bytes(data[at : at + size], "big"), depth, long
    )


def _str(data: bytes, at: int, length: int, depth: int, long: _Long | None) -> tuple[str, int]:
    return str(data[at : at + length], "utf-8"), at + length


def _bin(data: bytes, at: int, length: int, depth: int, long: _Long | None) -> tuple[bytes, int]:
    return data[at : at + length], at + length


def _ext(data: bytes, at: int, length: int, depth: int, long: _Long | None) -> tuple[Any, int]:
    end = at + 1 + length
    if end > len(data):
        raise UnpackError("the message ends too early")
    read = _EXT_READERS.get(data[at])
    if read is None:
        raise UnpackError(f"no extension type {_int8.unpack_from(data, at)[0]}")
    return read(data, at + 1, end, depth, long), end


def _fixext(length: int) -> _Reader:
    def read(data: bytes, at: int, depth: int, long: _Long | None) -> tuple[Any, int]:
        end = at + 1 + length
        keyword = _keywords.get(data[at - 1 : end])
        return (keyword, end) if keyword is not None else _ext(data, at, length, depth, long)

    return read


def _ext8(data: bytes, at: int, depth: int, long: _Long | None) -> tuple[Any, int]:
    length = data[at]
    end = at + 2 + length
    keyword = _keywords.get(data[at - 1 : end])
    return (keyword, end) if keyword is not None else _ext(data, at + 1, length, depth, long)


# Extensions stand in data[at:end].

_keywords: Cache[Any, Keyword] = Cache()  # packed ones, since most extensions are such


def _read_keyword(data: bytes, at: int, end: int, depth: int, long: _Long | None) -> Keyword:
    keyword = keyword_of(str(data[at:end], "utf-8"))
    _keywords.put(_extension(_KEYWORD, data[at:end]), keyword)
    return keyword


def _read_symbol(data: bytes, at: int, end: int, depth: int, long: _Long | None) -> Symbol:
    return symbol_of(str(data[at:end], "utf-8"))


def _read_char(data: bytes, at: int, end: int, depth: int, long: _Long | None) -> Char:
    return char_of(str(data[at:end], "utf-8"))


def _read_ratio(data: bytes, at: int, end: int, depth: int, long: _Long | None) -> int | Fraction:
    (numerator, denominator), at = _items(data, at, 2, depth, long)
    if at != end:
        raise UnpackError("not a ratio")
    return read_ratio(numerator, denominator)


def _read_set(data: bytes, at: int, end: int, depth: int, long: _Long | None) -> set[Any]:
    lead = data[at]
    if lead >> 4 == 9:
        members, at = _items(data, at + 1, lead & 15, depth, long)
    elif lead == 0xDC:
        members, at = _items(data, at + 3, _uint16.unpack_from(data, at + 1)[0], depth, long)
    elif lead == 0xDD:
        members, at = _items(data, at + 5, _uint32.unpack_from(data, at + 1)[0], depth, long)
    else:
        raise UnpackError("a set is a packed array")
    if at != end:
        raise UnpackError("a set of another length than was said")
    return read_set(members)


def _numbers(letter: str, size: int) -> _ExtReader:
    def read(data: bytes, at: int, end: int, depth: int, long: _Long | None) -> list[Any]:
        if depth <= 0:
            raise UnpackError("nested too deep")
        count, rest = divmod(end - at, size)
        if rest:
            raise UnpackError("an array that ends within a number")
        if long is not None:
            long.values -= count
            if long.values < 0:
                long.refuse()
        return list(unpack(f">{count}{letter}", data[at:end]))

    return read


def _read_uuid(data: bytes, at: int, end: int, depth: int, long: _Long | None) -> UUID:
    return uuid_of(str(data[at:end], "ascii"))


def _read_timestamp(data: bytes, at: int, end: int, depth: int, long: _Long | None) -> datetime:
    if end - at == 12:
        nanoseconds, seconds = _timestamp96.unpack_from(data, at)
    elif end - at == 8:
        (both,) = _timestamp64.unpack_from(data, at)
        nanoseconds, seconds = both >> 34, both & 0x3FFFFFFFF
    elif end - at == 4:
        nanoseconds, seconds = 0, _uint32.unpack_from(data, at)[0]
    else:
        raise UnpackError("a timestamp has 4, 8 or 12 bytes")
    if nanoseconds > 999_999_999:
        raise UnpackError("a timestamp of more nanoseconds than a second has")
    return _EPOCH + timedelta(seconds=seconds, microseconds=nanoseconds // 1000)


_EXT_READERS: dict[int, _ExtReader] = {
    _KEYWORD: _read_keyword,
    _SYMBOL: _read_symbol,
    _CHAR: _read_char,
    _RATIO: _read_ratio,
    _SET: _read_set,
    _INT32S: _numbers("i", 4),
    _FLOAT32S: _numbers("f", 4),
    _FLOAT64S: _numbers("d", 8),
    _UUID: _read_uuid,
    _TIMESTAMP: _read_timestamp,
}

_READERS: list[_Reader] = [
    *[_fixint] * 128,
    *[_fixmap] * 16,
    *[_fixarray] * 16,
    *[_fixstr] * 32,
    _constant(None),  # c0
    _never,
    _constant(False),
    _constant(True),
    _sized(1, _bin),  # c4
    _sized(2, _bin),
    _sized(4, _bin),
    _ext8,  # c7
    _sized(2, _ext),
    _sized(4, _ext),
    _number(_float32),  # ca
    _number(_float64),
    _number(Struct(">B")),  # cc
    _number(_uint16),
    _number(_uint32),
    _uint64_in_long,
    _number(_int8),  # d0
    _number(_int16),
    _number(_int32),
    _number(_int64),
    _fixext(1),  # d4
    _fixext(2),
    _fixext(4),
    _fixext(8),
    _fixext(16),
    _sized(1, _str),  # d9
    _sized(2, _str),
    _sized(4, _str),
    _sized(2, lambda data, at, count, depth, long: _items(data, at, count, depth, long)),  # dc
    _sized(4, lambda data, at, count, depth, long: _items(data, at, count, depth, long)),
    _sized(2, lambda data, at, count, depth, long: _map(data, at, count, depth, long)),  # de
    _sized(4, lambda data, at, count, depth, long: _map(data, at, count, depth, long)),
    *[_negative_fixint] * 32,
]


# Writing ----------------------------------------------------------------------------------

_FIXINTS = [bytes([n]) for n in range(128)]
_FIXARRAYS = [bytes([0x90 | n]) for n in range(16)]
_FIXMAPS = [bytes([0x80 | n]) for n in range(16)]
_FIXSTRS = [bytes([0xA0 | n]) for n in range(32)]
_FIXEXTS = {1: b"\xd4", 2: b"\xd5", 4: b"\xd6", 8: b"\xd7", 16: b"\xd8"}


def _counted(lead: int, count: int) -> bytes:
    """The header of an array or a map (*lead* with two bytes) too large for one byte."""
    if count <= 0xFFFF:
        return bytes([lead]) + _uint16.pack(count)
    return bytes([lead + 1]) + _uint32.pack(count)


def _long(lead: int, length: int) -> bytes:
    """The header of a text, bytes or extension of *length* (*lead* with one byte)."""
    return bytes([lead, length]) if length <= 0xFF else _counted(lead + 1, length)


def _extension(kind: int, content: bytes) -> bytes:
    length = len(content)
    return (_FIXEXTS.get(length) or _long(0xC7, length)) + bytes([kind]) + content


def _write_name_key(key: str) -> bytes | None:
    return _extension(_KEYWORD, key.encode()) if LIKE_KEYWORD.fullmatch(key) else None


def _write_keyword(keyword: Keyword) -> bytes:
    if not is_name(keyword):
        raise unwritable(keyword)
    return _extension(_KEYWORD, keyword.encode())


def _write_str(value: str) -> bytes:
    content = value.encode()
    length = len(content)
    return (_FIXSTRS[length] if length < 32 else _long(0xD9, length)) + content


def _write_bin(value: bytes) -> bytes:
    return _long(0xC4, len(value)) + value


def _write_int(value: int) -> bytes:
    if 0 <= value < 128:
        return _FIXINTS[value]
    if value > 0:
        if value <= 0xFF:
            return bytes([0xCC, value])
        if value <= 0xFFFF:
            return b"\xcd" + _uint16.pack(value)
        if value <= 0xFFFFFFFF:
            return b"\xce" + _uint32.pack(value)
    elif value >= -32:
        return bytes([256 + value])
    elif value >= -128:
        return b"\xd0" + _int8.pack(value)
    elif value >= -(2**15):
        return b"\xd1" + _int16.pack(value)
    elif value >= -(2**31):
        return b"\xd2" + _int32.pack(value)
    if value not in LONG:
        raise PackError("an integer past 64 bits, which MessagePack has not")
    return b"\xd3" + _int64.pack(value)


def _write_float(value: float) -> bytes:
    return b"\xcb" + _float64.pack(value)


def _write_symbol(value: Symbol) -> bytes:
    if not is_name(value):
        raise unwritable(value)
    return _extension(_SYMBOL, value.encode())


def _write_char(value: Char) -> bytes:
    check_char(value)
    return _extension(_CHAR, value.encode())


def _write_fraction(value: Fraction) -> bytes:
    numerator = _write_int(value.numerator)
    if value.denominator == 1:
        return numerator
    return _extension(_RATIO, numerator + _write_int(value.denominator))


def _write_timestamp(value: datetime) -> bytes:
    since = value - _EPOCH
    seconds = since.days * 86_400 + since.seconds
    return _extension(_TIMESTAMP, _timestamp96.pack(since.microseconds * 1000, seconds))


def _write_uuid(value: UUID) -> bytes:
    return _extension(_UUID, str(value).encode())


_SCALARS: dict[type, Callable[[Any], bytes]] = {
    str: _write_str,
    StrKey: _write_str,
    Keyword: Memo(_write_keyword).__getitem__,
    NoneType: {None: b"\xc0"}.__getitem__,
    bool: {True: b"\xc3", False: b"\xc2"}.__getitem__,
    int: _write_int,
    float: _write_float,
    Symbol: _write_symbol,
    Char: _write_char,
    Fraction: _write_fraction,
    datetime: _write_timestamp,
    UUID: _write_uuid,
    bytes: _write_bin,
}


class MsgpackPacker(WalkingPacker[bytes]):
    """MessagePack with the extension types of Sente's packer."""

    name = "msgpack"
    content_type = "application/msgpack"
    binary = True
    native: ClassVar[frozenset[type]] = frozenset(
        [*_SCALARS, list, tuple, dict, FrozenMap, set, frozenset]
    )
    scalars = _SCALARS
    name_key = staticmethod(Memo(_write_name_key).__getitem__)

    def array(self, parts: Iterable[bytes]) -> bytes:
        """The header and *parts*, one after another."""
        return self._vector([*parts])

    def unpack_padded(self, data: bytes) -> tuple[Any, int]:
        """As ``unpack_sized``, but NUL bytes may follow: Sente's client posts its whole buffer.

        :raises UnpackError: as ``unpack`` does, also for other bytes that follow.
        """
        return self._sized(partial(self._unpack, padded=True), data)

    def _unpack(self, data: bytes, padded: bool = False) -> tuple[Any, int]:
        if type(data) is not bytes:
            data = bytes(data)
        if not data:
            raise UnpackError("no value")
        length = len(data)
        # Few messages shorten keys, and only in the others need they be remembered.
        shortens = _FIXEXT1 in data and _CACHED in data
        long = None
        if shortens or length > SHORT:
            room = self._room(length)
            long = _Long(self.max_values, room, shortens)
        try:
            value, end = _READERS[data[0]](data, 1, self.max_depth, long)
        except (IndexError, StructError):
            raise UnpackError("the message ends too early") from None
        if end != length and not (padded and end < length == end + data.count(0, end)):
            too = "ends too early" if end > length else "has more than one value"
            raise UnpackError(f"the message {too}")
        if long is None:
            return value, SHORT_BYTES * length
        values = 1 + self.max_values - long.values
        return value, length + VALUE_BYTES * values + room - long.room

    def _pack(self, value: Any) -> bytes:
        return self._any(value, self.max_pack_depth)

    def _vector(self, items: list[bytes]) -> bytes:
        count = len(items)
        header = _FIXARRAYS[count] if count < 16 else _counted(0xDC, count)
        return header + b"".join(items)

    def _set(self, members: list[bytes]) -> bytes:
        return _extension(_SET, self._vector(members))

    def _map(self, parts: list[bytes]) -> bytes:
        count = len(parts) // 2
        header = _FIXMAPS[count] if count < 16 else _counted(0xDE, count)
        return header + b"".join(parts)

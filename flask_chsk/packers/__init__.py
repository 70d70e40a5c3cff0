"""Packers: one value to one text or bytes, and back (docs/packers.rst).

Here is what all of them share: the interface, the factory, the guard that lets no exception but
`PackError` and `UnpackError` out, the conveniences (dataclasses, enums, dates, your hook) and the
search for the path to what cannot be packed. A packer does not know events, callbacks or
frames, converts no case, and never guesses: what it cannot carry exactly, it refuses.

A packer pays for none of this while it is given plain values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from importlib import import_module
from types import NoneType
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar
from uuid import UUID

from ..errors import ConfigError, PackError, UnpackError
from ..interrupts import OF_CODE, from_signal
from ..values import Char, FrozenMap, Keyword, StrKey, Symbol, Tagged, frozen

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 100
MAX_VALUES = 20_000  # of one message: read in 10 ms, and the dearest kinds in some 60
ENVELOPE = 4  # levels of nesting kept for what a frame puts around a value: [[[id value] …] cb …]

PackDefault = Callable[[Any], Any]
Data = TypeVar("Data", str, bytes)
K = TypeVar("K", bound=str)
V = TypeVar("V")

# What a message holds in memory once it is read, near enough: its characters, and for each value
# an object and a place in a list or a dict. A short one is not counted: a little more per byte.
VALUE_BYTES = 64
SHORT = 256
SHORT_BYTES = 16  # of a short one, per byte

# A key of 50 characters that a reference of 3 bytes stands for. What is more is no saving of
# honest writers, but a message that grows when it is read, or written again.
EXPANSION = 16


class Packer(Protocol):
    """What a packer of your own has; everything else below is for those that come with us.

    One that also has ``array(parts)``, the packed vector of values that are packed already, gets
    each event packed once and shared by all its receivers.
    """

    @property
    def name(self) -> str: ...

    @property
    def content_type(self) -> str: ...

    @property
    def binary(self) -> bool: ...

    def pack(self, value: Any, /) -> str | bytes:
        """The packed *value*.

        :raises PackError: naming what cannot be packed.
        """

    def unpack(self, data: Any, /) -> Any:
        """The value packed in *data*.

        :raises UnpackError: where *data* is not exactly one packed value.
        """


def zoned(zone: tzinfo | None, default: PackDefault | None) -> PackDefault | None:
    """The hook that gives datetimes without a zone *zone*, then asks *default*."""
    if zone is None:
        return default

    def pack_default(value: Any) -> Any:
        if isinstance(value, datetime):
            return value.replace(tzinfo=zone)
        return NotImplemented if default is None else default(value)

    return pack_default


class _Known(NamedTuple):
    """Where a packer's class lies."""

    module: str
    factory: str


# Imported when first asked for: nobody pays for a codec that they do not use.
_KNOWN = {
    "edn": _Known("edn", "EdnPacker"),
    "json": _Known("json", "JsonPacker"),
    "transit": _Known("transit", "TransitPacker"),
    "msgpack": _Known("msgpack", "MsgpackPacker"),
    "gzip": _Known("gzip", "GzipPacker"),
}
_GZIP_OF = "gzip-"  # before the name of another packer


def make(
    name: str,
    *,
    max_bytes: int = MAX_BYTES,
    max_depth: int = MAX_DEPTH,
    max_values: int | None = MAX_VALUES,
    pack_default: PackDefault | None = None,
) -> Packer:
    """The packer called *name*, with these limits.

    Of ours, or one that was registered (:func:`flask_chsk.packers.custom.register`); with
    ``gzip-`` before its name it goes into gzip.

    *max_bytes*, *max_depth* and *max_values* bound what is unpacked; None: as many values as fit
    into the bytes. *pack_default* makes of a value that no packer knows one that it does.

    :raises ConfigError: where there is none.
    """
    from .custom import names, registered

    own = registered(name, max_bytes=max_bytes)
    if own is not None:
        return own
    limits: dict[str, Any] = {
        "max_bytes": max_bytes,
        "max_depth": max_depth,
        "max_values": max_values,
        "pack_default": pack_default,
    }
    inner = name.removeprefix(_GZIP_OF)
    if inner != name and not inner.startswith("gzip"):
        return _factory("gzip")(make(inner, **limits), **limits)
    if name in _KNOWN:
        return _factory(name)(**limits)
    known = ", ".join([*_KNOWN, *names()])
    raise ConfigError(
        f"no packer {name!r}: there are {known}, and each but gzip with {_GZIP_OF} before its"
        " name; one of your own goes by its name once flask_chsk.packers.custom.register() has it,"
        " which comes before chsk.init_app(app)"
    )


def _factory(name: str) -> Callable[..., Packer]:
    known = _KNOWN[name]
    module = import_module(f".{known.module}", __name__)
    factory: Callable[..., Packer] = getattr(module, known.factory)
    return factory


# What packers are made of ----------------------------------------------------------------


class BuiltinPacker(ABC, Generic[Data]):
    """Limits, conveniences and errors; a subclass has ``_pack``, ``_unpack`` and ``array``.

    Both may raise what they like: it leaves as `PackError`, with the path, or `UnpackError`.
    """

    name: ClassVar[str]
    content_type: ClassVar[str]
    binary: ClassVar[bool] = False

    # Types that ``_pack`` writes itself, so that conveniences are not tried on them.
    native: ClassVar[frozenset[type]]

    def __init__(
        self,
        *,
        max_bytes: int = MAX_BYTES,
        max_depth: int = MAX_DEPTH,
        max_values: int | None = MAX_VALUES,
        pack_default: PackDefault | None = None,
    ) -> None:
        self.max_bytes = max_bytes
        self.max_depth = max_depth
        self.max_values = max_bytes if max_values is None else max_values
        self.max_pack_depth = max_depth - ENVELOPE  # so that readers like ours take the frame
        self.pack_default = pack_default

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def pack(self, value: Any, root: str = "data") -> Data:
        """*value* packed.

        :raises PackError: naming the path to what cannot be packed, which starts with *root*.
        """
        try:
            return self._pack(value)
        except OF_CODE as exc:
            if from_signal(exc):
                raise
            try:
                message = self._culprit(value, root, self.max_pack_depth) or f"{root}: {exc}"
            except OF_CODE:  # a value that breaks when looked at, or hardly any stack left
                message = f"{root}: {exc}"
            foreign = exc.__cause__ if isinstance(exc, PackError) else exc
            raise PackError(message) from foreign

    def unpack(self, data: str | bytes) -> Any:
        """The one value in *data*.

        :raises UnpackError: for anything else, and for what is over the limits.
        """
        return self.unpack_sized(data)[0]

    def unpack_sized(self, data: str | bytes) -> tuple[Any, int]:
        """The one value in *data*, and the bytes that it holds in memory, near enough.

        :raises UnpackError: as ``unpack`` does.
        """
        return self._sized(self._unpack, data)

    def _sized(
        self, unpack: Callable[[Any], tuple[Any, int]], data: str | bytes
    ) -> tuple[Any, int]:
        try:
            return unpack(self._checked(data))
        except UnpackError:
            raise
        except RecursionError as exc:
            raise UnpackError("nested too deep") from exc
        except Exception as exc:
            raise UnpackError(f"not {self.name}: {short(str(exc), 120)}") from exc

    @abstractmethod
    def array(self, parts: Iterable[Data]) -> Data:
        """The packed vector of *parts*, which are packed already."""

    @abstractmethod
    def _pack(self, value: Any) -> Data: ...

    @abstractmethod
    def _unpack(self, data: Data) -> tuple[Any, int]: ...

    def _room(self, size: int) -> int:
        """Bytes that references may add to a message of *size*."""
        return min(EXPANSION * size, self.max_bytes - size)

    def _checked(self, data: str | bytes) -> Any:
        """*data* within the limit, and as text where this packer reads text."""
        size = len(data)
        if size > self.max_bytes:
            raise UnpackError(f"over {self.max_bytes} bytes")
        if self.binary:
            if isinstance(data, str):
                raise UnpackError(f"text, where the packer {self.name!r} is binary")
        elif not isinstance(data, str):
            return str(data, "utf-8")
        elif not data.isascii() and len(data.encode()) > self.max_bytes:
            raise UnpackError(f"over {self.max_bytes} bytes")
        return data

    def _plainer(self, value: Any) -> Any:
        """*value*, which this packer does not know, as one that it is likelier to know.

        :raises PackError: where neither we nor the application's hook can say.
        """
        if isinstance(value, Enum):
            return value.value
        for kind, exact in _EXACT:
            if isinstance(value, kind) and type(value) is not kind:
                return exact(value)
        if isinstance(value, bytearray | memoryview):
            return bytes(value)
        if isinstance(value, date) and not isinstance(value, datetime):
            return value.isoformat()
        if is_dataclass(value) and not isinstance(value, type | Tagged):
            return {field.name: getattr(value, field.name) for field in fields(value)}
        if isinstance(value, Mapping):
            return dict(value)
        if isinstance(value, Set):
            return frozenset(value)
        if isinstance(value, ValueError | AssertionError):  # of checks, as in pydantic's errors()
            return str(value)
        if self.pack_default is None:
            raise PackError(f"{_type(value)}: {_remedy(value)}")
        return self._by_default(value)

    def _by_default(self, value: Any) -> Any:
        """What ``pack_default`` makes of *value*.

        :raises PackError: where it makes nothing.
        """
        assert self.pack_default is not None
        try:
            known = self.pack_default(value)
        except OF_CODE as exc:
            if from_signal(exc):
                raise
            raise PackError(f"{_type(value)}: pack_default said {short(repr(exc))}") from exc
        if known is None:  # a function that falls off its end would send nil
            raise PackError(f"{_type(value)}: pack_default returned None")
        if known is NotImplemented:
            raise PackError(f"{_type(value)}: {_remedy(value)}")
        return known

    def _zoned(self, value: datetime) -> Any:
        """What ``pack_default`` makes of *value*, a datetime without a zone.

        :raises PackError: where it makes nothing, or a datetime without a zone.
        """
        if self.pack_default is not None:
            known = self._by_default(value)
            if not isinstance(known, datetime) or known.utcoffset() is not None:
                return known
        raise PackError(_type(value))

    def _with_zone(
        self, write: Callable[[datetime], Data], write_other: Callable[[Any, int], Data]
    ) -> Callable[[datetime], Data]:
        """*write*, which is given datetimes with a zone only."""

        def write_any(value: datetime) -> Data:
            if value.utcoffset() is None:
                return write_other(self._zoned(value), self.max_pack_depth)
            return write(value)

        return write_any

    def _native_key(self, key: Any) -> Any:
        """*key*, or what it is made of, as this packer writes it."""
        for _ in range(self.max_pack_depth):
            if type(key) is datetime and key.utcoffset() is None:
                key = self._zoned(key)
            elif type(key) in self.native:
                return key
            else:
                key = self._plainer(key)
        raise PackError(f"{_type(key)}: pack_default makes no plain key of it")

    def _culprit(self, value: Any, root: str, depth: int) -> str | None:
        """The path to the first thing in *value* that does not pack, and why; None: all does."""
        found = self._fault(value, depth)
        if found is None:
            return None
        steps, why = found
        return f"{short(root + ''.join(reversed(steps)), 300)}: {why}"

    def _fault(self, value: Any, depth: int) -> tuple[list[str], str] | None:
        """The steps to that thing, the last first; each is made of what is on the path alone."""
        too_deep = f"nested over {self.max_pack_depth} deep, or inside itself"
        if depth < 0:
            return [], too_deep
        children: Iterable[tuple[Any, Any]]
        step: Callable[[Any], str] = "[{}]".format
        if isinstance(value, Mapping):
            for key in value:
                try:
                    self._pack({key: None})
                except Exception as exc:
                    return [], f"key {shown(key)}: {exc}"
            children, step = value.items(), _key_step
        elif isinstance(value, list | tuple):
            children = enumerate(value)
        elif isinstance(value, Set):
            children, step = ((item, item) for item in value), _member_step
        elif type(value) is Tagged and Tagged in self.native:
            children, step = [(None, value.value)], _tag_step
        else:
            return self._fault_of_one(value, depth)
        if depth == 0:
            return [], too_deep
        for at, item in children:
            if found := self._fault(item, depth - 1):
                found[0].append(step(at))
                return found
        return None

    def _fault_of_one(self, value: Any, depth: int) -> tuple[list[str], str] | None:
        try:
            self._pack(value)
        except Exception as exc:
            if type(value) not in self.native:
                try:
                    value = self._plainer(value)
                except PackError as why:
                    return [], str(why)
                if found := self._fault(value, depth - 1):
                    return found
            return [], str(exc)
        return None


def _key_step(key: Any) -> str:
    return f'["{short(key)}"]' if isinstance(key, str) else f"[{shown(key)}]"


def _member_step(member: Any) -> str:
    return f"{{{shown(member)}}}"


def _tag_step(_: Any) -> str:
    return ".value"


_EXACT: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (Keyword, Keyword),
    (Symbol, Symbol),
    (Char, Char),
    (StrKey, StrKey),
    (str, str),
    (int, int),
    (float, float),
    (dict, dict),
    (list, list),
    (tuple, tuple),
    (
        datetime,
        lambda d: datetime(
            d.year,
            d.month,
            d.day,
            d.hour,
            d.minute,
            d.second,
            d.microsecond,
            d.tzinfo,
            fold=d.fold,
        ),
    ),
    (UUID, lambda u: UUID(int=u.int)),
    (Decimal, Decimal),
    (Fraction, lambda f: Fraction(f.numerator, f.denominator)),
    (bytes, bytes),
)


def read_map(keys: list[Any], values: list[Any]) -> dict[Any, Any]:
    """The map that a peer wrote: strings as `StrKey`, collections as keys frozen.

    :raises UnpackError: where keys are equal, or too many of them have one hash.
    """
    kinds = {*map(type, keys)}
    if not kinds <= _SALTED:
        keys = [_READ_KEY[type(key)](key) if type(key) in _READ_KEY else key for key in keys]
        _refuse_twins(keys, kinds)
    elif str in kinds:
        keys = [StrKey(key) if type(key) is str else key for key in keys]
    result = dict(zip(keys, values, strict=True))
    if len(result) != len(keys):
        raise UnpackError("a map has keys that are equal in Python")
    return result


def read_set(members: list[Any]) -> set[Any]:
    """The set that a peer wrote, collections in it frozen.

    :raises UnpackError: where members are equal, or too many of them have one hash.
    """
    kinds = {*map(type, members)}
    if not kinds <= _SALTED:
        if not kinds.isdisjoint(_COLLECTIONS):
            members = [frozen(member) for member in members]
        _refuse_twins(members, kinds)
    result = set(members)
    if len(result) != len(members):
        raise UnpackError("a set has members that are equal in Python")
    return result


_COLLECTIONS = frozenset([list, tuple, dict, set, Tagged])
_READ_KEY: dict[type, Callable[[Any], Any]] = {
    str: StrKey,
    **dict.fromkeys(_COLLECTIONS, frozen),
}

# Python salts the hashes of these, so that nobody can choose them to be equal; and there is one
# None, and two bools.
_SALTED = frozenset([str, StrKey, Keyword, Symbol, Char, bytes, datetime, NoneType, bool])

_MOST_TWINS = 32  # members of one hash: -1 and -2 have the same, so 2, and 4 or 8 as coordinates


def _refuse_twins(members: list[Any], kinds: set[type]) -> None:
    # Whoever sends a map of 10,000 multiples of 2**61 - 1 would keep us busy with comparing each
    # with each. And where sets of such members are members of one hash themselves, comparing two
    # of them compares all with all inside, and so on: the time grows with the power of the depth.
    count = len(members)
    if count < 2 or (count <= _MOST_TWINS and kinds.isdisjoint(_COLLECTIONS)):
        return
    hashes = [*map(hash, members)]
    if len({*hashes}) == count:
        return
    by_hash: dict[int, list[Any]] = {}
    for number, member in zip(hashes, members, strict=True):
        by_hash.setdefault(number, []).append(member)
    for twins in by_hash.values():
        if len(twins) > _MOST_TWINS:
            raise UnpackError("too many keys have the same hash")
        nested = [twin for twin in twins if type(twin) in _FROZEN]
        # Looked at once only: whatever contains these has twins, and is refused at the first look.
        if len(nested) > 1 and any(map(_has_twins, nested)):
            raise UnpackError("too many keys have the same hash, in collections of the same hash")


_FROZEN = frozenset([tuple, frozenset, FrozenMap, Tagged])


def _has_twins(value: Any) -> bool:
    """Whether sets and maps in *value* have members of the same hash."""
    kind = type(value)
    if kind is tuple:
        return any(map(_has_twins, value))
    if kind is Tagged:
        return _has_twins(value.value)
    if kind is frozenset or kind is FrozenMap:
        if len({*map(hash, value)}) < len(value) or any(map(_has_twins, value)):
            return True
        return kind is FrozenMap and any(map(_has_twins, value.values()))
    return False


def all_differ(parts: list[Data]) -> bool:
    """Whether no two of the packed *parts* are the same.

    Long ones are compared with those of their length only: then each byte is looked at a few
    times, however deep the parts are nested.
    """
    if len(parts) < 2:
        return True
    if max(map(len, parts)) > 64:
        lengths = Counter(map(len, parts))
        parts = [part for part in parts if lengths[len(part)] > 1]
    return len({*parts}) == len(parts)


def too_many_values(most: int) -> UnpackError:
    """What refuses a message of more than *most* values."""
    return UnpackError(f"over {most} values (CHSK_MAX_MESSAGE_VALUES)")


def weight(text: str) -> int:
    """Bytes of memory that each copy of *text* takes: one character beyond ASCII widens all."""
    return len(text) if text.isascii() else 4 * len(text)


def too_much_referred() -> UnpackError:
    """What refuses a message whose references stand for more than it may hold."""
    return UnpackError(
        f"references and namespaces that stand for more than {EXPANSION} times the message, or"
        " for more than CHSK_MAX_MESSAGE_BYTES"
    )


class Cache(dict[K, V]):
    """A dict that forgets everything when it is full: bounded, though peers choose the keys."""

    SIZE = 2048
    LONGEST = 64  # characters of a key worth keeping; with SIZE, what it can hold of memory

    def put(self, key: K, value: V) -> None:
        if len(key) <= self.LONGEST:
            if len(self) >= self.SIZE:
                self.clear()
            self[key] = value


def _type(value: Any) -> str:
    if isinstance(value, datetime):
        return (
            "naive datetime; give it a zone, as datetime.now(timezone.utc) does, or set"
            ' CHSK_NAIVE_DATETIMES, such as to "UTC"'
        )
    return f"object of type {type(value).__qualname__}"


def _remedy(value: Any) -> str:
    """What to pass in place of *value*, for what people often have."""
    if isinstance(value, timedelta):
        return "pass its total_seconds()"
    if isinstance(value, time):
        return "pass its isoformat()"
    if hasattr(value, "model_dump"):
        return 'pass its model_dump(mode="json")'
    if hasattr(value, "_asdict"):
        return "pass its _asdict()"
    if hasattr(value, "__table__"):
        return "pass a dict of its columns"
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return "pass a list of it"
    return "pass what it is made of, or register a pack_default"


def shown(value: Any) -> str:
    """*value* for an error message; of a large one not more is looked at than is shown."""
    if isinstance(value, str):
        return short(repr(value if len(value) < 60 else value[:60]))
    if isinstance(value, Mapping | list | tuple | Set | Tagged | bytes):
        size = 1 if isinstance(value, Tagged) else len(value)
        if size > 8 or not all(map(_is_simple, _items_of(value))):
            return f"a {type(value).__qualname__}"
    return short(repr(value))


def _items_of(value: Any) -> Iterable[Any]:
    if isinstance(value, Tagged):
        return (value.tag, value.value)
    return (*value, *value.values()) if isinstance(value, Mapping) else value


def _is_simple(value: Any) -> bool:
    kind = type(value)
    if isinstance(value, str | bytes):
        return len(value) < 60
    return kind in (int, float, bool, NoneType)


def short(text: str, length: int = 60) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"

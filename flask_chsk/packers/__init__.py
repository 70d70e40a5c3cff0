"""Packers: one value to one text or bytes, and back (PROTOCOL.md 11).

Here is what all of them share: the interface, the factory, the guard that lets no exception but
`PackError` and `UnpackError` out, the conveniences (dataclasses, enums, dates, your hook) and the
search for the path to what cannot be packed. A packer does not know events, callbacks or
frames, converts no case, and never guesses: what it cannot carry exactly, it refuses.

A packer pays for none of this while it is given plain values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from importlib import import_module
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar
from uuid import UUID

from ..errors import ConfigError, PackError, UnpackError
from ..interrupts import OF_CODE, from_signal
from ..values import Char, Keyword, StrKey, Symbol, Tagged, frozen

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 100
ENVELOPE = 4  # levels of nesting kept for what a frame puts around a value: [[[id value] …] cb …]

PackDefault = Callable[[Any], Any]
Data = TypeVar("Data", str, bytes)
K = TypeVar("K", bound=str)
V = TypeVar("V")


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


class _Known(NamedTuple):
    """Where a packer's class lies, and the extra that installs what it imports."""

    module: str
    factory: str
    extra: str | None = None


# Imported when first asked for: nobody needs a codec installed that they do not use.
_KNOWN = {
    "edn": _Known("edn", "EdnPacker"),
    "json": _Known("json", "JsonPacker"),
    "transit": _Known("transit", "TransitPacker", extra="transit"),
    "msgpack": _Known("msgpack", "MsgpackPacker", extra="msgpack"),
    "gzip": _Known("gzip", "GzipPacker"),
}


def make(
    name: str,
    *,
    max_bytes: int = MAX_BYTES,
    max_depth: int = MAX_DEPTH,
    pack_default: PackDefault | None = None,
) -> Packer:
    """The packer called *name*, with these limits.

    *max_bytes* and *max_depth* bound what is unpacked. *pack_default* makes of a value that no
    packer knows one that it does.

    :raises ConfigError: where there is none, or what it imports is not installed.
    """
    known = _KNOWN.get(name)
    if known is None:
        raise ConfigError(f"no packer {name!r}; known: {', '.join(_KNOWN)} ({_extras()})")
    try:
        factory = getattr(import_module(f".{known.module}", __name__), known.factory)
    except ImportError as exc:
        remedy = f": pip install Flask-Chsk[{known.extra}]" if known.extra else ""
        raise ConfigError(f"packer {name!r} cannot be imported ({exc}){remedy}") from exc
    packer: Packer = factory(max_bytes=max_bytes, max_depth=max_depth, pack_default=pack_default)
    return packer


def _extras() -> str:
    return ", ".join(f"pip install Flask-Chsk[{k.extra}]" for k in _KNOWN.values() if k.extra)


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
        pack_default: PackDefault | None = None,
    ) -> None:
        self.max_bytes = max_bytes
        self.max_depth = max_depth
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
        try:
            return self._unpack(self._checked(data))
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
    def _unpack(self, data: Data) -> Any: ...

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
        if self.pack_default is not None:
            try:
                known = self.pack_default(value)
            except OF_CODE as exc:
                if from_signal(exc):
                    raise
                raise PackError(f"{_type(value)}: pack_default said {short(repr(exc))}") from exc
            if known is None:  # a function that falls off its end would send nil
                raise PackError(f"{_type(value)}: pack_default returned None")
            return known
        raise PackError(_type(value))

    def _culprit(self, value: Any, path: str, depth: int) -> str | None:
        """The path to the first thing in *value* that does not pack, and why; None: all does."""
        too_deep = f"{short(path)}: nested over {self.max_pack_depth} deep, or inside itself"
        if depth < 0:
            return too_deep
        children: Iterable[tuple[str, Any]]
        if isinstance(value, Mapping):
            for key in value:
                try:
                    self._pack({key: None})
                except Exception as exc:
                    return f"{path}: key {short(repr(key))}: {exc}"
            children = ((f"[{_key(key)}]", item) for key, item in value.items())
        elif isinstance(value, list | tuple):
            children = ((f"[{i}]", item) for i, item in enumerate(value))
        elif isinstance(value, Set):
            children = ((f"{{{short(repr(item))}}}", item) for item in value)
        elif type(value) is Tagged and Tagged in self.native:
            children = ((".value", value.value),)
        else:
            return self._culprit_of_one(value, path, depth)
        if depth == 0:
            return too_deep
        for step, item in children:
            if culprit := self._culprit(item, path + step, depth - 1):
                return culprit
        return None

    def _culprit_of_one(self, value: Any, path: str, depth: int) -> str | None:
        try:
            self._pack(value)
        except Exception as exc:
            if type(value) not in self.native:
                try:
                    value = self._plainer(value)
                except PackError as why:
                    return f"{path}: {why}"
                if culprit := self._culprit(value, path, depth - 1):
                    return culprit
            return f"{path}: {exc}"
        return None


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


def aware(value: datetime) -> datetime:
    """*value*, which says what time it is everywhere.

    :raises PackError: where it does not.
    """
    if value.utcoffset() is None:
        raise PackError("naive datetime; give it a zone, as datetime.now(timezone.utc) does")
    return value


def read_map(keys: list[Any], values: list[Any]) -> dict[Any, Any]:
    """The map that a peer wrote: strings as `StrKey`, collections as keys frozen.

    :raises UnpackError: where keys are equal, or too many of them have one hash.
    """
    keys = [_READ_KEY[type(key)](key) if type(key) in _READ_KEY else key for key in keys]
    _refuse_flood(keys)
    result = dict(zip(keys, values, strict=True))
    if len(result) != len(keys):
        raise UnpackError("a map has keys that are equal in Python")
    return result


def read_set(members: list[Any]) -> set[Any]:
    """The set that a peer wrote, collections in it frozen.

    :raises UnpackError: where members are equal, or too many of them have one hash.
    """
    members = [frozen(member) for member in members]
    _refuse_flood(members)
    result = set(members)
    if len(result) != len(members):
        raise UnpackError("a set has members that are equal in Python")
    return result


_READ_KEY: dict[type, Callable[[Any], Any]] = {
    str: StrKey,
    **dict.fromkeys((list, tuple, dict, set, Tagged), frozen),
}


def _refuse_flood(keys: list[Any]) -> None:
    # Python salts the hashes of strings only. Whoever sends a map of 50,000 multiples of 2**61 - 1
    # would keep us busy for minutes with comparing each with each.
    if len(keys) > 64 and len(keys) - len(set(map(hash, keys))) > 32:
        raise UnpackError("too many keys have the same hash")


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
    return f"object of type {type(value).__qualname__}"


def _key(key: Any) -> str:
    return f'"{short(key)}"' if isinstance(key, str) else short(repr(key))


def short(text: str, length: int = 60) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"

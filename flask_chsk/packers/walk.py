"""The walk over values that EDN, Transit and MessagePack share. Each brings its tokens only."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Set
from datetime import datetime
from itertools import islice
from typing import Any

from ..errors import PackError
from ..values import FrozenMap, Keyword, StrKey, Tagged
from .base import BuiltinPacker, Data
from .conversions import PackDefault, type_of
from .limits import MAX_BYTES, MAX_DEPTH, MAX_VALUES

# The rule of docs/protocol.rst, "Values"; ASCII, so that JavaScript's clients have the same.
LIKE_KEYWORD = re.compile(
    r"[A-Za-z*+!_?<>=-][\w*+!?<>=.'-]*(?:/[A-Za-z*+!_?<>=-][\w*+!?<>=.'-]*)?", re.ASCII
)


class WalkingPacker(BuiltinPacker[Data]):
    """Writes a value part by part; a subclass says what is written for each.

    The plain string keys of a map become keywords, unless one of them cannot.
    """

    # What is written for values of these types. Datetimes have been given a zone before.
    scalars: Mapping[type, Callable[[Any], Data]]
    # What is written for keys, where it differs. A map with a key of another type is composite.
    key_scalars: Mapping[type, Callable[[Any], Data]] | None = None
    # What is written for a plain string key as a keyword; None where it cannot be one.
    name_key: Callable[[str], Data | None]

    def __init__(
        self,
        *,
        max_bytes: int = MAX_BYTES,
        max_depth: int = MAX_DEPTH,
        max_values: int | None = MAX_VALUES,
        pack_default: PackDefault | None = None,
    ) -> None:
        super().__init__(
            max_bytes=max_bytes,
            max_depth=max_depth,
            max_values=max_values,
            pack_default=pack_default,
        )
        self._scalars: dict[type, Callable[[Any], Data]] = dict(self.scalars)
        self._scalars[datetime] = self._write_datetime
        # Without datetimes, which may become names when they are given a zone.
        self._key_scalars: dict[type, Callable[[Any], Data]] = {
            **(self.key_scalars or self._scalars)
        }
        del self._key_scalars[datetime]
        # Collections that are written as keys as they are.
        self._key_collections: Set[type] = frozenset()
        if self.key_scalars is None:
            self._key_collections = self.native - self._scalars.keys()
        self._joins: dict[type, Callable[[list[Data]], Data]] = {
            list: self._vector,
            tuple: self._vector,
            set: self._distinct,
            frozenset: self._distinct,
        }

    # Tokens: the parts are packed already.

    def _vector(self, items: list[Data]) -> Data:
        return self.array(items)

    @abstractmethod
    def _set(self, members: list[Data]) -> Data: ...

    @abstractmethod
    def _map(self, parts: list[Data]) -> Data:
        """A map of *parts*, each key followed by its value."""

    def _composite_map(self, parts: list[Data]) -> Data:
        """A map with keys that are not written as ``key_scalars`` are."""
        return self._map(parts)

    def _tag(self, tag: Any) -> tuple[Data, Data]:
        """What stands before and behind the value of a `Tagged`, where ``native`` has it.

        :raises PackError: for a tag that cannot be written.
        """
        raise NotImplementedError

    # The walk: *depth* is how many levels may still be opened.

    def _any(self, value: Any, depth: int) -> Data:
        write = self._scalars.get(type(value))
        return write(value) if write is not None else self._collection(value, depth)

    def _collection(self, value: Any, depth: int) -> Data:
        if depth <= 0:
            raise PackError("nested too deep")
        depth -= 1
        kind = type(value)
        if kind is dict or kind is FrozenMap:
            return self._mapping(value, depth)
        join = self._joins.get(kind)
        if join is None:
            if not isinstance(value, tuple):
                return self._other(value, depth)
            join = self._vector  # named ones, such as events: too frequent for a copy
        scalars = self._scalars
        parts = []
        for item in value:
            write = scalars.get(type(item))
            parts.append(write(item) if write is not None else self._collection(item, depth))
        return join(parts)

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> Data:
        scalars, keys = self._scalars, self._key_scalars
        write_keyword, write_str = scalars[Keyword], self.name_key
        parts: list[Any] = []
        names = 0  # keys before the first string that cannot be a keyword
        simple = distinct = True
        for key, item in value.items():
            kind = type(key)
            if kind is Keyword:
                parts.append(write_keyword(key))
            elif kind is str:
                part = write_str(key)
                if part is None:
                    names = len(parts) // 2
                    write_str = scalars[str]
                    part = write_str(key)
                parts.append(part)
            elif kind is StrKey:
                parts.append(scalars[StrKey](key))
            else:
                distinct = False
                write = keys.get(kind)
                if write is not None:
                    parts.append(write(key))
                elif kind in self._key_collections:
                    parts.append(self._collection(key, depth))
                else:
                    simple = False
                    parts.append(None)
            write = scalars.get(type(item))
            parts.append(write(item) if write is not None else self._collection(item, depth))
        join: Callable[[list[Data]], Data] = self._map
        if not simple:
            parts[::2], join = self._keys(value, parts[::2], depth)
        elif names:
            for at, key in enumerate(islice(value, names)):
                if type(key) is str:
                    parts[2 * at] = write_str(key)
        if not distinct and not all_differ(parts[::2]):
            raise PackError("a map has keys that become equal")
        return join(parts)

    def _keys(
        self, keys: Iterable[Any], written: list[Any], depth: int
    ) -> tuple[list[Data], Callable[[list[Data]], Data]]:
        """What is written for *keys*, of any types, and the function that joins their map.

        A collection that is *written* is not written again: in keys of keys that would double.
        """
        keys = [*map(self._native_key, keys)]
        scalars: Mapping[type, Callable[[Any], Data]] = self.key_scalars or self._scalars
        join: Callable[[list[Data]], Data] = self._map
        write_str = self.name_key
        for key in keys:
            if type(key) is str:
                if self.name_key(key) is None:
                    write_str = self._scalars[str]
            elif self.key_scalars is not None and type(key) not in scalars:
                scalars, join = self._scalars, self._composite_map
        parts: list[Any] = []
        for key, part in zip(keys, written, strict=True):
            write = write_str if type(key) is str else scalars.get(type(key))
            if write is not None:
                part = write(key)
            elif part is None:
                part = self._collection(key, depth)
            parts.append(part)
        return parts, join

    def _distinct(self, members: list[Data]) -> Data:
        if not all_differ(members):
            raise PackError("a set has members that become equal")
        return self._set(members)

    def _other(self, value: Any, depth: int) -> Data:
        if type(value) is Tagged and Tagged in self.native:
            before, behind = self._tag(value.tag)
            return before + self._any(value.value, depth) + behind
        return self._any(self._plainer(value), depth)

    def _write_datetime(self, value: datetime) -> Data:
        if value.utcoffset() is None:
            return self._any(self._aware(value), self.max_pack_depth)
        return self.scalars[datetime](value)

    def _native_key(self, key: Any) -> Any:
        """*key*, or what it becomes, of a type that is written as it is."""
        for _ in range(self.max_pack_depth):
            kind = type(key)
            if kind is datetime and key.utcoffset() is None:
                key = self._aware(key)
            elif kind in self.native:
                return key
            else:
                key = self._plainer(key)
        raise PackError(f"{type_of(key)}: pack_default makes no plain key of it")


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

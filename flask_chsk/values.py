"""The values that Python lacks and the wire has: keywords, symbols, characters, tags.

They are values and nothing else: they do not check their text (the packer that writes one does,
because what is allowed differs from packer to packer), and they know no packer.

The four string types are strings in every respect, equality and hash included, so a handler
reads ``data["text"]`` and compares ``ev.id == "chat/say"`` whatever the packer was. The type
only remembers how the text is written back (docs/protocol.rst, "Values").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import xor
from typing import Any, TypeVar

K = TypeVar("K")
V_co = TypeVar("V_co", covariant=True)


class _Named(str):
    """What keywords and symbols share: a name, and before it perhaps a namespace."""

    __slots__ = ()

    @property
    def namespace(self) -> str | None:
        """The part before the first slash: ``"chat"`` of ``chat/say``; None where there is none."""
        namespace, slash, name = self.partition("/")
        return namespace if slash and name else None

    @property
    def name(self) -> str:
        """The part after the first slash, or all of it: ``"say"`` of ``chat/say``."""
        _, slash, name = self.partition("/")
        return name if slash and name else str(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str.__repr__(self)})"


class Keyword(_Named):
    """A string that is written as a keyword: ``Keyword("chat/say")`` is ``:chat/say``.

    The text has no colon.
    """

    __slots__ = ()


class Symbol(_Named):
    """A string that is written as a symbol: ``Symbol("foo/bar")`` is ``foo/bar``."""

    __slots__ = ()


class Char(str):
    """A string of one character that is written as a character: ``Char("a")`` is ``\\a``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Char({str.__repr__(self)})"


class StrKey(str):
    """A map key that is written as a string where a plain ``str`` would become a keyword.

    String keys are read as this, so an echo is exact. Use it for maps whose keys are users' data.
    """

    __slots__ = ()


class FrozenMap(Mapping[K, V_co]):
    """A map that can be a key or a set member; equal to the dict of the same items.

    :raises TypeError: from ``hash()``, where a value has none.
    """

    __slots__ = ("_hash", "_map")

    def __init__(self, items: Mapping[K, V_co] | Iterable[tuple[K, V_co]] = ()) -> None:
        self._map: dict[K, V_co] = dict(items)
        self._hash: int | None = None

    def __getitem__(self, key: K) -> V_co:
        return self._map[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._map)

    def __len__(self) -> int:
        return len(self._map)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, FrozenMap):
            return self._map == other._map
        if isinstance(other, Mapping):
            return self._map == dict(other)
        return NotImplemented

    def __hash__(self) -> int:
        if self._hash is None:
            # Not hash(frozenset(items)): pairs can be chosen so that they all collide in that set.
            self._hash = hash((len(self._map), reduce(xor, map(hash, self._map.items()), 0)))
        return self._hash

    def __repr__(self) -> str:
        return f"FrozenMap({self._map!r})"

    def __reduce__(self) -> tuple[type[FrozenMap[K, V_co]], tuple[dict[K, V_co]]]:
        return FrozenMap, (self._map,)  # without the hash: strings hash differently elsewhere


@dataclass(frozen=True, slots=True)
class Tagged:
    """A value under a tag that nobody here knows: ``Tagged("geo/point", [1, 2])``."""

    tag: str
    value: Any


def frozen(value: Any) -> Any:
    """*value* as a map key or a set member: tuples, frozensets and `FrozenMap`s all the way in."""
    kind = type(value)
    if kind is list or kind is tuple:
        return tuple([frozen(item) for item in value])
    if kind is dict:
        return FrozenMap({key: frozen(item) for key, item in value.items()})
    if kind is set:
        return frozenset(value)  # its members were hashable already
    if kind is Tagged:
        return Tagged(value.tag, frozen(value.value))
    return value

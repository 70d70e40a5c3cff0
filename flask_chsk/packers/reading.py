"""What readers share: the maps, sets and ratios that a peer wrote."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from fractions import Fraction
from types import NoneType
from typing import Any

from ..errors import UnpackError
from ..values import Char, FrozenMap, Keyword, StrKey, Symbol, Tagged, frozen


def read_named(keys: list[Keyword], values: list[Any]) -> dict[Any, Any]:
    """The map that a peer wrote, where all its keys are keywords.

    :raises UnpackError: where a key comes twice.
    """
    result: dict[Any, Any] = dict(zip(keys, values, strict=True))
    if len(result) != len(keys):
        raise UnpackError("a map has a key twice")
    return result


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


def read_ratio(numerator: Any, denominator: Any) -> int | Fraction:
    """The ratio that a peer wrote, an integer where it is whole.

    :raises UnpackError: where it is none.
    """
    if type(numerator) is not int or type(denominator) is not int or not denominator:
        raise UnpackError("not a ratio")
    ratio = Fraction(numerator, denominator)
    return ratio.numerator if ratio.denominator == 1 else ratio


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

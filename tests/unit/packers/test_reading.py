"""The maps, sets and ratios that a peer wrote."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from flask_chsk.errors import UnpackError
from flask_chsk.packers.reading import read_map, read_named, read_ratio, read_set
from flask_chsk.values import FrozenMap, Keyword, StrKey

from . import typed


def test_string_keys_are_kept_apart_from_keywords() -> None:
    read = read_map(["a", Keyword("b"), 1], [1, 2, 3])
    assert typed(read) == typed({StrKey("a"): 1, Keyword("b"): 2, 1: 3})


def test_collections_as_keys_and_members_are_frozen() -> None:
    assert read_map([[1, {2}], {"a": [3]}], [1, 2]) == {
        (1, frozenset([2])): 1,
        FrozenMap({"a": (3,)}): 2,
    }
    assert read_set([[1], {"a": 1}]) == {(1,), FrozenMap({"a": 1})}


@pytest.mark.parametrize(("one", "other"), [(1, 1.0), (True, 1), (Keyword("a"), "a"), ([1], [1])])
def test_what_is_equal_in_python_does_not_stand_in_one_map_or_set(one: Any, other: Any) -> None:
    with pytest.raises(UnpackError, match="keys that are equal in Python"):
        read_map([one, other], [1, 2])
    with pytest.raises(UnpackError, match="members that are equal in Python"):
        read_set([one, other])


def test_a_keyword_stands_once_in_a_map() -> None:
    a, b = Keyword("a"), Keyword("b")
    assert read_named([a, b], [1, 2]) == {a: 1, b: 2}
    with pytest.raises(UnpackError, match="a key twice"):
        read_named([a, a], [1, 2])


def test_whole_ratios_are_integers() -> None:
    assert typed(read_ratio(4, 2)) == typed(2)
    assert read_ratio(1, 3) == Fraction(1, 3)


@pytest.mark.parametrize("parts", [(1, 0), (1.0, 2), (1, "2"), (True, 1), (1, None)])
def test_what_is_no_ratio_is_refused(parts: tuple[Any, Any]) -> None:
    with pytest.raises(UnpackError, match="not a ratio"):
        read_ratio(*parts)


def test_keys_that_peers_chose_to_collide_are_refused() -> None:
    collide = [n * (2**61 - 1) for n in range(1, 2000)]  # all hash to 0
    with pytest.raises(UnpackError, match="too many keys have the same hash"):
        read_map(list(collide), list(collide))
    with pytest.raises(UnpackError, match="too many keys have the same hash"):
        read_set([[n] for n in collide])
    assert read_map(list(range(-100, 2000)), list(range(-100, 2000)))[7] == 7

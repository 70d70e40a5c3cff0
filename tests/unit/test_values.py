"""Keywords and their like are strings, and remember what they are."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from flask_chsk.values import Char, FrozenMap, Keyword, StrKey, Symbol, Tagged, frozen

ALL = [
    Keyword("chat/say"),
    Symbol("foo/bar"),
    Char("a"),
    StrKey("user 7"),
    FrozenMap({"a": (1, 2)}),
    Tagged("geo/point", [1, 2]),
]


@pytest.mark.parametrize("kind", [Keyword, Symbol, Char, StrKey])
def test_string_types_equal_and_hash_as_their_text(kind: type[str]) -> None:
    assert kind("a") == "a"
    assert hash(kind("a")) == hash("a")
    assert {kind("a"): 1}["a"] == 1
    assert {"a": 1}[kind("a")] == 1
    assert f"{kind('a')}" == "a"
    assert type(str(kind("a"))) is str


@pytest.mark.parametrize(
    ("text", "namespace", "name"),
    [
        ("chat/say", "chat", "say"),
        ("say", None, "say"),
        ("/", None, "/"),
        ("a/b/c", "a", "b/c"),  # as Clojure splits it
        ("a//", "a", "/"),
    ],
)
@pytest.mark.parametrize("kind", [Keyword, Symbol])
def test_namespace_and_name_split_at_the_first_slash(
    kind: type[Keyword | Symbol], text: str, namespace: str | None, name: str
) -> None:
    assert (kind(text).namespace, kind(text).name) == (namespace, name)
    assert type(kind(text).name) is str


def test_reprs_say_what_they_are() -> None:
    assert list(map(repr, ALL)) == [
        "Keyword('chat/say')",
        "Symbol('foo/bar')",
        "Char('a')",
        "'user 7'",
        "FrozenMap({'a': (1, 2)})",
        "Tagged(tag='geo/point', value=[1, 2])",
    ]


@pytest.mark.parametrize("value", ALL, ids=repr)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_values_pickle(value: Any, protocol: int) -> None:
    again = pickle.loads(pickle.dumps(value, protocol))
    assert (type(again), again) == (type(value), value)


@pytest.mark.parametrize("value", ALL, ids=repr)
def test_values_copy(value: Any) -> None:
    for again in (copy.copy(value), copy.deepcopy(value)):
        assert (type(again), again) == (type(value), value)


@pytest.mark.parametrize("value", ALL, ids=repr)
def test_values_have_no_dict(value: Any) -> None:
    assert not hasattr(value, "__dict__")


def test_a_frozen_map_equals_its_dict_and_hashes_by_content() -> None:
    one, other = FrozenMap({"a": 1, "b": 2}), FrozenMap([("b", 2), ("a", 1)])
    assert one == other == {"b": 2, "a": 1} == one
    assert hash(one) == hash(other)
    assert {one: "x"}[other] == "x"
    assert one != FrozenMap({"a": 1}) and one != {"a": 1} and one != 1
    assert (one["a"], len(one), list(one)) == (1, 2, ["a", "b"])


def test_a_frozen_map_of_the_unhashable_has_no_hash() -> None:
    with pytest.raises(TypeError):
        hash(FrozenMap({"a": []}))


def test_frozen_goes_all_the_way_in() -> None:
    value = frozen([1, {"a": [{2}, Tagged("t", [3])]}, (4, [5])])
    assert value == (
        1,
        FrozenMap({"a": (frozenset({2}), Tagged("t", (3,)))}),
        (4, (5,)),
    )
    hash(value)


def test_frozen_leaves_scalars_as_they_are() -> None:
    keyword = Keyword("a")
    assert frozen(keyword) is keyword

"""The walk over values, with tokens as plain as can be, and in the three packers that share it."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Iterable
from datetime import datetime, timezone
from enum import Enum
from types import NoneType
from typing import Any

import pytest

from flask_chsk.errors import PackError
from flask_chsk.packers.edn import EdnPacker
from flask_chsk.packers.msgpack import MsgpackPacker
from flask_chsk.packers.transit import TransitPacker
from flask_chsk.packers.walk import LIKE_KEYWORD, WalkingPacker, all_differ
from flask_chsk.values import FrozenMap, Keyword, StrKey, Tagged

from . import typed

K = Keyword
UTC = datetime(2026, 1, 2, tzinfo=timezone.utc)
Point = namedtuple("Point", "x y")


class Color(Enum):
    RED = "red"


class Words(WalkingPacker[str]):
    """Writes only, in words."""

    name = "words"
    content_type = "text/plain"
    scalars = {  # noqa: RUF012
        str: "str({})".format,
        StrKey: "strkey({})".format,
        Keyword: ":{}".format,
        NoneType: "{}".format,
        bool: "{}".format,
        int: "{}".format,
        datetime: datetime.isoformat,
    }
    native = frozenset([*scalars, list, tuple, dict, FrozenMap, set, frozenset, Tagged])
    name_key = staticmethod(lambda key: f":{key}" if LIKE_KEYWORD.fullmatch(key) else None)

    def array(self, parts: Iterable[str]) -> str:
        return f"[{' '.join(parts)}]"

    def _unpack(self, data: str) -> tuple[Any, int]:
        raise NotImplementedError

    def _pack(self, value: Any) -> str:
        return self._any(value, self.max_pack_depth)

    def _set(self, members: list[str]) -> str:
        return f"<{' '.join(sorted(members))}>"

    def _map(self, parts: list[str]) -> str:
        return f"{{{' '.join(parts)}}}"

    def _tag(self, tag: Any) -> tuple[str, str]:
        return f"#{tag}(", ")"


class StrictWords(Words):
    """Has other tokens for keys, and for maps with keys that have none."""

    key_scalars = {**Words.scalars, int: "key {}".format}  # noqa: RUF012

    def _composite_map(self, parts: list[str]) -> str:
        return f"composite({' '.join(parts)})"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "None"),
        (True, "True"),
        ("a", "str(a)"),
        ([], "[]"),
        ([1, (2, [3])], "[1 [2 [3]]]"),
        (Point(1, [2]), "[1 [2]]"),
        ({1, 2}, "<1 2>"),
        (frozenset([(1,)]), "<[1]>"),
        ({}, "{}"),
        ({K("a"): 1, K("b"): [2]}, "{:a 1 :b [2]}"),
        ({"a": 1, K("b"): 2}, "{:a 1 :b 2}"),
        ({"a": 1, "b c": 2, K("d"): 3, "e": 4}, "{str(a) 1 str(b c) 2 :d 3 str(e) 4}"),
        ({"b c": 2, "a": 1}, "{str(b c) 2 str(a) 1}"),
        ({K("d"): 3, "a": 1, "": {"x": 1}}, "{:d 3 str(a) 1 str() {:x 1}}"),
        ({StrKey("a"): 1, "b": 2}, "{strkey(a) 1 :b 2}"),
        ({StrKey("a"): 1, "b c": 2, "d": 3}, "{strkey(a) 1 str(b c) 2 str(d) 3}"),
        ({1: 2, "a": [3]}, "{1 2 :a [3]}"),
        ({"a": 1, 2: 3, "b c": 4}, "{str(a) 1 2 3 str(b c) 4}"),
        ({"b c": 1, 2: 3, "a": 4}, "{str(b c) 1 2 3 str(a) 4}"),
        ({Color.RED: 1, "a": 2}, "{:red 1 :a 2}"),
        ({Color.RED: 1, "a b": 2}, "{str(red) 1 str(a b) 2}"),
        ({(1, "a"): 2}, "{[1 str(a)] 2}"),
        ({"a": 1, (1,): 2, K("b"): 3, 4: 5, "c d": 6}, "{str(a) 1 [1] 2 :b 3 4 5 str(c d) 6}"),
        ({(1,): 2, Color.RED: 3, "a": 4}, "{[1] 2 :red 3 :a 4}"),
        ({Point(1, 2): 3, "a b": 4}, "{[1 2] 3 str(a b) 4}"),
        ({FrozenMap({"a": 1}): FrozenMap({"b c": 2})}, "{{:a 1} {str(b c) 2}}"),
        (OrderedDict(a=1), "{:a 1}"),
        (Tagged("t", {"a": 1}), "#t({:a 1})"),
        (Color.RED, "str(red)"),
        ([UTC], f"[{UTC.isoformat()}]"),
        ({UTC: 1}, f"{{{UTC.isoformat()} 1}}"),
    ],
)
def test_each_value_is_written_by_its_token(value: Any, words: str) -> None:
    assert Words().pack(value) == words


def test_keys_may_have_tokens_of_their_own() -> None:
    packer = StrictWords()
    assert packer.pack({1: 1, "a": 2}) == "{key 1 1 :a 2}"
    assert packer.pack({"a b": 1, 1: 2}) == "{str(a b) 1 key 1 2}"
    assert packer.pack({(1,): 1, 2: 3, "a": 4}) == "composite([1] 1 2 3 :a 4)"
    assert packer.pack({"a": {1: 1}}) == "{:a {key 1 1}}"
    assert packer.pack({"a": 1, (1,): 2, "b c": 3}) == "composite(str(a) 1 [1] 2 str(b c) 3)"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({Color.RED: 1, "red": 2}, "data: a map has keys that become equal"),
        ({Color.RED: 1, K("red"): 2}, "data: a map has keys that become equal"),
        ({Color.RED, "red"}, "data: a set has members that become equal"),
        ([0, {"a": {1, object()}}], r'data\[1\]\["a"\]\{<object.*\}: object of type object'),
    ],
)
def test_what_cannot_be_written_is_refused_with_its_path(value: Any, why: str) -> None:
    with pytest.raises(PackError, match=f"^{why}"):
        Words().pack(value)


def test_depth_is_counted_over_every_kind_of_collection() -> None:
    packer = Words(max_depth=8)  # 4 of them are the frame's
    for wrap in (
        lambda inner: [inner],
        lambda inner: (inner,),
        lambda inner: {"a": inner},
        lambda inner: {1: inner},
        lambda inner: FrozenMap({"a": inner}),
        lambda inner: frozenset([inner]) if not isinstance(inner, list) else frozenset(),
        lambda inner: Tagged("t", inner),
        lambda inner: Point(inner, 0),
    ):
        value: Any = 1
        for _ in range(4):
            value = wrap(value)
        packer.pack(value)
        with pytest.raises(PackError, match="nested over 4 deep"):
            packer.pack(wrap(value))


def test_a_value_of_an_odd_map_is_written_once() -> None:
    """Else maps in maps would be written 2, 4, 8 … times."""
    asked: list[object] = []

    class Own:
        pass

    def default(value: Any) -> Any:
        asked.append(value)
        return 1

    value: Any = Own()
    for n in range(20):
        value = {"a": 1, "b c": value} if n % 2 else {1: value, "b": 0}
    Words(pack_default=default).pack(value)
    assert len(asked) == 1


@pytest.mark.parametrize("make_packer", [Words, StrictWords])
def test_a_key_of_a_key_is_written_once(make_packer: type[Words]) -> None:
    asked: list[object] = []

    class Own:
        pass

    def default(value: Any) -> Any:
        asked.append(value)
        return 1

    key: Any = FrozenMap({"x": Own()})
    for n in range(20):
        key = FrozenMap({key: 1, UTC: 2} if n % 2 else {Color.RED: 1, "a b": 2, key: 3, 4: 5})
    make_packer(pack_default=default).pack({key: 1})
    assert len(asked) == 1


def test_whether_parts_differ_is_seen_whatever_their_lengths() -> None:
    assert all_differ(["a" * n for n in range(100)])
    assert not all_differ(["a" * 70, "b", "c", "b"])
    assert not all_differ(["a" * 70, "b", "a" * 70])
    assert all_differ(["a"])


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1, "b": {"c d": 2, "e": [3, {"f": None}]}},
        {StrKey("a"): 1, K("b"): {2, 3}},
        {1: "one", "two": 2, (3, 4): {"x y": True}},
        [[K("chat/say"), {"text": "hello", "at": UTC}], "cb"],
        {frozenset([1]): FrozenMap({"a": 1})},
    ],
)
def test_the_three_packers_carry_the_same(value: Any) -> None:
    edn, *others = [
        typed(packer.unpack(packer.pack(value)))
        for packer in (EdnPacker(), TransitPacker(), MsgpackPacker())
    ]
    assert others == [edn, edn]

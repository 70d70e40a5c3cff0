"""JSON, strict both ways."""

from __future__ import annotations

import json
import math
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_chsk.errors import PackError, UnpackError
from flask_chsk.packers.json import JsonPacker
from flask_chsk.values import Char, FrozenMap, Keyword, StrKey, Symbol, Tagged

from . import typed

packer = JsonPacker()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([None, True, 1, 2**70, 1.5], "[null,true,1,1180591620717411303424,1.5]"),
        ([Keyword("chat/say"), {"text": "é😀\u2028"}], '["chat/say",{"text":"é😀\u2028"}]'),
        (("chsk/ws-ping",), '["chsk/ws-ping"]'),
        ({Keyword("a"): 1, StrKey("b c"): 2, Symbol("d"): 3}, '{"a":1,"b c":2,"d":3}'),
        ([Symbol("a"), Char("b"), StrKey("c")], '["a","b","c"]'),
        ([{1}, frozenset(), FrozenMap({"a": (1,)})], '[[1],[],{"a":[1]}]'),
        ([Decimal("1.50"), UUID(int=1)], '["1.50","00000000-0000-0000-0000-000000000001"]'),
        (datetime(2026, 1, 2, 3, 4, 5, 6, timezone.utc), '"2026-01-02T03:04:05.000006+00:00"'),
        (
            {"at": datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1)))},
            '{"at":"2026-01-01T00:00:00+01:00"}',
        ),
    ],
    ids=repr,
)
def test_values_are_written(value: Any, text: str) -> None:
    assert packer.pack(value) == text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({1: "a"}, "data: key 1: a key that is no string: 1"),
        ([{"a": {None: 1}}], 'data[0]["a"]: key None: a key that is no string: None'),
        ({("a",): 1}, "data: key ('a',): a key that is no string: ('a',)"),
        ({True: 1}, "data: key True: a key that is no string: True"),
        ({"x": [math.nan]}, 'data["x"][0]: Out of range float values are not JSON compliant'),
        ([-math.inf], "data[0]: Out of range float values are not JSON compliant"),
        ({"a": b""}, 'data["a"]: object of type bytes'),
        ([Fraction(1, 2)], "data[0]: object of type Fraction"),
        ([Tagged("a", 1)], "data[0]: object of type Tagged"),
        ([{b"x"}], "data[0]{b'x'}: object of type bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_json_has_not_is_refused(value: Any, message: str) -> None:
    with pytest.raises(PackError) as caught:
        packer.pack(value)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('["chat/say",{"text":"\\ud83d\\ude00 \\\\ud800"}]', ["chat/say", {"text": "😀 \\ud800"}]),
        (" [1, -0, 1e2, 12345678901234567890123]\n", [1, 0, 100.0, 12345678901234567890123]),
        ('{"a":{"a":{"b":null}},"b":[true]}', {"a": {"a": {"b": None}}, "b": [True]}),
        ("9" * 1000, int("9" * 1000)),
        ("[" + ",".join(["1"] * 2000) + "]", [1] * 2000),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_texts_are_read(text: str, value: Any) -> None:
    assert typed(packer.unpack(text)) == typed(value)
    assert typed(packer.unpack(text.encode())) == typed(value)


@pytest.mark.parametrize(
    "text",
    [
        *"NaN Infinity -Infinity [NaN] 1e400 [-1e999] 01 1. .5 +1 nil True {1:2}".split(),
        *"[1,] {,} [1}".split(),
        *'{"a":1,"a":2} [{"a":{"b":1,"b":1}}] {"a":1}{} 1;2 "\\ud800" ["\\uDC00\\uD800"]'.split(),
        '"a\nb"',
        '"\\x"',
        '"a',
        "[1] [2]",
        "\ufeff1",
        "9" * 1025,
        "[" + "9" * 5000 + "]",
        "[1" + " " * 2000,
    ],
    ids=lambda text: text[:30],
)
def test_what_is_not_one_json_text_is_refused(text: str) -> None:
    with pytest.raises(UnpackError) as caught:
        packer.unpack(text)
    assert len(str(caught.value)) < 200


def test_an_array_is_made_of_packed_parts() -> None:
    assert packer.array([]) == "[]"
    assert packer.array([packer.pack(["a/b", 1]), packer.pack("cb")]) == packer.pack(
        [["a/b", 1], "cb"]
    )


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=20,
)


@given(values)
def test_what_is_written_reads_back_equal_types_included(value: Any) -> None:
    assert typed(packer.unpack(packer.pack(value))) == typed(value)
    assert typed(json.loads(packer.pack(value))) == typed(value)


@given(values)
def test_what_others_write_is_read(value: Any) -> None:
    assert typed(packer.unpack(json.dumps(value, indent=1))) == typed(value)

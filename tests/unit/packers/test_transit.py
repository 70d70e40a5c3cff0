"""Transit against JavaScript's own codec, and against itself."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_chsk.errors import ConfigError, PackError, UnpackError
from flask_chsk.packers.transit import TransitPacker
from flask_chsk.values import Char, FrozenMap, Keyword, StrKey, Symbol, Tagged

from . import typed
from .test_edn import values as all_values

packer = TransitPacker()
utc = timezone.utc
K, S = Keyword, Symbol


# Writing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([None, True, False], "[null,true,false]"),
        ((1, -2, 0.5, 1e300), "[1,-2,0.5,1e+300]"),
        ([2**53 - 1, 2**53], '[9007199254740991,"~i9007199254740992"]'),
        ([1 - 2**53, -(2**53)], '[-9007199254740991,"~i-9007199254740992"]'),
        ([2**63 - 1, 2**63], '["~i9223372036854775807","~n9223372036854775808"]'),
        ([math.inf, -math.inf, math.nan], '["~zINF","~z-INF","~zNaN"]'),
        (["~a", "^a", "`a", "^ ", "a~", ""], '["~~a","~^a","~`a","~^ ","a~",""]'),
        (['"\\\n\0é😀\u2028'], '["\\"\\\\\\n\\u0000é😀\u2028"]'),
        ([K("chat/say"), S("a/b"), Char("a"), Char('"')], '["~:chat/say","~$a/b","~ca","~c\\""]'),
        ([Decimal("1.50"), Fraction(4, 2)], '["~f1.50",2]'),
        (Fraction(-1, 3), '["~#ratio",["~n-1","~n3"]]'),
        ([b"\0\xff", bytearray(b"a")], '["~bAP8=","~bYQ=="]'),
        ([UUID(int=1)], '["~u00000000-0000-0000-0000-000000000001"]'),
        ([datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))], '["~m0"]'),
        ([datetime(1969, 12, 31, 23, 59, 59, 999_000, utc)], '["~m-1"]'),
        ([datetime(1, 1, 1, 0, 0, 0, 1, utc)], '["~t0001-01-01T00:00:00.000001Z"]'),
        ([{1}, frozenset()], '[["~#set",[1]],["~#set",[]]]'),
        ({"text": 1, "ns/name": "text"}, '["^ ","~:text",1,"~:ns/name","text"]'),
        ({"text": 1, "two words": 2}, '["^ ","text",1,"two words",2]'),
        ({StrKey("~a"): 1, StrKey("a"): 2}, '["^ ","~~a",1,"a",2]'),
        ({}, '["^ "]'),
        (
            {None: 0, True: 0, 5: 0, 2**63: 0, 1.5: 0, math.inf: 0, S("a"): 0, Char("b"): 0},
            '["^ ","~_",0,"~?t",0,"~i5",0,"~n9223372036854775808",0,"~d1.5",0,"~zINF",0,'
            '"~$a",0,"~cb",0]',
        ),
        ({(1, K("b")): FrozenMap({1: 2}), "c": 3}, '["~#cmap",[[1,"~:b"],["^ ","~i1",2],"~:c",3]]'),
        ({Fraction(1, 2): 1, "a b": 2}, '["~#cmap",[["~#ratio",["~n1","~n2"]],1,"a b",2]]'),
        ([Tagged("geo/point", [1, 2])], '[["~#geo/point",[1,2]]]'),
        # what is no array is quoted
        (None, '["~#\'",null]'),
        ("~", '["~#\'","~~"]'),
        (K("a"), '["~#\'","~:a"]'),
    ],
    ids=repr,
)  # fmt: skip
def test_values_are_written(value: Any, text: str) -> None:
    assert packer.pack(value) == text
    json.loads(text)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"n": [2**3400]}, 'data["n"][0]: an integer of more than 3390 bits'),
        ([Fraction(1, 2**3400)], "data[0]: a fraction of more than 3390 bits"),
        ([Decimal("1e9999")], "data[0]: decimal out of range: Decimal('1E+9999')"),
        ([Decimal("NaN")], "data[0]: decimal out of range: Decimal('NaN')"),
        (K(""), "data: Keyword('') cannot be written"),
        (K(":a/b"), "data: Keyword(':a/b') cannot be written: write it without the colon"),
        (S(":a"), "data: Symbol(':a') cannot be written"),
        ([Char("ab")], "data[0]: Char('ab') is not one UTF-16 unit, as Clojure's characters are"),
        (Tagged("set", []), "data: the tag set has a type of its own"),
        (Tagged("'", 1), "data: the tag ' has a type of its own"),
        (Tagged("u", ""), "data: the tag u has a type of its own"),
        (Tagged("", 1), "data: '' is no tag"),
        ([Tagged("a", {"b": object()})], 'data[0].value["b"]: object of type object'),
        ({(object(),): 1}, "data: key a tuple: object of type object"),
        ({math.nan, -math.nan}, "data: a set has members that become equal"),
        ({math.nan: 1, float("nan"): 2}, "data: a map has keys that become equal"),
        ({(math.nan,): 1, (float("nan"),): 2}, "data: a map has keys that become equal"),
        (["\ud800"], "data[0]: 'utf-8' codec can't encode"),
        ({"\ud800": 1}, "data: key '\\ud800': 'utf-8' codec can't encode"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_could_not_be_read_back_is_refused(value: Any, message: str) -> None:
    with pytest.raises(PackError) as caught:
        packer.pack(value)
    assert str(caught.value).startswith(message)


def test_an_array_is_made_of_packed_parts() -> None:
    assert packer.array([]) == "[]"
    parts = [[K("a/b"), {"c": 1}], "cb", None, K("a"), 1.5, "", Fraction(1, 2), {1}]
    assert packer.array(map(packer.pack, parts)) == packer.pack(parts)


# Reading ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # bare and quoted, in both forms
        (" 1 ", 1),
        ('"~:a"', K("a")),
        ('["~#\'","~:a"]', K("a")),
        ('{"~#\'":[1]}', [1]),
        ('[["~#\'",1],{"~#\'":null}]', [1, None]),
        # scalars
        ("[1,-0,1.0,-0.0,1e2]", [1, 0, 1.0, -0.0, 100.0]),
        ("12345678901234567890", 12345678901234567890),
        ('["~_","~?t","~?f","~\'a"]', [None, True, False, "a"]),
        ('["~i5","~i-5","~n5","~d5","~d-1.5e3","~i1.5"]', [5, -5, 5, 5.0, -1500.0, 1.5]),
        ('["~zNaN","~zINF","~z-INF"]', [math.nan, math.inf, -math.inf]),
        ('["~f1.50","~f1E+3"]', [Decimal("1.50"), Decimal("1E+3")]),
        ('["~~a","~^a","~`a","`a","","\\u007e:a"]', ["~a", "^a", "`a", "`a", "", K("a")]),
        ('["~:a b","~$a","~ca","~c\\ud7ff"]', [K("a b"), S("a"), Char("a"), Char("\ud7ff")]),
        ('["\\ud83d\\ude00","\\\\ud800"]', ["😀", "\\ud800"]),
        ('["~b","~bAP8="]', [b"", b"\0\xff"]),
        ('"~u00000000-0000-0000-0000-0000000000aB"', UUID(int=0xAB)),
        ('["~#u",[-1,1]]', UUID(int=(2**64 - 1) << 64 | 1)),
        ('["~#u","00000000-0000-0000-0000-000000000001"]', UUID(int=1)),
        # instants
        ('"~m0"', datetime(1970, 1, 1, tzinfo=utc)),
        ('"~m-1"', datetime(1969, 12, 31, 23, 59, 59, 999_000, utc)),
        ('["~#m",1000]', datetime(1970, 1, 1, 0, 0, 1, tzinfo=utc)),
        ('["~#m","1000"]', datetime(1970, 1, 1, 0, 0, 1, tzinfo=utc)),
        ('"~t2024-02-29T03:04:05Z"', datetime(2024, 2, 29, 3, 4, 5, tzinfo=utc)),
        ('"~t2024-02-29T03:04:05.6+05:30"', datetime(2024, 2, 28, 21, 34, 5, 600_000, utc)),
        ('"~t2024-02-29T03:04:05.123456789-01:00"', datetime(2024, 2, 29, 4, 4, 5, 123_456, utc)),
        ('["~#t","2024-02-29T03:04:05.000Z"]', datetime(2024, 2, 29, 3, 4, 5, tzinfo=utc)),
        # collections
        ('["~#list",[1,["~#list",[]]]]', [1, []]),
        ('["~#set",[1,"~:a",["~#set",[]]]]', {1, K("a"), frozenset()}),
        ('{"~#set":[{"~#list":[1]}]}', {(1,)}),
        ('["~#ratio",["~n1","~n2"]]', Fraction(1, 2)),
        ('["~#ratio",[4,2]]', 2),
        ('["^ ","~:a",1,"b",2]', {K("a"): 1, StrKey("b"): 2}),
        ('{"~:a":1,"~~b":{"c":2}}', {K("a"): 1, StrKey("~b"): {StrKey("c"): 2}}),
        ('{"~i1":{}}', {1: {}}),
        ('["^ ","~_",0,"~?t",1,"~i5",2,"~d1.5",3,5.5,4]', {None: 0, True: 1, 5: 2, 1.5: 3, 5.5: 4}),
        ('["^ ",["^ ","~:a",[1]],0]', {FrozenMap({K("a"): (1,)}): 0}),
        ('["~#cmap",[[1,["~#set",[2]]],"~:a"]]', {(1, frozenset({2})): K("a")}),
        ('{"~#cmap":["a",1,"~:b",2]}', {StrKey("a"): 1, K("b"): 2}),
        # tags that nobody knows
        ('["~#point",[1,["~#x","~:a"]]]', Tagged("point", [1, Tagged("x", K("a"))])),
        ('{"~#point":{"~:x":1}}', Tagged("point", {K("x"): 1})),
        ('"~rhttp://example.org/"', Tagged("r", "http://example.org/")),
        ('["~#set",[["~#point",[1]]]]', {Tagged("point", (1,))}),
    ],
)  # fmt: skip
def test_forms_are_read(text: str, value: Any) -> None:
    assert typed(packer.unpack(text)) == typed(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('["~:ab","^0","~:a","~:xy","^1"]', [K(t) for t in ("ab", "ab", "a", "xy", "xy")]),
        ('["~$abc","^0"]', [S("abc"), S("abc")]),
        ('[["~#set",[1]],["^0",[2]]]', [{1}, {2}]),
        # strings as keys only
        ('["abcd",["^ ","keys",1],"^0"]', ["abcd", {StrKey("keys"): 1}, "keys"]),
        ('[["^ ","key",1,"keys",2],"^0"]', [{StrKey("key"): 1, StrKey("keys"): 2}, "keys"]),
        ('[{"~i1234":1},["^ ","^0",2]]', [{1234: 1}, {1234: 2}]),
        ('[["~#cmap",["abcd",1]],["~:key","^1"]]', [{StrKey("abcd"): 1}, [K("key"), K("key")]]),
        # four UTF-16 units, though two characters
        ('[["^ ","😀😀",1],["^ ","^0",2]]', [{StrKey("😀😀"): 1}, {StrKey("😀😀"): 2}]),
        ('[["^ ","é😀",1,"keys",2],"^0"]', [{StrKey("é😀"): 1, StrKey("keys"): 2}, "keys"]),
        ('["~:😀","^0"]', [K("😀"), K("😀")]),
        # hidden by an escape
        ('["~:abc","\\u005e0"]', [K("abc"), K("abc")]),
    ],
)  # fmt: skip
def test_codes_stand_for_what_was_cached(text: str, value: Any) -> None:
    assert typed(packer.unpack(text)) == typed(value)


def test_codes_have_two_digits_from_the_45th_on() -> None:
    names = [f'"~:name-{n}"' for n in range(100)]
    assert packer.unpack(f'[{",".join(names)},"^[","^10","^1[","^2;"]')[100:] == [
        "name-43", "name-44", "name-87", "name-99",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        # not one JSON text
        *'nil [ ["a] [1,] [1][2] {1:2} NaN [Infinity] 1e400 01 "\\x" "a\nb" ["\\ud800"]'.split(" "),
        '["~:\\ud800"]',
        "[" * 100_000,
        # strings
        '"~"',
        *"~:  ~:: ~::a ~$ ~$:a ~_a ~? ~?x ~?true ~zinf ~z ~c ~cab ~c😀 ~u ~u1 ~bA ~bé".split(),
        *"~i ~ia ~i1_0 ~i٣ ~n ~n1.5 ~n0x1 ~d ~da ~dNaN ~dinf ~d1e999 ~f ~fNaN ~f1e9999999".split(),
        "~i " + "1" * 1025,
        "~n" + "1" * 1025,
        "~n" + "9" * 1023,
        "~f" + "1" * 1001,
        *"~m ~m1.5 ~ma ~m8640000000000000 ~t ~t2024 ~t2024-02-30T00:00:00Z".split(),
        *"~t2024-02-01T24:00:00Z ~t2024-02-01T00:00:00 ~t0000-01-01T00:00:00Z".split(),
        "~t2024-02-01T00:00:00+24:00",
        "~t9999-12-31T23:59:59-01:00",
        # numbers too long
        "9" * 1025,
        "[" + "9" * 5000 + "]",
        # codes
        *"^ ^0 ^! ^000 ^[ ^é".split(),
        '["~:abc","^1"]',
        '["~:abc","^00"]'[:-1],
        '["^ ","^ ",1]',
        '["abcd","^0"]',
        '["~:a","^0"]',
        # tags
        "~#set",
        '["~#set"]',
        '["~#set",[],[]]',
        '[1,"~#set"]',
        '["~#","a"]',
        '["~#set",1]',
        '["~#set",{}]',
        '["~#set",["^ ","~:a",1]]',
        '["~#set",[1,1]]',
        '["~#set",["~:a","a"]]',
        '["~#list","a"]',
        '["~#cmap",["a"]]',
        '["~#cmap",["a",1,"a",2]]',
        '["~#ratio",[1]]',
        '["~#ratio",[1,0]]',
        '["~#ratio",[1.5,2]]',
        '["~#ratio",[true,2]]',
        '["~#m",true]',
        '["~#m",1.5]',
        '["~#u",[1]]',
        '["~#u",["a","b"]]',
        '["~#:",1]',
        '["~#i",5]',
        # maps
        '["^ ","~:a"]',
        '["^ ","~:a",1,"~:a",2]',
        '["^ ","~:a",1,"a",2]',
        '["^ ","~i1",1,"~d1",2]',
        '["^ ","~#set",[1]]',
        '{"~:a":1,"~:a":2}',
        '{"a":1,"a":2}',
        '{"~#set":[1],"a":2}',
    ],
    ids=lambda text: text[:40],
)
def test_what_is_not_one_message_is_refused(text: str) -> None:
    if text[:1] in ("~", "^"):
        text = json.dumps(text, ensure_ascii=False)
    for wrapped in (text, f"[{text}]"):
        with pytest.raises(UnpackError) as caught:
            packer.unpack(wrapped)
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("[", "]"),
        ('["^ ","a",', "]"),
        ('{"a":', "}"),
        ('["~#set",[', "]]"),
        ('["~#cmap",[1,', "]]"),
        ('["~#point",', "]"),
        ('["~#\'",', "]"),
        ('{"~#point":', "}"),
    ],
)
def test_nesting_is_read_to_the_limit_and_no_further(opening: str, closing: str) -> None:
    shallow = TransitPacker(max_depth=3, max_values=None)
    shallow.unpack(opening * 3 + "1" + closing * 3)
    for times in (4, 100, 30_000):
        with pytest.raises(UnpackError, match="nested too deep"):
            shallow.unpack(opening * times + "1" + closing * times)


@pytest.mark.parametrize("data", ["", " ", b"\xff", '"\ud800"'])
def test_nothing_and_what_is_no_utf8_is_refused(data: str | bytes) -> None:
    with pytest.raises(UnpackError):
        packer.unpack(data)


def test_keywords_read_twice_are_one_object() -> None:
    assert packer.unpack('"~:chat/interned"') is packer.unpack('["~:chat/interned"]')[0]


# Tags of the application's ------------------------------------------------------------------


def point(value: Any) -> Any:
    return Tagged("point", [value.real, value.imag]) if type(value) is complex else value.no_such


own = TransitPacker(
    tags={"point": lambda xy: complex(*xy), "r": lambda url: ["url", url]}, pack_default=point
)


def test_tags_become_the_application_s_values_and_back() -> None:
    packed = own.pack({"at": [complex(1, 2)]})
    assert packed == '["^ ","~:at",[["~#point",[1.0,2.0]]]]'
    assert own.unpack(packed) == {"at": [complex(1, 2)]}
    assert own.unpack('["~#set",[["~#point",[1,2]],["^1",[3,4]]]]') == {1 + 2j, 3 + 4j}
    assert own.unpack('["~rhttp://a",["~#r","http://a"]]') == [["url", "http://a"]] * 2


def test_a_reader_of_the_application_s_that_fails_makes_a_bad_package() -> None:
    with pytest.raises(UnpackError, match="not transit: complex"):
        own.unpack('["~#point","here"]')


def test_tags_that_transit_has_are_not_the_application_s() -> None:
    for tag in ("set", "'", "m", "cmap"):
        with pytest.raises(ConfigError, match="name yours otherwise"):
            TransitPacker(tags={tag: str})


# Both ways --------------------------------------------------------------------------------


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """*value* with *change* done to all that is in it."""
    match value:
        case dict():
            items = ((mapped(k, change), mapped(v, change)) for k, v in value.items())
            return dict(items)
        case FrozenMap():
            return FrozenMap(mapped(dict(value), change))
        case Tagged():
            return change(Tagged(value.tag, mapped(value.value, change)))
        case list() | tuple() | set() | frozenset():
            return type(value)(mapped(item, change) for item in value)
    return change(value)


def with_a_tag_of_its_own(value: Any) -> Any:
    return Tagged(f"{value.tag}-tag", value.value) if type(value) is Tagged else value


values = all_values.map(lambda value: mapped(value, with_a_tag_of_its_own))


@given(values)
def test_what_is_written_reads_back_equal_types_included(value: Any) -> None:
    assert typed(packer.unpack(packer.pack(value))) == typed(value)


@given(st.lists(values, max_size=3))
def test_joined_parts_read_back_equal(value: list[Any]) -> None:
    assert typed(packer.unpack(packer.array(map(packer.pack, value)))) == typed(value)


@given(st.text(st.sampled_from('[]{}",:~^#$ 01aimnu\\'), max_size=30))
def test_any_mixture_of_syntax_is_read_or_refused(data: str) -> None:
    try:
        value = packer.unpack(data)
    except UnpackError:
        return
    assert typed(packer.unpack(packer.pack(value))) == typed(value)

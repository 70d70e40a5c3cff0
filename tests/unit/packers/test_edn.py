"""EDN against Clojure's own reader, and against itself."""

from __future__ import annotations

import json
import math
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_chsk.errors import PackError, UnpackError
from flask_chsk.packers.edn import EdnPacker
from flask_chsk.values import Char, FrozenMap, Keyword, StrKey, Symbol, Tagged

from . import typed

edn = EdnPacker()
canonical = EdnPacker(bytes_tag=True)
utc = timezone.utc
K, S = Keyword, Symbol

# What Clojure's reader made of 127 texts -------------------------------------------------

VECTORS = [
    json.loads(line)
    for line in (Path(__file__).parent / "vectors" / "clojure-reader.jsonl")
    .read_text(encoding="utf-8")
    .splitlines()
]

ONE_MESSAGE_IS_ONE_FORM = "Clojure reads one form and leaves the rest to the next read"
REFUSED_ON_PURPOSE = {
    "1 2]": ONE_MESSAGE_IS_ONE_FORM,
    "42 43": ONE_MESSAGE_IS_ONE_FORM,
    ":a :b": ONE_MESSAGE_IS_ONE_FORM,
    '"a""b"': ONE_MESSAGE_IS_ONE_FORM,
}
CLASSES: dict[str, type | tuple[type, ...]] = {
    "Long": int,
    "BigInt": int,
    "Double": float,
    "BigDecimal": Decimal,
    "Ratio": Fraction,
    "Boolean": bool,
    "String": (str, bool, type(None)),  # the recorder named nil and false so too
    "Character": Char,
    "Keyword": Keyword,
    "Symbol": Symbol,
    "PersistentVector": list,
    "PersistentArrayMap": dict,
    "PersistentHashSet": set,
    "Date": datetime,
}


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["in"])
def test_texts_are_read_as_clojure_reads_them(vector: dict[str, str]) -> None:
    text = vector["in"]
    if "printed" not in vector or text in REFUSED_ON_PURPOSE:
        with pytest.raises(UnpackError):
            edn.unpack(text)
    else:
        value = edn.unpack(text)
        assert isinstance(value, CLASSES[vector["class"]])
        assert typed(value) == typed(edn.unpack(vector["printed"]))


def test_refusals_on_purpose_are_still_differences() -> None:
    judged = {vector["in"]: vector for vector in VECTORS}
    assert all("printed" in judged[text] for text in REFUSED_ON_PURPOSE)


# Reading ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("nil", None),
        ("[true false nil]", [True, False, None]),
        ("(1 2)", [1, 2]),
        ("-0", 0),
        ("+7", 7),
        ("0x1F", 31),
        ("-017", -15),
        ("36rZZ", 1295),
        ("1N", 1),
        ("99999999999999999999", 99999999999999999999),
        ("1.", 1.0),
        ("-0.0", -0.0),
        ("1e400", math.inf),
        ("##-Inf", -math.inf),
        ("## NaN", math.nan),
        ("1.50M", Decimal("1.50")),
        ("1M", Decimal(1)),
        ("2/4", Fraction(1, 2)),
        ("4/2", 2),
        ('"a\\n\\"\\\\\\u00e9"', 'a\n"\\é'),
        ('"\\ud83d\\ude00 \\uD83D\\uDE00"', "😀 😀"),
        ('"\\ud83d\\ude00\\0"', "😀\0"),
        ('"\\101\\7 \\12"', "A\7 \n"),
        ('"\\\\/"', "\\/"),
        ('"a\nb\0"', "a\nb\0"),
        ("[\\a\\b \\newline \\u00e9 \\o101 \\u \\( \\, \\\\ \\;]", [*"ab\néAu(,\\;"]),
        (":a/b", K("a/b")),
        ("a/b", S("a/b")),
        ("a//", S("a//")),
        ("'a", S("'a")),
        ("{:a 1, b 2}", {K("a"): 1, S("b"): 2}),
        ('{"a" {"b" "c"}}', {StrKey("a"): {StrKey("b"): "c"}}),
        ('{:a 1 "b" 2}', {K("a"): 1, StrKey("b"): 2}),
        ("#{1 :a}", {1, K("a")}),
        ("[1 #_ 2 #_ #_ 3 [4 ;]\n] 5]", [1, 5]),
        ("#_a #_b 1 #_c ; d", 1),
        ("#:a{:b 1 :c/d 2 :_/e 3 f 4 5 6}", {"a/b": 1, "c/d": 2, "e": 3, "a/f": 4, 5: 6}),
        ("[^:a {:b 1} #^a [] ^{:a 1} b]", [{K("b"): 1}, [], S("b")]),
        ('#inst\n"2020"', datetime(2020, 1, 1, tzinfo=utc)),
        ('#uuid "00000000-0000-0000-0000-0000000000aB"', UUID(int=0xAB)),
        ("#geo/point [1 2]", Tagged("geo/point", [1, 2])),
        ("#a #b c", Tagged("a", Tagged("b", S("c")))),
        ("\u2003\x1c42\u2028", 42),
        (":a\u00a0b", K("a\u00a0b")),  # to Java, what does not break a line is no white space
    ],
    ids=repr,
)
def test_forms_are_read(text: str, value: Any) -> None:
    got = edn.unpack(text)
    if isinstance(value, list) and "\\a" in text:
        value = [Char(c) for c in value]
    if text.startswith("#:"):
        assert got == value
    else:
        assert typed(got) == typed(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{[1 [2]] 1}", {(1, (2,)): 1}),
        ("{(1) 1}", {(1,): 1}),
        ("{#{1} 1}", {frozenset({1}): 1}),
        ("{{:a [1]} 1}", {FrozenMap({K("a"): (1,)}): 1}),
        ('#{{"a" #{[1]}}}', {FrozenMap({StrKey("a"): frozenset({(1,)})})}),
        ("#{#t [1]}", {Tagged("t", (1,))}),
        ("{[[{:a {:b []}}]] [[]]}", {((FrozenMap({K("a"): FrozenMap({K("b"): ()})}),),): [[]]}),
    ],
    ids=repr,
)
def test_keys_and_members_are_frozen(text: str, value: Any) -> None:
    assert typed(edn.unpack(text)) == typed(value)
    assert typed(edn.unpack(edn.pack(value))) == typed(value)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2024", datetime(2024, 1, 1)),
        ("2024-02", datetime(2024, 2, 1)),
        ("2024-02-29", datetime(2024, 2, 29)),
        ("2024-02-29T03", datetime(2024, 2, 29, 3)),
        ("2024-02-29T03:04", datetime(2024, 2, 29, 3, 4)),
        ("2024-02-29T03:04:05Z", datetime(2024, 2, 29, 3, 4, 5)),
        ("2024-02-29T03:04:05.6-00:00", datetime(2024, 2, 29, 3, 4, 5, 600_000)),
        ("2024-02-29T03:04:05.123456789", datetime(2024, 2, 29, 3, 4, 5, 123_456)),
        ("2024-02-29T03:04:05+05:30", datetime(2024, 2, 28, 21, 34, 5)),
        ("2024-02-29T03:04:05-01:00", datetime(2024, 2, 29, 4, 4, 5)),
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1)),
    ],
)
def test_instants_are_utc(text: str, instant: datetime) -> None:
    assert typed(edn.unpack(f'#inst "{text}"')) == typed(instant.replace(tzinfo=utc))


@pytest.mark.parametrize(
    "text",
    [
        # numbers
        *"08 1a 1.a 1e 0x 0xg 37r1 1r0 1r1 2r2 1/ 1/-2 1/0 1/00 1:a -1a 1#a 1_000 ٣ -٣".split(),
        "1e9999999M",
        "1" * 1025,
        "0x" + "f" * 1000,
        "1" * 1001 + "M",
        # tokens
        *": :: ::a :a: :a::b :a/ :/a /a a/ a: a@b `a ~a @a @ :a/1 a/1 ".split(),
        # strings and characters
        '"',
        '"a',
        '"a\\',
        '"a\\"',
        '["a]',
        '"\\q"',
        '"\\/"',
        '"\\u12"',
        '"\\u123g"',
        '"\\400"',
        '"\\1x"',
        '"\\ud83d"',
        '"\\ude00\\ud83d"',
        '"\\ud83d\\7"',
        "\\",
        "\\ab",
        "\\ud800",
        "\\o400",
        "\\o8",
        "\\😀",
        # collections
        *"[ ( { #{ ] ) } [) (] {] [1} #{] [#_] {1} {:a}".split(),
        "{:a 1 :b}",
        "{:a 1 :a 2}",
        '{:a 1 "a" 2}',
        "{:a 1 a 2}",
        '{"a" 1 \\a 2}',
        "{1 1 1.0 2}",
        "{1 1 1M 2}",
        "{true 1 1 2}",
        "{[1] 1 (1) 2}",
        "{{:a 1} 1 {:a 1.0} 2}",
        "#{1 1}",
        "#{1 true}",
        '#{:a "a"}',
        "#{[1] (1)}",
        # dispatch
        *"# #a #_ #_#_1 ##Foo ##1 ## #< #<a #= #'a #(a) #?a #1 #:a #:a[] #:a/b{}".split(),
        "#::{}",
        "#:{}",
        "# a 1",
        "#nil 1",
        "#:a{:b}",
        "#:a{:b 1 :a/b 2}",
        "#:a{:1 2}",
        "#:\x85{:a 1}",
        "#:a{_/nil 1}",
        "^",
        "^:a",
        "^:a 1",
        "^1 []",
        "^:a :b",
        # instants and UUIDs
        '#inst "2024-13"',
        '#inst "2024-02-30"',
        '#inst "2024-02-01T24"',
        '#inst "2024-02-01T00:00:60"',
        '#inst "2024-02-01T00:00+24:00"',
        '#inst "2024-02-01 00:00"',
        '#inst "0000"',
        '#inst "9999-12-31T23:59:60"',
        '#inst "٢٠٢٤"',
        '#inst ""',
        "#inst 2024",
        '#uuid "1-1-1-1-1"',
        '#uuid "{00000000-0000-0000-0000-000000000001}"',
        "#uuid 5",
        # not one form
        "",
        " ,\n",
        "; only this",
        "#_1",
        "1 2",
        "[] []",
        "1 #",
    ],
)
def test_what_is_not_one_form_is_refused(text: str) -> None:
    with pytest.raises(UnpackError):
        edn.unpack(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1 2}", "unmatched }, at character 4"),
        ("[:chat/say {:a}]", "a map needs an even number of forms, at character 14"),
        ("[1", "the text ends too early, at character 2"),
        ("[1 foo/ 2]", "invalid symbol: foo/, at character 3"),
        ('[1 "abc', "unterminated string, at character 3"),
        ("1 ; one\n 2", "more than one form, at character 10"),
        ("#inst 5", "not an instant: 5, at character 6"),
    ],
)
def test_errors_say_what_and_where(text: str, message: str) -> None:
    with pytest.raises(UnpackError) as caught:
        edn.unpack(text)
    assert str(caught.value) == message


def test_errors_are_short_however_long_the_text() -> None:
    for text in (
        "a:" * 10_000,
        '#uuid "' + "x" * 10_000 + '"',
        "\\" + "x" * 10_000,
        "#" + "1" * 9999,
    ):
        with pytest.raises(UnpackError) as caught:
            edn.unpack(text)
        assert len(str(caught.value)) < 200


def test_deep_discards_and_tags_count_as_nesting() -> None:
    for text in ("#_ " * 5000 + "a " * 5001, "#a " * 5000 + "1", "^a " * 5000 + "[]", "## " * 5000):
        with pytest.raises(UnpackError, match="nested too deep"):
            edn.unpack(text)


def test_keywords_read_twice_are_one_object() -> None:
    assert edn.unpack(":chat/interned") is edn.unpack("[:chat/interned]")[0]


def test_peers_cannot_grow_the_cache_nor_take_words_out_of_it() -> None:
    for start in range(0, 20_000, 1000):
        edn.unpack("[" + " ".join(f":made-up/n{n}" for n in range(start, start + 1000)) + "]")
    assert edn.unpack("[nil true false 7 :a]") == [None, True, False, 7, "a"]


# Writing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "nil"),
        ([True, False], "[true false]"),
        ((1, -2), "[1 -2]"),
        (2**63 - 1, "9223372036854775807"),
        (2**63, "9223372036854775808N"),
        (-(2**63), "-9223372036854775808"),
        (-(2**63) - 1, "-9223372036854775809N"),
        ([1.0, 0.1, 1e16, 5e-324, -0.0], "[1.0 0.1 1e+16 5e-324 -0.0]"),
        ([math.inf, -math.inf, math.nan], "[##Inf ##-Inf ##NaN]"),
        (Decimal("1.50"), "1.50M"),
        (Decimal("1E+3"), "1E+3M"),
        (Fraction(-1, 3), "-1/3"),
        (Fraction(4, 2), "2"),
        ('a"b\\c\n\t\r\b\f', r'"a\"b\\c\n\t\r\b\f"'),
        ("\0\x1f\x7f é😀\u2028", '"\\u0000\\u001f\x7f é😀\u2028"'),
        (K("chat/say"), ":chat/say"),
        ([S("a/b"), S("/"), S("+")], "[a/b / +]"),
        ([Char(c) for c in "a \n,(é\xa0\0"], r"[\a \space \newline \, \( \é \u00a0 \u0000]"),
        (UUID(int=1), '#uuid "00000000-0000-0000-0000-000000000001"'),
        (datetime(2020, 1, 2, 3, 4, 5, tzinfo=utc), '#inst "2020-01-02T03:04:05.000-00:00"'),
        (datetime(2020, 1, 2, 3, 4, 5, 6, utc), '#inst "2020-01-02T03:04:05.000006-00:00"'),
        (
            datetime(2020, 1, 2, 3, tzinfo=timezone(timedelta(hours=2))),
            '#inst "2020-01-02T01:00:00.000-00:00"',
        ),
        (datetime.min.replace(tzinfo=utc), '#inst "0001-01-01T00:00:00.000-00:00"'),
        ({K("a")}, "#{:a}"),
        (frozenset(), "#{}"),
        ({(1, K("b")): FrozenMap({1: 2})}, "{[1 :b] {1 2}}"),
        (Tagged("geo/point", [1]), "#geo/point [1]"),
        (Tagged("chsk/bytes", "AA=="), '#chsk/bytes "AA=="'),
    ],
    ids=repr,
)
def test_values_are_written(value: Any, text: str) -> None:
    assert edn.pack(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"text": 1, "ns/name": 2, "a-b?": 3, "*x*": 4}, "{:text 1 :ns/name 2 :a-b? 3 :*x* 4}"),
        ({"text": 1, "two words": 2}, '{"text" 1 "two words" 2}'),
        ({"text": {"a b": {"c": 1}}}, '{:text {"a b" {:c 1}}}'),
        ({"1": 1}, '{"1" 1}'),
        ({"": 1}, '{"" 1}'),
        ({"é": 1}, '{"é" 1}'),
        ({"a\n": 1}, '{"a\\n" 1}'),
        ({"a/b/c": 1}, '{"a/b/c" 1}'),
        ({"a/": 1}, '{"a/" 1}'),
        ({StrKey("text"): 1, "n": 2}, '{"text" 1 :n 2}'),
        ({K("a"): 1, "b c": 2, 3: 4}, '{:a 1 "b c" 2 3 4}'),
        ({"userName": 1, "snake_case": 2}, "{:userName 1 :snake_case 2}"),
        ({"a": "b"}, '{:a "b"}'),
    ],
    ids=repr,
)
def test_plain_string_keys_become_keywords_where_all_could(value: Any, text: str) -> None:
    assert edn.pack(value) == text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (K("a b"), "data: Keyword('a b') cannot be written"),
        (K(":a/b"), "data: Keyword(':a/b') cannot be written: write it without the colon"),
        *(
            (K(text), f"data: {K(text)!r} cannot be written")
            for text in ["", "a/", "/a", "a/1", "a@"]
        ),
        *(
            (S(text), f"data: {S(text)!r} cannot be written")
            for text in ["", "nil", "true", "1", "-1", "+1a", ":a", "#a", "a b", "a/1", "٣", "a;"]
        ),
        ([Char("")], "data[0]: Char('') is not one UTF-16 unit, as Clojure's characters are"),
        ([Char("ab")], "data[0]: Char('ab') is not one UTF-16 unit, as Clojure's characters are"),
        ([Char("😀")], "data[0]: Char('😀') is not one UTF-16 unit, as Clojure's characters are"),
        ({"a": b"x"}, 'data["a"]: bytes, which EDN has not: use another packer, or base64'),
        ([bytearray(b"x")], "data[0]: bytes, which EDN has not: use another packer, or base64"),
        (Decimal("NaN"), "data: decimal out of range: Decimal('NaN')"),
        (Decimal("1E+7000"), "data: decimal out of range: Decimal('1E+7000')"),
        (2**3390, "data: an integer of more than 3390 bits"),
        (Fraction(1, 2**3390), "data: a fraction of more than 3390 bits"),
        (Tagged("inst", "2020"), "data: the tag inst has a type of its own"),
        (Tagged("nil", 1), "data: 'nil' is no tag"),
        (Tagged("a b", 1), "data: 'a b' is no tag"),
        (Tagged("+", 1), "data: '+' is no tag"),
        (
            [Tagged("a", [b"x"])],
            "data[0].value[0]: bytes, which EDN has not: use another packer, or base64",
        ),
        ({K("a b"): 1}, "data: key Keyword('a b'): Keyword('a b') cannot be written"),
        (
            [{(1, b""): 1}],
            "data[0]: key (1, b''): bytes, which EDN has not: use another packer, or base64",
        ),
        ({math.nan, -math.nan}, "data: a set has members that become equal"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_could_not_be_read_back_is_refused(value: Any, message: str) -> None:
    with pytest.raises(PackError) as caught:
        edn.pack(value)
    assert str(caught.value) == message


def test_bytes_are_carried_under_a_tag_where_that_is_asked_for() -> None:
    assert canonical.pack([b"\0\xff", bytearray(b"a")]) == '[#chsk/bytes "AP8=" #chsk/bytes "YQ=="]'
    assert canonical.unpack('#chsk/bytes "AP8="') == b"\0\xff"
    assert edn.unpack('#chsk/bytes "AP8="') == Tagged("chsk/bytes", "AP8=")
    with pytest.raises(PackError, match="the tag chsk/bytes has a type of its own"):
        canonical.pack(Tagged("chsk/bytes", "AA=="))
    for text in ("5", '"A"', '"é"', '"A P8="', ":AA=="):
        with pytest.raises(UnpackError):
            canonical.unpack(f"#chsk/bytes {text}")


def test_an_array_is_made_of_packed_parts() -> None:
    assert edn.array([]) == "[]"
    assert edn.array([edn.pack([K("a"), 1]), edn.pack("cb")]) == edn.pack([[K("a"), 1], "cb"])


# Both ways --------------------------------------------------------------------------------

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
name = st.from_regex(r"[a-zA-Z*!?<>=é_.+-][\w*!?<>=.#'-]{0,8}", fullmatch=True).filter(
    lambda s: not s[1:2].isdecimal() and s not in ("nil", "true", "false")
)
named = name | st.builds("{}/{}".format, name, name)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**3000), 2**3000)
    | st.floats(allow_nan=False)
    | text
    | st.builds(Keyword, named)
    | st.builds(Symbol, named)
    | st.builds(Char, st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]))
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.fractions().filter(lambda f: f.denominator != 1)
    | st.datetimes(timezones=st.just(utc)).map(lambda moment: moment.replace(fold=0))
    | st.uuids()
    | st.binary(max_size=10)
)
hashables = st.recursive(
    scalars.map(lambda v: StrKey(v) if type(v) is str else v),
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple)
        | st.frozensets(inner.filter(lambda v: type(v) is not StrKey), max_size=3)
        | st.dictionaries(inner, inner.filter(lambda v: type(v) is not StrKey), max_size=3).map(
            FrozenMap
        )
    ),
    max_leaves=4,
)
members = hashables.filter(lambda v: "StrKey" not in repr(typed(v)))
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            scalars.map(lambda v: StrKey(v) if type(v) is str else v) | members, inner, max_size=4
        )
        | st.sets(members, max_size=4)
        | st.builds(Tagged, named.filter(lambda s: s[0].isalpha()), inner)
    ),
    max_leaves=12,
)


@given(values)
def test_what_is_written_reads_back_equal_types_included(value: Any) -> None:
    assert typed(canonical.unpack(canonical.pack(value))) == typed(value)


@given(st.dictionaries(text, st.integers(), max_size=4))
def test_maps_of_plain_keys_read_back_equal(value: dict[str, int]) -> None:
    assert edn.unpack(edn.pack(value)) == value


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(data: str) -> None:
    try:
        value = edn.unpack(data)
    except UnpackError:
        return
    assert typed(edn.unpack(edn.pack(value))) == typed(value)


@given(st.text(st.sampled_from('[]{}()#_"\\:^;/ \n01aNM.+-en'), max_size=30))
def test_any_mixture_of_syntax_is_read_or_refused(data: str) -> None:
    try:
        value = edn.unpack(data)
    except UnpackError:
        return
    assert typed(edn.unpack(edn.pack(value))) == typed(value)

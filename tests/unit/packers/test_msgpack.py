"""MessagePack against what Sente's packer writes, against another codec, and against itself."""

from __future__ import annotations

import json
import math
import tracemalloc
from collections.abc import Mapping, Set
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgpack as other
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_chsk.errors import PackError, UnpackError
from flask_chsk.packers.edn import EdnPacker
from flask_chsk.packers.msgpack import MsgpackPacker
from flask_chsk.values import Char, FrozenMap, Keyword, StrKey, Symbol, Tagged

from . import typed
from .test_edn import values

packer = MsgpackPacker(max_values=None)
edn = EdnPacker()
utc = timezone.utc
K, S = Keyword, Symbol

# What Sente's packer made of 43 values ----------------------------------------------------

VECTORS = [
    json.loads(line)
    for line in (Path(__file__).parent / "vectors" / "msgpack.jsonl")
    .read_text(encoding="utf-8")
    .splitlines()
]
WRITTEN = [vector for vector in VECTORS if "msgpack" in vector]
REFUSED_ON_PURPOSE = {"1.0M": "Sente rounds a decimal to a float"}
SAID_IN_FULL = {  # where Sente shortens a key that comes again
    '[{:a 1 :b 2} {:a 3 :b 4} {"s" 5 :a 6}]': (
        "93 82d4006101d4006202 82d4006103d4006204 82a17305d4006106"
    ),
    "{:a {:a {:a 1}}}": "81d40061 81d40061 81d4006101",
}


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["edn"])
def test_values_are_written_as_sente_writes_them(vector: dict[str, str]) -> None:
    text = vector["edn"]
    if "error" in vector or text in REFUSED_ON_PURPOSE:
        with pytest.raises(PackError):
            packer.pack(edn.unpack(text))
    else:
        expected = bytes.fromhex(SAID_IN_FULL.get(text, vector["msgpack"]))
        assert packer.pack(edn.unpack(text)) == expected


@pytest.mark.parametrize("vector", WRITTEN, ids=lambda vector: vector["edn"])
def test_what_sente_wrote_is_read(vector: dict[str, str]) -> None:
    # Sente reads an instant as java.time's, which prints as no EDN.
    text = vector["edn" if "#object" in vector["reads_back"] else "reads_back"]
    assert typed(packer.unpack(bytes.fromhex(vector["msgpack"]))) == typed(edn.unpack(text))


@pytest.mark.parametrize("text", SAID_IN_FULL)
def test_keys_said_in_full_are_read_as_the_shortened_ones(text: str) -> None:
    assert typed(packer.unpack(bytes.fromhex(SAID_IN_FULL[text]))) == typed(edn.unpack(text))


# Reading ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("packed", "value"),
    [
        # other forms than the smallest
        ("cc05", 5),
        ("cd0005", 5),
        ("ce00000005", 5),
        ("cf0000000000000005", 5),
        ("cf7fffffffffffffff", 2**63 - 1),
        ("d005", 5),
        ("d1ffff", -1),
        ("d2fffffffe", -2),
        ("d3fffffffffffffffd", -3),
        ("ca3fc00000", 1.5),
        ("d90161", "a"),
        ("da000161", "a"),
        ("db0000000161", "a"),
        ("dc0000", []),
        ("dd0000000101", [1]),
        ("de0001 d4006101", {K("a"): 1}),
        ("df00000001 d4006101", {K("a"): 1}),
        ("c7010061", K("a")),
        ("c800010061", K("a")),
        ("c9000000010061", K("a")),
        ("c40100", b"\0"),
        ("c5000100", b"\0"),
        ("c60000000100", b"\0"),
        ("c705 04 9301a161c0", {1, "a", None}),
        ("d6 04 dc000101", {1}),
        ("c706 04 dd0000000101", {1}),
        ("d5 03 0402", 2),
        ("d5 03 ff03", Fraction(-1, 3)),
        # arrays of numbers
        ("d6 05 00000001", [1]),
        ("d7 05 00000001ffffffff", [1, -1]),
        ("d6 06 3fc00000", [1.5]),
        ("d7 07 3ff8000000000000", [1.5]),
        ("c700 05", []),
        # the shorter timestamps
        ("d6 ff 65937d25", datetime(2024, 1, 2, 3, 4, 5, tzinfo=utc)),
        ("d7 ff 0000000065937d25", datetime(2024, 1, 2, 3, 4, 5, tzinfo=utc)),
        ("d7 ff a1a5d60065937d25", datetime(2024, 1, 2, 3, 4, 5, 678_000, tzinfo=utc)),
        # keys
        ("81 a161 01", {StrKey("a"): 1}),
        ("81 01 02", {1: 2}),
        ("81 91d40061 01", {(K("a"),): 1}),
        ("81 81d4006101 02", {FrozenMap({K("a"): 1}): 2}),
        ("81 d5049101 02", {frozenset({1}): 2}),
    ],
)
def test_forms_are_read(packed: str, value: Any) -> None:
    assert typed(packer.unpack(bytes.fromhex(packed))) == typed(value)


@pytest.mark.parametrize(
    ("packed", "value"),
    [
        ("92 81d4006101 81d4080002", [{K("a"): 1}, {K("a"): 2}]),
        ("92 81a16101 81d4080002", [{StrKey("a"): 1}, {StrKey("a"): 2}]),
        # a key is counted before what stands under it
        ("81d40061 82 d4006201 d4080002", {K("a"): {K("b"): 1, K("a"): 2}}),
        # :a and "a" are two, though equal in Python
        ("93 81d4006101 81a16102 81d4080103", [{K("a"): 1}, {StrKey("a"): 2}, {StrKey("a"): 3}]),
        # in full a second time, it keeps its number
        (
            "93 81d4006101 82d4006102d4006203 81d4080104",
            [{K("a"): 1}, {K("a"): 2, K("b"): 3}, {K("b"): 4}],
        ),
        # keys are counted in keys and in sets too
        ("92 8181d400610102 81d4080003", [{FrozenMap({K("a"): 1}): 2}, {K("a"): 3}]),
        ("92 c706049181d4006101 81d4080002", [{FrozenMap({K("a"): 1})}, {K("a"): 2}]),
        ("92 d504 9101 81d4006101", [{1}, {K("a"): 1}]),
        # what is no key of a map is not counted, nor is a key of another type
        (
            "94 d40062 a162 8201c0d4006101 81d4080002",
            [K("b"), "b", {1: None, K("a"): 1}, {K("a"): 2}],
        ),
    ],
)
def test_shortened_keys_are_those_said_before(packed: str, value: Any) -> None:
    assert typed(packer.unpack(bytes.fromhex(packed))) == typed(value)


def test_of_the_keys_the_first_256_can_be_shortened() -> None:
    names = [f"key-{n}" for n in range(300)]
    rows = packer.array([packer.pack(dict.fromkeys(names)), b"\x81\xd4\x08\xff\x01"])
    assert packer.unpack(rows)[1] == {"key-255": 1}


@pytest.mark.parametrize(
    "packed",
    [
        # no value, more than one, a part of one
        "",
        "0000",
        "c0 c0",
        "c1",
        "91",
        "92 00",
        "81",
        "81 d40061",
        "a2 61",
        "d9",
        "d902 61",
        "c4",
        "c402 00",
        "cc",
        "cd 00",
        "cb 3ff8",
        "d4",
        "d400",
        "c7",
        "c702 0061",
        "93 01 a5 61",
        # text that is no UTF-8, half of a surrogate pair among it
        "a1ff",
        "a3eda080",
        "d400ff",
        # numbers that could not be written back
        "cf8000000000000000",
        "cfffffffffffffffff",
        # claims of more than there is
        "dcffff",
        "ddffffffff",
        "deffff",
        "dfffffffff",
        "dbffffffff",
        "c6ffffffff",
        "c9ffffffff 00",
        "c706 04 ddffffffff",
        # keys that are equal, or equal in Python
        "82 d4006101 d4006102",
        "82 d4006101 a16102",
        "82 0101 cb3ff000000000000002",
        "82 0101 c302",
        # keys that were not said before, or are no keys
        "d40800",
        "91d40800",
        "81d4080001",
        "92 81d4006101 d40800",
        "92 81d4006101 81d4080102",
        "92 81d4006101 81 01 d40800",
        "92 81d4006101 81c701080002",
        # extensions
        "d40a00",
        "d4ff00",
        "d48000",
        "c70000",
        "d4003a",
        "c70001",
        "d4013a",
        "c70002",
        "d5026161",
        "d602f09f9880",
        "d5030100",
        "d503c001",
        "d503a161",
        "d40301",
        "c703 03 010203",
        "c703 03 cb0102",
        "d40480",
        "d40400",
        "c70004",
        "d5049200",
        "d5049001",
        "c703 04 920101",
        "c7060491 c0c0c0c0c0",
        "d40501",
        "d506 0101",
        "d607 3ff80000",
        "c70009",
        "d90900",
        "c724 09 7b3831643466 6165 2d376465632d313164302d613736352d303061306339316536626636",
        "c70dff 00000000000000000000000000",
        "c70cff 3b9aca00 0000000000000000",
        "c70cff 00000000 7fffffffffffffff",
        "c70cff 00000000 8000000000000000",
        "d7ff ffffffff00000000",
    ],
)
def test_what_is_not_one_message_is_refused(packed: str) -> None:
    with pytest.raises(UnpackError) as caught:
        packer.unpack(bytes.fromhex(packed))
    assert len(str(caught.value)) < 200


def test_text_is_refused() -> None:
    with pytest.raises(UnpackError, match="text, where the packer 'msgpack' is binary"):
        packer.unpack("[]")


def test_any_buffer_is_read() -> None:
    packed: Any
    for packed in (b"\x92\x01\xa1a", bytearray(b"\x92\x01\xa1a"), memoryview(b"\x92\x01\xa1a")):
        assert packer.unpack(packed) == [1, "a"]


@pytest.mark.parametrize("opening", ["91", "8101", "81d40061"])
def test_nesting_is_read_to_the_limit_and_no_further(opening: str) -> None:
    shallow = MsgpackPacker(max_depth=3)
    opened = bytes.fromhex(opening)
    shallow.unpack(opened * 3 + b"\xc0")
    for times in (4, 200, 100_000):
        with pytest.raises(UnpackError, match="nested too deep"):
            shallow.unpack(opened * times + b"\xc0")


def test_sets_are_levels_too() -> None:
    value: Any = frozenset()
    for _ in range(99):
        value = frozenset([value])
    packed = MsgpackPacker(max_depth=200).pack(value)
    assert packer.unpack(packed) == value
    with pytest.raises(UnpackError, match="nested too deep"):
        MsgpackPacker(max_depth=99).unpack(packed)


@pytest.mark.parametrize("header", ["dd000f0000", "df00070000", "c9000f000004dd000efff0"])
def test_nothing_is_reserved_for_what_is_claimed(header: str) -> None:
    # Each level claims as many items as there are bytes left: believed, it were 8 MB a level.
    bomb = bytes.fromhex(header) * 60
    data = bomb + b"\xc1" * (2**20 - len(bomb))
    tracemalloc.start()
    with pytest.raises(UnpackError):
        packer.unpack(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_keys_chosen_to_collide_are_refused() -> None:
    colliding = [n * (2**61 - 1) for n in range(1, 5)]
    many = [-2 - n * (2**61 - 1) for n in range(-3, 4)]
    assert packer.unpack(packer.pack(dict.fromkeys(colliding + many, 0)))
    fractions = b"".join(
        packer.pack(Fraction(n, 2**61 - 1)) + b"\x00" for n in range(1, 3000) if n % 2
    )
    with pytest.raises(UnpackError, match="too many keys have the same hash"):
        packer.unpack(b"\xde\x05\xdc" + fractions)


def test_keywords_read_twice_are_one_object() -> None:
    packed = packer.pack(K("chat/interned"))
    assert packer.unpack(packed) is packer.unpack(packed)


# Writing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "packed"),
    [
        ([31, 32, 127, -32, -33], "95 1f 20 7f e0 d0df"),
        ([255, 256, 65535, 65536, 2**32 - 1], "95 ccff cd0100 cdffff ce00010000 ceffffffff"),
        ([-128, -129, -(2**15), -(2**15) - 1], "94 d080 d1ff7f d18000 d2ffff7fff"),
        ([-(2**31), -(2**31) - 1], "92 d280000000 d3ffffffff7fffffff"),
        ([1.0, -0.0], "92 cb3ff0000000000000 cb8000000000000000"),
        (b"", "c400"),
        pytest.param([bytearray(b"a"), memoryview(b"b")], "92 c40161 c40162", id="buffers"),
        ([{1}, frozenset()], "92 d5049101 d40490"),
        (datetime(1970, 1, 1, tzinfo=utc), "c70cff 00000000 0000000000000000"),
        (
            datetime(1970, 1, 1, 1, 0, 1, 2, timezone(timedelta(hours=1))),
            "c70cff 000007d0 0000000000000001",
        ),
        (Fraction(4, 2), "02"),
        ({"text": 1, "ns/name": 2}, "82 d60074657874 01 c707006e732f6e616d65 02"),
        ({"a": 1, "b c": 2}, "82 a161 01 a3622063 02"),
        ({"a": {"b c": {"d": 1}}}, "81 d40061 81 a3622063 81 d40064 01"),
        ({StrKey("a"): "b", "c": "c"}, "82 a161 a162 d40063 a163"),
        ({(1, K("b")): FrozenMap({1: 2})}, "81 9201d40062 810102"),
    ],
    ids=repr,
)
def test_values_are_written(value: Any, packed: str) -> None:
    assert packer.pack(value) == bytes.fromhex(packed)


@pytest.mark.parametrize(
    ("length", "string", "data", "array", "mapping", "keyword"),
    [
        (15, "af", "c40f", "9f", "8f", "c70f00"),
        (16, "b0", "c410", "dc0010", "de0010", "d800"),
        (31, "bf", "c41f", "dc001f", "de001f", "c71f00"),
        (32, "d920", "c420", "dc0020", "de0020", "c72000"),
        (255, "d9ff", "c4ff", "dc00ff", "de00ff", "c7ff00"),
        (256, "da0100", "c50100", "dc0100", "de0100", "c8010000"),
        (65535, "daffff", "c5ffff", "dcffff", "deffff", "c8ffff00"),
        (65536, "db00010000", "c600010000", "dd00010000", "df00010000", "c90001000000"),
    ],
)
def test_headers_are_the_smallest(
    length: int, string: str, data: str, array: str, mapping: str, keyword: str
) -> None:
    for value, header in (
        ("x" * length, string),
        (b"x" * length, data),
        ([None] * length, array),
        (dict.fromkeys(range(length)), mapping),
        (K("x" * length), keyword),
    ):
        packed = packer.pack(value)
        assert packed.startswith(bytes.fromhex(header))
        assert typed(packer.unpack(packed)) == typed(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"n": [2**63]}, 'data["n"][0]: an integer past 64 bits, which MessagePack has not'),
        ([-(2**63) - 1], "data[0]: an integer past 64 bits, which MessagePack has not"),
        ([Fraction(1, 2**64)], "data[0]: an integer past 64 bits, which MessagePack has not"),
        ([Decimal(1)], "data[0]: object of type Decimal"),
        ([Tagged("a", 1)], "data[0]: object of type Tagged"),
        (K(""), "data: Keyword('') cannot be written"),
        (K(":a/b"), "data: Keyword(':a/b') cannot be written: write it without the colon"),
        (S(":a"), "data: Symbol(':a') cannot be written"),
        ([Char("ab")], "data[0]: Char('ab') is not one UTF-16 unit, as Clojure's characters are"),
        (Char("😀"), "data: Char('😀') is not one UTF-16 unit, as Clojure's characters are"),
        ({"a": {Decimal(1): 2}}, "data[\"a\"]: key Decimal('1'): object of type Decimal"),
        ([datetime(2024, 1, 1)], "data[0]: naive datetime; give it a zone"),
        ({math.nan: 1, float("nan"): 2}, "data: a map has keys that become equal"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_could_not_be_read_back_is_refused(value: Any, message: str) -> None:
    with pytest.raises(PackError) as caught:
        packer.pack(value)
    assert str(caught.value).startswith(message)


def test_what_messagepack_has_not_may_be_made_of_what_it_has() -> None:
    lax = MsgpackPacker(pack_default=lambda value: str(value))
    assert lax.unpack(lax.pack([Decimal("1.50")])) == ["1.50"]


def test_an_array_is_made_of_packed_parts() -> None:
    assert packer.array([]) == b"\x90"
    assert packer.array(iter([packer.pack([K("a"), 1]), packer.pack("cb")])) == packer.pack(
        [[K("a"), 1], "cb"]
    )
    for count in (15, 16, 70_000):
        assert packer.array([b"\xc0"] * count) == packer.pack([None] * count)


# Both ways --------------------------------------------------------------------------------


def has(value: Any) -> bool:
    """Whether MessagePack has what *value* is made of."""
    if isinstance(value, Decimal | Tagged):
        return False
    if type(value) is int:
        return -(2**63) <= value < 2**63
    if isinstance(value, Fraction):
        return has(value.numerator) and has(value.denominator)
    if isinstance(value, Mapping):
        return all(has(key) and has(item) for key, item in value.items())
    return not isinstance(value, list | tuple | Set) or all(map(has, value))


@given(values)
def test_what_it_has_reads_back_equal_and_all_else_is_refused(value: Any) -> None:
    if has(value):
        assert typed(packer.unpack(packer.pack(value))) == typed(value)
    else:
        with pytest.raises(PackError, match=r"^data.*(past 64 bits|of type (Decimal|Tagged))"):
            packer.pack(value)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=20)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])).map(StrKey), inner)
    ),
    max_leaves=20,
)


@given(plain)
def test_another_codec_agrees(value: Any) -> None:
    assert other.unpackb(packer.pack(value)) == value
    assert typed(packer.unpack(other.packb(value))) == typed(value)


@given(plain, st.booleans())
def test_another_codec_reads_timestamps(value: Any, whole: bool) -> None:
    moment = datetime(2024, 1, 2, 3, 4, 5, 0 if whole else 6, utc)
    assert packer.unpack(other.packb(moment, datetime=True)) == moment
    assert other.unpackb(packer.pack([moment, value]), timestamp=3) == [moment, value]


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        value = packer.unpack(data)
    except UnpackError:
        return
    assert typed(packer.unpack(packer.pack(value))) == typed(value)

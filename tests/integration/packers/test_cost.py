"""What a message costs to read, and to pack again, is a matter of its length (fuzz/cost.py).

No test here asserts a time: costs are compared with those of a plain message of the same length, in
the same run, and are measured again before a test fails.
"""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from flask_chsk.errors import PackError, UnpackError
from flask_chsk.packers import MAX_VALUES
from flask_chsk.packers.edn import EdnPacker
from flask_chsk.packers.gzip import GzipPacker
from flask_chsk.packers.json import JsonPacker
from flask_chsk.packers.msgpack import MsgpackPacker
from flask_chsk.packers.transit import TransitPacker
from flask_chsk.protocol.push import CANONICAL
from flask_chsk.values import Keyword
from tests.fuzz import cost, watch

PACKERS = {name: type(packer) for name, packer in cost.READERS.items()}
ALL = pytest.mark.parametrize("make_packer", PACKERS.values(), ids=PACKERS)


ATTACKS = [
    pytest.param(name, recipe, id=f"{name}-{number}")
    for name, recipes in cost.known().items()
    for number, recipe in enumerate(recipes)
]


@pytest.fixture(scope="module")
def meter() -> cost.Meter:
    return cost.Meter()


@pytest.mark.parametrize(("name", "recipe"), ATTACKS)
def test_known_attacks_cost_what_plain_messages_do(
    name: str, recipe: cost.Recipe, meter: cost.Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "HANG", 10.0)
    for data in watch.watched([recipe.made(cost.LENGTH)], 1, growth=1000):
        ratio, at = meter.worst(name, data, 2)
        if ratio > cost.TIMES:
            ratio, at = meter.surely(name, data)
        assert ratio <= cost.TIMES, at


@pytest.mark.parametrize("name", PACKERS)
def test_a_short_search_finds_nothing_that_costs_more(name: str) -> None:
    worst, _ = cost.search(name, 120)
    assert worst.ratio > 1  # the oracle sees something


# Values ---------------------------------------------------------------------------------------


def values(packer: Any, count: int) -> Any:
    """A packed vector of so many nils, itself one more value."""
    return packer.pack([None] * (count - 1))


@ALL
def test_a_message_holds_so_many_values_and_no_more(make_packer: Any) -> None:
    packer = make_packer(max_values=1000)
    assert packer.unpack(values(packer, 1000)) == [None] * 999
    with pytest.raises(UnpackError, match=r"over 1000 values \(CHSK_MAX_MESSAGE_VALUES\)"):
        packer.unpack(values(packer, 1002))
    assert make_packer(max_values=None).unpack(values(packer, 50_000)) == [None] * 49_999


@ALL
def test_gzip_hands_the_limit_on(make_packer: Any) -> None:
    packer = GzipPacker(make_packer(max_values=1000))
    with pytest.raises(UnpackError, match="over 1000 values"):
        packer.unpack(packer.finish(packer.pack([None] * 2000)))
    with pytest.raises(UnpackError, match="over 500 values"):
        GzipPacker(max_values=500).unpack(b"\0[" + b"1 " * 600 + b"]")


@pytest.mark.parametrize(
    ("packer", "data"),
    [
        (EdnPacker(), "[" + "[] " * 300_000 + "]"),
        (EdnPacker(), "[" + '"a" ' * 250_000 + "]"),
        (EdnPacker(), "[" + "#_1 " * 250_000 + "]"),
        (EdnPacker(), "\n" + ";\n" * 500_000 + "1"),
        (EdnPacker(), "[" + "^a[] " * 200_000 + "]"),
        (JsonPacker(), "[" + "[]," * 300_000 + "1]"),
        (JsonPacker(), "[" + '"",' * 300_000 + "1]"),
        (TransitPacker(), "[" + '["^ "],' * 140_000 + "1]"),
        (MsgpackPacker(), b"\xdd\x00\x0f\x00\x00" + b"\x80" * 0xF0000),
        (MsgpackPacker(), b"\xc9\x00\x0f\x00\x00\x05" + b"\x00" * 0xF0000),
        (GzipPacker(), GzipPacker().finish(b"\0[" + b"[]" * 500_000 + b"]")),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_too_many_are_refused_before_they_are_made(packer: Any, data: Any) -> None:
    tracemalloc.start()
    with pytest.raises(UnpackError, match="over 20000 values"):
        packer.unpack(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 2**20  # some of them 60 MiB


@pytest.mark.parametrize("packer", [JsonPacker(), TransitPacker()], ids=lambda packer: packer.name)
def test_what_strings_hold_are_no_values(packer: Any) -> None:
    text = 'a,b:[{"\\' * 40_000
    assert packer.unpack(packer.pack([text, text[::-1]])) == [text, text[::-1]]


def test_what_the_application_sends_may_have_more() -> None:
    value = ["a/b", [None] * 10 * MAX_VALUES]
    assert CANONICAL.unpack(CANONICAL.pack(value)) == value


# References -----------------------------------------------------------------------------------

KEY = "k" * 1000


@pytest.mark.parametrize(
    ("packer", "head", "reference", "end"),
    [
        (EdnPacker(), f"#:{KEY}{{:a 1", " :b{} 1", "}"),
        (TransitPacker(), f'["~:{KEY}"', ',"^0"', "]"),
        (TransitPacker(), f'["~:{KEY}"', ',"\\u005e0"', "]"),
        (TransitPacker(), f'[["^ ","{KEY}",1]', ',["^ ","^0",1]', "]"),
        (TransitPacker(), f'[["~#{KEY}",1]', ',["^0",1]', "]"),
        (
            MsgpackPacker(),
            b"\xdc\x00\xff\x81\xda\x03\xe8" + KEY.encode() + b"\xc0",
            b"\x81\xd4\x08\x00\xc0",
            b"",
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_what_references_stand_for_is_counted(
    packer: Any, head: Any, reference: Any, end: Any
) -> None:
    def message(count: int) -> Any:
        if isinstance(head, bytes):
            return head.replace(b"\xff", bytes([count + 1]), 1) + reference * count + end
        return head + "".join(reference.replace("{}", str(n)) for n in range(count)) + end

    few, many = message(10), message(200)
    value, size = packer.unpack_sized(few)
    assert size > 10 * len(KEY)
    assert len(packer.pack(value)) > 10 * len(KEY)
    with pytest.raises(UnpackError, match="stand for more than 16 times the message"):
        packer.unpack(many)


def test_honest_references_are_read() -> None:
    """Rows as Sente's and Transit's own writers make them: long keys, short values."""
    key = "com.example.orders.model/delivery-address-postal-code"
    rows = [{Keyword(key): True}] * 2000
    text = '[["^ ","~:' + key + '",true]' + ',["^ ","^0",true]' * 1999 + "]"
    assert TransitPacker().unpack(text) == rows
    packed = MsgpackPacker().pack(Keyword(key))
    data = b"\xdc\x07\xd0\x81" + packed + b"\xc3" + b"\x81\xd4\x08\x00\xc3" * 1999
    assert MsgpackPacker().unpack(data) == rows
    namespace, _, name = key.partition("/")
    text = "[" + f"#:{namespace}{{:{name} true}}" * 2000 + "]"
    assert EdnPacker().unpack(text) == rows


# Members of one hash --------------------------------------------------------------------------


def twins(fan: int, depth: int) -> str:
    """Sets of sets, all of one hash, that differ only in the innermost."""
    count = iter(range(10**9))

    def tree(level: int, own: bool) -> str:
        if level == 0:
            return str((next(count) + 1000 if own else 0) * cost.PRIME)
        members = [str(n * cost.PRIME) for n in range(1, fan)] if level == 1 else []
        while len(members) < fan:
            members.append(tree(level - 1, True))
        return "#{" + " ".join(members) + "}"

    return tree(depth, True)


@pytest.mark.parametrize(("fan", "depth"), [(2, 12), (6, 4), (12, 3), (30, 2)])
def test_sets_of_sets_of_one_hash_are_refused(fan: int, depth: int) -> None:
    with pytest.raises(UnpackError, match="too many keys have the same hash"):
        EdnPacker().unpack(twins(fan, depth))


def test_coordinates_may_share_a_hash_as_they_do() -> None:
    """-1 and -2 have the same, so have points, lines and areas between them."""
    packer = EdnPacker()
    grid = {(x, y, z, w) for x in (-1, -2) for y in (-1, -2) for z in (-1, -2) for w in (-1, -2)}
    assert packer.unpack(packer.pack(grid)) == grid
    plane = {(x, y): 0 for x in range(-60, 0) for y in range(-60, 0)}
    assert packer.unpack(packer.pack(plane)) == plane
    points = "#{{:x -1 :y 0} {:x -2 :y 0} #{-1 5} #{-2 5}}"
    assert len(packer.unpack(points)) == 4


# Memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "recipe"), ATTACKS)
def test_the_size_that_is_counted_is_what_is_held(name: str, recipe: cost.Recipe) -> None:
    packer, data = cost.READERS[name], recipe.made(60_000)
    tracemalloc.start()
    try:
        value, size = packer.unpack_sized(data)
        held, _ = tracemalloc.get_traced_memory()
    except (UnpackError, PackError):
        return
    finally:
        tracemalloc.stop()
    assert held < 4 * size + 400_000  # caches of names, bounded, fill meanwhile
    del value


@ALL
def test_plain_messages_are_counted_about_right(make_packer: Any) -> None:
    packer = make_packer()
    data = cost.plain(packer, 60_000)
    tracemalloc.start()
    value, size = packer.unpack_sized(data)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held / 3 < size < held * 4
    del value

"""Damaged messages are read well or refused, by every packer.

    python -m tests.fuzz.packers --count 1000000

Each input is a real message, cut, doubled, spliced and sprinkled with the syntax of its format.
It must be read or refused with `UnpackError`; and what is read must be written and read
back the same, types included (or refused with `PackError` for its depth alone).
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path
from time import process_time
from typing import Any, AnyStr, NamedTuple

from flask_chsk.errors import PackError, UnpackError
from flask_chsk.packers.edn import EdnPacker
from flask_chsk.packers.gzip import GzipPacker
from flask_chsk.packers.json import JsonPacker
from flask_chsk.packers.msgpack import MsgpackPacker
from flask_chsk.packers.transit import TransitPacker
from tests.fuzz.watch import confine, memory, watched
from tests.unit.packers import typed

VECTORS = Path(__file__).parents[1] / "unit" / "packers" / "vectors"


def vectors(name: str) -> list[dict[str, str]]:
    lines = (VECTORS / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


EDN = [
    *(vector["in"] for vector in vectors("clojure-reader.jsonl")),
    '#:a{:b 1 c 2} ^{:a 1} [#inst "2024-02-29T12:34:56.789+01:00"]',
    '[#uuid "00000000-0000-0000-0000-000000000001" #chsk/bytes "AAAA" #geo/point [1 2]]',
    "{[1 {:a #{1}}] (1 2 #{[]}) \\a 1/2 1.5M 10N}",
    "[##Inf ##-Inf ##NaN 1e5 -0.0 0x1F 36rZZ 017]",
]
EDN_BITS = [
    *'[ ] { } ( ) #{ #_ # ## ^ #^ #: #a #inst \\ \\u \\o " ; / : . - + N M e r 0x'.split(),
    *(" ", "\n", ",", "\0", "\x85", "\u2028", "é", "😀", "\ud800", "٣", "1", "9" * 30, "a"),
    *("nil", "\\ud83d", "\\ude00"),
    *('"\\u00e9"', '"\\101"', ":a/b", "#inst ", "{:a 1 ", "true", "@", "`", "~", "'", "%"),
]
JSON = [
    '[["chat/say",{"text":"hi","n":[1,2.5,-3e2,true,false,null]}],"c1"]',
    '{"a":{"b":{"c":[{},[],"\\ud83d\\ude00\\n\\u0000"]}},"d":"é😀"}',
    "[123456789012345678901234567890,0.1,-0.0,1e300]",
]
JSON_BITS = [
    *'[ ] { } , : " \\ \\u \\ud800 \\udc00 NaN Infinity - + . e E 1e400 0 1 "a":1,'.split(),
    *(" ", "\n", "\0", "é", "😀", "\ud800", "null", "true", "9" * 2000),
]
TRANSIT = [
    '[["~:chat/say",["^ ","~:text","hi","~:n",[1,2.5,"~i9007199254740993",true,null]]],"c1"]',
    '[["^ ","~:name",1,"key-1",2],["^ ","^0",3,"^1",4],["~#set",["~:name"]],["^2",[]]]',
    '{"~:a":{"~#cmap":[[1,{"~#list":[2]}],"~ca","~d1.5",["~#ratio",["~n1","~n2"]]]},"~~b":[]}',
    '["~m1000","~t2024-02-29T12:34:56.789Z","~u00000000-0000-0000-0000-000000000001","~bAP8="]',
    '["~#\'","~~x"]',
    '["^ ","~_",0,"~?t",1,"~i5",2,"~d1.5",3,"~$a/b",["~#point",["~f1.50","~zNaN","~n10"]]]',
]
TRANSIT_BITS = [
    *'[ ] { } , : " ~ ^ ` \\ "^ " "^0" "^1" "^10" "~#set" "~#list" "~#cmap" "~#\'" "~#m"'.split(
        " "
    ),
    *'"~#u" "~:a" "~:abcd" "abcd" "~x" ~# ~: ~$ ~i ~n ~d ~f ~z ~? ~_ ~c ~b ~u ~m ~t'.split(),
    *(" ", "\0", "é", "😀", "\ud800", "\\ud800", "\\u005e0", "null", "1", "-", ".", "e", "9" * 30),
]
MSGPACK = [
    *(bytes.fromhex(v["msgpack"]) for v in vectors("msgpack.jsonl") if "msgpack" in v),
    MsgpackPacker().pack([b"bytes", 1.5, "x" * 40, {1: [2**40, -5]}, {(1, "a"): {1, 2}}]),
    bytes.fromhex("94 d60500000001 d6063fc00000 d7073ff8000000000000 d6ff65937d25"),
]
MSGPACK_BITS = [
    *(bytes([n]) for n in range(256)),
    *map(
        bytes.fromhex,
        "d40061 d40800 d40801 d50301ff d40490 81d40061 8191 a161 c70100 c70004 c70cff dd000fffff"
        " df00000002 c9000000 cf80000000 d9ff dbffff c6ffffff eda080 00000000 ffffffff".split(),
    ),
]


def damaged(seeds: list[AnyStr], bits: list[AnyStr], chance: random.Random) -> Iterator[AnyStr]:
    """Endless inputs."""
    while True:
        text = chance.choice(seeds)
        for _ in range(chance.choice((1, 1, 2, 3, 8))):
            at, to = sorted((chance.randint(0, len(text)), chance.randint(0, len(text))))
            match chance.randrange(6):
                case 0:
                    text = text[:at] + text[to:]
                case 1:
                    text = text[:to] + text[at:to] + text[to:]
                case 2:
                    text = text[:at] + chance.choice(seeds) + text[at:]
                case 3:
                    text = (
                        text[:at]
                        + chance.choice(bits) * chance.choice((1, 1, 1, 2, 120))
                        + text[at:]
                    )
                case _:
                    text = text[:at] + chance.choice(bits) + text[at + 1 :]
        yield text[:5000]


def trees(chance: random.Random) -> Iterator[str]:
    """Endless inputs: JSON as it should be, of what means something in Transit."""
    strings = "~:a ~:abc ~$abc ~#set ~#list ~#cmap ~#ratio ~#m ~#u ~#' ~#point ^0 ^1 ^2 ^10 a abcd"
    leaves = [*strings.split(), *"~i5 ~n7 ~d1.5 ~_ ~?t ~~a ~^ ~rx ~ca ~zNaN ~m5 ~f1.0".split()]
    leaves += ["^ ", "^ ", "~", "^", ""]

    def tree(depth: int) -> Any:
        kind = chance.random()
        if depth == 0 or kind < 0.4:
            return chance.choice(leaves)
        if kind < 0.5:
            return chance.choice((None, True, 0, 1, -1, 2**53, 1.5))
        items = [tree(depth - 1) for _ in range(chance.choice((0, 1, 2, 2, 3, 5)))]
        if kind < 0.6:
            return {chance.choice(leaves): item for item in items}
        return [chance.choice(leaves[3:10]), items] if kind < 0.7 else items

    while True:
        yield json.dumps(tree(4))


def alternately(*sources: Iterator[AnyStr]) -> Iterator[AnyStr]:
    while True:
        for source in sources:
            yield next(source)


def gzipped(chance: random.Random) -> Iterator[bytes]:
    """Endless inputs: a message damaged before it is compressed, and after."""
    whole = [b"\0[:a]", *(b"\1" + gzip.compress(text.encode() * 20) for text in EDN[:20])]
    texts = (text.encode("utf-8", "surrogatepass") for text in damaged(EDN, EDN_BITS, chance))
    return alternately(
        (b"\0" + text for text in texts),
        (b"\1" + gzip.compress(text, 1) for text in texts),
        damaged(whole, MSGPACK_BITS, chance),
    )


class Outcome(NamedTuple):
    read: int
    refused: int
    slowest: float  # seconds of CPU that one input took


def check(packer: Any, text: str | bytes) -> bool:
    """Whether *text* was read; anything but reading well or refusing raises."""
    try:
        value = packer.unpack(text)
    except UnpackError:
        return False
    try:
        packed = packer.pack(value)
    except PackError as exc:
        if "nested" not in str(exc):
            raise
        return True
    assert typed(packer.unpack(packed)) == typed(value), packed
    return True


def run(count: int, seed: int = 0) -> dict[str, Outcome]:
    """What became of *count* inputs, by packer."""

    def texts(seeds: list[AnyStr], bits: list[AnyStr]) -> Iterator[AnyStr]:
        return damaged(seeds, bits, random.Random(seed))

    outcomes = {}
    packers: list[tuple[str, Any, Iterator[Any]]] = [
        ("edn", EdnPacker(), texts(EDN, EDN_BITS)),
        ("edn with bytes", EdnPacker(bytes_tag=True), texts(EDN, EDN_BITS)),
        ("json", JsonPacker(), texts(JSON, JSON_BITS)),
        (
            "transit",
            TransitPacker(),
            alternately(texts(TRANSIT, TRANSIT_BITS), trees(random.Random(seed))),
        ),
        ("msgpack", MsgpackPacker(), texts(MSGPACK, MSGPACK_BITS)),
        ("gzip", GzipPacker(), gzipped(random.Random(seed))),
    ]
    for label, packer, inputs in packers:
        read, slowest = 0, 0.0
        for text in watched(inputs, count):
            started = process_time()
            try:
                read += check(packer, text)
            except Exception as exc:
                raise AssertionError(f"{label}: {text!r}") from exc
            slowest = max(slowest, process_time() - started)
        outcomes[label] = Outcome(read, count - read, slowest)
    return outcomes


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, help="inputs for each packer")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    confine()
    for label, outcome in run(arguments.count, arguments.seed).items():
        read, refused, slowest = outcome
        print(f"{label}: {read} read, {refused} refused, the slowest in {slowest * 1000:.0f} ms")
    print(f"memory at the end: {memory():.0f} MiB")

"""Damaged messages are read well or refused, by every packer.

    python -m tests.fuzz.packers --count 1000000

Each input is a real message, cut, doubled, spliced and sprinkled with the syntax of its format.
It must be read or refused with `UnpackError`; and what is read must be written and read
back the same, types included (or refused with `PackError` for its depth alone).
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flask_chsk.errors import PackError, UnpackError
from flask_chsk.packers import BuiltinPacker
from flask_chsk.packers.edn import EdnPacker
from flask_chsk.packers.json import JsonPacker
from tests.packers import typed

VECTORS = Path(__file__).parents[1] / "packers" / "vectors" / "clojure-reader.jsonl"

EDN = [
    *(json.loads(line)["in"] for line in VECTORS.read_text(encoding="utf-8").splitlines()),
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


def damaged(seeds: list[str], bits: list[str], chance: random.Random) -> Iterator[str]:
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


def check(packer: BuiltinPacker[Any], text: str) -> bool:
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


def run(count: int, seed: int = 0) -> dict[str, tuple[int, int]]:
    """*count* inputs for each packer; how many were read and how many refused."""
    results = {}
    for label, packer, seeds, bits in (
        ("edn", EdnPacker(), EDN, EDN_BITS),
        ("edn with bytes", EdnPacker(bytes_tag=True), EDN, EDN_BITS),
        ("json", JsonPacker(), JSON, JSON_BITS),
    ):
        inputs = damaged(seeds, bits, random.Random(seed))
        read = 0
        for _ in range(count):
            text = next(inputs)
            try:
                read += check(packer, text)
            except Exception as exc:
                raise AssertionError(f"{label}: {text!r}") from exc
        results[label] = (read, count - read)
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, help="inputs for each packer")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for label, (read, refused) in run(arguments.count, arguments.seed).items():
        print(f"{label}: {read} read, {refused} refused")

"""Our Transit beside JavaScript's codec."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping, Set
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given

from flask_chsk.packers.transit import TransitPacker
from flask_chsk.values import Char, StrKey, Tagged
from tests.process import missing
from tests.unit.packers import typed
from tests.unit.packers.test_transit import K, S, mapped, packer, values

# JavaScript's codec -------------------------------------------------------------------------

JS = Path(__file__).parents[2] / "js"
ECHO = """
import readline from "node:readline";
import transit from "transit-js";
const reader = transit.reader("json");
const writers = [transit.writer("json"), transit.writer("json-verbose")];
for await (const line of readline.createInterface({ input: process.stdin })) {
  let answer;
  try {
    const value = reader.read(line);
    answer = writers.map((writer) => writer.write(value));
  } catch (error) {
    answer = String(error);
  }
  console.log(JSON.stringify(answer));
}
"""

Echo = Callable[[str], Any]


@pytest.fixture(scope="module")
def echo() -> Iterator[Echo]:
    """What transit-js reads in a text, as it writes it: in its compact and its verbose form."""
    if not (JS / "node_modules" / "transit-js").is_dir():
        missing("transit-js (make js installs it)")
    with subprocess.Popen(
        ["node", "--input-type=module", "--eval", ECHO],
        cwd=JS,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as node:
        assert node.stdin is not None and node.stdout is not None

        def echo(text: str) -> Any:
            node.stdin.write(text + "\n")  # type: ignore[union-attr]
            node.stdin.flush()  # type: ignore[union-attr]
            return json.loads(node.stdout.readline())  # type: ignore[union-attr]

        yield echo
        node.stdin.close()


def within_javascript(value: Any) -> Any:
    """*value*, or a near one that JavaScript's codec does not damage."""
    if type(value) is datetime:  # its verbose form has a year of three digits as such
        micros = value.microsecond // 1000 * 1000
        return value.replace(year=max(value.year, 1000), microsecond=micros)
    # It prints the shortest digits of a large float, which are an integer's, but another one's.
    return 0.5 if type(value) is float and value.is_integer() and abs(value) > 2**53 else value


def as_in_javascript(value: Any) -> Any:
    """*value* without what JavaScript does not tell apart."""
    if type(value) is float and value.is_integer():
        return int(value)
    return str(value) if type(value) in (Char, StrKey) else value


def transit_js_may_merge(value: Any) -> bool:
    """Whether a set, or the keys of a map, in *value* have several members that hold others.

    transit-js takes some of these for equal that are not: ``#{{} []}`` loses one of the two.
    """
    inside: list[Any] = []
    if isinstance(value, Mapping | Set):
        inside = list(value)
        holders = [one for one in inside if isinstance(one, Mapping | Set | tuple | Tagged)]
        if len(holders) > 1:
            return True
    if isinstance(value, Mapping):
        inside += value.values()
    elif isinstance(value, list | tuple):
        inside = list(value)
    elif type(value) is Tagged:
        inside = [value.value]
    return any(map(transit_js_may_merge, inside))


@given(value=values)
def test_javascript_s_codec_agrees(echo: Echo, value: Any) -> None:
    assume(not transit_js_may_merge(value))
    value = mapped(value, within_javascript)
    expected = typed(mapped(value, as_in_javascript))
    for text in echo(packer.pack(value)):
        assert typed(mapped(packer.unpack(text), as_in_javascript)) == expected


def test_javascript_s_codec_caches_as_we_read(echo: Echo) -> None:
    keys = [f"k{n}" for n in range(0, 3000, 2)] + ["😀😀", "é😀", "a😀b", "ab", "abc", "abcd"]
    value = [
        {StrKey(key): K(f"v{n}") for n, key in enumerate(keys * 2)},
        [{K(f"k{n % 40}"): Tagged("tag", S(f"s{n % 50}"))} for n in range(5000)],
        [{n % 3000 + 1000: {K("deep"): {n}}} for n in range(7000)],
        [{StrKey(key): n} for n, key in enumerate(keys * 2)],
    ]
    packer = TransitPacker(max_values=None)
    compact, verbose = echo(packer.pack(value))
    assert len(compact) < len(packer.pack(value))
    assert typed(packer.unpack(compact)) == typed(value)
    assert typed(packer.unpack(verbose)) == typed(value)

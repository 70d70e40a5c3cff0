"""No message costs much more than a plain one of its length: read, and packed again.

    python -m tests.fuzz.cost --count 10000

The oracle is the cost per byte: CPU time and the peak of memory, in units of what a plain message
(rows of a table, about as long, the same packer) costs in the same run. Inputs begin with the known
attacks, and those that cost most are kept and changed further: so the search climbs. What is over
`TIMES` is measured again three times before it counts, against a plain message measured again, too.

An input is ``prefix + unit * n + suffix``, as long as asked for; ``@`` in a text's unit is a number
that counts up, ``%`` the same number times ``2**61 - 1``, which all have one hash. The length of
what gzip compressed is that of what it inflates to.
"""

from __future__ import annotations

import argparse
import gc
import gzip
import random
import tracemalloc
from collections.abc import Callable, Iterator
from time import process_time_ns
from typing import Any, NamedTuple

from flask_chsk.errors import PackError, UnpackError
from flask_chsk.packers.edn import EdnPacker
from flask_chsk.packers.gzip import GzipPacker
from flask_chsk.packers.json import JsonPacker
from flask_chsk.packers.msgpack import MsgpackPacker
from flask_chsk.packers.transit import TransitPacker
from flask_chsk.protocol.push import CANONICAL
from tests.fuzz.packers import EDN_BITS, JSON_BITS, MSGPACK_BITS, TRANSIT_BITS
from tests.fuzz.watch import confine, watched

# What a message may cost, of what a plain one of its length does. MessagePack comes near: it has a
# value, even a map, in one byte, where a plain message has ten bytes a value. Others stay below 20.
TIMES = 48
LENGTH = 8000
PRIME = 2**61 - 1

Data = str | bytes


class Packers(NamedTuple):
    """What an input is read by, and what it may be packed by after."""

    read: Any
    write: list[Any]


GZIPPED = {
    "edn": GzipPacker(EdnPacker()),
    "json": GzipPacker(JsonPacker()),
    "transit": GzipPacker(TransitPacker()),
    "msgpack": GzipPacker(MsgpackPacker()),
}
READERS: dict[str, Any] = {
    "edn": EdnPacker(),
    "json": JsonPacker(),
    "transit": TransitPacker(),
    "msgpack": MsgpackPacker(),
}
# What refuses too many values takes its time, too; an input of LENGTH has not so many as usual.
FEW_VALUES = {name: type(reader)(max_values=200) for name, reader in READERS.items()}
WRITERS: dict[str, Any] = {**READERS, "canonical": CANONICAL, "gzip": GZIPPED["edn"]}


class Recipe(NamedTuple):
    """How an input of any length is made."""

    prefix: Data
    unit: Data
    suffix: Data
    depth: int = 0  # prefix and suffix so many times, around units, with *core* inside
    core: str = "nil"

    def made(self, length: int) -> Any:
        prefix: Any = self.prefix
        unit: Any = self.unit
        suffix: Any = self.suffix
        around = len(prefix) + len(suffix)
        if self.depth:  # units inside each level
            levels = min(self.depth, length // (around + len(unit) or 1) + 1)
            per_level = max(1, (length // levels - around) // (len(unit) or 1))
            out: Any = b"\xc0" if isinstance(prefix, bytes) else self.core
            for level in reversed(range(levels)):
                out = prefix + out + _units(unit, per_level, level * per_level) + suffix
            return out
        count = max(1, (length - around) // (len(unit) or 1))
        made = _units(unit, count)
        if isinstance(prefix, bytes):
            made = made[:length]
            prefix = prefix.replace(b"NNNN", count.to_bytes(4, "big"))
            prefix = prefix.replace(b"LLLL", (len(made) + 5).to_bytes(4, "big"))
        return prefix + made + suffix


def _units(unit: Any, count: int, start: int = 0) -> Any:
    if isinstance(unit, bytes):
        return unit * count
    if "@" not in unit and "%" not in unit:
        return unit * count
    return "".join(
        unit.replace("@", str(n)).replace("%", str(n * PRIME)) for n in range(start, start + count)
    )


def known() -> dict[str, list[Recipe]]:
    """Attacks that worked, or could be thought of; by what they are read by."""
    name = "n" * 400
    edn = [
        Recipe("[[:t/x #:" + name + "{", ":k@ 1 ", "}] nil]"),
        Recipe("[[:t/x #:" + name + "{", "k@ 1 ", "}] nil]"),
        Recipe("#{", "% ", "}"),
        Recipe("{", "% 1 ", "}"),
        Recipe("[", "#{0 %}", "]"),
        Recipe("#{", "#{0 2305843009213693951 %}", "}"),
        Recipe("#{", "[0 %]", "}"),
        Recipe("#{", "{:a %}", "}"),
        Recipe("#{", "@/1000003 ", "}"),
        Recipe("{", "@M 1 ", "}"),
        Recipe("[", "1E6144M ", "]"),
        Recipe("[", "1" * 1000 + "N ", "]"),
        Recipe("[", "36r" + "z" * 650 + " ", "]"),
        Recipe("[", "9" * 500 + "/" + "7" * 500 + " ", "]"),
        Recipe("[", '#inst "2024" ', "]"),
        Recipe("[", '#inst "2024-02-29T12:34:56.789-00:00" ', "]"),
        Recipe("[", '#uuid "00000000-0000-0000-0000-000000000001" ', "]"),
        Recipe("[", "#a/b 1 ", "]"),
        Recipe("[", "#_ 1 ", "]"),
        Recipe("[1", ";\n", "]"),
        Recipe("[", ":a@/b@ ", "]"),
        Recipe("[:", "a", "]"),
        Recipe("[:", "a:", "a]"),
        Recipe("[", "a@ ", "]"),
        Recipe("[", "\\a ", "]"),
        Recipe("[", "^a[]", "]"),
        Recipe('["', "\\101", '"]'),
        Recipe('["', "\\n", '"]'),
        Recipe('["', "\\u00e9", '"]'),
        Recipe('["', "\\\\/", '"]'),
        Recipe('["', "\0", '"]'),
        Recipe("[", "[]", "]"),
        Recipe("[", "#{}", "]"),
        Recipe("[", "{{} 1}", "]"),
        Recipe("[", "{#{[]} 1}", "]"),
        Recipe("#{", " 1", "}", depth=90),
        Recipe("#{", " @ #{% 0}", "}", depth=90),
        Recipe("{", " @ 1", " 1}", depth=90),
        Recipe("{:a ", ' [@] 1 "b@ c" 2', "}", depth=60),
        Recipe("[[#{", "##NaN ", "}]]"),
        Recipe("#{#{##NaN ##NaN} ", " @ 1", "}", depth=90),
        Recipe("[\\", "", "]"),
    ]
    unterminated = Recipe('["' + "," * 250, '\\"', "]")
    json = [
        Recipe("[", "[],", "1]"),
        Recipe("[", '{"a":1},', "1]"),
        Recipe('["', "\\n", '"]'),
        Recipe('["', ",", '"]'),
        Recipe('["', "\\ud83d\\ude00", '"]'),
        Recipe("[", "9" * 1000 + ",", "1]"),
        Recipe("[", "0." + "9" * 1000 + ",", "1]"),
        Recipe('{"a":', ',"b c@":1', "}", depth=60, core="null"),
        Recipe("{", '"k@":1,', '"":1}'),
        Recipe("[", "[", "]"),
        unterminated,
    ]
    transit = [
        Recipe(f'[["^ ","~:{name}",1],', '["^ ","^0",1],', "1]"),
        Recipe(f'["~:{name}",', '"^0",', "1]"),
        Recipe(f'[["~#{name}",1],', '["^0",1],', "1]"),
        Recipe(f'[["^ ","~b{name}",1],', '["^ ","^0",1],', "1]"),
        Recipe('["~#set",[', '"~n%",', "1]]"),
        Recipe('["~#set",[', '["~#set",["~n%",0]],', "1]]"),
        Recipe('["~#cmap",[', '["~#ratio",["~n%","~n7"]],1,', "1,1]]"),
        Recipe("[", '["~#ratio",["~n@","~n7"]],', "1]"),
        Recipe("[", '"~f1E6144",', "1]"),
        Recipe("[", '"~u00000000-0000-0000-0000-000000000001",', "1]"),
        Recipe("[", '["~#t","2024-02-29T12:34:56.789Z"],', "1]"),
        Recipe("[", '"~m@",', "1]"),
        Recipe("[", '["^ "],', "1]"),
        Recipe("[", '["~#cmap",[["^ "],1]],', "1]"),
        Recipe('["^ ","~:a",', ',"~i@",1,"b@ c",2', "]", depth=60, core="null"),
        Recipe('["~#cmap",["~:a",', ',[@],1,"b@ c",2', "]]", depth=45, core="null"),
        Recipe('["~#set",[1,', ",@", "]]", depth=45, core="null"),
        Recipe("[", '"~:@ a",', "1]"),
        Recipe("[", '"~$a@",', "1]"),
        Recipe("[", '{"~#point":1},', "1]"),
        unterminated,
    ]
    long_key = b"\xc8\x01\x00\x00" + b"k" * 256
    msgpack = [
        Recipe(b"\x92\x81" + long_key + b"\x01\xddNNNN", b"\x81\xd4\x08\x00\xc0", b""),
        Recipe(b"\xddNNNN", b"\x90", b""),
        Recipe(b"\xddNNNN", b"\x80", b""),
        Recipe(b"\xddNNNN", b"\xd4\x04\x90", b""),
        Recipe(b"\xddNNNN", b"\x81\x80\xc0", b""),
        Recipe(b"\xddNNNN", b"\x81\xd4\x04\x90\xc0", b""),
        Recipe(b"\xddNNNN", b"\xc7\x03\x03\x92\x01\x03", b""),
        Recipe(b"\xddNNNN", b"\xd4\x00a", b""),
        Recipe(b"\xddNNNN", b"\xd4\x01a", b""),
        Recipe(b"\xddNNNN", b"\xd6\xff\x00\x00\x00\x00", b""),
        Recipe(b"\xddNNNN", b"\xc7\x24\x0900000000-0000-0000-0000-000000000001", b""),
        Recipe(b"\xc9LLLL\x05", b"\x00\x00\x00\x01", b""),
        Recipe(b"\xddNNNN", b"\xca\x3f\x80\x00\x00", b""),
        Recipe(b"\xddNNNN", b"\xc4\x00", b""),
        Recipe(b"\x91" * 90 + b"\xddNNNN", b"\xc0", b""),
        Recipe(b"\xddNNNN", b"\xd5\x00 a", b""),
    ]
    return {"edn": edn, "json": json, "transit": transit, "msgpack": msgpack}


BITS: dict[str, list[Any]] = {
    "edn": EDN_BITS + ["@", "%", " ", "#{", "{", "}", "[", "]", "1"],
    "json": JSON_BITS + ["@"],
    "transit": TRANSIT_BITS + ["@", "%"],
    "msgpack": MSGPACK_BITS,
}


def plain(packer: Any, length: int) -> Any:
    """A message of about *length* that nobody minds."""
    row = {"id": 1000, "name": "Item 1", "price": 1.25, "tags": ["a", "b"], "due": None}
    one = len(READERS.get(packer.name, packer).pack([row])) - 2
    return packer.pack([row] * (length // one + 1))


def changed(recipe: Recipe, others: list[Recipe], bits: list[Any], chance: random.Random) -> Recipe:
    parts: list[Any] = [recipe.prefix, recipe.unit, recipe.suffix]
    for _ in range(chance.choice((1, 1, 2, 3))):
        at = chance.choice((0, 1, 1, 1, 2))
        part = parts[at]
        start, end = sorted((chance.randint(0, len(part)), chance.randint(0, len(part))))
        match chance.randrange(5):
            case 0:
                part = part[:start] + part[end:]
            case 1:
                part = part[:start] + chance.choice(bits) + part[start:]
            case 2:
                part = part[:end] + part[start:end] + part[end:]
            case 3:
                other = chance.choice(others)
                part = part[:start] + (other.prefix, other.unit, other.suffix)[at] + part[end:]  # type: ignore[operator]
            case _:
                part = part[:start] + chance.choice(bits) + part[end:]
        parts[at] = part[:1200]
    depth = recipe.depth if chance.random() < 0.9 else chance.choice((0, 0, 5, 40, 90))
    return Recipe(*parts, depth, recipe.core)


class Cost(NamedTuple):
    """Of one call: nanoseconds of CPU, and bytes of memory at its peak."""

    time: float
    memory: float


def measured(call: Callable[[], object], times: int) -> Cost:
    """The least of *times* runs: what more they took was the machine's."""
    time = float("inf")
    for _ in range(times):
        started = process_time_ns()
        call()
        time = min(time, process_time_ns() - started)
    tracemalloc.start()
    try:
        call()
        memory = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return Cost(time, memory)


def quietly(call: Callable[[Any], Any], *args: Any) -> Callable[[], object]:
    def run() -> object:
        try:
            return call(*args)
        except (PackError, UnpackError):
            return None

    return run


class Meter:
    """Costs per byte, in units of a plain message's."""

    def __init__(self) -> None:
        self._plain: dict[str, Cost] = {}

    def forget(self) -> None:
        """Measure plain messages again."""
        self._plain.clear()

    def calls(self, name: str, data: Any) -> Iterator[tuple[str, Callable[[], object]]]:
        """Reading *data*, compressed, too; and packing what that gives, by every packer."""
        reader, gzipped = READERS[name], GZIPPED[name]
        raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
        yield f"read {name}", quietly(FEW_VALUES[name].unpack, data)
        yield f"read {name}", quietly(reader.unpack, data)
        yield f"read gzip-{name}", quietly(gzipped.unpack, b"\1" + gzip.compress(raw, 1))
        value = quietly(reader.unpack, data)()
        if value is not None:
            for writer, packer in WRITERS.items():
                yield f"pack {writer}", quietly(packer.pack, value)

    def plain(self, label: str, times: int) -> Cost:
        """What a byte of a plain message costs."""
        found = self._plain.get(label)
        if found is None:
            what, name = label.split()
            packer = WRITERS.get(name) or READERS.get(name)
            if what == "read":
                name = name.removeprefix("gzip-")
                data = plain(READERS[name], LENGTH)
                call = dict(self.calls(name, data))[label]
            else:
                data = plain(packer, LENGTH)
                call = quietly(packer.pack, packer.unpack(data))
                if name == "gzip":
                    data = data[1:]
            cost = measured(call, times)
            found = self._plain[label] = Cost(cost.time / len(data), cost.memory / len(data))
        return found

    def worst(self, name: str, data: Any, times: int = 1) -> tuple[float, str]:
        """The most that *data* costs, and at what."""
        gc.disable()
        try:
            most, at = 0.0, ""
            for label, call in self.calls(name, data):
                cost = measured(call, times)
                unit = self.plain(label, max(times, 5))
                length = max(len(data), 1024)  # what every call costs is no matter of length
                for what, ratio in (
                    ("time", cost.time / length / unit.time),
                    ("memory", cost.memory / length / unit.memory),
                ):
                    if ratio > most:
                        most, at = ratio, f"{what} to {label}"
            return most, at
        finally:
            gc.enable()

    def surely(self, name: str, data: Any) -> tuple[float, str]:
        """The same, where a machine that is busy with others is no reason: the least of three."""
        rounds = []
        for _ in range(3):
            self.forget()
            rounds.append(self.worst(name, data, 5))
        return min(rounds)


class Outcome(NamedTuple):
    ratio: float
    at: str
    data: Any


def search(
    name: str, count: int, seed: int = 0, meter: Meter | None = None
) -> tuple[Outcome, list[Recipe]]:
    """The worst of *count* inputs for the packer *name*, and the recipes that were kept.

    :raises AssertionError: for one over `TIMES`.
    """
    chance = random.Random(seed)
    meter = meter or Meter()
    attacks = known()[name]
    kept: list[tuple[float, Recipe]] = []
    worst = Outcome(0.0, "", None)

    def recipes() -> Iterator[Recipe]:
        yield from attacks
        while True:
            _, parent = chance.choice(kept)
            yield changed(parent, attacks, BITS[name], chance)

    for recipe in watched(recipes(), count, growth=64):
        data = recipe.made(LENGTH)
        ratio, at = meter.worst(name, data)
        if ratio > TIMES:
            ratio, at = meter.surely(name, data)
            assert ratio <= TIMES, f"{name}: {ratio:.0f} times a plain message's {at}: {recipe}"
        if ratio > worst.ratio:
            worst = Outcome(ratio, at, recipe)
        kept.append((ratio, recipe))
        if len(kept) > 60:
            kept.sort(key=lambda one: -one[0])
            del kept[30:]
    return worst, [recipe for _, recipe in kept]


def run(count: int, seed: int = 0) -> dict[str, Outcome]:
    """The worst of *count* inputs for each packer."""
    return {name: search(name, count, seed)[0] for name in READERS}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="inputs for each packer")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    confine()
    for name, outcome in run(arguments.count, arguments.seed).items():
        ratio, at, recipe = outcome
        print(f"{name}: at most {ratio:.1f} times a plain message's {at}: {recipe}")

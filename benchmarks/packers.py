"""What packing costs: bytes and CPU per message, beside the standard library's JSON.

python -m benchmarks.packers
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.frames import microseconds
from flask_chsk.packers.edn import EdnPacker
from flask_chsk.packers.gzip import GzipPacker
from flask_chsk.packers.json import JsonPacker
from flask_chsk.packers.msgpack import MsgpackPacker
from flask_chsk.packers.transit import TransitPacker
from flask_chsk.values import Keyword

PACKERS: dict[str, Any] = {
    "EDN": EdnPacker(),
    "JSON": JsonPacker(),
    "Transit": TransitPacker(),
    "MessagePack": MsgpackPacker(),
    "gzip, EDN": GzipPacker(),
}

CHAT = [[Keyword("chat/say"), {"text": "hello, world", "room": "general", "n": 42}], "c1"]
ORDERS = [
    [
        Keyword("orders/page"),
        [
            {
                "id": 1000 + n,
                "name": f"Item {n}",
                "price": n * 1.25,
                "tags": ["a", "b"],
                "due": None,
            }
            for n in range(30)
        ],
    ],
    None,
]
LONG_TEXT = [[Keyword("doc/saved"), {"text": 'A line with "quotes" and é.\n' * 300}], None]


MESSAGES = {"chat event": CHAT, "30 orders": ORDERS, "8 KiB text": LONG_TEXT}


def writer(packer: Any, message: Any) -> Callable[[], str | bytes]:
    """What makes *message* as it leaves, gzip's compressed."""
    if not hasattr(packer, "finish"):
        return lambda: packer.pack(message)
    return lambda: packer.finish(packer.pack(message))


def figures(message: Any) -> dict[str, Callable[[], object]]:
    """What is measured, by its name."""
    calls: dict[str, Callable[[], object]] = {}
    for name, packer in PACKERS.items():
        write = writer(packer, message)
        calls[f"{name} read"] = partial(packer.unpack, write())
        calls[f"{name} write"] = write
    text = json.dumps(message)
    calls["json.loads"] = lambda: json.loads(text)
    calls["json.dumps"] = lambda: json.dumps(message)
    return calls


def main() -> None:
    for label, message in MESSAGES.items():
        costs = {name: microseconds(call) for name, call in figures(message).items()}
        print(f"{label:<12}{'bytes':>8}{'read µs':>10}{'write µs':>10}")
        for name, packer in PACKERS.items():
            data = writer(packer, message)()
            size = len(data.encode() if isinstance(data, str) else data)
            read, write = costs[f"{name} read"], costs[f"{name} write"]
            print(f"{name:<12}{size:>8}{read:>10.1f}{write:>10.1f}")
        size = len(json.dumps(message))
        read, write = costs["json.loads"], costs["json.dumps"]
        print(f"{'json':<12}{size:>8}{read:>10.1f}{write:>10.1f}\n")


if __name__ == "__main__":
    main()

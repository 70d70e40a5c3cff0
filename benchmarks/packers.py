"""What packing costs: CPU per message, beside the standard library's JSON.

python -m benchmarks.packers
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from benchmarks.frames import microseconds
from flask_chsk.packers.edn import EdnPacker
from flask_chsk.packers.json import JsonPacker
from flask_chsk.values import Keyword

EDN, JSON = EdnPacker(), JsonPacker()

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


def figures(message: Any) -> dict[str, Callable[[], object]]:
    edn, text = EDN.pack(message), JSON.pack(message)
    return {
        "EDN read": lambda: EDN.unpack(edn),
        "EDN write": lambda: EDN.pack(message),
        "JSON read": lambda: JSON.unpack(text),
        "JSON write": lambda: JSON.pack(message),
        "json.loads": lambda: json.loads(text),
        "json.dumps": lambda: json.dumps(message),
    }


def main() -> None:
    print("µs of CPU  ", *(f"{name:>11}" for name in figures(CHAT)))
    for label, message in (
        ("chat event", CHAT),
        ("30 orders", ORDERS),
        ("8 KiB text", LONG_TEXT),
    ):
        costs = (microseconds(call) for call in figures(message).values())
        print(f"{label:<11}", *(f"{cost:>11.2f}" for cost in costs))


if __name__ == "__main__":
    main()

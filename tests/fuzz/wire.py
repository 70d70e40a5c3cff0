"""Damaged messages of every generation mean something, or are bad, in every packer.

    python -m tests.fuzz.wire --count 1000000

Each input is a message of a client, damaged as tests/fuzz/packers.py damages texts, and read as the
server reads it. Whatever it was, it must come out as one of the five kinds, shaped as the
server takes them for granted; and an event that was read must survive being said again.
"""

from __future__ import annotations

import argparse
import random
import sys
from typing import Any

from flask_chsk.errors import PackError
from flask_chsk.packers import make
from flask_chsk.protocol.event import Event, is_event
from flask_chsk.protocol.session import (
    BAD_EVENT,
    BAD_PACKAGE,
    BAD_PACKAGE_SHOWN,
    BATCHED,
    KEY_LENGTH,
    Answered,
    Batched,
    Pinged,
    Ponged,
    Received,
    read_cursor,
    read_message,
)
from flask_chsk.protocol.wire import WIRES, Composer
from tests.fuzz.packers import EDN_BITS, JSON_BITS, damaged
from tests.fuzz.watch import confine, watched

EDN = [
    '[[:chat/say {:text "hi"}] nil]',
    '[[:chat/say {:text "hi"}] "c1"]',
    "[[:chat/say [1 2.5 #{:a} nil]] :ajax]",
    '[[:chat/say 1] "c" {:key "k1"}]',
    '+[[:chat/say 1] "c1"]',
    "-[:chat/say 1]",
    "-:chsk/ws-ping",
    '[[:chsk/ws-ping] "p"]',
    "[[:chsk/ws-pong] nil]",
    '[[:chsk/answer ["id" {:a 1}]] nil]',
    '[[:chsk/answer ["id" nil "error"]] nil]',
    "[[:chsk/batch [[:chat/say 1] [:chat/say 2] [:chsk/ws-ping]]] nil]",
    "[[:chsk/close {:code 4003}] nil]",
    "[[:chsk/handshake [nil nil nil]] nil]",
]
JSON = [
    '[["chat/say",{"text":"hi"}],null]',
    '[["chat/say",1],"c1",{"key":"k"}]',
    '[["chsk/ws-ping"],"p"]',
    '[["chsk/answer",["id",1]],null]',
    '[["chsk/batch",[["a/b",1],["a/b"]]],null]',
    '+[["chat/say",1],"c1"]',
]
EVENT_BITS = [":chsk/", "chsk/batch", ":a/b", "[:a/b]", ' "c" ', "{:key ", "[[", "]]", "+", "-"]
CURSOR_BITS = [*"0123456789abcdef:+,. -\0é٣", "e7f3:", "1042", "9" * 16, "9" * 40]


def check(composer: Composer, text: str) -> bool:
    """Whether *text* was more than a bad package; anything that is not as it must be raises."""
    incoming = read_message(composer, text)
    if isinstance(incoming, Batched):
        assert len(incoming.events) <= BATCHED
        for received in incoming.events:
            assert received.cb is None
            check_received(received)
    elif isinstance(incoming, Received):
        check_received(incoming)
        say_again(composer, incoming)
        return incoming.event.id != BAD_PACKAGE
    elif isinstance(incoming, Answered):
        assert type(incoming.id) is str
        assert incoming.error is None or type(incoming.error) is str
    else:
        assert isinstance(incoming, Pinged | Ponged)
    return True


def check_received(received: Received) -> None:
    event = received.event
    assert isinstance(event, Event)
    assert is_event(list(event)) or is_event([event.id])
    if event.id.startswith("chsk/"):
        assert event.id in (BAD_EVENT, BAD_PACKAGE), event
    if event.id == BAD_PACKAGE:
        assert type(event.data) is str
        assert len(event.data) <= BAD_PACKAGE_SHOWN
    if received.key is not None:
        assert type(received.key) is str
        assert len(received.key) <= KEY_LENGTH


def say_again(composer: Composer, received: Received) -> None:
    """The callback id must go back as it came, and so must what a handler may echo."""
    if received.event.id == BAD_PACKAGE:
        return
    try:
        message = composer.message(received.event.data, received.cb)
    except PackError as error:
        assert "nested" in str(error), error  # what an answer puts around it is too deep then
        return
    value, cb, _ = composer.read(message)
    assert (value, cb) == (received.event.data, received.cb) or _has_nan(message)


def _has_nan(message: Any) -> bool:
    return "NaN" in message


def run(count: int, seed: int = 0) -> dict[str, tuple[int, int]]:
    """*count* inputs for each packer and generation; how many were read and how many were bad."""
    results = {}
    for packer, seeds, bits in (("edn", EDN, EDN_BITS), ("json", JSON, JSON_BITS)):
        composers = [Composer(make(packer), wire) for wire in WIRES.values()]
        chance = random.Random(seed)
        inputs = damaged(seeds, [*bits, *EVENT_BITS * 3], chance)
        read = 0
        for number, text in enumerate(watched(inputs, count)):
            try:
                read += check(composers[number % len(composers)], text)
            except Exception as exc:
                raise AssertionError(f"{packer}: {text!r}") from exc
        results[packer] = (read, count - read)
    chance = random.Random(seed)
    read = 0
    for _ in watched(range(count), count):
        cursor = "".join(chance.choices(CURSOR_BITS, k=chance.randint(0, 8)))
        offset = read_cursor(cursor, "e7f3", 10)
        assert offset is None or (offset >= 10 and cursor == f"e7f3:{offset}"), cursor
        read += offset is not None
    results["cursors"] = (read, count - read)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000, help="inputs of each kind")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    confine()
    for label, (read, bad) in run(options.count, options.seed).items():
        print(f"{label}: {read} read, {bad} bad")
    return 0


if __name__ == "__main__":
    sys.exit(main())

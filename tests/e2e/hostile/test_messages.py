"""Frames and messages that no honest client sends, on an open WebSocket."""

from __future__ import annotations

import pytest

from flask_chsk.protocol.frames import CLOSE, CONTINUATION, PING, TEXT, build
from tests.e2e.hostile.conftest import Target
from tests.e2e.hostile.wire import MASK, binary, text

BROKEN = {
    "unmasked": (build(TEXT, b"[[:test/echo 1] nil]"), 1002),
    "a reserved bit, as compression sets it": (b"\xc1\x80" + MASK, 1002),
    "a reserved opcode": (build(0x3, b"x", mask=MASK), 1002),
    "a fragmented ping": (build(PING, b"x", mask=MASK, fin=False), 1002),
    "a ping of 126 bytes": (build(PING, b"x" * 126, mask=MASK), 1002),
    "a continuation of nothing": (build(CONTINUATION, b"x", mask=MASK), 1002),
    "a message inside another": (
        build(TEXT, b"x", mask=MASK, fin=False) + text("y"),
        1002,
    ),
    "a length in too many bytes": (b"\x81\xfe\x00\x01" + MASK + b"x", 1002),
    "a length of 2**63": (b"\x81\xff" + b"\xff" * 8, 1002),
    "a gigabyte announced": (b"\x82\xff" + (1 << 30).to_bytes(8, "big") + MASK, 1009),
    "one byte too many": (b"\x81\xff" + (1024 * 1024 + 1).to_bytes(8, "big") + MASK, 1009),
    "text that is not UTF-8": (text(b"\xc0\xaf"), 1007),
    "half a close code": (build(CLOSE, b"\x03", mask=MASK), 1002),
    "a close code of nobody's": (build(CLOSE, b"\x03\xed", mask=MASK), 1002),
    "a request in plain HTTP": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 1002),
    "noise": (bytes(range(200, 256)) * 20, 1002),
}


@pytest.mark.parametrize(("data", "code"), BROKEN.values(), ids=BROKEN)
def test_a_broken_frame_closes(target: Target, data: bytes, code: int) -> None:
    with target.counts("protocol_errors"), target.opened() as wire:
        wire.send(data)
        closed = wire.closed()
    assert closed is not None
    assert closed[0] == code


UNREADABLE = [
    "",
    " ",
    "nil",
    "[",
    "]",
    "[]",
    "{}",
    "[[:test/echo 1] nil",
    "[[:test/echo 1] nil] [[:test/echo 1] nil]",
    "[[:test/echo [" + "1 " * 30_000 + "]] nil]",
    "[[:test/echo #:" + "n" * 20_000 + "{" + "".join(f":k{n} 1 " for n in range(8000)) + "}] nil]",
    f"[[:test/echo 1] {'[' * 98}{']' * 98}]",
    f"[[:chsk/ws-ping] {'[' * 98}{']' * 98}]",
    f"[[:no/handler] {'[' * 98}{']' * 98}]",
    '[[:test/echo "\\ud800"] nil]',
    '[[:test/echo #inst "x"] nil]',
    '[[:test/echo #uuid "x"] nil]',
    "[[:test/echo 1/0] nil]",
    "[[:test/echo {:a}] nil]",
    "[[:test/echo {:a 1 :a 2}] nil]",
    "[[:test/echo #{1 1}] nil]",
    '[[:test/echo {:a 1 "a" 2}] nil]',
    "[[:test/echo " + "9" * 100_000 + "] nil]",
    "[[:test/echo 1e999999999M] nil]",
    "[" * 100_000,
    "[" * 101 + "]" * 101,
    "#_" * 100_000 + "1",
    "^{:a 1}" * 10_000 + "[1]",
    "#a " * 10_000 + "1",
    "[[:test/echo #{" + " ".join(str((2**61 - 1) * n) for n in range(30_000)) + "}] nil]",
    '[[:test/echo "' + "x" * 1_000_000,
    "\0" * 10_000,
    "+",
    "-",
    "+[",
    "-:chsk/ws-ping",
]


@pytest.mark.parametrize("message", UNREADABLE, ids=range(len(UNREADABLE)))
def test_what_cannot_be_read_harms_nobody(target: Target, message: str) -> None:
    with target.opened() as wire:
        wire.send(text(message) + binary(message.encode()))
        assert wire.ask("[:test/echo :still-here]") == "still-here"


NO_EVENTS = [
    "[nil nil]",
    "[1 nil]",
    "[[] nil]",
    "[[:test/echo 1 2 3] nil]",
    "[[:echo 1] nil]",
    "[[test/echo 1] nil]",
    '[["test/echo" 1] nil]',
    "[[[:test/echo 1]] nil]",
    "[{:test/echo 1} nil]",
    "[[:chsk/handshake [nil nil]] nil]",
    "[[:chsk/state 1] nil]",
    '[[:chsk/uidport-open "ann"] nil]',
    '[[:chsk/uidport-close "ann"] nil]',
    "[[:chsk/close] nil]",
    '[[:chsk/joined "topic"] nil]',
    "[[:chsk/bad-event 1] nil]",
    "[[:chsk/ask [1 [:a/b 1]]] nil]",
    "[[:chsk/batch] nil]",
    "[[:chsk/batch 1] nil]",
    "[[:chsk/batch [1 [] [:a] [:chsk/batch [[:a/b]]] [:chsk/ws-ping] nil]] nil]",
    "[[:chsk/answer] nil]",
    "[[:chsk/answer []] nil]",
    "[[:chsk/answer [1 2]] nil]",
    "[[:chsk/answer {:a 1}] nil]",
    "[[:chsk/ws-pong 1] {:cb [1 2 #{3}]}]",
    "[[:test/note 1] nil {:key 1}]",
    '[[:test/note 1] nil {:key "' + "k" * 100_000 + '"}]',
    "[[:test/note 1] nil " + "[" * 50 + "]" * 50 + "]",
    '[[:test/note 1] nil {:key "a"} 4 5 6 7]',
]


@pytest.mark.parametrize("message", NO_EVENTS, ids=range(len(NO_EVENTS)))
def test_what_is_no_event_harms_nobody(target: Target, message: str) -> None:
    with target.opened() as wire:
        wire.send(text(message))
        assert wire.ask("[:test/echo :still-here]") == "still-here"


def test_a_callback_id_of_any_shape_comes_back_as_it_was(target: Target) -> None:
    with target.opened() as wire:
        wire.send(text('[[:test/echo 1] {[1 #{2}] "x"}]'))
        assert wire.read() == '[1 {[1 #{2}] "x"}]'


@pytest.mark.parametrize(
    "message", ["", "nul", '[["test/echo", NaN], null]', '{"a":1,"a":2}', "[" * 100_000, "1e999"]
)
def test_unreadable_json_harms_nobody(target: Target, message: str) -> None:
    with target.wire() as wire:
        wire.send_upgrade("/chsk?client-id=attacker&packer=json")
        wire.send(text(message))
        wire.send(text('[["test/echo", 5], "c"]'))
        assert wire.read() == '[5,"c"]'


def test_json_is_packed_for_others_in_the_time_that_it_took_to_read(target: Target) -> None:
    """A key that is no keyword, behind a map in a map in a map: each was once packed twice."""
    data = '{"a":' * 60 + "1" + ',"no keyword":1}' * 60
    with target.wire() as wire:
        wire.send_upgrade("/chsk?client-id=attacker&packer=json")
        wire.send(text(f'[["test/push",{data}],null]'))
        assert data in wire.read()

"""Peers that say little, or nothing any more: slow heads and bodies, half-open sockets."""

from __future__ import annotations

import time

from tests.e2e.hostile.conftest import Target
from tests.e2e.hostile.wire import EDN, head, text, upgrade
from tests.process import eventually

# The bystander sends no pong, and may stand still for a moment.
CONFIG = {"CHSK_WS_KALIVE": 0.5, "CHSK_WS_PING_TIMEOUT": 5.0}
POST = {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": "1000"}


def test_a_slow_head_gets_no_answer_and_holds_nobody_up(target: Target) -> None:
    """gunicorn's part, by ``--keep-alive``; ours comes when the head is here."""
    wires = [target.wire() for _ in range(100)]
    request = upgrade("/chsk?client-id=slow")
    for wire in wires:
        wire.send(request[:40])
    for byte in request[40:60]:
        for wire in wires:
            wire.try_send(bytes([byte]))
        time.sleep(0.02)
    assert [wire.answer()[0] for wire in wires] == [0] * len(wires)


def test_a_head_in_many_pieces_is_a_head(target: Target) -> None:
    with target.wire() as wire:
        request = upgrade("/chsk?client-id=pieces") + text("[[:test/echo 1] 1]")
        for start in range(0, len(request), 7):
            wire.send(request[start : start + 7])
        assert wire.answer()[0] == 101
        wire.messages += wire.reader.feed(wire.rest)
        assert EDN.unpack(wire.read())[0][0] == "chsk/handshake"
        assert wire.read() == "[1 1]"


def test_slow_bodies_hold_nobody_up_and_leave_nothing(target: Target) -> None:
    """A body has 60 seconds in all, far longer than a test may wait."""
    descriptors = target.server.descriptors()
    for _ in range(200):
        target.wire().send(head("/chsk?client-id=slow", {**POST}, "POST") + b"ppstr=")
    for wire in target.wires:
        wire.send(b"x")
    with target.opened("quick") as wire:
        assert wire.ask("[:test/echo 1]") == 1
    target.cut()
    eventually(lambda: target.server.descriptors() <= descriptors + 2)


def test_a_half_open_socket_is_closed_after_an_unanswered_ping(target: Target) -> None:
    with target.counts("pings_unanswered"), target.opened("silent") as wire:
        assert wire.read() == "[:chsk/ws-ping nil]"
        assert wire.closed() == (4000, "ping unanswered")


def test_part_of_a_frame_is_no_life(target: Target) -> None:
    with target.counts("pings_unanswered"), target.opened("drip") as wire:
        for byte in text('[[:test/note "' + "x" * 100 + '"] nil]')[:100]:
            if not wire.try_send(bytes([byte])):
                break
            time.sleep(0.1)


def test_who_vanishes_without_a_word_is_forgotten(target: Target) -> None:
    for number in range(50):
        wire = target.opened(f"vanished{number}", f"&uid=u{number}")
        wire.socket.shutdown(0)  # SHUT_RD: reads nothing, says nothing
    eventually(lambda: target.stats()["clients"] == 1)
    eventually(lambda: target.stats()["uids"] == 1)


def test_a_close_that_is_never_answered_ends_all_the_same(target: Target) -> None:
    descriptors = target.server.descriptors()
    for _ in range(20):
        target.opened("mute").send(b"\xff\xff")  # 1002, and our close frame waits
    eventually(lambda: target.server.descriptors() <= descriptors + 2)

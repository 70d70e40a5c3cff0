"""A peer that does not read costs at most its limit; one that pauses loses nothing."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.wire.conftest import Client, Wire
from tests.process import eventually

MIB = 1024 * 1024
FILLER = "x" * 20_000


@pytest.fixture(scope="module")
def wire(serve: Callable[..., Wire]) -> Wire:
    return serve(ws_kalive=5, ws_ping_timeout=2)


def deaf(peer: Client) -> None:
    """Open with little room to receive, and never read again."""
    peer.open()
    peer.socket.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)


def test_readers_that_never_read_cost_their_limit_and_are_closed(wire: Wire) -> None:
    """40 MB for each of four; a connection may keep 4 MiB, history 1 MiB for all."""
    peers = [wire.peer("deaf"), wire.sente("deaf"), wire.peer("deaf"), wire.sente("deaf")]
    for peer in peers:
        deaf(peer)
    healthy = wire.peer("healthy")
    healthy.open()
    wire.do("/send", to="deaf", count=100, of=20_000)  # what the process needs once
    before = wire.get("/stats")["rss"]
    for _ in range(100):
        wire.do("/send", to="deaf", count=20, of=20_000)
    grown = wire.get("/stats")["rss"] - before
    assert grown < 24 * MIB, f"{grown / MIB:.0f} MiB"
    assert healthy.ask("[:test/echo 1]") == 1
    eventually(lambda: wire.get("/stats")["too_slow"] == 2)  # Sente's: no history for them
    # Ours after 10 s, or, if a gap spared them the stall, when their pings are not answered.
    eventually(lambda: "deaf" not in wire.get("/uids")["any"], 60.0)
    stats = wire.get("/stats")
    assert stats.get("stalled", 0) + stats.get("pings_unanswered", 0) >= 2
    newcomer = wire.peer("newcomer")
    newcomer.open()
    assert newcomer.ask("[:test/echo 2]") == 2


def test_a_reader_of_sentes_that_pauses_gets_every_byte(serve: Callable[..., Wire]) -> None:
    wire = serve(max_outbox_bytes=64 * MIB)
    peer = wire.sente("pauses")
    deaf(peer)
    wire.do("/send", to="pauses", count=1000, of=20_000)
    items = [event[1] for event in peer.events(1000)]
    assert items == [[number, FILLER] for number in range(1000)]
    assert peer.ask("[:test/echo 1]") == 1


def test_a_reader_of_ours_that_pauses_catches_up_from_history(serve: Callable[..., Wire]) -> None:
    wire = serve(recovery_bytes=64 * MIB, recovery_events=2000)
    peer = wire.peer("pauses")
    deaf(peer)
    wire.do("/send", to="pauses", count=1000, of=20_000)
    items = [event[1] for event in peer.events(1000)]
    assert items == [[number, FILLER] for number in range(1000)]
    assert wire.get("/stats")["recovered"] > 0
    assert peer.ask("[:test/echo 1]") == 1


def test_replies_that_nobody_reads_have_their_limit_too(serve: Callable[..., Wire]) -> None:
    wire = serve(max_outbox_bytes=4 * MIB)
    peer = wire.peer("asks")
    deaf(peer)
    for number in range(40):
        peer.say("[:test/reply-large 1000000]", str(number))
    eventually(lambda: wire.get("/stats").get("too_slow") == 1)
    assert wire.get("/stats")["rss"] < 200 * MIB


def test_one_of_ours_that_was_too_slow_loses_no_push(serve: Callable[..., Wire]) -> None:
    """Its replies are gone with the socket; its pushes come again."""
    wire = serve(max_outbox_bytes=4 * MIB, recovery_events=1000)
    peer = wire.peer("both")
    peer.open()
    cursor = peer.cursor
    deaf(peer)
    wire.do("/send", to="both", count=10)
    for number in range(40):
        peer.say("[:test/reply-large 1000000]", str(number))
    wire.do("/send", to="both", start=10, count=10)
    eventually(lambda: wire.get("/stats").get("too_slow") == 1)
    peer.cursor = cursor
    assert peer.open()[3]["recovered"] is True
    assert [event[1] for event in peer.events(20)] == list(range(20))


def test_what_comes_for_sentes_client_that_is_away_has_its_limit(
    serve: Callable[..., Wire],
) -> None:
    wire = serve(max_outbox_bytes=4 * MIB, close_grace_ws=5)
    peer = wire.sente("away")
    peer.open()
    peer.cut()
    wire.do("/send", to="away", count=100, of=20_000)
    before = wire.get("/stats")["rss"]
    wire.do("/send", to="away", count=1000, of=20_000)
    stats: dict[str, Any] = wire.get("/stats")
    assert stats["rss"] - before < 12 * MIB
    assert stats["dropped_slow"] > 800
    peer.open()
    wire.do("/send", to="away", start=5000, count=1)
    while peer.read()[0][-1] != ["test/item", 5000]:
        pass

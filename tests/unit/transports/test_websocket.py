"""A client's WebSocket between its link and the server: turns, pings and what waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from flask_chsk.hub import SLICE
from flask_chsk.protocol import frames
from flask_chsk.protocol.generations import CURRENT
from flask_chsk.transports.budget import MemoryBudget
from flask_chsk.transports.websocket import WebSocket

MASK = b"mask"


class FakeLink:
    """A link that takes all bytes, or none while `stalled_since` is a time."""

    def __init__(self) -> None:
        self.sent: list[frames.Message] = []
        self.stalled_since: float | None = None
        self.reading = True
        self.closing_when_flushed = False
        self._reader = frames.FrameReader("client", 1 << 20)

    def write(self, data: bytes) -> bool:
        self.sent += self._reader.feed(data)
        return self.stalled_since is None

    def pause(self) -> None:
        self.reading = False

    def resume(self) -> None:
        self.reading = True

    def close_when_flushed(self, timeout: float) -> None:
        self.closing_when_flushed = True


class Owner:
    """An owner that notes what it receives; its hub's clock is turned by hand."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self.hub = self
        self.budget = MemoryBudget(1000, self.counters)
        self.time = 0.0
        self.later: list[Callable[[], object]] = []
        self.seen: list[Any] = []
        self.on_received: Callable[[WebSocket[Any]], object] = lambda websocket: None

    def now(self) -> float:
        return self.time

    def call_soon(self, fn: Callable[[], object]) -> None:
        self.later.append(fn)

    def run_later(self) -> None:
        later, self.later = self.later, []
        for fn in later:
            fn()

    def received(self, connection: Any, websocket: WebSocket[Any], data: Any) -> None:
        self.seen.append(data)
        self.on_received(websocket)

    def outgoing(self, connection: Any, websocket: WebSocket[Any]) -> bytes:
        return b""

    def count_close(self, connection: Any, code: int, reason: str) -> None:
        self.counters[f"closed_{code}"] += 1


class Socket:
    """A WebSocket with fakes on both sides."""

    def __init__(self) -> None:
        self.owner = Owner()
        self.link = FakeLink()
        self.alive = 0
        session: Any = SimpleNamespace(alive=self._alive, outbox=None, needs_replay=False)
        connection: Any = SimpleNamespace(session=session, generation=CURRENT)
        link: Any = self.link
        self.websocket: WebSocket[Any] = WebSocket(self.owner, connection, link, 1 << 20)  # type: ignore[arg-type]

    def _alive(self, now: float) -> None:
        self.alive += 1

    def reads(self, *messages: frames.Message) -> None:
        """The link reads all of *messages* at once."""
        self.websocket.data_received(b"".join(map(framed, messages)))


def framed(message: frames.Message) -> bytes:
    if isinstance(message, frames.Ping):
        return frames.build(frames.PING, message.payload, mask=MASK)
    if isinstance(message, frames.Close):
        return frames.build(frames.CLOSE, message.code.to_bytes(2, "big"), mask=MASK)
    assert isinstance(message, str)
    return frames.build(frames.TEXT, message.encode(), mask=MASK)


@pytest.fixture
def socket() -> Socket:
    return Socket()


def test_messages_of_one_read_arrive_in_order(socket: Socket) -> None:
    socket.reads("a", "b", "c")
    assert socket.owner.seen == ["a", "b", "c"]
    assert socket.link.reading


def test_each_ping_gets_its_pong_before_what_a_later_message_makes_leave(socket: Socket) -> None:
    socket.owner.on_received = lambda websocket: socket.link.write(frames.text_frame("reply"))
    socket.reads("a", frames.Ping(b"1"), frames.Ping(b"2"), "b", frames.Ping(b"3"))
    pongs = [frames.Pong(b"%d" % number) for number in (1, 2, 3)]
    assert socket.link.sent == ["reply", *pongs[:2], "reply", pongs[2]]


def test_pings_get_their_pongs_before_a_close(socket: Socket) -> None:
    socket.reads(frames.Ping(b"1"), frames.Close(4321))
    assert socket.link.sent == [frames.Pong(b"1"), frames.Close(4321)]


def test_of_a_thousand_pings_in_a_row_the_last_few_are_answered(socket: Socket) -> None:
    socket.reads(*[frames.Ping(b"%d" % number) for number in range(1000)])
    assert socket.link.sent == [frames.Pong(b"%d" % number) for number in range(984, 1000)]
    assert socket.alive == 1000


def test_a_peer_that_stalls_at_its_pongs_is_owed_the_last_one(socket: Socket) -> None:
    def stall(websocket: WebSocket[Any]) -> None:
        socket.link.stalled_since = 1.0

    socket.owner.on_received = stall
    socket.reads(frames.Ping(b"1"), "a", frames.Ping(b"2"), frames.Ping(b"3"), "b")
    assert socket.link.sent == [frames.Pong(b"1")]
    socket.link.stalled_since = None
    socket.websocket.link_writable()
    assert socket.link.sent == [frames.Pong(b"1"), frames.Pong(b"3")]


def test_a_stalled_peer_is_owed_one_pong_at_most(socket: Socket) -> None:
    socket.link.stalled_since = 1.0
    for number in range(1000):
        socket.reads(frames.Ping(b"%d" % number))
    assert socket.link.sent == []
    socket.link.stalled_since = None
    socket.websocket.link_writable()
    assert socket.link.sent == [frames.Pong(b"999")]


def test_a_flood_gives_way_after_a_slice_and_goes_on(socket: Socket) -> None:
    def take_long(websocket: WebSocket[Any]) -> None:
        socket.owner.time += SLICE * 0.6

    socket.owner.on_received = take_long
    socket.reads("a", "b", "c", "d", "e")
    assert (socket.owner.seen, socket.link.reading) == (["a", "b"], False)
    socket.owner.run_later()
    assert (socket.owner.seen, socket.link.reading) == (["a", "b", "c", "d"], False)
    socket.owner.run_later()
    assert (socket.owner.seen, socket.link.reading) == (["a", "b", "c", "d", "e"], True)


def test_a_full_inbox_leaves_the_rest_of_a_read_for_later(socket: Socket) -> None:
    socket.owner.on_received = WebSocket.pause
    socket.reads("a", "b", "c")
    assert (socket.owner.seen, socket.link.reading) == (["a"], False)
    socket.owner.on_received = lambda websocket: None
    socket.websocket.resume()
    assert not socket.link.reading
    socket.owner.run_later()
    assert (socket.owner.seen, socket.link.reading) == (["a", "b", "c"], True)


def test_an_inbox_that_fills_again_at_once_stops_again(socket: Socket) -> None:
    socket.owner.on_received = WebSocket.pause
    socket.reads("a", "b", "c")
    socket.websocket.resume()
    socket.websocket.pause()
    socket.owner.run_later()
    assert socket.owner.seen == ["a"]
    socket.websocket.resume()
    socket.owner.run_later()
    assert (socket.owner.seen, socket.link.reading) == (["a", "b"], False)


def test_what_follows_a_violation_waits_for_what_came_before_it(socket: Socket) -> None:
    socket.owner.on_received = WebSocket.pause
    socket.websocket.data_received(framed("a") + framed("b") + b"\xff\xff")
    assert socket.link.sent == []
    socket.owner.on_received = lambda websocket: None
    socket.websocket.resume()
    socket.owner.run_later()
    assert socket.owner.seen == ["a", "b"]
    [close] = socket.link.sent
    assert isinstance(close, frames.Close)
    assert close.code == 1002
    assert socket.owner.counters == {"protocol_errors": 1, "closed_1002": 1}


def test_nothing_is_looked_at_after_the_end(socket: Socket) -> None:
    socket.owner.on_received = lambda websocket: websocket.end(4004, "flooding")
    socket.reads("a", "b", frames.Ping(b""))
    assert socket.owner.seen == ["a"]
    assert socket.link.sent == [frames.Close(4004, "flooding")]
    assert socket.link.closing_when_flushed
    assert socket.owner.counters == {"closed_4004": 1}


def test_a_close_is_answered_with_its_code_and_is_not_ours(socket: Socket) -> None:
    socket.reads("a", frames.Close(4321))
    assert socket.link.sent == [frames.Close(4321)]
    assert socket.owner.counters == {}


# What is arriving ----------------------------------------------------------------------


def test_a_part_of_a_message_counts_until_it_is_whole(socket: Socket) -> None:
    whole = framed("x" * 600)
    socket.websocket.data_received(whole[:308])
    assert socket.owner.budget.bytes == 300
    socket.websocket.data_received(whole[308:])
    assert (socket.owner.budget.bytes, socket.owner.seen) == (0, ["x" * 600])


def test_a_part_of_a_message_counts_no_more_when_the_peer_is_gone(socket: Socket) -> None:
    lost: list[Any] = []
    socket.owner.lost = lambda connection, websocket: lost.append(websocket)  # type: ignore[attr-defined]
    socket.websocket.data_received(framed("x" * 600)[:308])
    socket.websocket.link_closed(None)
    assert (socket.owner.budget.bytes, lost) == (0, [socket.websocket])


def test_who_holds_most_of_too_much_is_sent_away_until_later(socket: Socket) -> None:
    socket.owner.budget.waiting = 500
    socket.websocket.data_received(framed("x" * 900)[:608])
    assert socket.link.sent == [frames.Close(1013, "too much is arriving: try later")]
    assert socket.owner.budget.bytes == 500
    assert socket.owner.counters == {"arrivals_given_up": 1, "closed_1013": 1}

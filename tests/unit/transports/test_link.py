"""Links over real socket pairs, on a loop that is turned by hand."""

from __future__ import annotations

import _socket
import gc
import select
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_chsk.transports import link as link_module
from flask_chsk.transports.link import CallLink, Link


class Watcher:
    """Calls back while it is active and :attr:`ready` says so."""

    def __init__(self, ready: Callable[[], bool], forget: Callable[[Watcher], None]) -> None:
        self.ready = ready
        self.active = False
        self._forget = forget

    def start(self, fn: Callable[..., None], *args: Any) -> None:
        self.callback = fn, args
        self.active = True

    def stop(self) -> None:
        self.active = False

    def close(self) -> None:
        self._forget(self)


class Loop:
    """A gevent loop as far as links use it."""

    def __init__(self) -> None:
        self.time = 100.0
        self.callbacks: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self.watchers: list[Watcher] = []

    def now(self) -> float:
        return self.time

    def run_callback(self, fn: Callable[..., None], *args: Any) -> None:
        self.callbacks.append((fn, args))

    def io(self, fd: int, events: int) -> Watcher:
        def ready() -> bool:
            readable, writable, _ = select.select([fd][: events & 1], [fd][: events & 2], [], 0)
            return bool(readable or writable)

        return self._watcher(ready)

    def timer(self, after: float) -> Watcher:
        when = self.time + after
        return self._watcher(lambda: self.time >= when)

    def _watcher(self, ready: Callable[[], bool]) -> Watcher:
        self.watchers.append(Watcher(ready, self.watchers.remove))
        return self.watchers[-1]

    def turn(self, seconds: float = 0.0) -> None:
        """Let *seconds* pass, and run once what is due."""
        self.time += seconds
        due, self.callbacks = self.callbacks, []
        due += [w.callback for w in self.watchers if w.active and w.ready()]
        for fn, args in due:
            fn(*args)


class Recorder:
    """A receiver that remembers its calls; *on_data* is what a delivery does."""

    def __init__(self, on_data: Callable[[], object] = lambda: None) -> None:
        self.calls: list[object] = []
        self.on_data = on_data

    def data_received(self, data: bytes) -> None:
        self.calls.append(data)
        self.on_data()

    def link_writable(self) -> None:
        self.calls.append("writable")

    def link_closed(self, error: Exception | None) -> None:
        self.calls.append(("closed", type(error)))


CLOSED = ("closed", type(None))


class Ends:
    """A link, its receiver, its loop, and the peer's end of its connection."""

    def __init__(self, kind: type[Link] = Link) -> None:
        self.loop = Loop()
        self.sock, self.peer = _socket.socketpair()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.sock.setblocking(False)
        self.peer.setblocking(False)
        self.receiver = Recorder()
        self.link = Link(self.loop, self.sock)  # type: ignore[arg-type]

    def start(self, data: bytes = b"") -> Ends:
        self.link.start(self.receiver, data)
        return self

    def fill(self, byte: bytes = b"x") -> bytes:
        """Write more than the operating system takes."""
        data = byte * 300_000
        assert not self.link.write(data)
        return data

    def read(self, size: int = 1 << 20) -> bytes:
        """What the peer has got; b"" for nothing and for the end."""
        parts = []
        try:
            while size and (part := self.peer.recv(size)):
                parts.append(part)
                size -= len(part)
        except BlockingIOError:
            pass
        return b"".join(parts)

    def read_all(self) -> bytes:
        """What the peer gets until the link is idle."""
        parts = []
        while part := self.read():
            parts.append(part)
            self.loop.turn()
        return b"".join(parts)

    def at_end(self) -> bool:
        """The peer sees the end of the stream."""
        try:
            return not self.peer.recv(1)
        except BlockingIOError:
            return False

    def leave(self) -> None:
        self.sock.close()
        self.peer.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    yield ends
    ends.leave()


# Reading ----------------------------------------------------------------------------------


def test_bytes_reach_the_receiver(ends: Ends) -> None:
    ends.start()
    ends.peer.send(b"one")
    ends.loop.turn()
    ends.peer.send(b"two")
    ends.loop.turn()
    assert ends.receiver.calls == [b"one", b"two"]


def test_bytes_that_were_read_before_come_first(ends: Ends) -> None:
    ends.peer.send(b"late")
    ends.start(b"early")
    ends.loop.turn()
    assert ends.receiver.calls == [b"early", b"late"]


def test_a_turn_reads_at_most_four_pieces(ends: Ends) -> None:
    class Endless:
        def fileno(self) -> int:
            return ends.sock.fileno()

        def recv(self, size: int) -> bytes:
            return bytes(size)

    link = Link(ends.loop, Endless())  # type: ignore[arg-type]
    link.start(ends.receiver)
    ends.peer.send(b"wake")
    ends.loop.turn()
    assert ends.receiver.calls == [bytes(65536)] * 4


def test_a_paused_link_leaves_the_bytes_to_the_peer(ends: Ends) -> None:
    ends.start()
    ends.link.pause()
    ends.peer.send(b"later")
    ends.loop.turn()
    assert ends.receiver.calls == []
    ends.link.resume()
    ends.loop.turn()
    assert ends.receiver.calls == [b"later"]


def test_pausing_in_a_delivery_stops_the_turn(ends: Ends) -> None:
    ends.receiver.on_data = ends.link.pause
    ends.peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 200_000)
    ends.start()
    ends.peer.send(bytes(100_000))
    ends.loop.turn()
    ends.loop.turn()
    assert ends.receiver.calls == [bytes(65536)]
    ends.link.resume()
    ends.loop.turn()
    assert ends.receiver.calls == [bytes(65536), bytes(100_000 - 65536)]


def test_a_link_paused_by_the_first_bytes_is_not_read(ends: Ends) -> None:
    ends.receiver.on_data = ends.link.pause
    ends.peer.send(b"late")
    ends.start(b"early")
    ends.loop.turn()
    assert ends.receiver.calls == [b"early"]


# Writing ----------------------------------------------------------------------------------


def test_a_write_leaves_at_once(ends: Ends) -> None:
    ends.start()
    assert ends.link.write(b"hello")
    assert (ends.read(), ends.link.unsent, ends.link.stalled_since) == (b"hello", 0, None)


def test_nothing_is_written_in_time(ends: Ends) -> None:
    assert ends.start().link.write(b"")


def test_what_the_system_does_not_take_waits(ends: Ends) -> None:
    sent = ends.start().fill()
    assert 0 < ends.link.unsent < len(sent)
    assert ends.read_all() == sent
    assert ends.receiver.calls == ["writable"]
    assert (ends.link.unsent, ends.link.stalled_since) == (0, None)


def test_writes_keep_their_order_behind_what_waits(ends: Ends) -> None:
    sent = ends.start().fill(b"a")
    waiting = ends.link.unsent
    assert not ends.link.write(b"b")
    assert not ends.link.write(b"")
    assert not ends.link.write(b"c")
    assert ends.link.unsent == waiting + 2
    assert ends.read_all() == sent + b"bc"
    assert ends.receiver.calls == ["writable"]


def test_a_stall_begins_when_the_last_byte_was_taken(ends: Ends) -> None:
    ends.start().fill()
    assert ends.link.stalled_since == 100.0
    ends.loop.turn(5)
    assert ends.link.stalled_since == 100.0
    ends.read(1 << 16)
    ends.loop.turn(2)
    assert ends.link.stalled_since == 107.0


def test_only_a_link_with_unsent_bytes_watches_for_writing(ends: Ends) -> None:
    ends.start()
    assert len(ends.loop.watchers) == 1
    ends.fill()
    assert len(ends.loop.watchers) == 2
    ends.read_all()
    assert len(ends.loop.watchers) == 1


def test_a_link_writes_before_it_is_started(ends: Ends) -> None:
    sent = ends.fill()
    assert ends.read_all() == sent
    ends.start()
    assert ends.receiver.calls == []


@given(
    st.lists(st.one_of(st.binary(max_size=40).map(lambda b: b * 997), st.integers(0, 99_999))),
)
def test_every_byte_arrives_once_and_in_order(steps: list[bytes | int]) -> None:
    ends = Ends().start()
    sent, got = b"", b""
    for step in steps:  # bytes: write them; a number: the peer reads that many
        if isinstance(step, bytes):
            ends.link.write(step)
            sent += step
        else:
            got += ends.read(step)
            ends.loop.turn()
        assert (ends.link.unsent == 0) == (ends.link.stalled_since is None)
    assert got + ends.read_all() == sent
    ends.leave()


# The end ----------------------------------------------------------------------------------


def test_the_peer_leaving_closes(ends: Ends) -> None:
    ends.start()
    ends.peer.close()
    ends.loop.turn()
    assert ends.link.closed
    ends.loop.turn()
    ends.loop.turn()
    assert ends.receiver.calls == [CLOSED]
    assert (ends.sock.fileno(), ends.loop.watchers) == (-1, [])


def test_a_reset_names_its_error(ends: Ends) -> None:
    ends.start()
    ends.link.write(b"never read")
    ends.peer.close()
    ends.loop.turn()
    ends.loop.turn()
    assert ends.receiver.calls == [("closed", ConnectionResetError)]


def test_a_broken_write_tells_from_the_loop(ends: Ends) -> None:
    ends.start()
    ends.peer.close()
    assert not ends.link.write(b"into nothing")
    assert not ends.link.write(b"again")
    assert ends.receiver.calls == []
    ends.loop.turn()
    assert ends.receiver.calls == [("closed", BrokenPipeError)]


def test_a_break_in_what_waits_names_its_error(ends: Ends) -> None:
    ends.start().fill()
    ends.link.pause()
    ends.read()
    ends.peer.close()
    ends.loop.turn()
    ends.loop.turn()
    assert ends.receiver.calls == [("closed", BrokenPipeError)]
    assert (ends.link.unsent, ends.loop.watchers) == (0, [])


def test_a_link_broken_before_its_start_tells_after_it(ends: Ends) -> None:
    ends.peer.close()
    ends.link.write(b"into nothing")
    ends.start(b"early")
    assert ends.receiver.calls == []
    ends.loop.turn()
    assert ends.receiver.calls == [("closed", BrokenPipeError)]


def test_close_is_told_once_and_from_the_loop(ends: Ends) -> None:
    ends.start().fill()
    ends.link.close()
    ends.link.close()
    assert (ends.receiver.calls, ends.sock.fileno()) == ([], -1)
    assert (ends.link.unsent, ends.link.stalled_since, ends.loop.watchers) == (0, None, [])
    ends.loop.turn()
    ends.loop.turn()
    assert ends.receiver.calls == [CLOSED]


def test_nothing_is_delivered_after_a_close(ends: Ends) -> None:
    ends.receiver.on_data = ends.link.close
    ends.peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 200_000)
    ends.start()
    ends.peer.send(bytes(100_000))
    ends.loop.turn()
    ends.link.resume()
    ends.loop.turn()
    assert ends.receiver.calls == [bytes(65536), CLOSED]


def test_a_link_that_was_never_started_closes_quietly(ends: Ends) -> None:
    ends.link.close()
    assert (ends.sock.fileno(), ends.loop.callbacks) == (-1, [])


def test_a_failing_receiver_is_logged_and_closed(
    ends: Ends, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("a bug")

    ends.receiver.on_data = fail
    ends.start()
    ends.peer.send(b"one")
    ends.loop.turn()
    assert ends.link.closed
    ends.loop.turn()
    assert ends.receiver.calls == [b"one", ("closed", RuntimeError)]
    assert [record.name for record in caplog.records] == ["flask_chsk.transports.link"]


@pytest.mark.parametrize("method", ["link_writable", "link_closed"])
def test_a_receiver_that_fails_elsewhere_is_logged_and_closed(
    ends: Ends, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(ends.receiver, method, fail)
    ends.start().fill()
    ends.read_all()
    if method == "link_closed":
        ends.link.close()
    ends.loop.turn()
    assert (ends.link.closed, len(caplog.records)) == (True, 1)


# Closing in good order --------------------------------------------------------------------


def test_closing_sends_what_waits_and_lets_the_peer_close(ends: Ends) -> None:
    sent = ends.start().fill()
    ends.link.close_when_flushed(10)
    assert not ends.link.write(b"too late")
    assert ends.read_all() == sent
    assert ends.at_end() and not ends.link.closed
    ends.peer.send(b"thrown away")
    ends.loop.turn()
    ends.peer.close()
    ends.loop.turn()
    ends.loop.turn()
    assert (ends.receiver.calls, ends.sock.fileno(), ends.loop.watchers) == ([CLOSED], -1, [])


def test_closing_with_nothing_unsent_ends_the_stream_at_once(ends: Ends) -> None:
    ends.start().link.close_when_flushed(10)
    assert not ends.link.write(b"too late")
    assert ends.at_end()


def test_closing_has_an_end(ends: Ends) -> None:
    ends.start().fill()
    ends.link.close_when_flushed(10)
    ends.link.close_when_flushed(99)
    ends.loop.turn(9)
    assert not ends.link.closed
    ends.loop.turn(2)
    assert ends.link.closed
    ends.loop.turn()
    assert (ends.receiver.calls, ends.loop.watchers) == ([CLOSED], [])


def test_a_paused_link_notices_the_peer_while_it_closes(ends: Ends) -> None:
    ends.start()
    ends.link.pause()
    ends.link.close_when_flushed(10)
    ends.link.pause()
    ends.peer.close()
    ends.loop.turn()
    assert ends.link.closed


def test_closing_a_closed_link_is_nothing(ends: Ends) -> None:
    ends.start().link.close()
    ends.link.close_when_flushed(10)
    assert ends.loop.watchers == []


def test_closing_where_the_peer_left_ends_at_once(ends: Ends) -> None:
    ends.start()
    ends.link.write(b"unread")
    ends.peer.close()
    ends.link.close_when_flushed(10)
    ends.loop.turn()
    ends.loop.turn()
    assert ends.receiver.calls == [("closed", ConnectionResetError)]


def test_a_link_may_be_closed_before_it_is_started(ends: Ends) -> None:
    ends.link.write(b"no")
    ends.link.close_when_flushed(10)
    assert ends.read() == b"no"
    ends.peer.close()
    ends.loop.turn()
    assert (ends.link.closed, ends.loop.callbacks) == (True, [])


def test_a_link_that_closes_delivers_nothing_any_more(ends: Ends) -> None:
    ends.link.close_when_flushed(10)
    ends.start(b"early")
    ends.link.close()
    ends.loop.turn()
    assert ends.receiver.calls == [CLOSED]


# Rest -------------------------------------------------------------------------------------


def test_a_link_at_rest_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    # What other tests left there would be copied while it grows.
    monkeypatch.setattr(link_module, "_links", link_module._Links())
    loop = gevent.get_hub().loop
    pairs = [_socket.socketpair() for _ in range(100)]
    receiver = Recorder()
    links = []
    gc.collect()
    tracemalloc.start()
    try:
        for sock, _ in pairs:
            links.append(Link(loop, sock))
            links[-1].start(receiver)
        size = tracemalloc.get_traced_memory()[0] / len(links)
    finally:
        tracemalloc.stop()
    for link, (_, peer) in zip(links, pairs, strict=True):
        link.close()
        peer.close()
    gevent.sleep(0)  # tells the receiver
    assert receiver.calls == [CLOSED] * 100
    assert size <= 500  # a native socket adds some 60


# In the call ------------------------------------------------------------------------------


@pytest.mark.parametrize("here", [True, False])
def test_a_call_waits_until_its_link_is_closed_and_keeps_its_socket(here: bool) -> None:
    loop = Loop()
    sock, peer = socket.socketpair()
    receiver = Recorder()
    link = CallLink(loop, sock, here)  # type: ignore[arg-type]
    link.start(receiver)
    over: list[None] = []

    def wait() -> None:
        link.wait()
        link.wait()
        over.append(None)

    waiting = gevent.spawn(wait) if here else threading.Thread(target=wait)
    waiting.start()
    peer.send(b"hello")
    loop.turn()
    gevent.sleep(0)
    assert over == []
    link.close()
    waiting.join()
    loop.turn()
    assert (over, receiver.calls) == ([None], [b"hello", CLOSED])
    assert sock.fileno() != -1
    sock.close()
    peer.close()

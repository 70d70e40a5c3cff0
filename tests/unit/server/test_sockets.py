"""Opens WebSockets of clients that were let in, and hears what they report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flask_chsk.protocol import frames
from flask_chsk.protocol import session as s
from flask_chsk.protocol.push import Push
from flask_chsk.server.connection import Connection, State
from flask_chsk.transports.websocket import STALLED

from .fakes import Office


class FakeLink:
    """A link that takes all bytes; or none, while `stalled_since` is a time."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.stalled_since: float | None = None
        self.reading = True
        self.missed_close = False
        self.on_write: Callable[[], object] = lambda: None
        self._reader = frames.FrameReader("client", 1 << 20)

    def start(self, receiver: Any, data: bytes = b"") -> None:
        self.receiver = receiver
        if data:
            receiver.data_received(data)

    def write(self, data: bytes) -> bool:
        self.on_write()
        self.sent += self._reader.feed(data)
        return self.stalled_since is None

    def close_when_flushed(self, timeout: float) -> None:
        self.missed_close = True

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Scene(Office):
    def __init__(self) -> None:
        super().__init__()
        self.hub.loop = self.hub
        self.seen: list[Any] = []
        self.handlers.on("a/note")(lambda ev: self.seen.append(ev.data))

    def open(self, entered: Any = None, leftover: bytes = b"", **more: Any) -> FakeLink:
        link: Any = FakeLink()
        self.worker.sockets.open(entered or self.enter(**more), link, leftover)
        return link  # type: ignore[no-any-return]

    @property
    def one(self) -> Connection:
        connection = self.registry.get("ann", "c1")
        assert connection is not None
        return connection


@pytest.fixture
def scene() -> Scene:
    return Scene()


def masked(text: str) -> bytes:
    return frames.build(frames.TEXT, text.encode(), mask=b"mask")


def test_a_socket_is_greeted_and_serves_its_client(scene: Scene) -> None:
    link = scene.open(leftover=masked("[[:a/note 1]]"))
    scene.hub.work()
    assert str(link.sent[0]).startswith('[[:chsk/handshake ["ann"')
    assert scene.one.state is State.WS
    assert scene.seen == [1]
    scene.worker.sending.send("ann", ["a/b", 1])
    assert str(link.sent[1]).startswith("[[[:a/b 1]] nil")


def test_what_waited_leaves_behind_the_handshake(scene: Scene) -> None:
    entered = scene.enter()
    scene.worker.sending.send("ann", ["a/b", 1])
    link = scene.open(entered)
    assert [str(message)[:8] for message in link.sent] == ["[[:chsk/", "[[[:a/b "]


def test_a_socket_that_comes_too_late_is_told_so(scene: Scene) -> None:
    late = scene.enter()
    scene.enter()
    link = scene.open(late)
    [close] = link.sent
    assert (close.code, link.missed_close) == (s.TRY_LATER, True)
    assert scene.one.state is State.ABSENT


def test_a_socket_of_a_worker_that_ends_is_sent_elsewhere(scene: Scene) -> None:
    entered = scene.enter()
    scene.worker.end()
    [close] = scene.open(entered).sent
    assert (close.code, close.reason) == (s.RESTART, "spread=2")


def test_a_socket_of_a_client_that_polls_is_on_trial(scene: Scene) -> None:
    one = scene.poll()
    link = scene.open()
    scene.worker.sending.send("ann", ["a/b", 1])
    assert one.state is State.BETWEEN_POLLS
    assert len(link.sent) == 1  # the handshake; what waits is for its polls
    link.receiver.data_received(masked("[[:a/note 1]]"))
    assert one.state is State.WS
    assert str(link.sent[1]).startswith("[[[:a/b 1]]")


def test_a_socket_that_fails_at_its_greeting_leaves_its_client_absent(scene: Scene) -> None:
    def fail() -> None:
        raise OSError

    link: Any = FakeLink()
    link.on_write = fail
    with pytest.raises(OSError):
        scene.worker.sockets.open(scene.enter(), link, b"")
    assert scene.one.state is State.ABSENT


def test_a_socket_that_is_gone_leaves_its_client_its_grace(scene: Scene) -> None:
    link = scene.open()
    link.receiver.link_closed(None)
    assert scene.one.state is State.ABSENT


def test_a_peer_that_takes_nothing_is_given_up_in_time(scene: Scene) -> None:
    link = scene.open()
    link.stalled_since = scene.hub.now()
    scene.worker.sending.send("ann", ["a/b", 1])
    scene.hub.sleep(STALLED + 1.0)
    assert link.missed_close
    assert scene.worker.counters["stalled"] == 1


def test_a_client_that_is_behind_reads_history_before_it_sends(scene: Scene) -> None:
    link = scene.open()
    scene.one.session.fall_behind()
    scene.worker.sending.send("ann", ["a/b", 1])
    assert len(link.sent) == 1
    scene.worker.delivery.wake(scene.one)
    scene.hub.sleep(0.1)
    assert str(link.sent[1]).startswith("[[[:a/b 1]]")
    assert not scene.one.session.needs_replay


def test_a_socket_whose_events_cannot_be_packed_is_closed(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Push):
        def piece(self, composer: Any) -> Any:
            raise KeyError

    link = scene.open()
    scene.one.session.deliver(Broken("u:ann", "[:a/b 1]", scene.one.session.queued + 1))
    transport = scene.one.transport
    assert transport is not None
    transport.wake()
    assert link.sent[-1].code == s.INTERNAL_ERROR
    assert scene.worker.counters["closed_1011"] == 1

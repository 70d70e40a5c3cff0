"""What the broker is told of a poll's answer, step by step."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from flask_chsk import packers
from flask_chsk.errors import BrokerUnavailable
from flask_chsk.protocol.push import Push
from flask_chsk.protocol.session import Rules, ServerSession
from flask_chsk.protocol.wire import WIRES, Composer
from flask_chsk.server.connection import Connection
from flask_chsk.server.polls import Polls
from flask_chsk.transports.longpoll import Poller


class Waiter:
    """A request that waits."""

    value: bytes | None = None

    def set(self, value: bytes) -> None:
        self.value = value

    def wait(self, timeout: float) -> Any:
        return self.value


class Hub:
    """Runs what is to be done later when it is told to."""

    def __init__(self) -> None:
        self.later: list[Callable[[], object]] = []

    def now(self) -> float:
        return 0.0

    def call(self, fn: Callable[..., object], *args: Any) -> None:
        fn(*args)

    def background(self, fn: Callable[..., object], *args: Any) -> None:
        self.later.append(lambda: fn(*args))

    def timer(self, seconds: float, fn: Callable[[], object]) -> None:
        self.later.append(fn)

    def step(self) -> None:
        self.later.pop(0)()


class Scene:
    """A client without a cursor that polls here, and a broker of several processes."""

    local = False
    epoch = "e"

    def __init__(self) -> None:
        self.noted: list[int] = []
        self.away = False
        self.hub = Hub()
        server: Any = SimpleNamespace(
            config=SimpleNamespace(close_grace_ajax=5.0, lp_timeout=20.0),
            broker=self,
            registry=SimpleNamespace(get=lambda *key: self.connection),
            counters=None,
            delivery=SimpleNamespace(frames={}),
            history=None,
            hub=self.hub,
            look_by=lambda *args: None,
            released=lambda *args: None,
        )
        self.polls = server.polls = Polls(server)
        self.polls.start(self.hub)  # type: ignore[arg-type]
        composer = Composer(packers.make("edn"), WIRES["1.21"])
        session = ServerSession("ann", "1", composer, Rules(epoch="e"), 0.0, offset=1)
        self.connection = Connection(server, session, "ajax")
        self.poller = Poller(self.polls, self.connection)
        self.connection.transport = self.connection.poller = self.poller

    def take(self, uid: str, client_id: str, token: str, offset: int) -> bool:
        self.noted.append(offset)  # and only then does its answer get lost
        if self.away:
            raise BrokerUnavailable("away")
        return True

    def watermark(self) -> int:
        return 1

    def park(self) -> Waiter:
        waiter = Waiter()
        self.polls._release(self.connection, self.poller)
        self.poller.park(waiter)
        self.poller.wake()
        return waiter

    def deliver(self, *offsets: int) -> None:
        for offset in offsets:
            self.connection.session.deliver(Push("u:ann", f"[:a/b {offset}]", offset))
            self.poller.wake()


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_events_are_noted_before_they_are_given_and_no_others(scene: Scene) -> None:
    poll = scene.park()
    scene.deliver(2, 3)
    scene.hub.step()
    assert (scene.noted, poll.value) == ([2], b"[[[:a/b 2]] nil]")
    assert scene.hub.later == []  # nothing waits for an answer, so nothing is noted
    poll = scene.park()
    scene.hub.step()
    assert (scene.noted, poll.value) == ([2, 3], b"[[[:a/b 3]] nil]")


def test_nothing_is_noted_while_nobody_polls(scene: Scene) -> None:
    scene.deliver(2, 3)
    assert scene.hub.later == []


def test_what_was_noted_for_a_poll_that_went_is_for_the_next(scene: Scene) -> None:
    poll = scene.park()
    scene.deliver(2)
    scene.poller.abandon(poll)
    scene.hub.step()
    scene.hub.step()
    assert scene.noted == [2, 1]
    poll = scene.park()
    scene.hub.step()
    assert (scene.noted, poll.value) == ([2, 1, 2], b"[[[:a/b 2]] nil]")


def test_a_newer_poll_gets_what_was_noted_for_the_older_one(scene: Scene) -> None:
    older = scene.park()
    scene.deliver(2)
    newer = scene.park()
    scene.hub.step()
    assert (older.value, newer.value) == (b"[:chsk/timeout nil]", b"[[[:a/b 2]] nil]")
    assert scene.noted == [2]


@pytest.mark.parametrize("stays", [True, False])
def test_what_the_broker_may_have_noted_is_given_or_taken_back(scene: Scene, stays: bool) -> None:
    poll = scene.park()
    scene.deliver(2)
    scene.away = True
    scene.hub.step()  # it fails, after it was done
    scene.away = False
    if not stays:
        scene.poller.abandon(poll)
    scene.hub.step()
    scene.hub.step()
    assert scene.noted == ([2, 2] if stays else [2, 1])
    assert poll.value == (b"[[[:a/b 2]] nil]" if stays else None)


def test_a_poll_whose_time_is_over_waits_for_what_is_being_noted(scene: Scene) -> None:
    poll = scene.park()
    scene.deliver(2)
    assert scene.polls.expire(("ann", "1"), poll) is None
    scene.hub.step()
    assert poll.value == b"[[[:a/b 2]] nil]"


def test_a_poll_ends_though_the_broker_does_not_answer(scene: Scene) -> None:
    poll = scene.park()
    scene.deliver(2)
    assert scene.polls.expire(("ann", "1"), poll, True) == b"[:chsk/timeout nil]"
    scene.hub.step()
    scene.hub.step()
    assert scene.noted == [2, 1]

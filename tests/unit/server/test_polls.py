"""What the broker is told of a poll's answer, step by step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from flask_chsk.errors import BrokerUnavailable
from flask_chsk.protocol.push import Push
from flask_chsk.server.polls import Polls
from flask_chsk.transports.longpoll import Poller

from .fakes import FakeHub, Site, Waiter


class Scene(Site):
    """A client without a cursor that polls here, and a broker of several processes."""

    local = False
    epoch = "e"

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[int] = []
        self.away = False
        self.broker = self
        self.connection = self.connect(v1=False)
        clients: Any = SimpleNamespace(
            poll_ended=lambda connection: connection.answered(0.0), taken_over=lambda *args: None
        )
        unused: Any = None
        self.polls = Polls(
            self.hub,
            self.config,
            self.broker,
            registry=self.registry,
            clients=clients,
            registration=unused,
            delivery=SimpleNamespace(frames={}),  # type: ignore[arg-type]
            history=unused,
            delayed_closes=unused,
            close_log=unused,
            counters=self.counters,
        )
        self.poller = Poller(self.polls, self.connection)
        self.connection.attach_poller(self.poller, 0.0)

    def take(self, uid: str, client_id: str, token: str, offset: int) -> bool:
        self.noted.append(offset)  # and only then does its answer get lost
        if self.away:
            raise BrokerUnavailable("away")
        return True

    def watermark(self) -> int:
        return 1

    def step(self) -> None:
        """The next job: a call of the broker, or what waits for its time."""
        hub: FakeHub = self.hub
        if hub.later:
            hub.later.popleft()()
        else:
            hub.timers.pop(0)[1]()

    def park(self) -> Waiter:
        waiter = Waiter()
        self.polls._release(self.connection, self.poller)
        self.connection.park(waiter)
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
    scene.step()
    assert (scene.noted, poll.value) == ([2], b"[[[:a/b 2]] nil]")
    assert not scene.hub.later  # nothing waits for an answer, so nothing is noted
    poll = scene.park()
    scene.step()
    assert (scene.noted, poll.value) == ([2, 3], b"[[[:a/b 3]] nil]")


def test_nothing_is_noted_while_nobody_polls(scene: Scene) -> None:
    scene.deliver(2, 3)
    assert not scene.hub.later


def test_what_was_noted_for_a_poll_that_went_is_for_the_next(scene: Scene) -> None:
    poll = scene.park()
    scene.deliver(2)
    scene.poller.abandon(poll)
    scene.step()
    scene.step()
    assert scene.noted == [2, 1]
    poll = scene.park()
    scene.step()
    assert (scene.noted, poll.value) == ([2, 1, 2], b"[[[:a/b 2]] nil]")


def test_a_newer_poll_gets_what_was_noted_for_the_older_one(scene: Scene) -> None:
    older = scene.park()
    scene.deliver(2)
    newer = scene.park()
    scene.step()
    assert (older.value, newer.value) == (b"[:chsk/timeout nil]", b"[[[:a/b 2]] nil]")
    assert scene.noted == [2]


@pytest.mark.parametrize("stays", [True, False])
def test_what_the_broker_may_have_noted_is_given_or_taken_back(scene: Scene, stays: bool) -> None:
    poll = scene.park()
    scene.deliver(2)
    scene.away = True
    scene.step()  # it fails, after it was done
    scene.away = False
    if not stays:
        scene.poller.abandon(poll)
    scene.step()
    scene.step()
    assert scene.noted == ([2, 2] if stays else [2, 1])
    assert poll.value == (b"[[[:a/b 2]] nil]" if stays else None)


def test_a_poll_whose_time_is_over_waits_for_what_is_being_noted(scene: Scene) -> None:
    poll = scene.park()
    scene.deliver(2)
    assert scene.polls.expire(scene.connection.key, poll) is None
    scene.step()
    assert poll.value == b"[[[:a/b 2]] nil]"


def test_a_poll_ends_though_the_broker_does_not_answer(scene: Scene) -> None:
    poll = scene.park()
    scene.deliver(2)
    assert scene.polls.expire(scene.connection.key, poll, True) == b"[:chsk/timeout nil]"
    scene.step()
    scene.step()
    assert scene.noted == [2, 1]

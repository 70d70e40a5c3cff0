"""A client's polls, GET after GET, and what the broker is told of their answers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from flask_chsk.errors import BrokerUnavailable, Refused
from flask_chsk.protocol.push import Push
from flask_chsk.server.connection import State
from flask_chsk.server.polls import Polls
from flask_chsk.transports.longpoll import Poller

from .fakes import FakeHub, Office, Site, Waiter


class Scene(Site):
    """A client without a cursor that polls here, and a broker of several processes."""

    epoch = "e"

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[int] = []
        self.away = False
        self.broker = self.clients = self
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

    def ack(self, uid: str, client_id: str, token: str, offset: int) -> bool:
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


def test_a_poll_whose_peer_is_gone_is_given_nothing(scene: Scene) -> None:
    poll = scene.park()
    scene.polls.look_at(scene.connection.key, poll, lambda: True)
    scene.deliver(2)
    assert (scene.noted, poll.value) == ([], None)
    poll = scene.park()
    scene.step()
    assert (scene.noted, poll.value) == ([2], b"[[[:a/b 2]] nil]")


@pytest.mark.parametrize("away", [False, True])
def test_what_was_noted_for_a_poll_whose_peer_is_gone_is_for_the_next(
    scene: Scene, away: bool
) -> None:
    gone = False
    poll = scene.park()
    scene.polls.look_at(scene.connection.key, poll, lambda: gone)
    scene.deliver(2)
    gone, scene.away = True, away
    scene.step()
    scene.away = False
    while scene.noted != [2, 1]:
        scene.step()
    assert poll.value is None
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


# GETs ----------------------------------------------------------------------------------


@pytest.fixture
def office() -> Office:
    return Office()


def shake(office: Office, **more: Any) -> str:
    answer = office.worker.polls.get(office.opening(**more), True)
    assert isinstance(answer, bytes)
    return answer.decode()


def poll(office: Office, number: int = 0, wait: bool = True, **more: Any) -> Any:
    one = office.registry.get("ann", "c1")
    given = {"number": number, "trusted": True, "cursor": ""}
    if one is not None:
        given["cursor"] = f"{office.broker.epoch}:{one.session.acked}"
    return office.worker.polls.get(office.opening(**{**given, **more}), False, wait)


def test_a_handshake_is_answered_at_once(office: Office) -> None:
    assert shake(office).startswith('[[:chsk/handshake ["ann"')
    [one] = office.registry
    assert one.state is State.BETWEEN_POLLS


def test_a_poll_parks_until_there_is_an_event(office: Office) -> None:
    shake(office)
    waiter = poll(office)
    [one] = office.registry
    assert one.state is State.PARKED
    office.worker.sending.send("ann", ["a/b", 1])
    assert waiter.value.startswith(b"[[[:a/b 1]] nil")
    assert one.state is State.BETWEEN_POLLS


def test_a_poll_is_answered_with_what_waits(office: Office) -> None:
    shake(office)
    office.worker.sending.send("ann", ["a/b", 1])
    office.hub.sleep(1.0)  # its window
    assert poll(office).startswith(b"[[[:a/b 1]] nil")


def test_the_poll_of_a_test_client_waits_for_nothing_but_what_is_under_way(office: Office) -> None:
    shake(office)
    [one] = office.registry
    assert poll(office, wait=False).value.startswith(b"[:chsk/timeout nil")
    one.session.fall_behind()
    waiter = poll(office, 1, wait=False)
    assert waiter.value is None  # history is being read
    office.hub.work()
    assert waiter.value.startswith(b"[:chsk/timeout nil")
    assert one.state is State.BETWEEN_POLLS


def test_a_client_whose_gap_is_above_all_events_polls_in_peace(office: Office) -> None:
    """Seed 94 of the cluster: it was told of the same gap again and again, at once each time."""
    shake(office)
    [one] = office.registry
    one.start_at(office.broker.watermark() + 1)
    waiter = poll(office)
    office.hub.work()
    assert (waiter.value, one.session.needs_replay) == (None, False)


def test_a_newer_poll_ends_the_older_one(office: Office) -> None:
    shake(office)
    older, newer = poll(office, 0), poll(office, 1)
    assert older.value.startswith(b"[:chsk/timeout nil")
    assert newer.value is None


def test_an_older_poll_that_comes_late_leaves_the_newer_one(office: Office) -> None:
    shake(office)
    newer = poll(office, 1)
    assert poll(office, 0).startswith(b"[:chsk/timeout nil")
    assert newer.value is None


def test_polls_that_chase_each_other_are_refused(office: Office) -> None:
    shake(office)
    for number in range(3):
        poll(office, number)
    with pytest.raises(Refused) as refused:
        poll(office, 3)
    assert refused.value.status == 429
    assert office.worker.counters["takeovers_refused"] == 1


def test_a_poll_of_a_client_on_a_websocket_ends(office: Office) -> None:
    office.connect()
    assert poll(office) == b"[:chsk/timeout nil]"


def test_a_poll_of_a_client_that_was_closed_says_so(office: Office) -> None:
    shake(office)
    office.broker.publish("u:ann", '[:chsk/close {:code 4005 :reason "signed out"}]')
    assert poll(office) == b'[[[:chsk/close {:code 4005 :reason "signed out"}]] nil]'


def test_a_poll_in_a_worker_that_ends_is_sent_elsewhere(office: Office) -> None:
    shake(office)
    office.worker.drain()
    assert b"1012" in poll(office)
    assert office.worker.counters["closed_1012"] == 1


def test_a_poll_with_a_cursor_from_nowhere_is_told_of_a_gap(office: Office) -> None:
    shake(office)
    waiter = poll(office, cursor="otherepoch:5")
    office.hub.work()
    assert b"[:chsk/gap nil]" in waiter.value


def test_a_poll_from_the_epoch_before_is_told_of_one_gap(office: Office) -> None:
    shake(office)
    began = office.broker.watermark() + 1
    office.clients.begin_epoch(office.broker.epoch, began)
    [one] = office.registry
    gap_at = one.session.start
    office.hub.sleep(1.0)  # its window
    assert poll(office, cursor="before:5").startswith(b"[[[:chsk/gap nil]]")
    poll(office, 1, cursor=f"{office.broker.epoch}:{gap_at}")
    office.hub.work()
    assert office.worker.counters["gaps"] == 1
    assert not one.session.begins_with_gap


def test_a_poll_with_a_cursor_that_nobody_gave_is_told_of_a_gap(office: Office) -> None:
    shake(office)
    ahead = office.broker.watermark() + 10**9
    waiter = poll(office, cursor=f"{office.broker.epoch}:{ahead}")
    office.hub.work()
    assert b"[:chsk/gap nil]" in waiter.value


def test_a_poll_whose_identity_has_expired_is_told_so(office: Office) -> None:
    now = office.hub.now()
    shake(office)
    waiter = poll(office, 1, expires_at=now + 60)
    office.clients.expiries.sweep(now + 59)
    assert waiter.value is None
    office.clients.expiries.sweep(now + 60)
    assert waiter.value == b'[[[:chsk/close {:code 4005 :reason "expired"}]] nil]'


def test_each_poll_says_until_when_its_client_may_stay(office: Office) -> None:
    now = office.hub.now()
    shake(office, expires_at=now + 30)
    waiter = poll(office, 1, expires_at=now + 60)
    office.clients.expiries.sweep(now + 30)
    assert waiter.value is None
    poll(office, 2)
    assert len(office.clients.expiries) == 0


def test_between_two_polls_nothing_is_told(office: Office) -> None:
    now = office.hub.now()
    shake(office, expires_at=now + 30)
    office.clients.expiries.sweep(now + 30)
    office.worker.sending.send("ann", ["a/b", 1])
    office.hub.sleep(1.0)  # its window
    assert poll(office, 1, expires_at=now + 60).startswith(b"[[[:a/b 1]] nil")

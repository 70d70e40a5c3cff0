"""A client's polls, one after another, and the request of each."""

from __future__ import annotations

import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import gevent
import pytest

from flask_chsk import packers
from flask_chsk.hub import DONT_WAIT, Hub
from flask_chsk.protocol.generations import CURRENT
from flask_chsk.protocol.wire import WIRES, Composer
from flask_chsk.transports.longpoll import UNDER_WAY, NoAnswer, Parked, Poller


class Waiter:
    """One value; nobody blocks for it."""

    def __init__(self, *values: Any) -> None:
        self.values = list(values)
        self.waited: list[float] = []

    def set(self, value: Any) -> None:
        self.values.append(value)

    def wait(self, timeout: float) -> Any:
        self.waited.append(timeout)
        return self.values.pop(0) if self.values else None


# Between and during polls -----------------------------------------------------------------


class Owner:
    """An owner that has one answer, and notes what it is told."""

    def __init__(self) -> None:
        self.answer: bytes | None = None
        self.close: bytes | None = b"closed"
        self.seen: list[Any] = []

    def outgoing(self, client: Any, poller: Any, last: bool) -> bytes | None:
        self.seen.append("last" if last else "next")
        return self.answer

    def close_answer(self, client: Any, code: int, reason: str) -> bytes | None:
        self.seen.append((code, reason))
        return self.close

    def unparked(self, client: Any, poller: Any) -> None:
        self.seen.append("unparked")


class Scene:
    """A client that polls, with a request that waits."""

    def __init__(self) -> None:
        composer = Composer(packers.make("edn"), WIRES["1.21"])
        client: Any = SimpleNamespace(
            session=SimpleNamespace(composer=composer), generation=CURRENT
        )
        self.owner = Owner()
        self.poller: Poller[Any] = Poller(self.owner, client)
        self.waiter = Waiter()
        self.poller.park(self.waiter)

    @property
    def given(self) -> list[Any]:
        return self.waiter.values


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_parked_request_is_answered_with_what_may_leave(scene: Scene) -> None:
    scene.poller.wake()
    assert (scene.given, scene.poller.parked) == ([], True)
    scene.owner.answer = b"events"
    scene.poller.wake()
    assert (scene.given, scene.poller.parked) == ([b"events"], False)
    assert scene.owner.seen == ["next", "next", "unparked"]


def test_the_last_answer_of_a_client_has_all_that_waits(scene: Scene) -> None:
    scene.owner.answer = b"events"
    scene.poller.flush()
    assert scene.owner.seen == ["last", "unparked"]


def test_between_polls_nobody_is_asked_for_anything(scene: Scene) -> None:
    scene.poller.give(b"")
    scene.owner.seen.clear()
    scene.poller.wake()
    scene.poller.flush()
    scene.poller.end(1000)
    scene.poller.give(b"more")
    assert scene.owner.seen == []


def test_the_end_is_the_answer_of_the_parked_request(scene: Scene) -> None:
    scene.poller.end(4003, "go")
    assert (scene.given, scene.owner.seen) == ([b"closed"], [(4003, "go"), "unparked"])


def test_a_request_that_is_about_to_get_events_is_not_ended(scene: Scene) -> None:
    scene.owner.close = None
    scene.poller.drain("spread=2")
    assert (scene.poller.parked, scene.owner.seen) == (True, [(1012, "spread=2")])


def test_a_late_end_is_the_same_end(scene: Scene) -> None:
    tell = scene.poller.mute()
    assert scene.poller.parked
    tell(4005, "out")
    assert scene.given == [b"closed"]


def test_a_client_that_another_transport_serves_polls_again(scene: Scene) -> None:
    scene.poller.replaced(4001, "replaced")
    assert scene.given == [b"[:chsk/timeout nil]"]


def test_a_request_that_is_gone_is_parked_no_more(scene: Scene) -> None:
    another: Any = Waiter()
    scene.poller.abandon(another)
    assert scene.poller.waits(scene.waiter)
    scene.poller.abandon(scene.waiter)
    assert not scene.poller.parked


@pytest.mark.parametrize("hangs_up", [True, False])
def test_a_request_whose_peer_hung_up_is_not_answered(scene: Scene, hangs_up: bool) -> None:
    scene.poller.look_at(scene.waiter, lambda: hangs_up)
    scene.owner.answer = b"events"
    scene.poller.wake()
    assert scene.given == ([] if hangs_up else [b"events"])
    assert not scene.poller.parked


# The body of a request that waits -----------------------------------------------------------


class Requests:
    """Notes what a parked request reports."""

    def __init__(self, expired: bytes | None = None) -> None:
        self.expired = expired
        self.seen: list[Any] = []
        self.peer_is_gone: Callable[[], bool] | None = None
        self.hub: Any = SimpleNamespace(
            watch_hangup=lambda *args: None,
            call=lambda fn, *args: fn(*args),
            call_soon=lambda fn, *args: fn(*args),
            run=lambda fn, *args: fn(*args),
        )

    def expire(self, key: Any, waiter: Any, at_once: bool = False) -> bytes | None:
        self.seen.append("at once" if at_once else "expire")
        return self.expired

    def abandon(self, key: Any, waiter: Any) -> None:
        self.seen.append("abandon")

    def look_at(self, key: Any, waiter: Any, peer_is_gone: Callable[[], bool]) -> None:
        self.peer_is_gone = peer_is_gone


def wait_for(requests: Requests, *values: Any) -> tuple[list[bytes], Waiter]:
    """The pieces of the body, and its waiter."""
    waiter = Waiter(*values)
    return list(Parked(requests, ("ann", "1"), waiter, None, 20.0)), waiter


def test_a_body_is_what_answers_its_poll() -> None:
    requests = Requests()
    assert wait_for(requests, b"events")[0] == [b"events"]
    assert requests.seen == []


def test_a_poll_whose_time_is_over_ends_with_no_events() -> None:
    requests = Requests(expired=b"nothing")
    pieces, waiter = wait_for(requests)
    assert (pieces, waiter.waited, requests.seen) == ([b"nothing"], [20.0], ["expire"])


def test_a_poll_that_is_about_to_be_answered_waits_a_little_longer() -> None:
    requests = Requests()
    pieces, waiter = wait_for(requests, None, b"events")
    assert (pieces, waiter.waited) == ([b"events"], [20.0, UNDER_WAY])
    assert requests.seen == ["expire"]


def test_a_body_that_is_dropped_unread_is_abandoned() -> None:
    requests = Requests()
    body = Parked(requests, ("ann", "1"), Waiter(), None, 20.0)
    body.close()
    body.close()
    assert requests.seen == ["abandon"]


@pytest.mark.skipif(not DONT_WAIT, reason="the peer's end cannot be seen here")
def test_where_nothing_is_watched_the_peer_is_looked_at() -> None:
    requests = Requests()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        list(Parked(requests, ("ann", "1"), Waiter(b"events"), ours, 20.0))
        assert requests.peer_is_gone is not None
        assert not requests.peer_is_gone()
        theirs.close()
        assert requests.peer_is_gone()


def test_a_peer_that_went_before_its_poll_was_parked_is_known_to_be_gone_at_once() -> None:
    """An event may come before the loop has had a turn, and would be given to nobody."""

    def test() -> None:
        requests = Requests()
        requests.hub = hub = Hub()
        ours, theirs = socket.socketpair()
        theirs.close()
        with ours:
            body = Parked(requests, ("ann", "1"), hub.waiter_here(), ours, 30.0)
            reading = gevent.spawn(list, body)
            gevent.sleep(0)  # it is parked, and the loop has polled nothing yet
            assert requests.peer_is_gone is not None
            assert requests.peer_is_gone()
            assert reading.get() == [b""]
            body.close()

    gevent.spawn(test).get(timeout=30)


# Where a generation is to get no answer -----------------------------------------------------


def parked(sock: socket.socket | None) -> Parked:
    hub = SimpleNamespace(
        watch_hangup=lambda *args: SimpleNamespace(stop=lambda: None, peer_is_gone=lambda: False),
        call=lambda *args: None,
    )
    requests: Any = SimpleNamespace(hub=hub, abandon=None, look_at=None)
    return Parked(requests, ("ann", "1"), Waiter(NoAnswer(b"-[]")), sock, 1.0)


def test_its_connection_ends_instead() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert list(parked(ours)) == [b""]
        assert theirs.recv(1) == b""


def test_it_is_answered_with_no_events_where_the_connection_is_out_of_reach() -> None:
    assert list(parked(None)) == [b"-[]"]  # TLS

"""The broker's record of this worker's clients: kept current, with retries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from flask_chsk.brokers.contract import Arrival
from flask_chsk.errors import BrokerUnavailable, Refused, UsageError
from flask_chsk.server.connection import Connection
from flask_chsk.server.registration import LATER, MOVED, BrokerRegistration
from flask_chsk.server.replay import RETRY
from flask_chsk.server.topics import Topics

from .fakes import Site


class Scene(Site):
    """A worker of several, whose broker notes what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.broker = SimpleNamespace(local=False, clients=self, topics=self)
        self.calls: list[tuple[Any, ...]] = []
        self.is_away = False
        self.answer: Callable[..., Any] = lambda *args: Arrival(f"new {args[1]}", False, {})
        self.rejoins = True
        self.seen: list[Any] = []
        self.topics = Topics(60.0)
        memberships: Any = SimpleNamespace(
            take=lambda uid, arrival, complete: self.seen.append(("topics of", uid)),
            lost=lambda uid, topic: self.seen.append(("lost", uid, topic)),
        )
        presence: Any = SimpleNamespace(
            user_presence_changed=lambda uid, online, _: self.seen.append((uid, online))
        )
        self.registration = BrokerRegistration(
            self.hub,
            self.broker,
            self.registry,
            self.topics,
            memberships,
            presence,
            taken_over=lambda uid, client_id, token: self.seen.append(("taken over", client_id)),
        )

    def _ask(self, *call: Any) -> None:
        if self.is_away:
            raise BrokerUnavailable("away")
        self.calls.append(call)

    def attach(
        self,
        uid: str | None,
        client_id: str,
        kind: str,
        v1: bool,
        token: str = "",
        *,
        digest: str,
        silent: bool,
    ) -> Any:
        self._ask("attach", client_id, token, silent)
        return self.answer(uid, client_id)

    def detach(self, uid: str | None, client_id: str, token: str) -> int:
        self._ask("detach", client_id, token)
        return 7

    def was_here(self, uid: str) -> int:
        self._ask("was here", uid)
        return 8

    def rejoin(self, uid: str, topic: str) -> bool:
        self._ask("rejoin", uid, topic)
        if topic == "refused":
            raise UsageError("too many")
        return self.rejoins

    def ack(self, uid: str | None, client_id: str, token: str, offset: int) -> bool:
        self._ask("ack", client_id, offset)
        return True

    def here(self, uid: str, client_id: str) -> Connection:
        """A client that the broker knew by a token."""
        connection = self.connect(uid, client_id)
        connection.token = f"old {client_id}"
        return connection

    @contextmanager
    def away(self) -> Iterator[None]:
        self.is_away = True
        yield
        self.is_away = False


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_clients_are_let_in_again_with_their_tokens(scene: Scene) -> None:
    one, two = scene.here("ann", "c1"), scene.here("bob", "c2")
    scene.registration.reattach(silent=False)
    assert scene.registration.waits(one)
    scene.hub.work()
    assert scene.calls == [
        ("attach", "c1", "old c1", False),
        ("attach", "c2", "old c2", False),
    ]
    assert (one.token, two.token) == ("new c1", "new c2")
    assert scene.seen == [("topics of", "ann"), ("topics of", "bob")]
    assert not scene.registration.waits(one)


def test_a_client_that_another_worker_has_by_now_is_taken_over(scene: Scene) -> None:
    scene.here("ann", "c1")
    scene.answer = lambda *args: None
    scene.registration.reattach(silent=False)
    scene.hub.work()
    assert scene.seen == [("taken over", "c1")]


def test_a_client_that_went_while_it_was_let_in_again_is_signed_off(scene: Scene) -> None:
    one = scene.here("ann", "c1")

    def go(uid: str, client_id: str) -> Arrival:
        scene.registry.remove(uid, client_id, "ws")
        one.forget()
        return Arrival("new", False, {})

    scene.answer = go
    scene.registration.reattach(silent=False)
    scene.hub.work()
    assert scene.calls[-1] == ("detach", "c1", "new")


def test_an_opening_is_later_than_the_call_that_was_answered_after_it(scene: Scene) -> None:
    """Seed 22 of the cluster: the client was signed off by a name that the broker had forgotten."""
    one = scene.here("ann", "c1")

    def open_meanwhile(uid: str, client_id: str) -> Arrival:
        one.register("the opening's", 20)
        return Arrival("old c1", False, {}, offset=10)

    scene.answer = open_meanwhile
    scene.registration.reattach(silent=False)
    scene.hub.work()
    assert one.token == "the opening's"


def test_a_client_that_is_refused_is_given_up(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: Any) -> Any:
        raise Refused(429, "too many")

    one = scene.here("ann", "c1")
    scene.answer = refuse
    scene.registration.reattach(silent=False)
    scene.hub.work()
    assert not scene.registration.waits(one)


def test_while_the_broker_is_away_it_is_tried_again(scene: Scene) -> None:
    one = scene.here("ann", "c1")
    with scene.away():
        scene.registration.reattach(silent=False)
        scene.hub.sleep(2.5 * RETRY)
        assert scene.registration.waits(one)
    scene.hub.sleep(RETRY)
    assert one.token == "new c1"


def test_a_broker_that_began_anew_is_told_of_topics_first(scene: Scene) -> None:
    scene.here("ann", "c1")
    scene.topics.joined("ann", "news", 5)
    scene.registration.reattach(silent=True)
    assert scene.registration.had_before("ann")
    assert scene.registration.unsaid("ann")
    scene.hub.work()
    assert scene.calls == [("rejoin", "ann", "news"), ("attach", "c1", "old c1", True)]
    assert not scene.registration.had_before("ann")
    assert not scene.registration.unsaid("ann")


@pytest.mark.parametrize(("topic", "rejoins"), [("news", False), ("refused", True)])
def test_a_membership_that_cannot_be_kept_is_lost(scene: Scene, topic: str, rejoins: bool) -> None:
    scene.here("ann", "c1")
    scene.topics.joined("ann", topic, 5)
    scene.rejoins = rejoins
    scene.registration.reattach(silent=True)
    scene.hub.work()
    assert ("lost", "ann", topic) in scene.seen


def test_a_user_who_went_before_the_broker_knew_of_them_is_told_of(scene: Scene) -> None:
    one = scene.here("ann", "c1")
    with scene.away():
        scene.registration.reattach(silent=True)
        scene.hub.work()
        scene.registry.remove("ann", "c1", "ws")
        one.forget()
    scene.registration.reattach(silent=True)
    scene.hub.sleep(LATER + 2 * RETRY)
    assert scene.calls == [("was here", "ann")]
    assert scene.seen == [("ann", False)]


def test_a_user_who_moved_just_now_is_spoken_for(scene: Scene) -> None:
    scene.registration.moved("ann", ["news", "left"])
    scene.registration.moved_user_left("ann", "left")
    scene.registration.reattach(silent=True)
    scene.hub.sleep(LATER)
    assert scene.calls == [("rejoin", "ann", "news"), ("was here", "ann")]


def test_a_user_who_moved_long_ago_is_anothers(scene: Scene) -> None:
    scene.registration.moved("ann", ["news"])
    scene.hub.sleep(MOVED + 1.0)
    scene.registration.reattach(silent=True)
    scene.hub.sleep(LATER)
    assert scene.calls == []


def test_clients_are_signed_off_in_turn_and_until_it_holds(scene: Scene) -> None:
    with scene.away():
        for client_id in ("c1", "c2"):
            scene.registration.detach("ann", client_id, "token")
        scene.hub.sleep(1.5 * RETRY)
        assert scene.calls == []
    scene.hub.sleep(RETRY)
    assert scene.calls == [("detach", "c1", "token"), ("detach", "c2", "token")]
    assert scene.seen == [("ann", False)] * 2


def test_a_socket_that_proved_itself_is_the_clients_transport(scene: Scene) -> None:
    one = scene.here("ann", "c1")
    with scene.away():
        scene.registration.confirm_socket(one)
    scene.hub.sleep(RETRY)
    assert scene.calls == [("attach", "c1", "", False)]
    assert one.token == "new c1"


def test_a_socket_that_is_gone_by_then_is_not(scene: Scene) -> None:
    one = scene.here("ann", "c1")
    one.lose(0.0)
    scene.registration.confirm_socket(one)
    assert scene.calls == []


def test_how_far_a_client_was_served_is_left_behind(scene: Scene) -> None:
    one = scene.here("ann", "c1")
    scene.registration.leave_cursor(one)
    with scene.away():
        scene.registration.leave_cursor(one)
    assert scene.calls == [("ack", "c1", 1)]

"""Who came and who went: handlers, signals and watchers are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flask_chsk.errors import BrokerUnavailable
from flask_chsk.protocol.uids import NOBODY, ConnectedUids
from flask_chsk.server.dispatch import Dispatcher
from flask_chsk.server.presence import HEALED, Presence
from flask_chsk.server.router import Handlers
from flask_chsk.server.sending import Sending
from flask_chsk.server.trace import Trace
from flask_chsk.transports.budget import MemoryBudget

from .fakes import Host, Site

SNAPSHOT = 1.0  # seconds


def uids(*names: str) -> ConnectedUids:
    there = frozenset(names)
    return ConnectedUids(there, frozenset(), there)


class Scene(Site):
    """A worker, and a broker whose answer is not asked for again within *snapshot_seconds*."""

    def __init__(self, *, snapshot_seconds: float = SNAPSHOT) -> None:
        super().__init__()
        self.snapshot_seconds = snapshot_seconds
        self.broker = self.clients = self
        self.there = NOBODY
        self.away = False
        self.asked = 0
        self.watched = False
        self.seen: list[Any] = []
        handlers = Handlers()
        host = Host(handlers._router)
        dispatcher = Dispatcher(
            self.hub,
            10,
            1000,
            MemoryBudget(10**6, self.counters),
            handlers._router,
            host,
            self.counters,
            Trace(),
            signed_out=lambda uid, client_id: None,
        )
        for id in ("chsk/uidport-open", "chsk/uidport-close"):
            handlers.on(id)(lambda ev: self.seen.append((ev.id[13:], ev.data, ev.generation)))
        sending = Sending(self.config, self.broker, self.registry, self.counters)
        self.presence = Presence(self.hub, self.broker, dispatcher, host, sending)

    def connected(self) -> ConnectedUids:
        self.asked += 1
        if self.away:
            raise BrokerUnavailable("away")
        return self.there

    def watch(self) -> None:
        self.watched = True

    def changes(self) -> list[tuple[ConnectedUids, ConnectedUids]]:
        """What a watcher is told from now on."""
        told: list[tuple[ConnectedUids, ConnectedUids]] = []
        self.presence.watchers.append(lambda before, now: told.append((before, now)))
        return told


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_handlers_are_told_and_then_signals(scene: Scene) -> None:
    scene.presence.signals.append(lambda uid, came: scene.seen.append((uid, came)))
    scene.presence.user_presence_changed("ann", True, 1)
    scene.presence.user_presence_changed("ann", False, 2)
    scene.hub.work()
    assert scene.seen == [("open", "ann", 1), ("ann", True), ("close", "ann", 2), ("ann", False)]


def test_the_anonymous_are_nobodys(scene: Scene) -> None:
    scene.presence.user_presence_changed(None, True, 1)
    scene.hub.work()
    assert scene.seen == []


def test_where_an_answer_costs_nothing_watchers_are_told_of_a_change_at_once() -> None:
    scene = Scene(snapshot_seconds=0.0)
    told = watched(scene)
    for there in (uids("ann"), uids("ann", "bob"), uids("bob")):
        scene.there = there
        scene.presence.changed()
        scene.hub.sleep(0.0)
    assert told == [
        (NOBODY, uids("ann")),
        (uids("ann"), uids("ann", "bob")),
        (uids("ann", "bob"), uids("bob")),
    ]


def test_a_change_of_transport_is_told(scene: Scene) -> None:
    scene.there = uids("ann")
    told = watched(scene)
    told.clear()
    scene.there = ConnectedUids(frozenset(), frozenset({"ann"}), frozenset({"ann"}))
    scene.presence.changed()
    scene.hub.sleep(SNAPSHOT)
    assert told == [(uids("ann"), scene.there)]


def test_the_first_user_that_comes_has_the_broker_watched(scene: Scene) -> None:
    scene.changes()
    scene.presence.user_presence_changed("ann", True, 1)
    scene.hub.work()
    assert scene.watched


def test_who_is_there_is_asked_once_a_second(scene: Scene) -> None:
    scene.there = uids("ann")
    assert scene.presence.connected_uids == scene.presence.connected_uids == uids("ann")
    assert scene.asked == 1
    scene.hub.time += SNAPSHOT
    assert scene.presence.connected_uids == uids("ann")
    assert scene.asked == 2


def test_whoever_came_or_went_here_is_not_missed_in_the_answer(scene: Scene) -> None:
    assert scene.presence.connected_uids == NOBODY
    scene.there = uids("ann")
    scene.presence.user_presence_changed("ann", True, 1)
    assert scene.presence.connected_uids == uids("ann")


def test_a_broker_that_is_away_is_told(scene: Scene) -> None:
    scene.away = True
    with pytest.raises(BrokerUnavailable):
        _ = scene.presence.connected_uids
    scene.away = False
    assert scene.presence.connected_uids == NOBODY


def test_the_broker_is_watched_where_somebody_looks(scene: Scene) -> None:
    scene.presence.sweep()
    scene.hub.work()
    assert not scene.watched
    told = scene.changes()
    scene.there = uids("ann")
    scene.presence.sweep()
    scene.hub.sleep(SNAPSHOT)
    assert scene.watched
    assert told == [(NOBODY, uids("ann"))]


def watched(scene: Scene) -> list[tuple[ConnectedUids, ConnectedUids]]:
    told = scene.changes()
    scene.presence.sweep()
    scene.hub.sleep(3 * SNAPSHOT)
    return told


def test_many_changes_are_compared_once_a_second(scene: Scene) -> None:
    told = watched(scene)
    for name in ("ann", "bob", "eve"):
        scene.there = uids(name)
        scene.presence.changed()
    scene.hub.sleep(3 * SNAPSHOT)
    assert told == [(NOBODY, uids("eve"))]


def test_what_changes_nothing_is_not_told(scene: Scene) -> None:
    told = watched(scene)
    scene.presence.changed()
    scene.hub.sleep(3 * SNAPSHOT)
    assert told == []


def test_a_comparison_that_failed_is_made_again(scene: Scene) -> None:
    told = watched(scene)
    scene.away, scene.there = True, uids("ann")
    scene.presence.changed()
    scene.hub.sleep(1.5 * SNAPSHOT)
    scene.away = False
    scene.hub.sleep(2 * SNAPSHOT)
    assert told == [(NOBODY, uids("ann"))]


def test_watchers_hear_nothing_until_a_broker_that_began_anew_knows_all(scene: Scene) -> None:
    told = watched(scene)
    scene.there = uids("ann")
    scene.presence.restart()
    scene.hub.sleep(HEALED - 0.5)
    assert told == []
    scene.hub.sleep(1.0)
    assert told == [(NOBODY, uids("ann"))]


def test_handlers_may_send_and_see_who_is_there(scene: Scene) -> None:
    scene.there = uids("bob")
    sent: list[Any] = []
    send: Callable[..., Any] = lambda uid, event, **more: sent.append((uid, event))  # noqa: E731
    scene.presence._channel._sending.send = send  # type: ignore[method-assign]
    scene.presence._channel.send("bob", ["a/b"])
    assert sent == [("bob", ["a/b"])]
    assert scene.presence._channel.connected_uids == uids("bob")

"""Ways back to the client of an event."""

from __future__ import annotations

from typing import Any

import pytest

from flask_chsk.errors import PackError
from flask_chsk.protocol.event import Event
from flask_chsk.server.connection import Connection
from flask_chsk.server.replies import Pending, PostChannel, SocketChannel
from flask_chsk.server.router import EventMessage
from flask_chsk.server.trace import Happening
from flask_chsk.values import Keyword

from .fakes import FakeHub, FakeTransport, Office, texts, told

SAY = Event(Keyword("chat/say"), "hi")


class Scene(Office):
    def __init__(self) -> None:
        super().__init__(reply_timeout=1.0, max_outbox_bytes=1000)
        self.replies = self.worker.receiver._replies

    def channel(self, connection: Connection, cb: Any = "cb") -> SocketChannel:
        transport: Any = connection.transport
        return SocketChannel(self.replies, connection, transport, cb)

    def pending(self, *, asked: bool = True, left: int = 1) -> Pending:
        hub: Any = self.hub
        return Pending(hub, asked, b"otherwise", 1.0, left)


@pytest.fixture
def scene() -> Scene:
    return Scene()


# By WebSocket ---------------------------------------------------------------------------


def test_a_reply_goes_back_with_its_callback(scene: Scene) -> None:
    one = scene.connect()
    assert scene.channel(one).reply([1, 2])
    assert (texts(one), told(one)) == (['[[1 2] "cb"]'], ["wake"])


def test_a_reply_is_told_however_the_handler_gives_it(scene: Scene) -> None:
    one, seen = scene.connect("ann", "c1"), list[Happening]()
    ev = EventMessage(SAY, "ann", "c1", scene.channel(one))
    scene.worker.trace.add(seen.append)
    ev.defer()
    ev.reply({"n": 1})
    assert [(one.what, one.id, one.payload) for one in seen] == [("reply", "chat/say", {"n": 1})]


def test_nobody_waits_for_a_reply_that_was_not_asked_for(scene: Scene) -> None:
    one = scene.connect()
    channel = scene.channel(one, None)
    assert not channel.wants_reply
    assert not channel.reply(1)
    assert texts(one) == []


def test_a_reply_to_a_socket_that_is_gone_is_counted(scene: Scene) -> None:
    one = scene.connect()
    channel = scene.channel(one)
    scene.clients.attach_socket(one, FakeTransport())
    assert not channel.reply(1)
    assert texts(one) == []
    assert scene.worker.counters["replies_undeliverable"] == 1


def test_errors_tell_our_clients_why_and_sentes_that(scene: Scene) -> None:
    ours, sentes = scene.connect("ann", "c1"), scene.connect("bob", "c2", v1=False, digest="")
    for one in (ours, sentes):
        scene.channel(one).error(404, "half of \ud83d")
    assert texts(ours) == ['[:chsk/error "cb" {:status 404 :message "half of \\\\ud83d"}]']
    assert texts(sentes) == ['[:chsk/error "cb"]']


def test_what_was_not_handled_is_closed_or_timed_out(scene: Scene) -> None:
    one = scene.connect()
    scene.channel(one).closed()
    scene.channel(one).expired()
    assert texts(one) == ['[:chsk/closed "cb"]', '[:chsk/timeout "cb"]']


def test_a_reply_over_half_of_an_outbox_is_refused(scene: Scene) -> None:
    with pytest.raises(PackError):
        scene.channel(scene.connect()).reply("x" * 600)


def test_a_client_that_takes_no_replies_is_closed(scene: Scene) -> None:
    one = scene.connect()
    for _ in range(3):
        scene.channel(one).reply("x" * 400)
    assert (4002, "too slow: its outbox passed CHSK_MAX_OUTBOX_BYTES") in told(one)


def test_a_deferred_reply_that_does_not_come_is_a_timeout(scene: Scene) -> None:
    one = scene.connect()
    channel = scene.channel(one)
    ev = EventMessage(SAY, "ann", "c1", channel)
    ev.defer()
    channel.expire_later(ev)
    scene.hub.sleep(0.9)
    assert texts(one) == []
    scene.hub.sleep(0.2)
    assert texts(one) == ['[:chsk/timeout "cb"]']
    assert not ev.reply(1)  # too late


def test_a_push_goes_to_this_client_alone(scene: Scene) -> None:
    one, other = scene.connect("ann", "c1"), scene.connect("ann", "c2")
    scene.channel(one).push(["a/b", 1])
    assert (texts(one), texts(other)) == (["[:a/b 1]"], [])


def test_a_handler_may_send_to_others_and_see_who_is_there(scene: Scene) -> None:
    channel, bob = scene.channel(scene.connect()), scene.connect("bob", "c2")
    channel.send("bob", ["a/b", 1])
    assert texts(bob) == ["[:a/b 1]"]
    assert channel.connected_uids.any == {"ann", "bob"}


# By POST --------------------------------------------------------------------------------


def test_a_reply_is_the_answer_of_its_post(scene: Scene) -> None:
    pending = scene.pending()
    assert PostChannel(scene.replies, scene.opening(), pending).reply(1)
    assert list(pending) == [b"[1 nil]"]


def test_a_post_that_did_not_ask_gets_none(scene: Scene) -> None:
    channel = PostChannel(scene.replies, scene.opening(), None)
    assert not channel.wants_reply
    assert not channel.reply(1)


def test_an_answer_begins_when_all_events_are_handled(scene: Scene) -> None:
    pending = scene.pending(asked=False, left=2)
    pending.handled()
    head: Any = pending._head
    assert head.value is None
    pending.handled()
    assert list(pending) == [b"otherwise"]


def test_a_deferred_reply_follows_the_head_of_its_answer(scene: Scene) -> None:
    pending = scene.pending()
    pending.handled()
    body = iter(pending)
    assert next(body) == b""
    pending.set(b"[1]")
    pending.set(b"[2]")
    assert list(body) == [b"[1]"]


def test_a_reply_that_does_not_come_in_time_is_answered_otherwise() -> None:
    hub: Any = FakeHub()
    assert list(Pending(hub, True, b"[:chsk/timeout]", 1.0, 1)) == [b"[:chsk/timeout]"]


def test_a_push_to_a_client_that_polls_goes_to_it_alone(scene: Scene) -> None:
    one, other = scene.poll("ann", "c1"), scene.poll("ann", "c2")
    PostChannel(scene.replies, scene.opening("ann", "c1"), None).push(["a/b", 1])
    assert (texts(one), texts(other)) == (["[:a/b 1]"], [])

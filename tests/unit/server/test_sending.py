"""What is checked of an event before it is published, and where it goes."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from sqlalchemy.orm import Session

from flask_chsk.errors import BadEvent, BrokerUnavailable, PackError, UsageError
from flask_chsk.protocol.event import Event
from flask_chsk.protocol.session import ASK
from flask_chsk.server.delayed_closes import PendingResponse
from flask_chsk.server.router import EventMessage
from flask_chsk.server.sending import Sending

from .fakes import Site


class Broker:
    """Notes what is published; only ann is there."""

    def __init__(self) -> None:
        self.published: list[tuple[Any, ...]] = []
        self.absent = {"u:bob"}

    def publish(self, channel: str, text: str, *, exclude: Any, flush: bool) -> int | None:
        self.published.append((channel, text, exclude, flush))
        return None if channel in self.absent else len(self.published)


class Scene(Site):
    def __init__(self) -> None:
        super().__init__(max_outbox_bytes=4000)
        self.broker = Broker()
        self.sending = Sending(self.config, self.broker, self.registry, self.counters)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_events_go_to_the_channel_of_those_they_are_for(scene: Scene) -> None:
    sending = scene.sending
    ev = EventMessage(Event("x/y"), "ann", "c1")
    sending.send("ann", ["a/b", 1])
    sending.send("ann", ["a/b", 2], "c1", flush=True)
    sending.send(None, ["a/b", 3])
    sending.send(None, ["a/b", 4], "c2")
    sending.broadcast(["a/b", 5], ev)
    sending.publish("news", ["a/b", 6])
    sending.publish("news", ["a/b", 7], ev)
    sending.send("ann", ["a/b", 8], exclude=ev)
    sending.send("ann", ["a/b", 9], exclude=EventMessage(Event("chsk/uidport-open"), "ann", None))
    assert scene.broker.published == [
        ("u:ann", "[:a/b 1]", None, False),
        ("c:c1:ann", "[:a/b 2]", None, True),
        ("-", "[:a/b 3]", None, False),
        ("c:c2", "[:a/b 4]", None, False),
        ("*", "[:a/b 5]", ("ann", "c1"), False),
        ("t:news", "[:a/b 6]", None, False),
        ("t:news", "[:a/b 7]", ("ann", "c1"), False),
        ("u:ann", "[:a/b 8]", ("ann", "c1"), False),
        ("u:ann", "[:a/b 9]", None, False),
    ]


@pytest.mark.parametrize("exclude", ["c1", ("ann", "c1"), Event("x/y")])
def test_only_the_sender_of_an_event_message_can_be_excluded(scene: Scene, exclude: Any) -> None:
    with pytest.raises(UsageError, match=r"exclude=ev\), not "):
        scene.sending.publish("news", ["a/b"], exclude)
    assert scene.broker.published == []


def test_an_event_for_nobody_is_counted_as_dropped(scene: Scene) -> None:
    assert scene.sending.send("ann", ["a/b"]) == 1
    assert scene.sending.send("bob", ["a/b"]) is None
    assert scene.counters == {"events_out": 1, "dropped_absent": 1}


@pytest.mark.parametrize("event", [None, "a/b", ["nonsense"], ["chsk/handshake", 1]])
def test_what_is_no_event_of_an_application_is_refused(scene: Scene, event: Any) -> None:
    with pytest.raises(BadEvent):
        scene.sending.send("ann", event)
    assert scene.broker.published == []


def test_what_cannot_be_packed_is_refused_with_its_path(scene: Scene) -> None:
    with pytest.raises(PackError, match=r"event\[1\]"):
        scene.sending.send("ann", ["a/b", {"x": object()}])


def test_an_event_over_half_of_an_outbox_is_refused(scene: Scene) -> None:
    scene.sending.send("ann", ["a/b", "x" * 1900])
    with pytest.raises(PackError, match="CHSK_MAX_OUTBOX_BYTES"):
        scene.sending.send("ann", ["a/b", "x" * 2000])


def test_what_no_receiver_could_read_is_refused(scene: Scene) -> None:
    def check(id: str, data: Any, text: str) -> None:
        raise PackError(f"{id} {data} {text}")

    scene.sending.check_receivers = check
    with pytest.raises(PackError, match=r"a/b 1 \[:a/b 1\]"):
        scene.sending.send("ann", ["a/b", 1])


def test_a_close_is_an_event_and_may_wait_for_a_response(scene: Scene) -> None:
    scene.sending.close("ann", None, reconnect=True)
    scene.sending.close("ann", "c1", reconnect=False, after=PendingResponse("w", "t"))
    closes = [(channel, text) for channel, text, *_ in scene.broker.published]
    assert closes == [
        ("u:ann", '[:chsk/close {:code 4003 :reason "closed by the application"}]'),
        ("c:c1:ann", '[:chsk/close {:code 4005 :reason "signed out" :after ["w" "t"]}]'),
    ]


def test_the_absence_of_a_user_is_logged_once(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.connect("ann")
    with caplog.at_level(logging.INFO, "flask_chsk.server.sending"):
        for uid in ("bob", "bob", "ann", None):
            scene.sending.send(uid, ["a/b"])
    [line] = caplog.messages
    assert "'bob'" in line
    assert "['ann']" in line


def test_a_send_that_found_no_client_of_a_user_is_told(scene: Scene) -> None:
    told: list[tuple[str, Event]] = []
    scene.sending.on_absent = lambda uid, event: told.append((uid, event))
    scene.sending.send("bob", ["a/b"])
    scene.sending.send("bob", ["a/b", 1])
    assert told == [("bob", Event("a/b")), ("bob", Event("a/b", 1))]


@pytest.mark.parametrize(
    ("uid", "client_id", "event"),
    [("ann", None, ["a/b"]), (None, None, ["a/b"]), ("bob", "c1", ["a/b"]), ("bob", None, [ASK])],
)
def test_no_other_send_is_told(
    scene: Scene, uid: str | None, client_id: str | None, event: list[Any]
) -> None:
    """Whether the user of a client is there, is not known; a question was told to its asker."""
    scene.broker.absent = {"u:bob", "c:c1:bob"}
    told: list[tuple[str, Event]] = []
    scene.sending.on_absent = lambda uid, event: told.append((uid, event))
    scene.sending.send(uid, event, client_id)
    assert told == []


def test_an_event_that_waits_for_a_commit_is_checked_and_packed_at_once(scene: Scene) -> None:
    sending, data = scene.sending, {"n": 1}
    ev = EventMessage(Event("a/b"), "ann", "c1")  # type: ignore[arg-type]
    with Session() as session:
        assert sending.send("ann", ["a/b", data], flush=True, after_commit=session) is None
        data["n"] = 2
        sending.broadcast(["a/b", data], ev, session)
        sending.publish("news", ["a/b", 3], None, session)
        with pytest.raises(PackError, match=r"event\[1\]"):
            sending.send("ann", ["a/b", object()], after_commit=session)
        with pytest.raises(BadEvent):
            sending.send("ann", ["chsk/handshake"], after_commit=session)
        assert (scene.broker.published, scene.counters) == ([], {})
        session.commit()
    assert scene.broker.published == [
        ("u:ann", "[:a/b {:n 1}]", None, True),
        ("*", "[:a/b {:n 2}]", ("ann", "c1"), False),
        ("t:news", "[:a/b 3]", None, False),
    ]
    assert scene.counters == {"events_out": 3}


def test_who_is_absent_is_known_after_the_commit(scene: Scene) -> None:
    absent: list[Any] = []
    scene.sending.on_absent = lambda uid, event: absent.append((uid, event))
    with Session() as session:
        scene.sending.send("bob", ["a/b", 1], after_commit=session)
        assert absent == []
        session.commit()
    assert absent == [("bob", ("a/b", 1))]


def test_an_event_that_the_broker_did_not_take_after_the_commit_is_counted(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise BrokerUnavailable("Redis is away")

    with Session() as session:
        scene.sending.send("ann", ["a/b", 1], after_commit=session)
        monkeypatch.setattr(scene.broker, "publish", fail)
        session.commit()
    assert scene.counters == {"unsent_after_commit": 1}

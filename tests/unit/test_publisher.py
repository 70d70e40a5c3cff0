"""Events from outside: checked and packed here, before Redis is asked for anything."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from sqlalchemy.orm import Session

from flask_chsk.brokers.redis.scripts import JOIN, LEAVE
from flask_chsk.errors import BadEvent, ConfigError, NoClient, PackError, UsageError
from flask_chsk.protocol.uids import ALL_USERS_WITHOUT_UID
from flask_chsk.publisher import MAX_BYTES, Publisher

URL = "redis://127.0.0.1:1/0"
NOON = datetime(2026, 7, 1, 12)


class Connections:
    """In place of connections: notes what is published, and answers with *offset*."""

    def __init__(self, url: str) -> None:
        self.published: list[tuple[str, str, str]] = []
        self.offset: bytes | None = b"7"
        self.closed = 0
        self.called: list[Any] = []
        self.answers: list[Any] = []
        self.redis = self

    def call(self, script: Any, *args: bytes) -> Any:
        self.called.append((script, *args))
        return self.answers.pop(0)

    def publish(self, script: Any, *args: bytes) -> bytes | None:
        channel, heard_by, text, *_ = (arg.decode("utf-8", "surrogatepass") for arg in args)
        self.published.append((channel, heard_by, text))
        return self.offset

    def close(self) -> None:
        self.closed += 1


@pytest.fixture(autouse=True)
def _no_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_chsk.publisher.Connections", Connections)


def published(publisher: Publisher) -> list[tuple[str, str, str]]:
    connections: Any = publisher._connections
    return list(connections.published)


# To whom -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uid", "client_id", "channel", "heard_by"),
    [
        ("ann", None, "u:ann", "u:ann"),
        (7, None, "u:7", "u:7"),
        ("ann", "c1", "c:c1:ann", "u:ann"),
        (ALL_USERS_WITHOUT_UID, None, "-", "-"),
        (ALL_USERS_WITHOUT_UID, "c1", "c:c1", "c:c1"),
    ],
)
def test_an_event_goes_to_a_user_a_client_or_the_anonymous(
    uid: Any, client_id: str | None, channel: str, heard_by: str
) -> None:
    publisher = Publisher(URL)
    assert publisher.send(uid, ["order/shipped", {"id": 7}], client_id=client_id) == 7
    assert published(publisher) == [(channel, heard_by, "[:order/shipped {:id 7}]")]


def test_an_event_goes_to_everyone_or_to_a_topic() -> None:
    publisher = Publisher(URL)
    assert (publisher.broadcast(["a/b"]), publisher.publish("news", ["a/b", 1])) == (7, 7)
    assert published(publisher) == [("*", "*", "[:a/b nil]"), ("t:news", "t:news", "[:a/b 1]")]


def test_a_user_who_is_not_there_gets_nothing() -> None:
    publisher = Publisher(URL)
    publisher._connections.offset = None  # type: ignore[attr-defined]
    assert publisher.send("ann", ["a/b"]) is None


# What else an application does ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "channel", "data"),
    [
        (("ann",), "u:ann", '{:code 4003 :reason "closed by the application"}'),
        (("ann", "c1"), "c:c1:ann", '{:code 4003 :reason "closed by the application"}'),
        ((7, None, False), "u:7", '{:code 4005 :reason "signed out"}'),
        ((ALL_USERS_WITHOUT_UID,), "-", '{:code 4003 :reason "closed by the application"}'),
    ],
)
def test_a_close_is_heard_by_all_workers(args: tuple[Any, ...], channel: str, data: str) -> None:
    publisher = Publisher(URL)
    publisher.close(*args)
    assert published(publisher) == [(channel, "*", f"[:chsk/close {data}]")]


def test_users_join_and_leave_topics() -> None:
    publisher: Any = Publisher(URL)
    publisher._connections.answers = [1, 0, 1]
    assert publisher.join(7, "news") and not publisher.join("ann", "news")
    assert publisher.leave("ann", "news")
    assert not publisher.leave(ALL_USERS_WITHOUT_UID, "news")
    scripts = [called[:3] for called in publisher._connections.called]
    assert scripts == [
        (JOIN, b"7", b"news"),
        (JOIN, b"ann", b"news"),
        (LEAVE, b"ann", b"news"),
    ]


@pytest.mark.parametrize("topic", ["", "x" * 256, None, "\ud800"])
def test_what_is_no_topic_is_refused(topic: Any) -> None:
    publisher: Any = Publisher(URL)
    for call in (
        lambda: publisher.publish(topic, ["a/b"]),
        lambda: publisher.join("ann", topic),
        lambda: publisher.leave("ann", topic),
    ):
        with pytest.raises(UsageError, match="a topic is"):
            call()
    assert (published(publisher), publisher._connections.called) == ([], [])


def test_nobody_is_asked_where_nobody_is() -> None:
    publisher: Any = Publisher(URL)
    publisher._connections.answers = [[], [b"c2"]]
    with pytest.raises(NoClient, match="uid 'ann' has no client"):
        publisher.ask("ann", ["a/b"])
    with pytest.raises(NoClient):
        publisher.ask("ann", ["a/b"], client_id="c1")
    with pytest.raises(BadEvent):
        publisher.ask("ann", ["nonsense"])
    assert published(publisher) == []


def test_events_that_wait_for_a_commit_are_packed_at_once_and_sent_in_order() -> None:
    publisher, data = Publisher(URL), [1]
    with Session() as session:
        assert publisher.send("ann", ["a/b", data], after_commit=session) is None
        data.append(2)
        publisher.broadcast(["a/b", data], after_commit=session)
        publisher.publish("news", ["a/b"], after_commit=session)
        with pytest.raises(PackError):
            publisher.broadcast(["a/b", object()], after_commit=session)
        with pytest.raises(UsageError, match="takes a session of SQLAlchemy"):
            publisher.broadcast(["a/b"], after_commit=True)  # type: ignore[arg-type]
        assert published(publisher) == []
        session.commit()
        publisher.broadcast(["a/c"], after_commit=session)
        session.rollback()
    assert published(publisher) == [
        ("u:ann", "u:ann", "[:a/b [1]]"),
        ("*", "*", "[:a/b [1 2]]"),
        ("t:news", "t:news", "[:a/b nil]"),
    ]


# What is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["memory://", "", "localhost", "http://localhost", "redis:/x"])
def test_a_publisher_needs_the_url_of_a_redis(url: str) -> None:
    with pytest.raises(ConfigError, match="a publisher needs the redis://"):
        Publisher(url)


@pytest.mark.parametrize("uid", [None, True, 1.5, b"ann", ["ann"], "", "x" * 256, "\ud800"])
def test_what_is_no_uid_is_refused(uid: Any) -> None:
    publisher = Publisher(URL)
    with pytest.raises(UsageError, match="a uid "):
        publisher.send(uid, ["a/b", 1])
    assert published(publisher) == []


@pytest.mark.parametrize("event", [["no-namespace"], [], "a/b", ["a/b", 1, 2], ["chsk/close"]])
def test_what_is_no_event_of_an_application_is_refused(event: Any) -> None:
    publisher = Publisher(URL)
    for call in (
        lambda: publisher.send("ann", event),
        lambda: publisher.broadcast(event),
        lambda: publisher.publish("news", event),
    ):
        with pytest.raises(BadEvent):
            call()
    assert published(publisher) == []


def test_an_id_and_its_data_are_one_argument() -> None:
    publisher: Any = Publisher(URL)
    for call, words in (
        (lambda: publisher.send("ann", "a/b", 1), r"publisher\.send\(uid, "),
        (lambda: publisher.broadcast("a/b", 1), r"publisher\.broadcast\("),
        (lambda: publisher.publish("news", "a/b", 1), r"publisher\.publish\(topic, "),
    ):
        with pytest.raises(BadEvent, match=words):
            call()


def test_an_event_that_is_too_large_is_refused() -> None:
    publisher = Publisher(URL, max_bytes=100)
    publisher.broadcast(["a/b", "x" * (100 - len('[:a/b ""]'))])
    with pytest.raises(PackError, match="101 bytes: more than 100"):
        publisher.broadcast(["a/b", "x" * (101 - len('[:a/b ""]'))])
    assert len(published(publisher)) == 1
    with pytest.raises(PackError, match=f"more than {MAX_BYTES}"):
        Publisher(URL).broadcast(["a/b", "x" * MAX_BYTES])


def test_what_cannot_be_packed_is_named() -> None:
    with pytest.raises(PackError, match=r"^event\[1\]\[0\]: object of type object"):
        Publisher(URL).broadcast(["a/b", [object()]])


# Packing -----------------------------------------------------------------------------------


def test_bytes_are_kept() -> None:
    publisher = Publisher(URL)
    publisher.broadcast(["a/b", b"ab"])
    assert published(publisher)[0][2].startswith("[:a/b #chsk/bytes ")


def test_pack_default_makes_the_unknown_known() -> None:
    publisher = Publisher(URL, pack_default=lambda value: "known")
    publisher.broadcast(["a/b", object()])
    assert published(publisher)[0][2] == '[:a/b "known"]'


def test_a_pack_default_that_no_call_runs_is_refused() -> None:
    async def default(value: Any) -> Any: ...

    with pytest.raises(ConfigError, match=r"pack_default: .*is async"):
        Publisher(URL, pack_default=default)
    with pytest.raises(ConfigError, match=r"is called as <lambda>\(value\)"):
        Publisher(URL, pack_default=lambda: 1)  # type: ignore[arg-type,misc]


@pytest.mark.parametrize(("zone", "hour"), [("UTC", 12), (timezone.utc, 12), ("Europe/Berlin", 10)])
def test_datetimes_without_a_zone_are_given_one(zone: Any, hour: int) -> None:
    publisher = Publisher(URL, naive_datetimes=zone)
    publisher.broadcast(["a/b", NOON])
    assert published(publisher)[0][2] == f'[:a/b #inst "2026-07-01T{hour}:00:00.000-00:00"]'


def test_datetimes_without_a_zone_are_refused_where_none_is_given() -> None:
    with pytest.raises(PackError, match="naive datetime; give it a zone"):
        Publisher(URL).broadcast(["a/b", NOON])
    with pytest.raises(ConfigError, match="naive_datetimes: there is no zone 'Mars'"):
        Publisher(URL, naive_datetimes="Mars")


# The end -----------------------------------------------------------------------------------


def test_a_publisher_closes_its_connections_at_the_end_of_a_with_block() -> None:
    with Publisher(URL) as publisher:
        connections: Any = publisher._connections
        assert connections.closed == 0
    assert connections.closed == 1
    assert publisher.broadcast(["a/b"]) == 7  # which connects anew

"""The client as an application sees it: what it checks, returns and raises; links are noted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from queue import Queue
from typing import Any

import pytest

from flask_chsk.client import (
    ChannelClosed,
    ChannelSocket,
    EventMsg,
    RecvQueue,
    ReplyError,
    ReplyTimeout,
)
from flask_chsk.client.link import LinkClosed
from flask_chsk.errors import BadEvent, ConfigError, PackError
from flask_chsk.values import Keyword
from tests.unit.client.fakes import URL, NotedLink, confirm

Make = Callable[..., ChannelSocket]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    NotedLink.take_the_place_of_all(monkeypatch)
    made: list[ChannelSocket] = []

    def making(**options: Any) -> ChannelSocket:
        chsk = ChannelSocket(URL, **{"type": "ws", "backoff": lambda attempt: 60.0, **options})
        made.append(chsk)
        return chsk

    yield making
    for chsk in made:
        chsk.destroy()


@pytest.fixture
def chsk(make: Make) -> ChannelSocket:
    """An open client."""
    chsk = make()
    confirm(chsk)
    return chsk


def answering(chsk: ChannelSocket, message: str) -> None:
    """Have the next event answered as soon as it leaves."""
    link: Any = NotedLink.made[-1]
    link.flush = lambda: chsk._engine.received(link.link, message)


# Options -----------------------------------------------------------------------------------


def test_an_unknown_option_names_the_one_that_was_meant() -> None:
    with pytest.raises(TypeError, match=r"no option clientid: did you mean client_id\?"):
        ChannelSocket(URL, clientid="me")


def test_old_names_of_options_are_understood(make: Make) -> None:
    with pytest.warns(DeprecationWarning, match="client_uuid is now client_id"):
        chsk = make(client_uuid="me", lp_kalive=3, connect=False)
    assert (chsk.client_id, chsk._engine._endpoint.post_timeout) == ("me", 3.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recv_buf": 0}, "recv_buf is a number, and at least 1"),
        ({"lp_timeout": 0}, "lp_timeout is in seconds, and more than 0"),
        ({"ajax_opts": {"timeout": 1}}, r"ajax_opts has params and headers, not \['timeout'\]"),
        ({"packer": "yaml"}, "yaml"),
    ],
)
def test_an_option_that_cannot_be_is_refused(
    make: Make, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**options)


def test_it_connects_at_once_or_when_it_is_asked_to(make: Make) -> None:
    chsk = make(connect=False)
    assert (chsk.state["status"], NotedLink.made) == ("closed", [])
    assert repr(chsk) == f"<ChannelSocket {URL} closed>"
    chsk.connect()
    assert (chsk.state["status"], len(NotedLink.made)) == ("connecting", 1)
    make()
    assert len(NotedLink.made) == 2


def test_a_queue_of_the_application_takes_the_events(make: Make) -> None:
    queue = RecvQueue(5)
    chsk = make(recv_buf=queue, connect=False)
    chsk.put(["a/b", 1])
    assert chsk.ch_recv is queue
    assert queue.get(timeout=60).event == ("chsk/recv", ("a/b", 1))


def test_as_a_context_it_is_open_and_then_destroyed(make: Make) -> None:
    chsk = make(connect=False)

    def connect() -> None:
        ChannelSocket.connect(chsk)
        confirm(chsk)

    chsk.connect = connect  # type: ignore[method-assign]
    with chsk as entered:
        assert entered is chsk and chsk.state["open"]
    assert chsk.state["status"] == "destroyed"


def test_a_context_that_does_not_open_is_destroyed(make: Make) -> None:
    chsk = make(connect=False)
    chsk.wait_open = lambda: ChannelSocket.wait_open(chsk, 0.01)  # type: ignore[method-assign]
    with pytest.raises(ChannelClosed, match="not open: connecting"), chsk:
        pytest.fail("it was entered")
    assert chsk.state["status"] == "destroyed"


# Events in ---------------------------------------------------------------------------------


def test_a_handler_is_registered_and_taken_away(chsk: ChannelSocket) -> None:
    seen: Queue[Any] = Queue()

    @chsk.on("a/b")
    def first(ev: EventMsg) -> None:
        seen.put(("first", ev.data))

    undo = chsk.on("a/b", lambda ev: seen.put(("second", ev.data)))
    chsk.put(["a/b", 1])
    undo()
    chsk.put(["a/b", 2])
    assert [seen.get(timeout=60) for _ in range(3)] == [("first", 1), ("second", 1), ("first", 2)]
    assert callable(first)


async def never(*_: Any) -> None: ...


@pytest.mark.parametrize(
    "register",
    [
        lambda chsk: chsk.on("a/b", never),
        lambda chsk: chsk.on("a/b")(never),
        lambda chsk: chsk.watch(never),
    ],
)
def test_a_function_that_no_call_runs_is_refused(
    chsk: ChannelSocket, register: Callable[[ChannelSocket], object]
) -> None:
    with pytest.raises(ConfigError, match=r"never is async .* a thread of the client"):
        register(chsk)


def test_a_handler_has_an_id_with_a_namespace(chsk: ChannelSocket) -> None:
    with pytest.raises(BadEvent):
        chsk.on("say")


def test_events_that_no_handler_took_come_unwrapped(make: Make) -> None:
    chsk = make(connect=False)
    chsk.on("a/taken", print)
    for event in (["a/b", 1], ["a/taken"], ["chsk/own", 2]):
        chsk.put(event)
    events = chsk.events()
    assert [next(events).event for _ in range(2)] == [("a/b", 1), ("chsk/own", 2)]
    chsk.destroy()
    assert [ev.id for ev in events if ev.id != "chsk/state"] == []


def test_only_events_are_put(chsk: ChannelSocket) -> None:
    with pytest.raises(BadEvent):
        chsk.put("nonsense")


# Events out --------------------------------------------------------------------------------


def test_an_event_leaves_where_it_is_open(chsk: ChannelSocket) -> None:
    assert chsk.send(["a/b", 1]) is True
    chsk.disconnect()
    assert chsk.send(["a/b", 2]) is False


def test_an_event_is_checked_before_its_options(chsk: ChannelSocket) -> None:
    with pytest.raises(BadEvent):
        chsk.send("a/b", {"nonsense": 1})
    with pytest.raises(ConfigError, match=r"timeout_ms, cb and flush, not \['callback'\]"):
        chsk.send(["a/b"], {"callback": print})
    with pytest.raises(ConfigError, match="timeout is in seconds"):
        chsk.send(["a/b"], -1.0, print)
    with pytest.raises(PackError, match=r"\[1\]|data"):
        chsk.send(["a/b", object()])


@pytest.mark.parametrize(
    "given",
    [
        lambda cb: (10.0, cb),
        lambda cb: ({"timeout": 10.0, "cb": cb},),
        lambda cb: ({"timeout-ms": 10_000, "cb": cb, "flush?": True},),
        lambda cb: (None, cb),
    ],
)
def test_a_callback_gets_the_reply(
    chsk: ChannelSocket, given: Callable[[Any], tuple[Any, ...]]
) -> None:
    replies: Queue[Any] = Queue()
    answering(chsk, '[{:a 1} "c1"]')
    assert chsk.send(["a/b"], *given(replies.put_nowait)) is True
    assert replies.get(timeout=60) == {"a": 1}


def test_a_queue_gets_the_reply_with_its_name(chsk: ChannelSocket) -> None:
    replies: Queue[Any] = Queue()
    answering(chsk, '[7 "c1"]')
    chsk.send(["a/b"], 10.0, replies)
    assert replies.get(timeout=60) == [Keyword("a/b.cb"), 7]


def test_a_key_is_given_or_made_and_asks_for_a_reply(chsk: ChannelSocket) -> None:
    sent: list[Any] = []
    link: Any = NotedLink.made[-1]
    link.take = lambda outgoing: sent.append(outgoing) or True
    for key in ("mine", True, True, None):
        chsk.send(["a/b"], key=key)
    given, made, another, none = (one.key for one in sent)
    assert (given, none) == ("mine", None)
    assert len(made) == 12 and made != another
    assert [one.id is not None for one in sent] == [True, True, True, False]


# Requests ----------------------------------------------------------------------------------


def test_a_request_returns_its_reply(chsk: ChannelSocket) -> None:
    answering(chsk, '[[1 :a/x] "c1"]')
    assert chsk.request(["a/b"]) == [1, Keyword("a/x")]


def test_a_request_ends_without_its_reply(chsk: ChannelSocket) -> None:
    with pytest.raises(ReplyTimeout, match=r"^a/b: no reply within 0\.05 s$"):
        chsk.request(["a/b"], 0.05)


def test_a_request_raises_the_error_of_the_server(chsk: ChannelSocket) -> None:
    answering(chsk, '[:chsk/error "c1" {:status 403 :message "not yours"}]')
    with pytest.raises(ReplyError, match=r"^a/b: not yours$") as raised:
        chsk.request(["a/b"])
    assert raised.value.status == 403


def test_an_error_without_details_names_itself(chsk: ChannelSocket) -> None:
    answering(chsk, '[:chsk/error "c1"]')
    with pytest.raises(ReplyError, match=r"^a/b: chsk/error$") as raised:
        chsk.request(["a/b"])
    assert raised.value.status is None


def test_a_request_ends_with_its_connection(chsk: ChannelSocket) -> None:
    link: Any = NotedLink.made[-1]
    link.flush = lambda: chsk._engine.closed(link.link, LinkClosed(1006))
    with pytest.raises(ChannelClosed, match=r"^a/b: "):
        chsk.request(["a/b"])


def test_a_request_on_a_closed_client_is_refused_at_once(make: Make) -> None:
    chsk = make(connect=False)
    with pytest.raises(ChannelClosed, match=r"^a/b: closed$"):
        chsk.request(["a/b"])


# Coming and going --------------------------------------------------------------------------


def test_a_watcher_sees_each_change_until_it_is_undone(chsk: ChannelSocket) -> None:
    seen: Queue[Any] = Queue()
    undo = chsk.watch(lambda old, new: seen.put(new["status"]))
    chsk.disconnect()
    assert set(iter(lambda: seen.get(timeout=60), "closed")) <= {"open"}
    undo()
    chsk.connect()
    chsk.destroy()
    assert seen.empty()


@pytest.mark.parametrize(
    ("call", "reason", "links"),
    [
        ("disconnect", "requested-disconnect", 1),
        ("reconnect", "requested-reconnect", 2),
        ("break_connection", "unexpected", 1),
    ],
)
def test_an_end_says_who_wanted_it(chsk: ChannelSocket, call: str, reason: str, links: int) -> None:
    getattr(chsk, call)()
    assert chsk.state["last_close"]["reason"] == reason
    assert len(NotedLink.made) == links


def test_a_client_id_that_somebody_else_has_is_replaced_unless_it_was_given(make: Make) -> None:
    for options, stays in (({"client_id": "mine"}, True), ({}, False)):
        chsk = make(**options)
        before = chsk.client_id
        chsk._engine.closed(NotedLink.made[-1].link, LinkClosed(status=409, why="ws-error"))
        assert (chsk.client_id == before) is stays

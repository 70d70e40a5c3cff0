"""A Python client against a real server: every scenario over both transports and packers."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from itertools import product
from queue import Queue
from typing import Any
from uuid import uuid4

import pytest

from flask_chsk.client import (
    ChannelClosed,
    ChannelSocket,
    EventMsg,
    ReplyError,
    ReplyTimeout,
)
from flask_chsk.errors import BadEvent, PackError
from tests.e2e.client.conftest import TestServer
from tests.process import WAIT, eventually

Open = Callable[..., ChannelSocket]
OVER = [*product(("ws", "ajax"), ("edn", "json"))]


@pytest.fixture(params=OVER, ids=lambda over: "-".join(over))
def over(request: pytest.FixtureRequest) -> dict[str, str]:
    """Transport and packer."""
    kind, packer = request.param
    return {"type": kind, "packer": packer}


@pytest.fixture
def uid() -> str:
    return uuid4().hex


def heard(chsk: ChannelSocket, id: str = "test/pushed") -> list[Any]:
    """What will have been pushed of one id."""
    data: list[Any] = []
    chsk.on(id, lambda ev: data.append(ev.data))
    return data


def test_it_opens_and_knows_who_it_is(open_client: Open, over: dict[str, str], uid: str) -> None:
    chsk = open_client(uid, **over)
    state = chsk.state
    assert {key: state[key] for key in ("status", "type", "open", "ever_opened", "first_open")} == {
        "status": "open",
        "type": over["type"],
        "open": True,
        "ever_opened": True,
        "first_open": True,
    }
    assert (state["uid"], state["handshake_data"]) == (uid, {"hello": "there"})


def test_an_anonymous_client_has_no_uid(open_client: Open, over: dict[str, str]) -> None:
    assert open_client(**over).state["uid"] is None


def test_a_request_is_replied_to(open_client: Open, over: dict[str, str]) -> None:
    chsk = open_client(**over)
    assert chsk.request(["test/echo", {"a": [1, None, "é", 2.5]}]) == {"a": [1, None, "é", 2.5]}
    assert chsk.request(["test/echo"]) is None


def test_a_reply_that_comes_never_times_out(open_client: Open, over: dict[str, str]) -> None:
    chsk = open_client(**over)
    with pytest.raises(ReplyTimeout, match=r"test/never: no reply within 0\.2 s"):
        chsk.request(["test/never"], timeout=0.2)


def test_a_late_reply_is_for_nobody(open_client: Open, over: dict[str, str]) -> None:
    chsk = open_client(**over)
    replies: list[Any] = []
    chsk.send(["test/late", 0.3], 0.1, replies.append)
    eventually(lambda: replies)
    assert chsk.request(["test/late", 0.4]) == "late"
    assert replies == ["chsk/timeout"]


def test_a_handler_that_fails_is_an_error(open_client: Open, over: dict[str, str]) -> None:
    chsk = open_client(**over)
    with pytest.raises(ReplyError, match="test/fail: a teapot") as raised:
        chsk.request(["test/fail"])
    assert raised.value.status == 418


def test_a_callback_is_called_with_the_reply(open_client: Open, over: dict[str, str]) -> None:
    chsk = open_client(**over)
    replies: Queue[Any] = Queue()
    assert chsk.send(["test/echo", 1], WAIT, replies.put_nowait) is True
    assert chsk.send(["test/fail"], WAIT, replies.put_nowait) is True
    assert {replies.get(timeout=WAIT), replies.get(timeout=WAIT)} == {1, "chsk/error"}


def test_a_queue_as_callback_gets_the_event_of_the_reply(
    open_client: Open, over: dict[str, str]
) -> None:
    chsk = open_client(**over)
    replies: Queue[Any] = Queue()
    chsk.send(["test/echo", 1], {"timeout-ms": 30_000, "cb": replies})
    assert replies.get(timeout=WAIT) == ["test/echo.cb", 1]


def test_what_is_sent_while_closed_is_told(open_client: Open, over: dict[str, str]) -> None:
    chsk = open_client(**over)
    chsk.disconnect()
    replies: Queue[Any] = Queue()
    assert chsk.send(["test/echo", 1], WAIT, replies.put_nowait) is False
    assert replies.get(timeout=WAIT) == "chsk/closed"
    with pytest.raises(ChannelClosed, match=r"test/echo: closed \(requested-disconnect\)"):
        chsk.request(["test/echo", 1])


def test_events_of_one_thread_arrive_in_order(open_client: Open, over: dict[str, str]) -> None:
    chsk = open_client(**over)
    token = uuid4().hex
    for number in range(200):
        assert chsk.send(["test/note", [token, number]])
    eventually(lambda: chsk.request(["test/noted", token]) == list(range(200)))


def test_pushes_arrive_once_and_in_order(
    open_client: Open, over: dict[str, str], uid: str, server: TestServer
) -> None:
    data = heard(open_client(uid, **over))
    said = server.post(f"say/{uid}/300")
    eventually(lambda: len(data) >= 300)
    assert data == said


def test_what_nobody_handles_enters_ch_recv(
    open_client: Open, over: dict[str, str], uid: str, server: TestServer
) -> None:
    chsk = open_client(uid, **over)
    (said,) = server.post(f"say/{uid}/1")
    took = [chsk.ch_recv.get(timeout=WAIT) for _ in range(4)]
    assert [ev.id for ev in took] == ["chsk/state", "chsk/state", "chsk/handshake", "chsk/recv"]
    assert took[2].event == ("chsk/handshake", [uid, None, {"hello": "there"}])
    assert took[3].event == ("chsk/recv", ("test/pushed", said))


def test_an_ask_is_answered_by_the_handler(
    open_client: Open, over: dict[str, str], uid: str, server: TestServer
) -> None:
    chsk = open_client(uid, **over)

    @chsk.on("test/question")
    def question(ev: EventMsg) -> Any:
        return {"got": ev.data, "and": chsk.request(["test/echo", 1])}

    assert server.post(f"ask/{uid}/question") == {"answer": {"got": {"n": 1}, "and": 1}}


def test_what_ends_a_handler_or_watcher_ends_nothing_else(
    open_client: Open,
    over: dict[str, str],
    uid: str,
    server: TestServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    chsk = open_client(uid, **over)
    data: list[Any] = []

    @chsk.on("test/pushed")
    def pushed(ev: EventMsg) -> None:
        data.append(ev.data)
        raise (SystemExit if len(data) % 2 else KeyboardInterrupt)

    chsk.on("test/question", lambda ev: sys.exit(3))
    chsk.watch(lambda old, new: sys.exit(3))
    chsk.reconnect()
    chsk.wait_open(WAIT)
    said = server.post(f"say/{uid}/4")
    eventually(lambda: data == said)
    assert server.post(f"ask/{uid}/question") == {
        "error": "AskFailed",
        "message": "test/question: 3",
    }
    chsk.send(["test/echo", 1], 5.0, lambda reply: sys.exit(3))
    assert chsk.request(["test/echo", 2]) == 2
    chsk.destroy()
    assert all(record.exc_info for record in caplog.records)
    caplog.clear()


def test_a_credential_that_cannot_be_had_ends_one_post(
    open_client: Open, uid: str, caplog: pytest.LogCaptureFixture
) -> None:
    chsk = open_client(uid, type="ajax")
    endpoint = chsk._engine._endpoint
    url, endpoint._chsk_url = endpoint._chsk_url, lambda *args: sys.exit(3)
    with pytest.raises(ReplyError, match="SystemExit"):
        chsk.request(["test/echo", 1])
    endpoint._chsk_url = url
    chsk.connect()
    chsk.wait_open(WAIT)
    assert chsk.request(["test/echo", 2]) == 2
    caplog.clear()


def test_an_ask_without_a_handler_fails_at_once(
    open_client: Open, over: dict[str, str], uid: str, server: TestServer
) -> None:
    open_client(uid, **over)
    assert server.post(f"ask/{uid}/nothing") == {
        "error": "AskFailed",
        "message": "test/nothing: no handler for test/nothing",
    }


def test_a_cut_loses_nothing(
    open_client: Open, over: dict[str, str], uid: str, server: TestServer
) -> None:
    chsk = open_client(uid, backoff=lambda attempt: 0.3, **over)
    data = heard(chsk)
    gaps = heard(chsk, "chsk/gap")
    said = server.post(f"say/{uid}/3")
    eventually(lambda: data == said)
    chsk.break_connection()
    said += server.post(f"say/{uid}/5")
    chsk.wait_open()
    said += server.post(f"say/{uid}/2")
    eventually(lambda: len(data) >= len(said))
    assert (data, gaps) == (said, [])


def test_a_send_with_a_key_survives_cuts_and_is_dispatched_once(
    open_client: Open, over: dict[str, str], uid: str
) -> None:
    chsk = open_client(uid, backoff=lambda attempt: 0.05, **over)
    other = open_client(uid)
    token = uuid4().hex
    replies: Queue[Any] = Queue()
    for number in range(20):
        chsk.send(["test/slowly", [token, number]], WAIT, replies.put_nowait, key=True)
    for _ in range(3):
        eventually(replies.qsize)
        link = chsk._engine.session.link
        link.transport.cut()  # type: ignore[union-attr]
        if over["type"] == "ajax":
            chsk.break_connection()
        eventually(lambda link=link: chsk._engine.session.link is not link)
        chsk.wait_open()
    assert sorted(replies.get(timeout=WAIT) for _ in range(20)) == list(range(20))
    assert sorted(other.request(["test/noted", token])) == list(range(20))


def test_closed_by_the_application_it_comes_back(
    open_client: Open, over: dict[str, str], uid: str, server: TestServer
) -> None:
    chsk = open_client(uid, backoff=lambda attempt: 0.05, **over)
    server.post(f"close/{uid}/1")
    eventually(lambda: chsk.state["last_close"])
    chsk.wait_open()
    assert chsk.state["first_open"] is False


def test_signed_out_it_stays_closed(
    open_client: Open, over: dict[str, str], uid: str, server: TestServer
) -> None:
    chsk = open_client(uid, **over)
    server.post(f"close/{uid}/0")
    eventually(lambda: chsk.state["status"] == "closed")
    close = dict(chsk.state["last_close"])
    del close["udt"]
    assert close == {"reason": "signed-out", "code": 4005, "message": "signed out"}


def test_what_cannot_be_sent_is_refused_in_the_caller(open_client: Open) -> None:
    chsk = open_client()
    with pytest.raises(BadEvent):
        chsk.send("chat/say")
    with pytest.raises(PackError, match=r'^data\["when"\]\[0\]: object of type object'):
        chsk.send(["chat/say", {"when": [object()]}])


def test_destroyed_all_who_wait_are_told(open_client: Open, over: dict[str, str]) -> None:
    chsk = open_client(**over)
    told: list[Any] = []
    chsk.watch(lambda old, new: told.append(new["status"]))
    chsk.send(["test/never"], 30, told.append)
    waits = threading.Thread(target=lambda: told.append(list(chsk.ch_recv)[-1].data["status"]))
    waits.start()
    chsk.destroy()
    waits.join(WAIT)
    assert sorted(set(told)) == ["chsk/closed", "destroyed", "open"]


def test_handlers_that_are_too_slow_are_told_of_a_gap(
    open_client: Open, uid: str, server: TestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_chsk.client.dispatch.EVENTS", 5)
    chsk = open_client(uid, type="ws")
    begun, go, told = threading.Event(), threading.Event(), []

    def slow(ev: EventMsg) -> None:
        begun.set()
        go.wait(WAIT)
        told.append(ev.data)

    chsk.on("test/pushed", slow)
    chsk.on("chsk/gap", lambda ev: told.append("gap"))
    said = server.post(f"say/{uid}/1")
    assert begun.wait(WAIT)
    said += server.post(f"say/{uid}/20")
    assert chsk.request(["test/echo", 1]) == 1
    go.set()
    eventually(lambda: said[-1] in told)
    assert told == [said[0], "gap", *said[-5:]]


def test_destroyed_it_leaves_no_thread(open_client: Open, over: dict[str, str]) -> None:
    before = set(threading.enumerate())
    chsk = open_client(**over)
    chsk.on("test/pushed", lambda ev: None)
    chsk.send(["test/echo", 1], 5, lambda reply: None)
    chsk.send(["test/never"], 5, lambda reply: None)
    chsk.destroy()
    eventually(lambda: set(threading.enumerate()) <= before)
    assert list(chsk.events())[-1].event.data["status"] == "destroyed"


@pytest.fixture(autouse=True)
def no_errors_are_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert [record for record in caplog.records if record.exc_info] == []

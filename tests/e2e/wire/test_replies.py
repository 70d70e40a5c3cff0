"""Every question gets an answer, once: a value, an error that says what is meant, or a timeout."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.wire.conftest import Wire
from tests.peer import EDN, Peer
from tests.process import eventually

CONFIG = {"reply_timeout": 0.5}
Ask = Callable[[Peer, str], list[Any]]


def by_socket(peer: Peer, event: str) -> list[Any]:
    """``[value third?]`` of the reply to *event*."""
    if peer.socket is None:
        peer.open()
    peer.say(event, '"cb"')
    value, cb, *third = peer.read()
    assert cb == "cb"
    return [value, *third]


def by_post(peer: Peer, event: str) -> list[Any]:
    status, text = peer.post_raw(f"[{event} :ajax]")
    assert status == 200, text
    value, cb, *third = EDN.unpack(text)
    assert cb is None
    return [value, *third]


@pytest.fixture(params=[by_socket, by_post])
def ask(request: pytest.FixtureRequest) -> Ask:
    transport: Ask = request.param
    return transport


def error(status: int, message: str) -> list[Any]:
    return ["chsk/error", {"status": status, "message": message}]


@pytest.mark.parametrize(
    ("event", "reply"),
    [
        ('[:test/echo {:a [1 nil "x"]}]', [{"a": [1, None, "x"]}]),
        ("[:test/nil]", [None]),
        ("[:test/raise-reply 7]", [{"early": 7}]),
        ("[:test/double-reply]", ["one"]),
        ("[:test/abort 403]", error(403, "not yours")),
        ("[:test/abort 404]", error(404, "not yours")),
        ('[:test/parsed {:id "a/b" :n "41"}]', [42]),
        (
            '[:test/parsed {:id "a/b" :n "x"}]',
            error(400, "invalid literal for int() with base 10: 'x'"),
        ),
        ("[:test/parsed nil]", error(400, "'NoneType' object is not subscriptable")),
        ("[:no/handler 1]", error(404, "no handler for no/handler")),
        ("[:unnamespaced 1]", error(400, "cannot read that")),
        ("[:test/no-reply]", ["chsk/timeout"]),
    ],
)
def test_a_reply(wire: Wire, ask: Ask, event: str, reply: list[Any]) -> None:
    assert ask(wire.peer("reply"), event) == reply


@pytest.mark.parametrize("what", ['"value"', '"timeout"', '"exit"'])
def test_a_handler_that_fails_is_answered_at_once_and_logged_once(
    wire: Wire, ask: Ask, what: str
) -> None:
    uid = f"fail-{what[1:-1]}-{ask.__name__}"
    peer = wire.peer(uid)
    assert ask(peer, f"[:test/raise {what}]") == error(500, "the handler failed")
    assert ask(peer, "[:test/echo 1]") == [1]  # and the next one runs
    eventually(lambda: uid in wire.server.log)
    lines = [line for line in wire.server.log.splitlines() if uid in line and " 200 " not in line]
    assert len([line for line in lines if "handler of test/raise failed" in line]) == 1
    wire.expected_tracebacks += 1


def test_a_reply_that_cannot_be_packed_is_an_error_naming_the_path(wire: Wire, ask: Ask) -> None:
    assert ask(wire.peer("unpackable"), "[:test/unpackable]") == error(500, "the handler failed")
    eventually(lambda: 'its reply["when"][0]: object of type object' in wire.server.log)


def test_sentes_clients_get_errors_without_details(wire: Wire, ask: Ask) -> None:
    assert ask(wire.sente("plain"), "[:test/abort 403]") == ["chsk/error"]


def test_who_did_not_ask_hears_nothing_of_an_error(wire: Wire) -> None:
    peer = wire.peer("quiet")
    peer.open()
    peer.say("[:test/abort 403]")
    peer.say("[:test/echo 1]")
    assert peer.ask("[:test/echo 2]") == 2
    assert peer.post("[:test/abort 403]") == "chsk/dummy-cb-200"


def test_a_deferred_reply_comes_from_wherever_it_is_given(serve: Callable[..., Wire]) -> None:
    wire = serve(reply_timeout=50)
    socket, poster = wire.peer("late"), wire.peer("late-post")
    socket.open()
    socket.say("[:test/defer 1]", '"late"')
    with ThreadPoolExecutor() as pool:
        posted = pool.submit(poster.post, "[:test/defer 2]", ":ajax")
        eventually(lambda: len(wire.seen(cb=True)) == 2)
        assert socket.ask("[:test/echo 3]") == 3  # nobody waits for it
        assert wire.do("/deferred") == {"replied": [True, True]}
        assert socket.read()[:2] == [{"late": 1}, "late"]
        assert posted.result() == {"late": 2}


def test_after_its_timeout_a_deferred_reply_is_not_sent_any_more(wire: Wire) -> None:
    peer = wire.peer("too-late")
    peer.open()
    peer.say("[:test/defer 1]", '"late"')
    assert peer.read()[:2] == ["chsk/timeout", "late"]
    wire.do("/deferred")
    assert peer.ask("[:test/echo 1]") == 1


def test_a_reply_to_a_socket_that_is_gone_goes_nowhere(serve: Callable[..., Wire]) -> None:
    wire = serve(reply_timeout=50)
    peer = wire.peer("gone")
    peer.open()
    peer.say("[:test/defer 1]", '"late"')
    eventually(lambda: wire.seen(uid="gone", cb=True))
    peer.cut()
    assert peer.open()[3]["recovered"] is True
    assert wire.do("/deferred") == {"replied": [False]}
    assert peer.ask("[:test/echo 1]") == 1


def test_a_push_comes_before_the_reply_of_the_same_handler(wire: Wire) -> None:
    peer = wire.peer("both")
    peer.open()
    peer.say("[:test/tell-me 1]", '"cb"')
    assert peer.read()[0] == [["test/told", 1]]
    assert peer.read()[:2] == ["told", "cb"]


def test_a_reply_of_a_megabyte_comes_whole(wire: Wire, ask: Ask) -> None:
    assert ask(wire.peer("large"), "[:test/reply-large 1000000]") == ["x" * 1_000_000]


def test_a_ping_by_post_is_answered(wire: Wire) -> None:
    peer = wire.peer("ping")
    assert peer.post("[:chsk/ws-ping]", ":ajax") == "pong"
    assert peer.post("[:chsk/ws-ping]") == "chsk/dummy-cb-200"
    assert peer.post("[:chsk/ws-pong]") == "chsk/dummy-cb-200"

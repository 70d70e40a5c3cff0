"""Who is there: opened and closed once each, replaced, closed by the application, signed out."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.wire.conftest import Wire
from tests.peer import Closed, Peer
from tests.process import eventually

GRACE = 2.0  # much longer than two requests take
CONFIG = {"close_grace_ws": GRACE, "close_grace_ajax": GRACE, "lp_timeout": 0.5}
OPEN, CLOSE = "[:chsk/uidport-open", "[:chsk/uidport-close"


def turns(wire: Wire, uid: str) -> list[str]:
    """Comings and goings of *uid*, as handlers saw them."""
    return [ev.split()[0] for ev in wire.seen(uid=uid) if ev.startswith("[:chsk/uidport")]


def where(wire: Wire, uid: str) -> set[str]:
    """Which of ``ws``, ``ajax`` and ``any`` *uid* is in."""
    return {kind for kind, uids in wire.get("/uids").items() if uid in uids}


def code(peer: Peer) -> int | None:
    """The close code that comes, whatever comes before it."""
    with pytest.raises(Closed) as closed:
        while True:
            peer.read()
    return closed.value.code


def closing(pushed: list[Any]) -> Any:
    """The code that a poll was told."""
    (event,) = pushed
    assert event[0] == "chsk/close"
    return event[1]["code"]


def test_a_user_comes_once_and_goes_once_over_a_websocket(wire: Wire) -> None:
    peer = wire.peer("ws")
    peer.open()
    assert where(wire, "ws") == {"ws", "any"}
    peer.close()
    eventually(lambda: where(wire, "ws") == set())
    eventually(lambda: turns(wire, "ws") == [OPEN, CLOSE])


def test_a_user_comes_once_and_goes_once_over_polls(wire: Wire) -> None:
    peer = wire.peer("lp")
    peer.hello()
    for _ in range(5):  # longer than the grace
        assert peer.poll() == []
    assert where(wire, "lp") == {"ajax", "any"}
    assert turns(wire, "lp") == [OPEN]
    eventually(lambda: turns(wire, "lp") == [OPEN, CLOSE])


def test_a_reload_is_no_coming_and_going(wire: Wire) -> None:
    old, new = wire.peer("reload"), wire.peer("reload")
    old.open()
    old.close()
    new.open()
    eventually(lambda: wire.get("/stats")["closed"] and len(turns(wire, "reload")) == 1)
    new.ask("[:test/sleep 3.0]")  # well past the grace of the old one
    assert turns(wire, "reload") == [OPEN]
    assert where(wire, "reload") == {"ws", "any"}


def test_a_client_that_comes_back_within_the_grace_was_never_away(wire: Wire) -> None:
    peer = wire.peer("back")
    for _ in range(4):
        peer.open()
        peer.cut()
    peer.open()
    assert turns(wire, "back") == [OPEN]


def test_two_tabs_are_one_user(wire: Wire) -> None:
    first, second = wire.peer("tabs"), wire.peer("tabs")
    first.open()
    second.hello()
    assert where(wire, "tabs") == {"ws", "ajax", "any"}
    first.close()
    eventually(lambda: second.poll() == [] and where(wire, "tabs") == {"ajax", "any"})
    assert turns(wire, "tabs") == [OPEN]


def test_a_change_of_transport_is_no_coming_and_going(wire: Wire) -> None:
    peer = wire.peer("change")
    peer.open()
    peer.hello()
    assert where(wire, "change") == {"ajax", "any"}
    peer.open()
    assert peer.ask("[:chsk/ws-ping]") == "pong"
    assert where(wire, "change") == {"ws", "any"}
    assert turns(wire, "change") == [OPEN]


def test_nobody_is_no_user(wire: Wire) -> None:
    peer = wire.peer()
    assert peer.open()[0] is None
    assert wire.sente().open()[0] == "sente/nil-uid"
    assert None not in wire.get("/uids")["any"]
    assert turns(wire, "") == []


def test_one_client_id_of_two_users_is_two_clients(wire: Wire) -> None:
    ann, bob = wire.peer("ann", client_id="same"), wire.peer("bob", client_id="same")
    ann.open()
    bob.open()
    wire.do("/send", to="ann", count=1)
    assert ann.events(1) == [["test/item", 0]]
    assert bob.ask("[:test/echo 1]") == 1  # and nothing before it


# Replaced, closed, signed out -----------------------------------------------------------


def test_a_newer_socket_of_a_client_replaces_the_older(wire: Wire) -> None:
    old = wire.peer("replaced", client_id="one-tab")
    old.open()
    new = wire.peer("replaced", client_id="one-tab")
    new.open()
    assert code(old) == 4001
    wire.do("/send", to="replaced", count=1)
    assert new.events(1) == [["test/item", 0]]
    assert turns(wire, "replaced") == [OPEN]


def test_the_application_closes_a_users_connections(wire: Wire) -> None:
    socket, poller, sente = wire.peer("closed"), wire.peer("closed"), wire.sente("closed")
    socket.open()
    poller.hello()
    sente.open()
    wire.do("/close", to="closed")
    assert (code(socket), code(sente)) == (4003, 1000)
    assert closing(poller.poll()) == 4003
    eventually(lambda: turns(wire, "closed") == [OPEN, CLOSE])


def test_the_application_closes_one_client(wire: Wire) -> None:
    one, other = wire.peer("one-of-two"), wire.peer("one-of-two")
    one.open()
    other.open()
    wire.do("/close", to="one-of-two", client=one.params["client-id"])
    assert code(one) == 4003
    assert other.ask("[:test/echo 1]") == 1


def test_a_parked_poll_is_told_that_its_user_signed_out(wire: Wire) -> None:
    poller, socket = wire.peer("out"), wire.peer("out")
    poller.hello()
    socket.open()
    with ThreadPoolExecutor() as pool:
        polling = pool.submit(poller.poll)
        eventually(lambda: wire.get("/stats")["parked"])
        wire.do("/close", to="out", **{"signed-out": 1})
        assert closing(polling.result()) == 4005
    assert code(socket) == 4005


def test_a_pushed_close_closes_sentes_clients(wire: Wire) -> None:
    socket, poller = wire.sente("pushed-close"), wire.sente("pushed-close")
    socket.open()
    poller.hello()
    socket.say("[:test/close]")
    assert code(socket) == 1000
    assert poller.poll() == ["chsk/handshake", ["pushed-close", None, None]]


def test_who_was_closed_may_come_again_fresh(wire: Wire) -> None:
    peer = wire.peer("again")
    peer.open()
    wire.do("/close", to="again")
    assert code(peer) == 4003
    peer.open()
    assert peer.ask("[:test/echo 1]") == 1
    eventually(lambda: turns(wire, "again") == [OPEN, CLOSE, OPEN])


def test_polls_that_chase_each_other_are_refused(wire: Wire) -> None:
    for attempt in range(9):
        peer = wire.peer(f"chase{attempt}")
        peer.hello()
        began = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            answers = [each.result() for each in [pool.submit(peer.get) for _ in range(8)]]
        if time.monotonic() - began < 1.0:
            break  # else they may not all have come within a second, nor while one was parked
    released = [text for status, text in answers if status == 200]
    refused = {text for status, text in answers if status == 429}
    assert len(released) == 3  # two that were overtaken, and the one that stayed
    assert all(text.startswith("[:chsk/timeout nil") for text in released)
    assert refused == {"polls of this client chase each other\n"}


def test_a_poll_that_was_overtaken_is_answered_at_once(wire: Wire) -> None:
    peer = wire.peer("overtaken")
    peer.hello()
    peer.number = 5
    assert peer.poll() == []
    status, text = peer.get(n="3")
    assert (status, text.startswith("[:chsk/timeout nil")) == (200, True)

"""A message that cannot be read: an event for the application, and an answer for its client."""

from __future__ import annotations

import pytest

from tests.e2e.wire.conftest import Wire

UNREADABLE = ["", "[", "not edn (", "[] []", "nil", "[[:a/b] :ajax"]
CANNOT = "the message cannot be read: POST one [event callback], packed by the packer edn\n"


@pytest.mark.parametrize("message", UNREADABLE)
def test_a_post_of_ours_is_refused_and_told_to_the_application(wire: Wire, message: str) -> None:
    peer = wire.peer("unreadable")
    peer.hello()
    before = len(seen(wire))
    assert peer.post_raw(message, n="1") == (400, CANNOT)
    assert peer.post_raw(message, n="1") == (400, CANNOT)  # a browser said it again
    assert peer.post("[:test/echo 1]", ":ajax") == 1
    assert len(seen(wire)) == before + 1


def test_the_answer_names_the_packer(wire: Wire) -> None:
    peer = wire.peer("json", packer="json")
    assert peer.post_raw("[[:a/b] :ajax]") == (400, CANNOT.replace("edn", "json"))


@pytest.mark.parametrize("message", UNREADABLE[1:])
def test_a_post_of_sente_s_is_answered_as_sente_does(wire: Wire, message: str) -> None:
    peer = wire.sente("unreadable")
    peer.hello()
    before = len(seen(wire))
    assert peer.post_raw(message) == (200, "[:chsk/dummy-cb-200 nil]")
    peer.post("[:test/echo 1]", ":ajax")
    assert len(seen(wire)) == before + 1


def test_a_websocket_stays_open(wire: Wire) -> None:
    peer = wire.peer("socket")
    peer.open()
    before = len(seen(wire))
    peer.socket.send("not edn (")
    assert peer.ask("[:test/echo 1]") == 1
    assert len(seen(wire)) == before + 1


def seen(wire: Wire) -> list[object]:
    """What the application heard of them."""
    return [one for one in wire.get("/seen") if one["ev"].startswith("[:chsk/bad-package")]

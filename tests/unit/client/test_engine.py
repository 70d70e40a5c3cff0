"""The engine carries out what the session decides: with transports that only note it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from flask_chsk.client import ChannelSocket
from flask_chsk.client.link import LinkClosed
from flask_chsk.errors import ChannelClosed, UsageError
from flask_chsk.values import Keyword
from tests.unit.client.fakes import URL, NotedLink, confirm


@pytest.fixture
def chsk(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChannelSocket]:
    """A client whose links are noted, with its first WebSocket on trial."""
    NotedLink.take_the_place_of_all(monkeypatch)
    chsk = ChannelSocket(URL, type="ws", backoff=lambda attempt: 60.0)
    yield chsk
    chsk.destroy()


def test_a_link_is_begun_under_the_lock(chsk: ChannelSocket) -> None:
    (transport,) = NotedLink.made
    assert transport.taken() == [("start", True)]


def test_a_message_is_given_under_the_lock_and_written_without_it(chsk: ChannelSocket) -> None:
    transport = confirm(chsk)
    assert chsk.send(["chat/say", 1]) is True
    assert transport.taken() == [(("take", Keyword("chat/say")), True), ("flush", False)]


def test_what_a_link_does_not_take_did_not_leave(chsk: ChannelSocket) -> None:
    transport = confirm(chsk)
    transport.takes = False
    assert chsk.send(["chat/say", 1]) is False
    assert transport.taken() == [(("take", Keyword("chat/say")), True)]


def test_a_disconnect_ends_the_link_and_writes_its_end(chsk: ChannelSocket) -> None:
    transport = confirm(chsk)
    chsk.disconnect()
    assert transport.taken() == [(("end", 1000), True), ("flush", False)]


def test_who_waits_for_the_opening_is_told_why_not(chsk: ChannelSocket) -> None:
    (transport,) = NotedLink.made
    waiting = threading.Thread(target=chsk._engine.closed, args=(transport.link, LinkClosed(1000)))
    waiting.start()
    with pytest.raises(ChannelClosed, match=r"not open: closed \(clean: 1000\)"):
        chsk.wait_open(30.0)
    waiting.join()


def test_a_transport_that_finished_is_forgotten(chsk: ChannelSocket) -> None:
    transport: Any = confirm(chsk)
    assert chsk._engine._transports == [transport]
    chsk._engine.finished(transport)
    chsk._engine.finished(transport)
    assert chsk._engine._transports == []


def test_a_new_poll_waits_while_a_websocket_is_on_trial(chsk: ChannelSocket) -> None:
    (transport,) = NotedLink.made
    assert chsk._engine.may_poll() is True
    chsk._engine.opened(transport.link)
    assert chsk._engine.may_poll() is False
    confirm(chsk)
    assert chsk._engine.may_poll() is True


def test_a_backoff_must_not_block(monkeypatch: pytest.MonkeyPatch) -> None:
    NotedLink.take_the_place_of_all(monkeypatch)
    told: list[str] = []

    def backoff(attempt: int) -> float:
        for call in (lambda: chsk.request(["a/x"]), chsk.wait_open):
            with pytest.raises(UsageError) as raised:
                call()
            told.append(str(raised.value))
        return 60.0

    chsk = ChannelSocket(URL, type="ws", backoff=backoff)
    chsk._engine.closed(NotedLink.made[0].link, LinkClosed(1006))
    chsk.destroy()
    assert told == [
        f"{name}() blocks, which a backoff must not: use send()"
        for name in ("request", "wait_open")
    ]


def test_a_copy_in_a_child_process_does_nothing(chsk: ChannelSocket) -> None:
    transport = confirm(chsk)
    copy = chsk._engine
    copy.forked()
    assert (chsk.state["status"], chsk.state["open"]) == ("closed", False)
    with pytest.raises(UsageError, match="belongs to the process that forked this one"):
        chsk.send(["chat/say", 1])
    chsk.destroy()
    assert transport.taken() == []
    copy._is_copy = False  # the original again, so that the test ends its threads

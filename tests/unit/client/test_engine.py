"""The engine carries out what the session decides: with transports that only note it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from flask_chsk.client import ChannelSocket, engine
from flask_chsk.client.link import Link, LinkClosed, Outgoing
from flask_chsk.errors import ChannelClosed, UsageError
from flask_chsk.values import Keyword

PONG = '["pong" "ping"]'
HANDSHAKE = '[[:chsk/handshake ["ann" nil nil {:cursor "e1:1" :recovered nil :server "x"}]] nil]'


class Noted:
    """A transport that notes what it is told, and whether the lock was held."""

    made: ClassVar[list[Noted]] = []

    def __init__(self, owner: Any, link: Link, endpoint: Any, threads: Any, lock: Any, *more: Any):
        self.link = link
        self.calls: list[Any] = []
        self.takes = True
        self._lock = lock
        Noted.made.append(self)

    def _note(self, call: Any) -> None:
        self.calls.append((call, self._held()))

    def _held(self) -> bool:
        """Whether this thread holds the lock; the clock's thread may hold it for a moment, too."""
        return bool(self._lock._is_owned())

    def start(self) -> None:
        self._note("start")

    def take(self, outgoing: Outgoing) -> bool:
        self._note(("take", outgoing.name))
        return self.takes

    def end(self, code: int) -> None:
        self._note(("end", code))

    def flush(self) -> None:
        self._note("flush")

    def restart(self) -> None:
        self._note("restart")

    def hurry(self) -> None:
        self._note("hurry")

    def cut(self) -> None:
        self._note("cut")

    def taken(self) -> list[Any]:
        calls, self.calls = self.calls, []
        return calls


@pytest.fixture
def chsk(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChannelSocket]:
    """A client whose links are noted, with its first WebSocket on trial."""
    monkeypatch.setattr(engine, "WebSocket", Noted)
    monkeypatch.setattr(engine, "Polling", Noted)
    Noted.made = []
    chsk = ChannelSocket("http://127.0.0.1:1/chsk", type="ws", backoff=lambda attempt: 60.0)
    yield chsk
    chsk.destroy()


def confirm(chsk: ChannelSocket) -> Noted:
    """Have the link on trial confirmed."""
    transport = Noted.made[-1]
    owner = chsk._engine
    owner.opened(transport.link)
    owner.received(transport.link, HANDSHAKE)
    owner.received(transport.link, PONG)
    assert chsk.state["open"]
    transport.calls.clear()
    return transport


def test_a_link_is_begun_under_the_lock(chsk: ChannelSocket) -> None:
    (transport,) = Noted.made
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
    (transport,) = Noted.made
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
    (transport,) = Noted.made
    assert chsk._engine.may_poll() is True
    chsk._engine.opened(transport.link)
    assert chsk._engine.may_poll() is False
    confirm(chsk)
    assert chsk._engine.may_poll() is True


def test_a_backoff_must_not_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "WebSocket", Noted)
    Noted.made = []
    told: list[str] = []

    def backoff(attempt: int) -> float:
        for call in (lambda: chsk.request(["a/x"]), chsk.wait_open):
            with pytest.raises(UsageError) as raised:
                call()
            told.append(str(raised.value))
        return 60.0

    chsk = ChannelSocket("http://127.0.0.1:1/chsk", type="ws", backoff=backoff)
    chsk._engine.closed(Noted.made[0].link, LinkClosed(1006))
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

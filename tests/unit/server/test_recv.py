"""``ch_recv``, the queue of events that no handler took, and its router."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty

import pytest

from flask_chsk.errors import ConfigError
from flask_chsk.protocol.event import Event
from flask_chsk.server.recv import RecvQueue, start_router
from flask_chsk.server.router import EventMessage
from flask_chsk.values import Keyword

LONG = 10.0  # seconds that nothing here takes


def message(number: int) -> EventMessage:
    return EventMessage(Event(Keyword("a/b"), number), "ann", "c1")


def test_what_does_not_fit_is_counted_and_not_kept(caplog: pytest.LogCaptureFixture) -> None:
    queue = RecvQueue(2)
    assert [queue.offer(message(number)) for number in range(4)] == [True, True, False, False]
    assert (len(queue), queue.dropped) == (2, 2)
    with pytest.raises(ConfigError, match="CHSK_RECV_BUF"):
        queue.put(message(4))
    assert [queue.get().data, queue.get().data] == [0, 1]
    with pytest.raises(Empty):
        queue.get(block=False)


def test_a_child_leaves_what_waits_to_its_parent() -> None:
    queue = RecvQueue(2)
    queue.put(message(1))
    queue.forked()
    assert len(queue) == 0
    assert queue.offer(message(2))


def test_a_router_goes_on_when_a_handler_fails(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[int] = []
    done = threading.Event()

    def handle(ev: EventMessage) -> None:
        if ev.data == 1:
            raise KeyError
        seen.append(ev.data)
        if ev.data == 2:
            done.set()

    queue = RecvQueue(8)
    for number in range(3):
        queue.put(message(number))
    stop = start_router(queue, handle)
    assert done.wait(LONG)
    stop()
    assert seen == [0, 2]
    assert "handler of a/b failed" in caplog.text


def test_a_handler_that_would_never_run_is_refused() -> None:
    async def handle(ev: EventMessage) -> None: ...

    with pytest.raises(Exception, match="async"):
        start_router(RecvQueue(1), handle)


def test_a_router_ends_before_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    at_exit: list[Callable[[], None]] = []
    monkeypatch.setattr("atexit.register", at_exit.append)
    before = set(threading.enumerate())
    start_router(RecvQueue(1), lambda ev: None)
    [router] = (
        thread
        for thread in threading.enumerate()
        if thread not in before and thread.name == "flask_chsk.router"
    )
    for end in at_exit:
        end()
    assert not router.is_alive()

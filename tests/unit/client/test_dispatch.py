"""Handlers, watchers and callbacks; the jobs run where the test says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flask_chsk.client import dispatch
from flask_chsk.client.dispatch import Dispatcher, EventMsg, NoHandler, PendingReply, RecvQueue
from flask_chsk.client.effects import Replied
from flask_chsk.client.link import Outgoing
from flask_chsk.client.waiting import ThreadGroup
from flask_chsk.protocol.event import Event
from flask_chsk.values import Keyword


class Inline(ThreadGroup):
    """Starts nothing until :meth:`run`."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[Callable[[], object]] = []

    def start(self, name: str, fn: Callable[[], object]) -> None:
        self.jobs.append(fn)

    def run(self) -> None:
        jobs, self.jobs = self.jobs, []
        for job in jobs:
            job()


@pytest.fixture(autouse=True)
def no_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that has no job ends at once."""
    monkeypatch.setattr("flask_chsk.client.waiting.LINGER", 0.0)


def dispatcher(wrap_recv: bool = True) -> tuple[Dispatcher, Inline]:
    threads = Inline()
    return Dispatcher(threads, RecvQueue(10), wrap_recv), threads


def test_an_event_goes_to_the_handlers_of_its_id_else_to_the_rest() -> None:
    made, threads = dispatcher()
    told: list[Any] = []
    undo = made.on("a/x", lambda ev: told.append(("x", ev.data)))
    made.on("a/x", lambda ev: told.append(("also", ev.data)))
    made.on("*", lambda ev: told.append(("rest", ev.id)))
    made.deliver(Event("a/x", 1), True)
    made.deliver(Event("a/y"), True)
    threads.run()
    undo()
    made.deliver(Event("a/x", 2), True)
    threads.run()
    assert told == [("x", 1), ("also", 1), ("rest", "a/y"), ("also", 2)]


@pytest.mark.parametrize(
    ("wrap", "pushed", "event"),
    [
        (True, True, ("chsk/recv", ("a/x", 1))),
        (True, False, ("a/x", 1)),
        (False, True, ("a/x", 1)),
    ],
)
def test_what_no_handler_takes_enters_ch_recv(wrap: bool, pushed: bool, event: Any) -> None:
    made, _ = dispatcher(wrap)
    made.deliver(Event("a/x", 1), pushed)
    assert made.ch_recv.get(block=False).event == event


def test_keep_alive_is_for_handlers_of_that_very_id() -> None:
    made, threads = dispatcher()
    told: list[str] = []
    made.on("*", lambda ev: told.append(ev.id))
    made.deliver(Event("chsk/ws-ping"), False)
    made.on("chsk/ws-pong", lambda ev: told.append(ev.id))
    made.deliver(Event("chsk/ws-pong"), False)
    threads.run()
    assert (told, len(made.ch_recv)) == (["chsk/ws-pong"], 0)


def test_watchers_get_old_and_new_until_undone() -> None:
    made, threads = dispatcher()
    told: list[Any] = []
    undo = made.watch(lambda old, new: told.append((old["n"], new["n"])))
    made.changed({"n": 1}, {"n": 2})
    threads.run()
    undo()
    undo()
    made.changed({"n": 2}, {"n": 3})
    threads.run()
    assert told == [(1, 2)]


def test_a_reply_finds_a_function_a_queue_or_a_caller_that_waits() -> None:
    made, threads = dispatcher()
    told: list[Any] = []

    class Channel:
        def put(self, item: Any) -> None:
            told.append(item)

    pending = PendingReply()
    for cb in (told.append, Channel(), pending):
        made.replied(Replied(Outgoing("a/x", None, "", "c1", cb), 7, {"more": 1}))
    threads.run()
    assert told == [7, [Keyword("a/x.cb"), 7]]
    assert (pending.flag.is_set, pending.reply, pending.details) == (True, 7, {"more": 1})


def test_an_ask_is_answered_by_the_first_handler() -> None:
    made, _ = dispatcher()
    made.on("a/x", lambda ev: ev.data + 1)
    made.on("a/x", lambda ev: None)
    assert made.answer(Event("a/x", 1)) == 2
    with pytest.raises(NoHandler, match="no handler for a/y"):
        made.answer(Event("a/y"))


def test_events_that_wait_too_long_go_and_a_gap_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dispatch, "EVENTS", 2)
    made, threads = dispatcher()
    told: list[Any] = []
    made.on("a/x", lambda ev: told.append(ev.data))
    made.on("chsk/gap", lambda ev: told.append("gap"))
    for number in range(5):
        made.deliver(Event("a/x", number), True)
    threads.run()
    made.deliver(Event("a/x", 5), True)
    threads.run()
    assert told == ["gap", 3, 4, 5]
    assert [one.getMessage() for one in caplog.records] == [
        "handlers are too slow: events were dropped"
    ]


def test_after_the_end_handlers_hear_of_the_state_only() -> None:
    made, threads = dispatcher()
    told: list[str] = []
    made.on("*", lambda ev: told.append(ev.id))
    made.deliver(Event("a/x"), True)
    made.deliver(Event("chsk/state", {}), False)
    threads.ending.set()
    made.close()
    threads.run()
    made.deliver(Event("chsk/state", {}), False)
    assert (told, threads.jobs) == (["chsk/state"], [])


def test_an_event_message_shows_id_and_data() -> None:
    ev = EventMsg(Event("a/x", 1))
    assert (ev.id, ev.data, dispatch.is_event_msg(ev)) == ("a/x", 1, True)
    assert dispatch.is_event_msg(Event("a/x", 1)) is False

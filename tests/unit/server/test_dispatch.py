"""Inboxes, with workers that run when the test says so."""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, cast

import pytest
from gevent import GreenletExit, Timeout

from flask_chsk.errors import PackError
from flask_chsk.hub import Hub
from flask_chsk.protocol.event import Event
from flask_chsk.server.dispatch import EVENT_BYTES, Dispatcher, SignedOut, rate_limited
from flask_chsk.server.replies import ReplyChannel
from flask_chsk.server.router import EventMessage, Handler, Handlers, Router
from flask_chsk.server.trace import Trace
from flask_chsk.transports.budget import MemoryBudget
from flask_chsk.values import Keyword

ANN, BOB = ("ann", "c1"), ("bob", "c2")


class Workers:
    """A hub whose workers wait for :meth:`work`."""

    def __init__(self) -> None:
        self.time = 0.0
        self.given: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()

    def here(self) -> bool:
        return True

    def now(self) -> float:
        return self.time

    def spawn(self, fn: Callable[..., object], *args: Any) -> None:
        self.given.append((fn, args))

    def call(self, fn: Callable[..., object], *args: Any) -> None:
        fn(*args)

    def yield_to_loop(self) -> None: ...

    def waiter_here(self) -> Told:
        return Told()

    def work(self) -> None:
        while self.given:
            fn, args = self.given.popleft()
            fn(*args)


class Told:
    """A waiter that remembers."""

    def __init__(self) -> None:
        self.value: Any = None

    def set(self, value: Any) -> None:
        self.value = value


class Host:
    """An application without contexts."""

    def __init__(self, router: Router) -> None:
        self.router = router

    def run(self, handler: Handler, ev: EventMessage, request: Any) -> Any:
        if request == "another's":
            raise SignedOut
        return self.router.run(handler, ev)

    def run_plain(self, fn: Callable[..., object], *args: Any) -> None:
        fn(*args)

    def explain(self, error: BaseException) -> tuple[int, str]:
        return 500, type(error).__name__


class Back(ReplyChannel):
    """The way back to a client, with a memory."""

    wants_reply = True

    def __init__(self) -> None:
        self.answers: list[Any] = []

    def reply(self, value: Any) -> bool:
        self.answers.append(value)
        return True

    def replied(self, ev: EventMessage, value: Any) -> None: ...

    def error(self, status: int, message: str) -> None:
        self.answers.append((status, message))

    def closed(self) -> None:
        self.answers.append("closed")

    def expire_later(self, ev: EventMessage) -> None:
        self.answers.append("later")


class Socket:
    """A transport that is read, or not."""

    reading = True

    def pause(self) -> None:
        self.reading = False

    def resume(self) -> None:
        self.reading = True


class Bench:
    """A dispatcher with all that is around it."""

    def __init__(self, max_inbox: int = 4, max_bytes: int = 1000, limit: int = 10_000) -> None:
        self.handlers = Handlers()
        self.router = self.handlers._router
        self.counters: Counter[str] = Counter()
        self.workers = Workers()
        self.budget = MemoryBudget(limit, self.counters)
        self.seen: list[Any] = []
        self.signed_out: list[Any] = []
        self.dispatcher = Dispatcher(
            cast(Hub, self.workers),
            max_inbox,
            max_bytes,
            self.budget,
            self.router,
            Host(self.router),
            self.counters,
            Trace(),
            signed_out=lambda *client: self.signed_out.append(client),
        )
        self.handlers.on("a/b")(lambda ev: self.seen.append(ev.data))
        self.handlers.on("a/concurrent", concurrent=True)(lambda ev: self.seen.append(ev.data))

    def take(
        self, data: Any = None, *, id: str = "a/b", client: tuple[str, str] = ANN, **more: Any
    ) -> Back:
        back = Back()
        self.dispatcher.submit(
            Event(Keyword(id), data),
            *client,
            more.get("channel", back),
            more.get("request"),
            more.get("transport"),
            more.get("size", 0),
        )
        return back

    def work(self) -> None:
        self.workers.work()


# Order ----------------------------------------------------------------------------------


def test_events_of_one_client_have_one_worker() -> None:
    bench = Bench()
    for number in range(3):
        bench.take(number)
    assert len(bench.workers.given) == 1
    bench.work()
    assert bench.seen == [0, 1, 2]
    assert len(bench.dispatcher) == 0


def test_clients_have_workers_of_their_own_and_so_have_concurrent_handlers() -> None:
    bench = Bench()
    bench.take(1)
    bench.take(2, client=BOB)
    bench.take(3, id="a/concurrent")
    assert len(bench.workers.given) == 3
    assert (bench.dispatcher.waiting(ANN), bench.dispatcher.waiting(BOB)) == (2, 1)
    bench.work()
    assert bench.seen == [1, 2, 3]
    assert bench.dispatcher.waiting(ANN) == 0


def test_an_event_that_comes_while_another_is_handled_waits_its_turn() -> None:
    bench = Bench()

    @bench.handlers.on("a/more")
    def more(ev: EventMessage) -> None:
        bench.take("after")
        bench.seen.append("first")

    bench.take(id="a/more")
    bench.work()
    assert bench.seen == ["first", "after"]


def test_keep_alive_nobody_handles_is_no_event() -> None:
    bench = Bench()
    bench.handlers.on("*")(lambda ev: bench.seen.append(ev.id))
    bench.take(id="chsk/ws-ping")
    bench.work()
    assert (bench.seen, bench.counters["events_in"]) == ([], 0)


def test_a_users_comings_and_goings_are_handled_in_turn_with_what_follows_them() -> None:
    bench = Bench()
    for id in ("chsk/uidport-open", "chsk/uidport-close"):
        bench.handlers.on(id)(lambda ev: bench.seen.append(f"{ev.id} {ev.generation}"))
        bench.dispatcher.submit_own(
            Event(Keyword(id), "ann"), "ann", 7, Back(), lambda: bench.seen.append("then")
        )
    bench.work()
    assert bench.seen == ["chsk/uidport-open 7", "then", "chsk/uidport-close 7", "then"]


# Limits ---------------------------------------------------------------------------------


def test_a_full_inbox_stops_the_reading_until_it_is_half_empty() -> None:
    bench, socket, reading = Bench(max_inbox=4), Socket(), list[bool]()
    bench.handlers.on("a/look")(lambda ev: reading.append(socket.reading))
    for _ in range(3):
        bench.take(id="a/look", transport=socket)
    assert socket.reading and not bench.dispatcher.is_full(ANN)
    bench.take(id="a/look", transport=socket)
    assert not socket.reading and bench.dispatcher.is_full(ANN)
    bench.work()
    assert reading == [False, False, True, True]


def test_concurrent_events_count_too() -> None:
    bench, socket = Bench(max_inbox=2), Socket()
    for _ in range(2):
        bench.take(id="a/concurrent", transport=socket)
    assert not socket.reading
    bench.work()
    assert socket.reading


def test_bytes_count_as_events_do() -> None:
    bench, socket = Bench(max_inbox=4, max_bytes=1000), Socket()
    bench.take(size=600 + 2 * EVENT_BYTES, transport=socket)
    assert socket.reading
    bench.take(size=600, transport=socket)
    assert not socket.reading
    assert bench.budget.waiting == 1200 + 4 * EVENT_BYTES
    bench.work()
    assert socket.reading
    assert bench.budget.waiting == 0


def test_an_event_that_is_handled_at_once_leaves_nothing_paused() -> None:
    """A pooled worker may have handled it before the dispatcher goes on."""
    bench, socket = Bench(limit=1), Socket()
    bench.budget.waiting = 1  # others fill the process
    spawn = bench.workers.spawn

    def at_once(fn: Callable[..., object], *args: Any) -> None:
        spawn(fn, *args)
        bench.work()

    bench.workers.spawn = at_once  # type: ignore[method-assign]
    for id in ("a/b", "a/concurrent"):
        bench.take(1, id=id, transport=socket)
        assert socket.reading
    assert bench.seen == [1, 1]


def test_a_paused_transport_that_is_gone_is_not_resumed() -> None:
    bench, socket = Bench(max_inbox=1), Socket()
    bench.take(transport=socket)
    bench.take(transport=socket)
    bench.dispatcher.forget_transport(ANN)
    bench.work()
    assert not socket.reading


# Failures -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [ValueError(), Timeout(), GreenletExit(), SystemExit(3), KeyboardInterrupt()]
)
def test_a_handler_that_fails_is_answered_and_the_next_runs(error: BaseException) -> None:
    bench = Bench()

    @bench.handlers.on("a/fails")
    def fails(ev: EventMessage) -> None:
        raise error

    back = bench.take(id="a/fails", size=10)
    bench.take("next")
    bench.work()
    assert back.answers == [(500, type(error).__name__)]
    assert (bench.seen, bench.counters["handler_errors"], bench.budget.waiting) == (["next"], 1, 0)


@pytest.mark.parametrize("id", ["a/ends", "a/ends-concurrent"])
def test_a_signal_that_hits_a_handler_leaves_the_clients_others_handled(
    id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench()
    monkeypatch.setattr("flask_chsk.server.dispatch.from_signal", lambda error: True)

    @bench.handlers.on("a/ends")
    @bench.handlers.on("a/ends-concurrent", concurrent=True)
    def ends(ev: EventMessage) -> None:
        raise SystemExit

    bench.take(id=id, size=10)
    bench.take("next", size=10)
    with pytest.raises(SystemExit):
        bench.work()
    bench.work()
    assert (bench.seen, len(bench.dispatcher), bench.budget.waiting) == (["next"], 0, 0)


def test_an_event_without_a_handler_is_told_so() -> None:
    bench = Bench()
    back = bench.take(id="no/handler")
    bench.work()
    assert back.answers == [(404, "no handler for no/handler")]
    assert (bench.counters["unhandled"], bench.counters["errors_404"]) == (1, 1)


@pytest.mark.parametrize(
    ("ids", "known"),
    [
        ([], "there are no handlers"),
        (["order/list", "chat/say"], "handlers there are: chat/say, order/list"),
        (
            [f"order/n{n}" for n in range(20)] + ["chat/say"],
            "handlers there are: chat/say, order/n",
        ),
    ],
)
def test_the_log_names_the_ids_that_have_handlers(
    ids: list[str], known: str, caplog: pytest.LogCaptureFixture
) -> None:
    rate_limited._kinds.clear()
    bench = Bench()
    bench.router.handlers.clear()
    for id in ids:
        bench.handlers.on(id)(lambda ev: None)
    bench.take(id="chat/sya")
    bench.work()
    [line] = caplog.messages
    add = "no handler for chat/sya (from uid 'ann'): add @chsk.on('chat/sya'); "
    assert line.startswith(add + known)
    assert line.endswith(" and 13 more") == (len(ids) > 20)
    assert len(line) < 300


def test_the_log_says_that_the_script_runs_twice(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate_limited._kinds.clear()
    monkeypatch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)
    bench = Bench()
    bench.take(id="chat/say")
    bench.work()
    words = f"runs twice, as __main__ and as {__name__}, and each has a Chsk of its own"
    assert words in caplog.text


def test_a_reply_that_cannot_be_sent_is_an_error_in_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench, back = Bench(), Back()
    back.reply = cannot_be_packed  # type: ignore[method-assign]
    bench.take(channel=back)
    bench.work()
    assert back.answers == [(500, "the handler failed")]
    assert (bench.counters["handler_errors"], bench.counters["errors_500"]) == (1, 1)
    assert caplog.messages == ["handler of a/b failed, uid 'ann': its reply of 9 bytes"]
    assert not caplog.records[0].exc_info


def cannot_be_packed(value: Any) -> bool:
    raise PackError("reply of 9 bytes")


def test_what_parse_refuses_is_told_without_the_data(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.handlers.on("a/number", parse=int)(lambda ev: None)
    back = bench.take("a\x1b secret", id="a/number")
    bench.work()
    assert back.answers == [(400, "invalid literal for int() with base 10: 'a\\x1b secret'")]
    [line] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert line == "parse of a/number refused what uid 'ann' sent: ValueError (more at DEBUG)"


def test_ch_recv_takes_what_no_handler_takes_and_counts_what_it_drops() -> None:
    bench, taken = Bench(), list[EventMessage]()

    def put(ev: EventMessage) -> bool:
        taken.append(ev)
        return len(taken) == 1

    bench.dispatcher.recv_put = put
    backs = [bench.take(number, id="no/handler") for number in range(2)]
    bench.work()
    assert [ev.data for ev in taken] == [0, 1]
    assert bench.counters["recv_dropped"] == 1
    assert [back.answers for back in backs] == [["later"], ["later"]]


def test_whoever_signed_out_is_told_and_closed() -> None:
    bench = Bench()
    back = bench.take(request="another's")
    bench.work()
    assert back.answers == [(401, "signed out")]
    assert bench.signed_out == [ANN]


def test_a_deferred_reply_is_waited_for() -> None:
    bench = Bench()
    bench.handlers.on("a/defer")(lambda ev: ev.defer())
    back = bench.take(id="a/defer")
    bench.work()
    assert back.answers == ["later"]


# The end --------------------------------------------------------------------------------


def test_what_waits_when_it_stops_is_answered_closed() -> None:
    bench = Bench()
    backs = [bench.take(number) for number in range(2)]
    bench.dispatcher.stop()
    backs.append(bench.take(2))
    bench.work()
    assert [back.answers for back in backs] == [["closed"]] * 3
    assert bench.seen == []


def test_an_event_that_another_thread_took_in_between_is_not_missed() -> None:
    """Under native threads the hub's thread empties an inbox whose worker looks into it."""

    class Emptied(deque[Any]):
        def __bool__(self) -> bool:
            return True

    bench = Bench()
    bench.take(1)
    inbox = bench.dispatcher._inboxes[ANN]
    inbox.jobs = Emptied(inbox.jobs)
    bench.dispatcher.stop()
    inbox.jobs = deque()
    bench.work()
    assert (bench.seen, len(bench.dispatcher)) == ([], 0)

"""The owning hub, under greenlets and under native threads.

Each test runs in both kinds of process: a greenlet of a gevent server, whose hub it is, and a
native thread, with a hub of ours in the background.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import socket
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import gevent
import gevent.event
import pytest

from flask_chsk import hub as hub_module
from flask_chsk.hub import IDLE_WORKERS, SLICE, SWEEP, THREADS, Hub, on_hub

LONG = 30.0  # seconds that nothing here takes
Event = Any  # threading.Event or gevent.event.Event


class Process:
    """A hub, and what a caller waits with in its kind of process."""

    def __init__(self, native: bool) -> None:
        self.native = native
        self.hub = Hub()
        assert self.hub.native_threads is native

    def event(self) -> Event:
        return threading.Event() if self.native else gevent.event.Event()

    def turn(self) -> None:
        """Let the hub do what it was given."""
        if self.native:
            self.hub.run(lambda: None)
        else:
            gevent.sleep(0)

    def spawn(self, fn: Callable[..., object], *args: Any) -> None:
        self.hub.run(self.hub.spawn, fn, *args)

    def foreign(self, fn: Callable[[], Any]) -> Any:
        """What *fn* returns in a native thread that has nothing to do with the hub."""
        if self.native:
            result: list[Any] = []
            thread = threading.Thread(target=lambda: result.append(fn()))
            thread.start()
            thread.join(LONG)
            return result[0]
        return gevent.get_hub().threadpool.apply(fn)


def everywhere(test: Callable[[Process], None]) -> Callable[[bool], None]:
    """Run *test* in either kind of process."""

    @functools.wraps(test)
    def run(native: bool) -> None:
        if native:
            test(Process(native=True))
        else:
            gevent.spawn(lambda: test(Process(native=False))).get(timeout=LONG)

    del run.__wrapped__  # pytest would look at its arguments
    return pytest.mark.parametrize("native", [False, True], ids=["greenlets", "threads"])(run)


@contextlib.contextmanager
def logged_errors() -> Iterator[list[str]]:
    """The texts of errors that the hub logs."""
    logged: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub_module.log, "exception", lambda text, *args: logged.append(text))
        yield logged


# Calls ----------------------------------------------------------------------------------


@everywhere
def test_a_call_runs_on_the_owning_thread_wherever_it_comes_from(process: Process) -> None:
    hub = process.hub

    def run_there() -> tuple[bool, bool]:
        return hub.here(), hub.run(hub.here)

    assert run_there() == (not process.native, True)
    assert process.foreign(run_there) == (False, True)


@everywhere
def test_a_call_from_a_foreign_thread_wakes_a_hub_that_sleeps(process: Process) -> None:
    came = process.event()
    process.foreign(lambda: process.hub.call(came.set))
    assert came.wait(LONG)
    later = process.event()
    process.foreign(lambda: process.hub.call_soon(later.set))
    assert later.wait(LONG)


@everywhere
def test_soon_is_after_what_runs_now(process: Process) -> None:
    order: list[str] = []

    def now() -> None:
        process.hub.call_soon(order.append, "soon")
        process.hub.call(order.append, "now")

    process.hub.run(now)
    process.turn()
    assert order == ["now", "soon"]


@everywhere
def test_run_gives_back_what_was_raised(process: Process) -> None:
    def fail() -> None:
        raise KeyError("there")

    def caught() -> str:
        with pytest.raises(KeyError) as error:
            process.hub.run(fail)
        return str(error.value)

    assert caught() == process.foreign(caught) == "'there'"


@everywhere
def test_a_call_that_fails_is_logged_and_holds_back_no_other(process: Process) -> None:
    came = process.event()

    def fail() -> None:
        raise ZeroDivisionError

    with logged_errors() as logged:
        process.foreign(lambda: process.hub.call(fail))
        process.foreign(lambda: process.hub.call(came.set))
        assert came.wait(LONG)
    assert logged == ["error in %r"]


# Workers --------------------------------------------------------------------------------


@everywhere
def test_what_blocks_in_one_worker_holds_back_no_other(process: Process) -> None:
    begun, go, done = process.event(), process.event(), process.event()
    order: list[str] = []

    def blocks() -> None:
        order.append("blocks")
        begun.set()
        go.wait(LONG)
        order.append("goes on")
        done.set()

    def passes(number: int, passed: Event) -> None:
        order.append(f"passes {number}")
        passed.set()

    process.spawn(blocks)
    assert begun.wait(LONG)
    for number in range(5):
        passed = process.event()
        process.spawn(passes, number, passed)
        assert passed.wait(LONG)
    go.set()
    assert done.wait(LONG)
    assert order == ["blocks", *(f"passes {n}" for n in range(5)), "goes on"]


@everywhere
def test_handlers_that_block_hold_back_no_job_of_ours(process: Process) -> None:
    go, done = process.event(), process.event()
    for _ in range(THREADS + 1):
        process.spawn(go.wait, LONG)
    process.hub.run(process.hub.background, done.set)
    assert done.wait(LONG)
    go.set()


@everywhere
def test_jobs_of_ours_are_counted_until_they_end(process: Process) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    go, hub = process.event(), process.hub
    assert hub.jobs == 0
    for job in (lambda: go.wait(LONG), fail):
        hub.run(hub.background, job)
    assert hub.jobs > 0
    with logged_errors():
        go.set()
        while hub.jobs:
            process.turn()
    assert hub.jobs == 0


@everywhere
def test_a_job_that_fails_is_logged_and_its_worker_takes_the_next(process: Process) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with logged_errors() as logged:
        for _ in range(3):
            process.spawn(fail)
        while len(logged) < 3:
            process.turn()
        passed = process.event()
        process.spawn(passed.set)
        assert passed.wait(LONG)
    assert logged == ["error in %r"] * 3


@everywhere
def test_more_jobs_than_workers_are_kept_all_run(process: Process) -> None:
    count = 3 * max(IDLE_WORKERS, THREADS)
    ran: list[int] = []
    done = process.event()

    def job(number: int) -> None:
        if not process.native:
            gevent.sleep(0)
        ran.append(number)
        if len(ran) == count:
            done.set()

    for number in range(count):
        process.spawn(job, number)
    assert done.wait(LONG)
    assert sorted(ran) == list(range(count))
    if not process.native:
        gevent.sleep(0)
        assert len(process.hub._idle) <= IDLE_WORKERS


@everywhere
def test_a_job_may_give_another(process: Process) -> None:
    done = process.event()
    process.spawn(lambda: process.spawn(done.set))
    assert done.wait(LONG)


def test_a_job_from_the_loop_begins_at_once() -> None:
    def body() -> None:
        hub, order, done = Hub(), list[str](), gevent.event.Event()
        hub.spawn(lambda: None)
        gevent.sleep(0)  # now a worker is idle

        def on_loop() -> None:
            hub.spawn(order.append, "job")
            order.append("after")
            done.set()

        hub.call_soon(on_loop)
        assert done.wait(LONG)
        assert order == ["job", "after"]

    gevent.spawn(body).get(timeout=LONG)


# Waiting --------------------------------------------------------------------------------


@everywhere
def test_a_daemon_that_blocks_holds_back_nobody(process: Process) -> None:
    began, over = threading.Event(), threading.Event()

    def read() -> None:
        began.set()
        over.wait(LONG)

    process.hub.run(process.hub.daemon, read)
    try:
        assert began.wait(LONG)
        process.turn()
    finally:
        over.set()


def test_where_sockets_are_cooperative_a_daemon_is_a_greenlet_of_the_hub() -> None:
    def run() -> bool:
        hub, ran = Hub(), gevent.event.AsyncResult()
        hub.cooperative = True
        hub.daemon(lambda: ran.set(hub.here()))
        return bool(ran.get(timeout=LONG))

    assert gevent.spawn(run).get(timeout=LONG)


@everywhere
def test_so_many_hold_a_semaphore_at_a_time(process: Process) -> None:
    semaphore = process.hub.semaphore(2)
    assert [semaphore.acquire(0.0) for _ in range(3)] == [True, True, False]
    semaphore.release()
    assert semaphore.acquire(timeout=LONG)


def test_the_time_of_day_is_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub()
    before = hub.wall()
    monkeypatch.setattr("time.time", lambda: 1.0)
    assert hub.time_of_day() == 1.0
    assert hub.wall() >= before


@everywhere
def test_a_waiter_gets_the_first_value_that_was_set(process: Process) -> None:
    waiter = process.hub.waiter()
    process.hub.run(waiter.set, 1)
    process.hub.run(waiter.set, 2)
    assert waiter.wait(LONG) == 1


@everywhere
def test_a_waiter_is_woken(process: Process) -> None:
    waiter = process.hub.waiter()
    process.spawn(lambda: process.hub.call(waiter.set, "value"))
    assert waiter.wait(LONG) == "value"


@everywhere
def test_a_waiter_gives_up(process: Process) -> None:
    waiter = process.hub.waiter()
    assert waiter.wait(0.001) is None


@everywhere
def test_a_value_that_comes_while_giving_up_is_there_the_next_time(process: Process) -> None:
    waiter = process.hub.waiter()
    assert waiter.wait(0.001) is None
    process.hub.run(waiter.set, "late")
    assert waiter.wait(LONG) == "late"


@everywhere
def test_a_foreign_thread_waits_too(process: Process) -> None:
    hub = process.hub

    def ask() -> Any:
        waiter = hub.waiter_here()
        hub.call(waiter.set, "value")
        return waiter.wait(LONG)

    assert process.foreign(ask) == "value"
    assert ask() == "value"


# Time, turned by hand -------------------------------------------------------------------


class Clock:
    """A hub whose clock and loop are turned by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, time: float = 1000.0) -> None:
        self.time = time
        self.callbacks: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self.hub = gevent.spawn(Hub).get(timeout=LONG)
        monkeypatch.setattr(self.hub, "now", lambda: self.time)
        monkeypatch.setattr(self.hub, "loop", self)

    def timer(self, after: float, repeat: float = 0.0, ref: bool = True) -> Clock:
        return self

    def start(self, fn: Callable[..., object], *args: Any) -> None:
        """Nothing: :meth:`pass_` sweeps."""

    def run_callback(self, fn: Callable[..., object], *args: Any) -> None:
        self.callbacks.append((fn, args))

    def pass_(self, seconds: float) -> None:
        """Let time pass, a sweep after another."""
        end = self.time + seconds
        while self.time < end:
            self.time = min(self.time + SWEEP, end)
            self.hub._sweep()


class Item:
    """Something with deadlines: notes when it was looked at, and says when next."""

    def __init__(self, *then: float | None) -> None:
        self.then = list(then)
        self.at: list[float] = []

    def due(self, now: float) -> float | None:
        self.at.append(now)
        return self.then.pop(0) if self.then else None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_deadline_is_kept_never_early_and_at_most_a_sweep_late(clock: Clock) -> None:
    items = {when: Item() for when in (1000.0, 1000.1, 1000.25, 1003.6, 1019.99)}
    for when, item in items.items():
        clock.hub.deadline(item, when)
    clock.pass_(30)
    for when, item in items.items():
        (at,) = item.at
        assert when <= at <= when + SWEEP


def test_an_item_says_its_next_deadline(clock: Clock) -> None:
    item = Item(1005.0, 1005.0, 1001.0, None)
    clock.hub.deadline(item, 1002.0)
    clock.pass_(30)
    assert item.at == [1002.25, 1005.25, 1005.5, 1005.75]  # what is over comes with the next sweep


def test_the_first_deadline_of_all_may_be_over_already(clock: Clock) -> None:
    item = Item()
    clock.hub.deadline(item, 1.0)
    clock.pass_(1)
    assert item.at == [1000.25]


def test_after_a_stall_all_that_is_due_is_done_in_one_sweep(clock: Clock) -> None:
    items = [Item() for _ in range(5)]
    for number, item in enumerate(items):
        clock.hub.deadline(item, 1001.0 + number)
    clock.pass_(SWEEP)
    clock.time = 1100.0
    clock.hub._sweep()
    assert [item.at for item in items] == [[1100.0]] * 5


def test_an_item_that_fails_is_logged_and_holds_back_no_other(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Item):
        def due(self, now: float) -> float | None:
            raise ZeroDivisionError

    item = Item()
    clock.hub.deadline(Broken(), 1001.0)
    clock.hub.deadline(item, 1001.0)
    clock.pass_(5)
    assert len(item.at) == 1
    assert [record.message[:23] for record in caplog.records] == ["error at a deadline of "]


def test_every_sweep_is_told_to_those_who_want_it(clock: Clock) -> None:
    times: list[float] = []
    clock.hub.every_sweep(times.append)
    clock.pass_(1)
    assert times == [1000.25, 1000.5, 1000.75, 1001.0]


def test_a_long_job_lets_sockets_have_their_turn(clock: Clock) -> None:
    order: list[str] = []

    def job(name: str) -> Iterator[None]:
        for number in range(4):
            order.append(f"{name}{number}")
            clock.time += SLICE * 0.6
            yield

    clock.hub.sliced(lambda: job("a"))
    clock.hub.sliced(lambda: job("b"))
    while clock.callbacks:
        order.append("sockets")
        fn, args = clock.callbacks.pop(0)
        fn(*args)
    assert order == "a0 a1 sockets a2 a3 sockets b0 b1 sockets b2 b3 sockets".split()


def test_a_short_job_is_done_at_once_and_one_that_fails_ends_alone(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[str] = []

    def short() -> Iterator[None]:
        done.append("short")
        yield

    def broken() -> Iterator[None]:
        yield
        raise ZeroDivisionError

    clock.hub.sliced(short)
    assert done == ["short"]
    clock.hub.sliced(broken)
    clock.hub.sliced(short)
    assert done == ["short", "short"]
    assert [record.message for record in caplog.records] == ["error in a job of the hub"]


def test_a_job_that_gives_another_runs_it_after_itself(clock: Clock) -> None:
    order: list[str] = []

    def second() -> Iterator[None]:
        order.append("second")
        yield

    def first() -> Iterator[None]:
        order.append("first")
        clock.hub.sliced(second)
        order.append("still first")
        yield

    clock.hub.sliced(first)
    assert order == ["first", "still first", "second"]


def test_a_peer_that_hung_up_is_known_to_be_gone_before_the_loop_says_so() -> None:
    def test() -> None:
        ours, theirs = socket.socketpair()
        told: list[str] = []
        with ours:
            hangup = Hub().watch_hangup(ours, told.append, "gone")
            assert hangup is not None
            assert not hangup.peer_is_gone()
            theirs.close()
            assert (hangup.peer_is_gone(), told) == (True, [])
            gevent.sleep(0.01)
            assert told == ["gone"]

    gevent.spawn(test).get(timeout=LONG)


def test_a_watch_for_a_hangup_that_is_dropped_closes_nothing() -> None:
    """Its descriptor may have a new owner by then."""

    def test() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            assert Hub().watch_hangup(ours, lambda: None) is not None
            theirs.send(b"x")
            gevent.sleep(0.01)  # it ends by that byte, and nobody has it
            gc.collect()
            assert ours.recv(1) == b"x"

    gevent.spawn(test).get(timeout=LONG)


# Marks ------------------------------------------------------------------------------------


class Part:
    """What has a hub, and a method for its thread alone."""

    def __init__(self, hub: Any) -> None:
        self.hub = hub

    @on_hub
    def touch(self, value: int) -> int:
        return value


def test_a_marked_method_asserts_that_it_is_called_on_the_owning_thread() -> None:
    here = [True]
    part = Part(SimpleNamespace(here=lambda: here[0]))
    assert part.touch(1) == 1
    here[0] = False
    with pytest.raises(AssertionError, match=r"Part\.touch"):
        part.touch(1)


def test_a_mark_costs_nothing_outside_of_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "CHECKED", False)

    def method(self: Any) -> None: ...

    assert on_hub(method) is method

"""Waiting, between threads, and between a thread and a hub that is idle."""

from __future__ import annotations

import sys
import threading
import time
import weakref
from queue import Empty

import gevent
import pytest

from flask_chsk.client import ChannelClosed
from flask_chsk.client.waiting import Flag, JobQueue, Queue, ThreadGroup
from tests.process import WAIT, eventually


def test_a_flag_is_waited_for() -> None:
    flag = Flag()
    threading.Timer(0.02, flag.set).start()
    assert flag.wait(WAIT) is True
    assert flag.wait(0) is True
    flag.set()


def test_a_flag_that_nobody_sets_is_false() -> None:
    flag = Flag()
    assert (flag.wait(0.01), flag.wait(0), flag.wait(-1)) == (False, False, False)


def test_a_queue_is_first_in_first_out() -> None:
    queue: Queue[int] = Queue()
    for number in (1, 2):
        queue.put(number)
    assert (len(queue), queue.get(), queue.get(block=False)) == (2, 1, 2)
    with pytest.raises(Empty):
        queue.get(block=False)
    with pytest.raises(Empty):
        queue.get(timeout=0.01)


def test_a_full_queue_lets_the_oldest_go() -> None:
    queue: Queue[int] = Queue(2)
    for number in (1, 2, 3):
        queue.put(number)
    assert (queue.dropped, queue.get(), queue.get()) == (1, 2, 3)


def test_a_closed_queue_gives_what_is_left() -> None:
    queue: Queue[int] = Queue()
    queue.put(1)
    queue.close()
    queue.put(2)
    assert list(queue) == [1]
    with pytest.raises(ChannelClosed):
        queue.get()


def test_closing_wakes_whoever_waits() -> None:
    queue: Queue[int] = Queue()
    threading.Timer(0.02, queue.close).start()
    assert list(queue) == []


def test_what_many_put_many_get_once() -> None:
    queue: Queue[int] = Queue()
    got: list[int] = []

    def take() -> None:
        got.extend(queue)

    takers = [threading.Thread(target=take) for _ in range(4)]

    def put(first: int) -> None:
        for number in range(first, first + 500):
            queue.put(number)

    putters = [threading.Thread(target=put, args=(n * 500,)) for n in range(4)]
    for thread in takers + putters:
        thread.start()
    for thread in putters:
        thread.join()
    eventually(lambda: not len(queue))
    queue.close()
    for thread in takers:
        thread.join()
    assert sorted(got) == list(range(2000))


def test_a_job_queue_keeps_order_and_survives_errors(caplog: pytest.LogCaptureFixture) -> None:
    threads, done = ThreadGroup(), []
    jobs = JobQueue(threads.start, "jobs")
    jobs.put(lambda: time.sleep(0.02))
    jobs.put(lambda: 1 // 0)
    jobs.put(sys.exit)
    for number in range(3):
        jobs.put(lambda number=number: done.append(number))  # type: ignore[misc]
    eventually(lambda: len(done) == 3)
    jobs.close()
    assert done == [0, 1, 2]
    assert threads.join(WAIT) is True
    assert [record.message for record in caplog.records] == ["error in jobs"] * 2


def test_a_job_queue_tells_what_it_drops() -> None:
    threads, told = ThreadGroup(), []
    begun, go = threading.Event(), threading.Event()
    jobs = JobQueue(threads.start, "jobs", 2, lambda: told.append("overflow"))
    jobs.put(begun.set)
    jobs.put(lambda: go.wait(WAIT))
    begun.wait(WAIT)
    eventually(lambda: not len(jobs))
    done: list[int] = []
    for number in range(3):
        jobs.put(lambda number=number: done.append(number))  # type: ignore[misc]
    go.set()
    eventually(lambda: len(done) == 2)
    jobs.close()
    assert (done, told) == ([1, 2], ["overflow"])


def test_a_thread_group_waits_for_all_but_the_caller() -> None:
    threads, joined = ThreadGroup(), []
    go = threading.Event()
    threads.start("one", lambda: joined.append(threads.join(WAIT)))
    threads.start("two", lambda: go.wait(WAIT))
    assert threads.join(0.02) is False
    go.set()
    assert threads.join(WAIT) is True
    assert joined == [True]


def test_a_thread_with_an_idle_hub_waits_for_another_thread() -> None:
    gevent.get_hub()  # this thread's, with nothing else to wait for
    flag = Flag()
    threading.Timer(0.05, flag.set).start()
    assert flag.wait()


def test_a_traceback_that_is_kept_keeps_no_greenlet() -> None:
    threads, greenlets, errors = ThreadGroup(), [], []

    def fail() -> None:
        greenlets.append(weakref.ref(gevent.getcurrent()))
        try:
            raise OSError
        except OSError as error:
            errors.append(error)

    threads.start("to fail", fail)
    assert threads.join(WAIT)
    eventually(lambda: greenlets[0]() is None)
    assert errors[0].__traceback__.tb_frame.f_back is not None

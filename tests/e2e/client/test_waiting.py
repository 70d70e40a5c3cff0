"""Waiting, between threads, and between greenlets of a process that is patched or is not.

What needs gevent runs in a process of its own: this one stays as it is.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from queue import Empty

import gevent
import pytest

from flask_chsk.client import ChannelClosed
from flask_chsk.client.waiting import Flag, JobQueue, Queue, ThreadGroup
from tests.e2e.client.conftest import TestServer
from tests.process import ROOT, eventually


def test_a_flag_is_waited_for() -> None:
    flag = Flag()
    threading.Timer(0.02, flag.set).start()
    assert flag.wait(10) is True
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
    assert threads.join(5) is True
    assert [record.message for record in caplog.records] == ["error in jobs"] * 2


def test_a_job_queue_tells_what_it_drops() -> None:
    threads, told = ThreadGroup(), []
    begun, go = threading.Event(), threading.Event()
    jobs = JobQueue(threads.start, "jobs", 2, lambda: told.append("overflow"))
    jobs.put(begun.set)
    jobs.put(lambda: go.wait(10))
    begun.wait(10)
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
    threads.start("one", lambda: joined.append(threads.join(10)))
    threads.start("two", lambda: go.wait(10))
    assert threads.join(0.02) is False
    go.set()
    assert threads.join(10) is True
    assert joined == [True]


SCRIPT = """
import sys
if "patched" in sys.argv:
    from gevent import monkey
    monkey.patch_all()
import gc
import os
import threading
import gevent
from greenlet import greenlet
from flask_chsk.client import ChannelSocket

url, kind = sys.argv[1:3]

def alive():
    return sum(isinstance(x, gevent.Greenlet) and not x.dead for x in gc.get_objects())

def main():
    ticks = []
    def tick():
        while True:
            ticks.append(1)
            gevent.sleep(0.01)
    ticking = gevent.spawn(tick)
    before = alive(), threading.active_count()
    hubs, pushed = set(), []
    with ChannelSocket(url, kind, params={"uid": sys.argv[3]}, connect=False) as chsk:
        @chsk.on("test/pushed")
        def got(ev):
            hubs.add(gevent.get_hub())
            gevent.sleep(0.001)
            pushed.append(ev.data)
        waits = [gevent.spawn(chsk.request, ["test/late", 0.3]) for _ in range(10)]
        gevent.joinall(waits)
        assert {job.get() for job in waits} == {"late"}, waits
        assert len(ticks) > 10, len(ticks)
        assert chsk.request(["test/push", 5]) is True
        with gevent.Timeout(5):
            while len(pushed) < 5:
                gevent.sleep(0.01)
        assert hubs == {gevent.get_hub()}, hubs
        assert pushed == sorted(pushed)
        assert chsk.ch_recv.get(timeout=5).id == "chsk/state"
    after = alive(), threading.active_count()
    assert after == before, (before, after, threading.enumerate())
    ticking.kill()
    print("fine")

gevent.spawn(main).get()
"""


@pytest.mark.parametrize("patched", ["patched", "unpatched"])
@pytest.mark.parametrize("kind", ["ws", "ajax"])
def test_in_greenlets_calls_block_their_greenlet_only(
    server: TestServer, tmp_path: Path, kind: str, patched: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    ran = subprocess.run(
        [sys.executable, "-W", "error", script, server.url, kind, f"{kind}-{patched}", patched],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.stdout, ran.returncode) == ("fine\n", 0), ran.stderr


def test_a_thread_with_an_idle_hub_waits_for_another_thread() -> None:
    gevent.get_hub()  # this thread's, with nothing else to wait for
    flag = Flag()
    threading.Timer(0.05, flag.set).start()
    assert flag.wait()

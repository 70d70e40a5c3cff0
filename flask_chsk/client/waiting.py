"""Waiting and running jobs, the same in threads and in greenlets, patched or not.

The client's network code is plain blocking code in ``threading`` threads: greenlets where
threads are patched, native ones elsewhere. Any of them may set what a user waits for, so a wait
here never blocks a hub: in a thread that has a hub, the hub waits. It decides nothing.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from queue import Empty
from typing import Any, Generic, TypeVar

import gevent
from gevent.hub import Hub
from gevent.monkey import get_original, is_module_patched

from .. import forks
from ..errors import ChannelClosed
from ..internals import hub_of_thread
from ..interrupts import from_signal
from ..logs import logger

log = logger(__name__)
T = TypeVar("T")

LINGER = 2.0  # seconds a thread waits for its next job: a busy queue keeps its thread

_allocate_lock = get_original("_thread", "allocate_lock")


class Flag:
    """Set once, from anywhere; waited for by one thread or greenlet, the one that made it."""

    __slots__ = ("_greenlet", "_hub", "_lock", "_waker", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._hub: Hub | None = hub_of_thread()
        if self._hub is None and is_module_patched("threading"):
            self._hub = gevent.get_hub()  # blocking this thread would block all greenlets
        self._greenlet: Any = None
        if self._hub is None:
            self._lock = _allocate_lock()
            self._lock.acquire()
        else:
            self._waker = self._hub.loop

    def set(self) -> None:
        """Let the waiter go on; a second call does nothing."""
        if self.is_set:
            return
        self.is_set = True
        if self._hub is None:
            self._lock.release()
        else:
            self._waker.run_callback_threadsafe(self._wake)

    def _wake(self) -> None:
        if self._greenlet is not None:
            self._greenlet.switch()

    def wait(self, timeout: float | None = None) -> bool:
        """Whether it was set within *timeout* seconds; None: however long it takes."""
        if self.is_set:
            return True
        if timeout is not None and timeout <= 0:
            return False
        if self._hub is None:
            if self._lock.acquire(True, -1 if timeout is None else timeout):
                self._lock.release()
        else:
            self._wait_on(self._hub, timeout)
        return self.is_set

    def _wait_on(self, hub: Hub, timeout: float | None) -> None:
        # Without a timeout an async watcher keeps the loop running: gevent raises LoopExit in a
        # loop that waits for nothing but another thread.
        watcher = hub.loop.async_() if timeout is None else hub.loop.timer(timeout)
        self._greenlet = gevent.getcurrent()
        try:
            watcher.start(self._wake)
            hub.switch()
        finally:
            self._greenlet = None
            watcher.stop()
            watcher.close()


class Queue(Generic[T]):
    """First in, first out, between any threads and greenlets.

    Over *limit* items, or *max_bytes* of them, it drops the oldest; the newest stays, whatever
    its size.

    :ivar dropped: how many it dropped.
    """

    def __init__(self, limit: int | None = None, max_bytes: int | None = None) -> None:
        self.limit = limit
        self.max_bytes = max_bytes
        self.dropped = 0
        self._items: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._waiting: deque[Flag] = deque()
        self._closed = False
        self._lock = _allocate_lock()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T, size: int = 0) -> None:
        """Append *item*, which came as *size* bytes, without ever waiting."""
        with self._lock:
            if self._closed:
                return
            self._items.append((item, size))
            self._bytes += size
            while self._full():
                self._popleft()
                self.dropped += 1
            if self._waiting:
                self._waiting.popleft().set()

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """The oldest item, taken out.

        :raises queue.Empty: after *timeout* seconds, or at once where it shall not *block*.
        :raises ChannelClosed: when it is closed and empty.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._lock:
                if self._items:
                    return self._popleft()
                if self._closed:
                    raise ChannelClosed("destroyed")
                if not block:
                    raise Empty
                flag = Flag()
                self._waiting.append(flag)
            if not flag.wait(None if until is None else until - time.monotonic()):
                with self._lock:
                    if not flag.is_set:
                        self._waiting.remove(flag)
                        raise Empty
            # It is set: an item was put. Another thread may have taken it already.

    def _full(self) -> bool:
        count = len(self._items)
        if self.limit is not None and count > self.limit:
            return True
        return self.max_bytes is not None and self._bytes > self.max_bytes and count > 1

    def _popleft(self) -> T:
        item, size = self._items.popleft()
        self._bytes -= size
        return item

    def close(self) -> None:
        """Refuse further items; those in the queue can still be taken out."""
        with self._lock:
            self._closed = True
            while self._waiting:
                self._waiting.popleft().set()

    def clear(self) -> None:
        """Drop all items."""
        with self._lock:
            self._items.clear()
            self._bytes = 0

    def __iter__(self) -> Iterator[T]:
        """Items as they come, until it is closed."""
        while True:
            try:
                yield self.get()
            except ChannelClosed:
                return


class ThreadGroup:
    """The threads of one channel socket, so that its end can wait for theirs.

    :ivar ending: set once the channel socket is destroyed.
    """

    def __init__(self) -> None:
        self.ending = threading.Event()
        self._lock = _allocate_lock()
        self._members: dict[object, Any] = {}
        self._flags: list[Flag] = []
        self._home: Hub | None = None
        # Made in a greenlet of an unpatched process: that hub runs, and users' code belongs there.
        if isinstance(gevent.getcurrent(), gevent.Greenlet) and not is_module_patched("threading"):
            self._home = gevent.get_hub()

    def on_hub(self) -> bool:
        """Whether the caller is a greenlet in which a blocking socket blocks all others."""
        return self._home is not None and hub_of_thread() is self._home

    def start(self, name: str, fn: Callable[[], object]) -> None:
        """Run *fn*, which may block on sockets, in a thread."""
        main = self._member(fn)
        threading.Thread(target=main, name=f"flask_chsk.client {name}", daemon=True).start()

    def start_for_users(self, name: str, fn: Callable[[], object]) -> None:
        """Run *fn*, which calls users' code: in a greenlet where that code runs in greenlets."""
        if self._home is None:
            self.start(name, fn)
        else:
            main = self._member(fn)
            self._home.loop.run_callback_threadsafe(gevent.spawn, main)

    def _member(self, fn: Callable[[], object]) -> Callable[[], None]:
        key = object()
        with self._lock:
            self._members[key] = None

        def main() -> None:
            # In no local variable: a traceback that is kept would keep it, and at the end of the
            # thread greenlet would look through all objects of the process.
            self._members[key] = gevent.getcurrent()
            forks.stay_behind(self._members[key])
            try:
                fn()
            except BaseException as error:
                if from_signal(error):
                    raise
                log.exception("error in %r", fn)
            finally:
                with self._lock:
                    del self._members[key]
                    flags, self._flags = self._flags, []
                for flag in flags:
                    flag.set()

        return main

    def join(self, timeout: float) -> bool:
        """Whether all of them, except the caller, ended within *timeout* seconds."""
        until = time.monotonic() + timeout
        me = gevent.getcurrent()
        while True:
            with self._lock:
                if all(member is me for member in self._members.values()):
                    return True
                flag = Flag()
                self._flags.append(flag)
            if not flag.wait(until - time.monotonic()):
                return False


class JobQueue:
    """Runs jobs one after another, in a thread that exists while there are any.

    *start* is the method of the thread group that starts such a thread. Over *limit* jobs, or
    *max_bytes* of them, the oldest is dropped, and *on_drop* called.
    """

    def __init__(
        self,
        start: Callable[[str, Callable[[], object]], None],
        name: str,
        limit: int | None = None,
        on_drop: Callable[[], object] | None = None,
        max_bytes: int | None = None,
    ) -> None:
        self._start = start
        self._name = name
        self._jobs: Queue[Callable[[], object]] = Queue(limit, max_bytes)
        self._lock = _allocate_lock()
        self._running = False
        self._on_drop = on_drop

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: Callable[[], object], size: int = 0) -> None:
        """Run *job*, which holds *size* bytes, after those that were put before it.

        What it raises is logged.
        """
        dropped = self._jobs.dropped
        self._jobs.put(job, size)  # takes nothing once it is closed
        if self._jobs.dropped > dropped and self._on_drop is not None:
            self._on_drop()
        with self._lock:
            if self._running or not len(self._jobs):
                return
            self._running = True
        self._start(self._name, self._run)

    def _run(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=LINGER)
            except (Empty, ChannelClosed):
                with self._lock:
                    if not len(self._jobs):
                        self._running = False
                        return
                continue
            try:
                job()
            except BaseException as error:  # of a user's function: the next job still runs
                if from_signal(error):
                    raise
                log.exception("error in %s", self._name)

    def close(self, *, finish: bool = False) -> None:
        """Refuse further jobs; run those that wait only where *finish* is set."""
        if not finish:
            self._jobs.clear()
        self._jobs.close()

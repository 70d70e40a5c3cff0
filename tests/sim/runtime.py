"""The simulated hub: one thread, a clock that jumps from one due time to the next.

:class:`Loop` stands in for gevent's loop, with as much of it as the package asks: callbacks in
order, timers, watchers of sockets. :class:`SimHub` is the real hub on that loop: its deadlines,
slices and waiters are the product's; greenlets run one at a time, and a wait costs no real time.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from threading import get_ident
from typing import Any, Protocol

from greenlet import GreenletExit, getcurrent, greenlet

from flask_chsk.hub import Hub
from flask_chsk.semaphore import Semaphore

START = 1_700_000_000.0  # the wall clock at virtual time 0
READ, WRITE = 1, 2  # what a watcher of gevent's waits for
LIVELOCK = 200_000  # turns of the loop without a move of the clock


class Stuck(Exception):
    """The loop turns and turns, and its time stands still."""


class Socket(Protocol):
    """What a watcher looks at."""

    watchers: list[Watcher]

    def ready(self, events: int) -> bool:
        """Whether it may be read, or written."""


class Loop:
    """Callbacks, timers and watchers; what is due at one time runs in the order it was asked."""

    def __init__(self, rng: random.Random) -> None:
        self.time = 1000.0
        self.sockets: dict[int, Socket] = {}  # by descriptor
        self._rng = rng
        self._callbacks: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = count()
        self._perhaps_ready: dict[Watcher, None] = {}

    # what gevent's loop has ----------------------------------------------------------------

    def now(self) -> float:
        return self.time

    def run_callback(self, fn: Callable[..., object], *args: Any) -> None:
        self._callbacks.append((fn, args))

    run_callback_threadsafe = run_callback

    def timer(self, seconds: float, repeat: float = 0.0, ref: bool = True) -> Timer:
        return Timer(self, seconds, repeat)

    def io(self, fileno: int, events: int) -> Watcher:
        return Watcher(self, self.sockets[fileno], events)

    # what runs it --------------------------------------------------------------------------

    def at(self, when: float, timer: Timer) -> int:
        number = next(self._order)
        heapq.heappush(self._timers, (when, number, timer))
        return number

    def look(self, watcher: Watcher) -> None:
        """*watcher* may have become ready."""
        self._perhaps_ready[watcher] = None

    def do(self, fn: Callable[..., object], *args: Any) -> None:
        """Call *fn* now."""
        fn(*args)

    def run(self, seconds: float) -> None:
        """Do all that is due within *seconds* from now.

        :raises Stuck: where that never ends.
        """
        until = self.time + seconds
        turns, at = 0, self.time
        while True:
            turns = turns + 1 if self.time == at else 0
            at = self.time
            if turns > LIVELOCK:
                raise Stuck
            for _ in range(len(self._callbacks)):  # what these ask for comes in the next turn
                fn, args = self._callbacks.popleft()
                fn(*args)
            if self._perhaps_ready:
                watchers = list(self._perhaps_ready)
                watcher = watchers[self._rng.randrange(len(watchers))]
                del self._perhaps_ready[watcher]
                watcher.fire()
            elif self._callbacks:
                pass
            elif self._timers and self._timers[0][0] <= until:
                when, number, timer = heapq.heappop(self._timers)
                if timer.number == number:
                    self.time = max(self.time, when)
                    timer.fire()
            else:
                self.time = max(self.time, until)
                return


class Process:
    """The loop as one process has it: that can be killed, and can stall."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._alive = True
        self._held: deque[tuple[Callable[..., object], tuple[Any, ...]]] | None = None
        self.now = loop.now
        self.at = loop.at
        self.look = loop.look
        self.sockets = loop.sockets

    @property
    def time(self) -> float:
        return self._loop.time

    @time.setter
    def time(self, time: float) -> None:
        self._loop.time = time

    def run_callback(self, fn: Callable[..., object], *args: Any) -> None:
        self._loop.run_callback(self.do, fn, *args)

    run_callback_threadsafe = run_callback

    def timer(self, seconds: float, repeat: float = 0.0, ref: bool = True) -> Timer:
        return Timer(self, seconds, repeat)

    def io(self, fileno: int, events: int) -> Watcher:
        return Watcher(self, self.sockets[fileno], events)

    def do(self, fn: Callable[..., object], *args: Any) -> None:
        """Call *fn* now, or after the stall, or never."""
        if self._held is not None:
            self._held.append((fn, args))
        elif self._alive:
            fn(*args)

    def kill(self) -> None:
        """Nothing happens in it any more."""
        self._alive = False
        self._held = None

    def stall(self, seconds: float) -> None:
        """Nothing happens in it for some time; then all that was due happens."""
        if self._held is None:
            self._held = deque()
            self._loop.timer(seconds).start(self._go_on)

    def _go_on(self) -> None:
        held, self._held = self._held, None
        for fn, args in held or ():
            self.do(fn, *args)


class Timer:
    """One of the loop's timers."""

    __slots__ = ("_call", "_due", "_loop", "_repeat", "_seconds", "number")

    def __init__(self, loop: Loop | Process, seconds: float, repeat: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._repeat = repeat
        self._due = False
        self.number = -1  # among all that were started; -1: it is not running

    def start(self, fn: Callable[..., object], *args: Any) -> None:
        self._call = fn, args
        self.number = self._loop.at(self._loop.time + max(self._seconds, 0.0), self)

    def fire(self) -> None:
        self.number = -1
        if self._repeat:
            self.number = self._loop.at(self._loop.time + self._repeat, self)
        if not self._due:
            self._due = True
            self._loop.do(self._run)

    def _run(self) -> None:
        if self._due:
            self._due = False
            fn, args = self._call
            fn(*args)

    def stop(self) -> None:
        self.number = -1
        self._due = False

    close = stop


class Watcher:
    """Calls back while a socket is ready."""

    __slots__ = ("_call", "_events", "_loop", "_on", "_socket")

    def __init__(self, loop: Loop | Process, socket: Socket, events: int) -> None:
        self._loop = loop
        self._socket = socket
        self._events = events
        self._on = False
        socket.watchers.append(self)

    def start(self, fn: Callable[..., object], *args: Any) -> None:
        self._call = fn, args
        self._on = True
        self._loop.look(self)

    def stop(self) -> None:
        self._on = False

    def close(self) -> None:
        self._on = False
        if self in self._socket.watchers:
            self._socket.watchers.remove(self)

    def fire(self) -> None:
        self._loop.do(self._run)

    def _run(self) -> None:
        if self._on and self._socket.ready(self._events):
            fn, args = self._call
            fn(*args)
            self._loop.look(self)


class SimHub(Hub):
    """The real hub, on a simulated loop."""

    def __init__(
        self, rng: random.Random, slow: float = 0.0, loop: Loop | Process | None = None
    ) -> None:
        """
        :param slow: seconds that each look at the clock costs: then long jobs are cut up.
        :param loop: of a process in a simulation that has several.
        """
        self._rng = rng
        self._slow = slow
        self._given = loop
        self._greenlets: dict[Any, None] = {}
        self.skew = 0.0  # seconds by which the clock of this host is ahead
        super().__init__()
        self.random = rng

    def _find_loop(self) -> None:
        self.loop: Any = self._given or Loop(self._rng)
        self.gevent_hub: Any = getcurrent()  # the greenlet that runs the loop
        self.cooperative = True
        self._ident = get_ident()

    def now(self) -> float:
        self.loop.time += self._slow
        return float(self.loop.time)

    def wall(self) -> float:
        return START + self.skew + self.now()

    time_of_day = wall

    def token(self, size: int) -> str:
        return self._rng.randbytes(size).hex()

    def spawn(self, fn: Callable[..., object], *args: Any) -> None:
        """As the pool of the real hub: at once by an idle greenlet, or soon by a new one."""
        worker = self._greenlet(lambda: self._turn(fn, args))
        if getcurrent() is self.gevent_hub and self._rng.random() < 0.5:
            self.loop.do(worker.switch)
        else:
            self.loop.run_callback(worker.switch)

    background = spawn

    def daemon(self, fn: Callable[[], object]) -> None:
        self.loop.run_callback(self._greenlet(fn).switch)

    def _greenlet(self, fn: Callable[[], object]) -> Any:
        def run() -> None:
            try:
                fn()
            finally:
                del self._greenlets[made]

        made = greenlet(run, self.gevent_hub)
        self._greenlets[made] = None
        return made

    def end_greenlets(self) -> None:
        """End those that wait for what never comes."""
        for one in list(self._greenlets):
            with suppress(BaseException):
                one.throw(GreenletExit)

    def semaphore(self, count: int) -> Semaphore:
        return SimSemaphore(self, count)

    def yield_to_loop(self) -> None:
        self.loop.run_callback(getcurrent().switch)
        self.gevent_hub.switch()

    def sleep(self, seconds: float) -> None:
        """Let a greenlet of the simulation wait."""
        self.waiter().wait(seconds)

    def later(self, seconds: float, fn: Callable[..., object], *args: Any) -> Timer:
        """Call *fn* after *seconds*."""
        timer: Timer = self.loop.timer(seconds)
        timer.start(fn, *args)
        return timer

    def watch_hangup(self, sock: Any, fn: Callable[..., object], *args: Any) -> Any:
        """*sock* is a :class:`tests.sim.network.Call`."""
        return sock.watch(fn, *args)


class SimSemaphore(Semaphore):
    """A lock that greenlets of the simulation wait for, the first the longest."""

    def __init__(self, hub: Hub, count: int) -> None:
        self._hub = hub
        self._free = count
        self._waiting: deque[Any] = deque()

    def acquire(self, timeout: float = -1) -> bool:
        if self._free:
            self._free -= 1
            return True
        waiter = self._hub.waiter()
        self._waiting.append(waiter)
        if waiter.wait(1e9 if timeout < 0 else timeout) is not None:
            return True
        self._waiting.remove(waiter)
        return False

    def release(self) -> None:
        if self._waiting:
            self._waiting.popleft().set(True)
        else:
            self._free += 1

"""The gevent hub that owns all connections of a process, and the ways to it.

Under a gevent server it is the hub of the worker. In a process whose threads are native
(``flask run``, gunicorn's gthread) it is a hub of our own in a background thread. All that
touches a connection runs there; other threads hand over with :meth:`Hub.call`. Users' code
runs in pooled greenlets of the worker's hub, or in native threads: it may block either way.

Nothing starts at import: a :class:`Hub` is made at the first request of a process.
"""

from __future__ import annotations

import os
import random
import secrets
import socket
import time
from _socket import MSG_PEEK
from _socket import socket as _NativeSocket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol, TypeVar

import gevent
from gevent.hub import Hub as GeventHub
from gevent.monkey import get_original, is_module_patched

from . import forks
from .interrupts import from_signal
from .logs import logger
from .semaphore import Semaphore

log = logger(__name__)
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

# Native even in a patched process: they are held for microseconds, and across hubs.
_allocate_lock = get_original("_thread", "allocate_lock")
_start_new_thread = get_original("_thread", "start_new_thread")
_get_ident = get_original("_thread", "get_ident")
_get_native_id = get_original("_thread", "get_native_id")

_starting = _allocate_lock()

_hubs: dict[tuple[int, int], Hub] = {}  # by process and thread

# Windows has no such flag; the sockets of a gevent server do not block there either.
DONT_WAIT: int = getattr(socket, "MSG_DONTWAIT", 0)
SWEEP = 0.25  # seconds between looks at the deadlines: keep-alive needs no finer grain
IDLE_WORKERS = 64  # greenlets kept for the next handler: 7 KB each
THREADS = 32  # native threads that run handlers where there are no greenlets
OWN_THREADS = 8  # and our own jobs, which wait for the broker at most
SLICE = 0.004  # seconds of one turn of a long job: sockets wait no longer for it

CHECKED = bool(os.environ.get("FLASK_CHSK_CHECK_HUB"))  # tests set it: see `on_hub`

_STARTED = time.time() - time.monotonic()


def _is_gevents() -> bool:
    """Whether the caller's thread is a gevent server's.

    A request that runs in a greenlet is. So is the main greenlet of a patched process, in which
    workers load the application; only there is the thread's id the process's (on Linux).
    """
    if isinstance(gevent.getcurrent(), gevent.Greenlet):
        return True
    return is_module_patched("socket") and bool(_get_native_id() == os.getpid())


def on_hub(method: F) -> F:
    """Mark a method that runs on the owning thread of ``self.hub`` only.

    Under tests the mark asserts that. Else it is the method itself, and costs nothing.
    """
    if not CHECKED:
        return method

    @wraps(method)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        assert self.hub.here(), f"{method.__qualname__} was not called on the thread of its hub"
        return method(self, *args, **kwargs)

    return checked  # type: ignore[return-value]


@contextmanager
def starting() -> Iterator[None]:
    """Held while the hub and servers of a process start."""
    with _starting:
        yield


class Lock(Protocol):
    """A native lock."""

    def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool: ...
    def release(self) -> None: ...
    def __enter__(self) -> bool: ...
    def __exit__(self, *args: object) -> None: ...


class Waiter(Protocol):
    """One value, set on the hub, waited for by one caller."""

    def set(self, value: Any) -> None:
        """Give the value; a second one is ignored."""

    def wait(self, timeout: float) -> Any:
        """The value, or None after *timeout* seconds."""


class Hub:
    """Runs things where the connections live, and users' code where it may block.

    It is the one source of clocks, timers, greenlets, locks, random numbers and tokens for all
    below the Flask layer, so that tests can put a simulated hub in its place (tests/sim).
    """

    def __init__(self) -> None:
        self.random = random.Random()  # for jitter; what nobody may guess is a token
        self.over = False  # in a child that was forked: this is its parent's
        self.native_threads = False
        # Whether a socket of the standard library that waits lets the loop run.
        self.cooperative = False
        self._wheel: dict[int, list[Deadline]] = {}
        self._swept = 0
        self._sweeper: Any = None
        self._sweeps: list[Callable[[float], None]] = []
        self._queue: list[Callable[[], Iterator[None]]] = []
        self._idle: list[_Worker] = []
        self._threads = _Threads("flask_chsk handler", THREADS)
        self._own_threads = _Threads("flask_chsk", OWN_THREADS)
        self.jobs = 0  # in the background, that have not ended
        self.gevent_hub: GeventHub
        self._find_loop()
        forks.register(self)

    def forked(self) -> None:
        """The loop may run on in a child, but not for its parent's hub."""
        global _starting
        _starting = _allocate_lock()  # a thread that is not here may hold it
        _hubs.clear()
        self.over = True
        self.__class__ = _ParentsHub

    @classmethod
    def of_process(cls) -> Hub:
        """The hub of this process, made when first asked for; call it within :func:`starting`.

        A gevent server has its own; all that runs under native threads shares one.
        """
        key = (os.getpid(), _get_ident() if _is_gevents() else 0)
        hub = _hubs.get(key)
        if hub is None:
            hub = _hubs[key] = cls()
        return hub

    # the owning thread ---------------------------------------------------------------

    def _find_loop(self) -> None:
        """Take the loop of the caller's thread, or run one in a thread of our own."""
        self.native_threads = not _is_gevents()
        if self.native_threads:
            self._start_thread()
        else:
            self.gevent_hub = gevent.get_hub()
            self._ident = _get_ident()
            self.loop = self.gevent_hub.loop
            self.cooperative = is_module_patched("socket")

    def _start_thread(self) -> None:
        ready = _allocate_lock()
        ready.acquire()

        def main() -> None:
            self.gevent_hub = gevent.get_hub()
            self._ident = _get_ident()
            self.loop = self.gevent_hub.loop
            keeps_running = self.loop.async_()
            keeps_running.start(lambda: None)
            ready.release()
            self.gevent_hub.switch()  # runs the loop, for the life of the process

        _start_new_thread(main, ())
        ready.acquire()

    def here(self) -> bool:
        """Whether the caller is on the owning thread."""
        return bool(_get_ident() == self._ident)

    def now(self) -> float:
        """Seconds of a steady clock."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since 1970: the time when this process began, and the seconds since.

        It never jumps when the host's clock is set.
        """
        return _STARTED + time.monotonic()

    def time_of_day(self) -> float:
        """Seconds since 1970 by the host's clock, which jumps when it is set."""
        return time.time()

    def token(self, size: int) -> str:
        """*size* random bytes that nobody can guess, in hexadecimal."""
        return secrets.token_hex(size)

    def native_lock(self) -> Lock:
        """A lock that holds between native threads, whatever was patched."""
        return _allocate_lock()  # type: ignore[no-any-return]

    def semaphore(self, count: int) -> Semaphore:
        """A lock that *count* may hold at a time while they wait for sockets."""
        return Semaphore(count)

    def call(self, fn: Callable[..., object], *args: Any) -> None:
        """Run *fn* on the owning thread: now if there already, else soon."""
        if _get_ident() == self._ident:
            fn(*args)
        else:
            self.loop.run_callback_threadsafe(self._turn, fn, args)

    def call_soon(self, fn: Callable[..., object], *args: Any) -> None:
        """Run *fn* on the owning thread after what it is doing now."""
        if _get_ident() == self._ident:
            self.loop.run_callback(self._turn, fn, args)
        else:
            self.loop.run_callback_threadsafe(self._turn, fn, args)

    def _turn(self, fn: Callable[..., object], args: tuple[Any, ...]) -> None:
        """A callback of the loop."""
        if not self.over:
            _logged(fn, args)

    def run(self, fn: Callable[..., T], *args: Any) -> T:
        """What *fn* returns or raises, from the owning thread; *fn* must not block."""
        if _get_ident() == self._ident:
            return fn(*args)
        done = _allocate_lock()
        done.acquire()
        result: list[Any] = [None, None]

        def there() -> None:
            try:
                result[0] = fn(*args)
            except BaseException as error:  # handed to the caller, all of it
                result[1] = error
            finally:
                done.release()

        self.loop.run_callback_threadsafe(self._turn, there, ())
        done.acquire()
        if result[1] is not None:
            raise result[1]
        return result[0]  # type: ignore[no-any-return]

    def run_at_exit(self, fn: Callable[..., object]) -> None:
        """Run *fn* as the process ends: on the owning thread if it answers, else here."""
        if self.here():
            fn()
            return
        done = _allocate_lock()
        done.acquire()

        def there() -> None:
            try:
                fn()
            finally:
                done.release()

        self.loop.run_callback_threadsafe(self._turn, there, ())
        done.acquire(True, 0.5)

    def waiter(self) -> Waiter:
        """A place for one value that a request waits for."""
        return _ThreadWaiter() if self.native_threads else _GreenletWaiter(self)

    def waiter_here(self) -> Waiter:
        """The same for a caller on any thread, a foreign one included."""
        return self.waiter() if self.here() else _ThreadWaiter()

    # users' code ---------------------------------------------------------------------

    def spawn(self, fn: Callable[..., object], *args: Any) -> None:
        """Run *fn*, which may block: in a pooled greenlet, or a native thread. On the hub."""
        if self.native_threads:
            self._threads.submit(fn, args)
            return
        if not self._idle:
            worker = _Worker(self._idle)
            worker.job = (fn, args)
            worker.start()
            return
        worker = self._idle.pop()
        worker.job = (fn, args)
        if gevent.getcurrent() is self.gevent_hub:
            worker.switch()  # comes back when the job first waits, or is done
        else:
            self.loop.run_callback(worker.switch)

    def background(self, fn: Callable[..., object], *args: Any) -> None:
        """The same for a job of ours, which waits for no handler of a user's. On the hub."""
        self.jobs += 1
        if self.native_threads:
            self._own_threads.submit(self._do_job, (fn, *args))
        else:
            self.spawn(self._do_job, fn, *args)

    def _do_job(self, fn: Callable[..., object], *args: Any) -> None:
        try:
            fn(*args)
        finally:
            self.call(self._end_job)

    def _end_job(self) -> None:
        self.jobs -= 1

    def daemon(self, fn: Callable[[], object]) -> None:
        """Run *fn*, which reads a socket for the life of the process. From any thread.

        In a greenlet of its own where sockets are cooperative, else in a native thread.
        """
        if self.cooperative:
            self.call_soon(lambda: forks.stay_behind(gevent.spawn(fn)))
        else:
            _start_new_thread(fn, ())

    def yield_to_loop(self) -> None:
        """In a worker: let the sockets have a turn."""
        if not self.native_threads:
            gevent.sleep(0)

    # time ----------------------------------------------------------------------------

    def deadline(self, item: Deadline, when: float) -> None:
        """Call ``item.due(now)`` at *when*, a quarter of a second late at most.

        What it returns, seconds of :meth:`now`, is its next deadline; None: no more.
        """
        self._begin_sweeps()
        slot = max(int(when / SWEEP) + 1, self._swept + 1)
        self._wheel.setdefault(slot, []).append(item)

    def every_sweep(self, fn: Callable[[float], None]) -> None:
        """Call *fn* with the time at each sweep. On the hub."""
        self._begin_sweeps()
        self._sweeps.append(fn)

    def no_more_sweeps(self, fn: Callable[[float], None]) -> None:
        """Undo :meth:`every_sweep`."""
        self._sweeps.remove(fn)

    def _begin_sweeps(self) -> None:
        if self._sweeper is None:
            self._swept = int(self.now() / SWEEP)
            self._sweeper = self.loop.timer(SWEEP, repeat=SWEEP, ref=False)
            self._sweeper.start(self._sweep)

    def _sweep(self) -> None:
        if self.over:
            self._sweeper.stop()
            return
        now = self.now()
        current = int(now / SWEEP)
        first, self._swept = self._swept + 1, current
        for slot in range(first, current + 1):
            for item in self._wheel.pop(slot, ()):
                try:
                    when = item.due(now)
                except BaseException as error:
                    if from_signal(error):
                        raise
                    log.exception("error at a deadline of %r", item)
                else:
                    if when is not None:
                        self.deadline(item, when)
        for fn in list(self._sweeps):
            _logged(fn, (now,))

    def timer(self, seconds: float, fn: Callable[[], object]) -> Any:
        """Call *fn* once, *seconds* from now; the result has ``stop()``. On the hub."""
        timer = self.loop.timer(seconds)
        timer.start(self._turn, fn, ())
        return timer

    def watch_hangup(
        self, sock: socket.socket, fn: Callable[..., object], *args: Any
    ) -> Hangup | None:
        """Call *fn* when *sock*'s peer hangs up, until ``stop()`` of the result.

        Bytes that arrive are left where they are, and end it: they are the server's. Under
        native threads nothing is watched: the server could close the descriptor meanwhile.
        """
        return None if self.native_threads else Hangup(self, sock.fileno(), fn, args)

    def sliced(self, job: Callable[[], Iterator[None]]) -> None:
        """Run a long job of the hub in slices: between them sockets get their turn.

        Jobs run one after another, in the order given.
        """
        self._queue.append(job)
        if len(self._queue) == 1:
            self._run_slices(None)

    def _run_slices(self, steps: Iterator[None] | None) -> None:
        until = self.now() + SLICE
        while True:
            if steps is None:
                if not self._queue:
                    return
                steps = iter(self._queue[0]())
            try:
                for _ in steps:
                    if self.now() >= until:
                        self.loop.run_callback(self._turn, self._run_slices, (steps,))
                        return
            except BaseException as error:
                if from_signal(error):
                    raise
                log.exception("error in a job of the hub")
            self._queue.pop(0)
            steps = None


class _ParentsHub(Hub):
    """What a hub becomes in a child: nothing runs on it any more."""

    def call(self, fn: Callable[..., object], *args: Any) -> None:
        """Nothing."""

    call_soon = spawn = background = daemon = call

    def run(self, fn: Callable[..., T], *args: Any) -> T:
        forks.stay()

    def run_at_exit(self, fn: Callable[..., object]) -> None:
        """Nothing."""

    def deadline(self, item: Deadline, when: float) -> None:
        """Nothing."""

    def sliced(self, job: Callable[[], Iterator[None]]) -> None:
        """Nothing."""


class Hangup:
    """A watch for a peer that hangs up.

    The descriptor is the server's. No socket object here holds it: one that is dropped would close
    it, or whatever has its number by then.
    """

    __slots__ = ("_args", "_fileno", "_fn", "_hub", "_watcher")

    def __init__(
        self, hub: Hub, fileno: int, fn: Callable[..., object], args: tuple[Any, ...]
    ) -> None:
        self._hub = hub
        self._fn = fn
        self._args = args
        self._fileno = fileno
        self._watcher = hub.loop.io(fileno, 1)
        self._watcher.start(self._look)

    def _look(self) -> None:
        if self._hub.over:
            self._watcher.stop()
            return
        try:
            said = _peek(self._fileno)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        self._watcher.stop()
        if not said:
            _logged(self._fn, self._args)

    def peer_is_gone(self) -> bool:
        """Whether the peer has hung up, be it that the loop has yet to say so."""
        try:
            return not _peek(self._fileno)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def stop(self) -> None:
        """Watch no longer."""
        self._watcher.stop()
        self._watcher.close()


def _peek(fileno: int) -> bytes:
    """The next byte that a socket has to read, which stays there; nothing at its end."""
    native = _NativeSocket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno)  # asks nothing of it
    try:
        return native.recv(1, MSG_PEEK | DONT_WAIT)
    finally:
        native.detach()


class Deadline(Protocol):
    """Something with a time at which it wants to be looked at."""

    def due(self, now: float) -> float | None:
        """Do what is due; the next time, or None."""


def _logged(fn: Callable[..., object], args: tuple[Any, ...]) -> None:
    try:
        fn(*args)
    except BaseException as error:  # of users' code, too: it ends neither worker nor hub
        if from_signal(error) or (isinstance(error, SystemExit) and forks.is_caller()):
            raise
        log.exception("error in %r", fn)


class _Worker(gevent.Greenlet):  # type: ignore[type-arg]
    """A greenlet that runs one job after another and rests among the idle between them."""

    def __init__(self, idle: list[_Worker]) -> None:
        super().__init__()
        self.idle = idle
        self.job: tuple[Callable[..., object], tuple[Any, ...]] | None = None
        forks.stay_behind(self)
        forks.register(self)

    def forked(self) -> None:
        """A job that has not begun begins in the parent."""
        self.job = None

    def _run(self) -> None:
        hub = gevent.get_hub()
        while self.job is not None:
            fn, args = self.job
            self.job = None
            _logged(fn, args)
            del fn, args
            if len(self.idle) >= IDLE_WORKERS:
                return
            self.idle.append(self)
            hub.switch()


class _Threads:
    """Native threads, started as they are needed, that do not hold up the process's end.

    (Those of concurrent.futures do: Ctrl-C would wait for a handler that blocks, and no close
    frame would leave meanwhile.)
    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._jobs: SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]]] = SimpleQueue()
        self._lock = _allocate_lock()
        self._free = 0  # threads that wait, less the jobs that wait for one
        self._started = 0

    def submit(self, fn: Callable[..., object], args: tuple[Any, ...]) -> None:
        self._jobs.put((fn, args))
        with self._lock:
            self._free -= 1
            if self._free >= 0 or self._started >= self._most:
                return
            self._started += 1
        Thread(target=self._work, name=self._name, daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                self._free += 1
            fn, args = self._jobs.get()
            _logged(fn, args)
            del fn, args


class _GreenletWaiter:
    __slots__ = ("_greenlet", "_hub", "_set", "_value")

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._greenlet: Any = None
        self._value: Any = None
        self._set = False

    def set(self, value: Any) -> None:
        if self._set:
            return
        self._set = True
        self._value = value
        if self._greenlet is not None:
            self._hub.loop.run_callback(self._wake)

    def _wake(self) -> None:
        if self._greenlet is not None and not self._hub.over:
            self._greenlet.switch()

    def wait(self, timeout: float) -> Any:
        if not self._set:
            timer = self._hub.loop.timer(timeout)
            self._greenlet = gevent.getcurrent()
            timer.start(self._wake)
            try:
                self._hub.gevent_hub.switch()
            finally:
                self._greenlet = None
                timer.stop()
                timer.close()
        return self._value


class _ThreadWaiter:
    __slots__ = ("_lock", "_set", "_value")

    def __init__(self) -> None:
        self._lock = _allocate_lock()
        self._lock.acquire()
        self._value: Any = None
        self._set = False

    def set(self, value: Any) -> None:
        if not self._set:
            self._set = True
            self._value = value
            self._lock.release()

    def wait(self, timeout: float) -> Any:
        self._lock.acquire(True, timeout)
        return self._value

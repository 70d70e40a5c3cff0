"""What surrounds a part of the server in its tests: a hub turned by hand, and clients on it."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any

from flask_chsk import packers
from flask_chsk.brokers.memory.broker import MemoryBroker
from flask_chsk.config import Config
from flask_chsk.protocol.session import Rules, ServerSession
from flask_chsk.protocol.wire import WIRES, Composer
from flask_chsk.semaphore import Semaphore
from flask_chsk.server.connection import Connection, Entered, Opening, Uid
from flask_chsk.server.registry import Registry
from flask_chsk.server.router import EventMessage, Handler, Handlers, Router
from flask_chsk.server.worker import Worker
from flask_chsk.transports.longpoll import Poller

COMPOSER = Composer(packers.make("edn"), WIRES["1.21"])


class Waiter:
    """One value; nobody blocks for it."""

    value: Any = None

    def set(self, value: Any) -> None:
        if self.value is None:
            self.value = value

    def wait(self, timeout: float) -> Any:
        return self.value


class FakeHub:
    """Does later what is to be done later, when a test says so; its clock is set by hand."""

    over = False
    native_threads = False
    cooperative = True
    _tokens = itertools.count(1)  # of all hubs: no two are the same

    def __init__(self) -> None:
        self.time = 1000.0
        self.random = random.Random(1)
        self.later: deque[Callable[[], object]] = deque()  # soon, spawn, background
        self.timers: list[tuple[float, Callable[[], object]]] = []
        self.deadlines: list[tuple[float, Any]] = []
        self.sweeps: list[Callable[[float], None]] = []

    def here(self) -> bool:
        return True

    def now(self) -> float:
        return self.time

    wall = time_of_day = now

    def token(self, size: int) -> str:
        return f"{next(self._tokens):0{2 * size}x}"

    def native_lock(self) -> Any:
        return threading.Lock()

    def semaphore(self, count: int) -> Any:
        return Semaphore(count)

    def call(self, fn: Callable[..., object], *args: Any) -> None:
        fn(*args)

    def run(self, fn: Callable[..., Any], *args: Any) -> Any:
        return fn(*args)

    def call_soon(self, fn: Callable[..., object], *args: Any) -> None:
        self.later.append(lambda: fn(*args))

    spawn = background = daemon = call_soon

    def yield_to_loop(self) -> None: ...

    def waiter(self) -> Waiter:
        return Waiter()

    waiter_here = waiter

    def timer(self, seconds: float, fn: Callable[[], object]) -> None:
        self.timers.append((self.time + seconds, fn))

    def deadline(self, item: Any, when: float) -> None:
        self.deadlines.append((when, item))

    def every_sweep(self, fn: Callable[[float], None]) -> None:
        self.sweeps.append(fn)

    def no_more_sweeps(self, fn: Callable[[float], None]) -> None:
        self.sweeps.remove(fn)

    def sliced(self, job: Callable[[], Iterator[None]]) -> None:
        for _ in job():
            pass

    # what tests do -------------------------------------------------------------------------

    def work(self) -> None:
        """Do what waits, and what comes of it."""
        while self.later:
            self.later.popleft()()

    def sleep(self, seconds: float) -> None:
        """Let time pass: timers fire and deadlines are checked, in their order."""
        end = self.time + seconds
        while True:
            self.work()
            next_ones = [when for when, _ in (*self.timers, *self.deadlines) if when <= end]
            if not next_ones:
                break
            self.time = max(self.time, min(next_ones))
            timers = [one for one in self.timers if one[0] <= self.time]
            self.timers = [one for one in self.timers if one[0] > self.time]
            for _, fn in timers:
                fn()
            due = [item for when, item in self.deadlines if when <= self.time]
            self.deadlines = [one for one in self.deadlines if one[0] > self.time]
            for item in due:
                when = item.due(self.time)
                if when is not None:
                    self.deadline(item, when)
        self.time = end


class FakeTransport:
    """A transport that notes what it is told, and takes what waits when it is woken."""

    parked = False
    reading = True

    def __init__(self, kind: str = "ws") -> None:
        self.kind = kind
        self.closing = False
        self.told: list[Any] = []
        self.is_stalled = False

    def wake(self) -> None:
        self.told.append("wake")

    def flush(self) -> None:
        self.told.append("flush")

    def end(self, code: int, reason: str = "") -> None:
        if not self.closing:
            self.closing = True
            self.told.append((code, reason))

    def mute(self) -> Callable[[int, str], None]:
        self.told.append("mute")
        return lambda code, reason: self.told.append((code, reason))

    def replaced(self, code: int, reason: str) -> None:
        self.end(code, reason)

    def drain(self, reason: str) -> None:
        self.told.append("drain")

    def pause(self) -> None:
        self.reading = False

    def resume(self) -> None:
        self.reading = True

    def stalled(self, now: float) -> bool:
        return self.is_stalled


class Site:
    """A hub, a broker, a registry and connections in it."""

    def __init__(self, **options: Any) -> None:
        self.hub: Any = FakeHub()
        self.config = Config(**options)
        self.counters: Counter[str] = Counter()
        self.registry: Registry[Connection] = Registry()
        self.broker: Any = MemoryBroker(self.config)

    def connect(
        self, uid: Uid = "ann", client_id: str = "c1", *, v1: bool = True, offset: int = 1
    ) -> Connection:
        """A connection on a WebSocket, whose client was given everything up to *offset*."""
        rules = Rules(epoch="e", max_outbox_bytes=self.config.max_outbox_bytes)
        session = ServerSession(
            uid, client_id, COMPOSER, rules, self.hub.now(), v1=v1, offset=offset
        )
        deadlines: Any = None
        connection = Connection(deadlines, session, "ws", self.hub.now())
        connection.attach_socket(FakeTransport(), self.hub.now())
        self.registry.add(uid, client_id, connection, "ws")
        return connection


def texts(connection: Connection) -> list[str]:
    """The events and messages that wait for a client."""
    return [getattr(one, "text", one) for one in connection.session.outbox or ()]


def told(connection: Connection) -> list[Any]:
    """What the transport of a connection was told."""
    transport: Any = connection.transport
    return list(transport.told)


class Host:
    """An application without contexts, which notes who came and went."""

    def __init__(self, router: Router) -> None:
        self._router = router

    def run(self, handler: Handler, ev: EventMessage, request: Any) -> Any:
        return self._router.run(handler, ev)

    def run_plain(self, fn: Callable[..., object], *args: Any) -> None:
        fn(*args)

    def explain(self, error: BaseException) -> tuple[int, str]:
        return 500, type(error).__name__


class Office:
    """A whole worker with the memory broker, on a hub turned by hand."""

    def __init__(self, **options: Any) -> None:
        self.hub: Any = FakeHub()
        self.handlers = Handlers()
        router = self.handlers._router
        self.config = Config(**options)
        self.broker: Any = MemoryBroker(self.config)
        self.worker = Worker(self.config, self.broker, router, Host(router), self.hub)
        self.worker.start()
        self.clients = self.worker.clients
        self.registry = self.worker.registry
        self.presence: list[tuple[str, str]] = []
        for id in ("chsk/uidport-open", "chsk/uidport-close"):
            self.handlers.on(id)(lambda ev: self.presence.append((ev.id[13:], ev.data)))

    def opening(self, uid: Uid = "ann", client_id: str = "c1", **more: Any) -> Opening:
        """Of a client of ours, unless *more* says otherwise."""
        given = {"v1": True, "digest": f"secret of {client_id}", "asked": self.clients.asked()}
        return Opening(uid, client_id, COMPOSER, **{**given, **more})

    def enter(self, *who: Any, kind: str = "ws", **more: Any) -> Entered:
        entered = self.clients.enter(self.opening(*who, **more), kind)
        assert entered is not None
        return entered

    def connect(self, *who: Any, **more: Any) -> Connection:
        """Let a client in, by a WebSocket."""
        connection = self.enter(*who, **more).connection
        self.clients.attach_socket(connection, FakeTransport())
        self.hub.work()
        return connection

    def poll(self, *who: Any, **more: Any) -> Connection:
        """Let a client in that polls, and has not yet polled again."""
        connection = self.enter(*who, kind="ajax", **more).connection
        self.clients.attach_poller(connection, Poller(self.worker.polls, connection))
        self.hub.work()
        return connection

    def park(self, connection: Connection) -> Waiter:
        """The client polls, and waits."""
        waiter = Waiter()
        connection.park(waiter)
        return waiter

"""What is measured: each scenario prepares its servers once, then measures them in turn.

A scenario is a generator. It yields when its servers are ready, and then once per round; what it
has measured by then is in its :class:`Figures`. The runner takes the scenarios of all servers in
turn, round by round, so that what else the machine does falls on all of them alike; and all
scenarios twice, so that what it does for minutes shows in the spread.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from statistics import median, quantiles

from .load import Client, Load
from .servers import Peer, Redis, Server, polled

Samples = dict[str, list[float]]
Steps = Generator[None, None, None]


@dataclass
class Figures:
    """Samples of one server: for each figure its name, and one number per round."""

    samples: Samples = field(default_factory=dict)

    def add(self, **figures: float) -> None:
        """One round's numbers."""
        for name, value in figures.items():
            self.samples.setdefault(name, []).append(value)


@dataclass(frozen=True)
class Scenario:
    """One kind of work, in words and as code.

    :param unit: of each figure, in the order in which they are shown.
    :param kind: the dialect it needs (servers.py).
    :param rounds: of each pass.
    :param passes: through all scenarios: of two, the second comes minutes after the first.
    """

    name: str
    title: str
    unit: dict[str, str]
    kind: str
    run: Callable[[Peer, Figures, str], Steps]
    rounds: int = 3
    passes: int = 2
    only: tuple[str, ...] = ()  # servers; empty: all that can


SCENARIOS: list[Scenario] = []


def scenario(
    name: str,
    title: str,
    unit: dict[str, str],
    kind: str,
    *,
    rounds: int = 3,
    passes: int = 2,
    only: tuple[str, ...] = (),
) -> Callable[[Callable[[Peer, Figures, str], Steps]], Callable[[Peer, Figures, str], Steps]]:
    """Register the decorated generator."""

    def register(
        run: Callable[[Peer, Figures, str], Steps],
    ) -> Callable[[Peer, Figures, str], Steps]:
        SCENARIOS.append(Scenario(name, title, unit, kind, run, rounds, passes, only))
        return run

    return register


class Used:
    """CPU seconds of *server* between entering and leaving."""

    def __init__(self, server: Server | Redis) -> None:
        self._server = server
        self.seconds = 0.0

    def __enter__(self) -> Used:
        self._from = self._server.cpu()
        return self

    def __exit__(self, *args: object) -> None:
        self.seconds = self._server.cpu() - self._from

    def us(self, count: int) -> float:
        """Microseconds for each of *count*."""
        return self.seconds / count * 1e6


class Served:
    """A server with its load, ended together."""

    def __init__(self, peer: Peer, redis: Redis | None = None) -> None:
        self._peer = peer
        self._redis = redis

    def __enter__(self) -> tuple[Server, Load]:
        self.server = Server(self._peer, self._redis)
        self.load = Load(self.server.port)
        return self.server, self.load

    def __exit__(self, *args: object) -> None:
        self.load.close()
        self.server.stop()
        gc.collect()


# events with a reply ---------------------------------------------------------------------------

ECHO = {"cpu": "µs", "rate": "/s"}


def _echo(peer: Peer, figures: Figures, kind: str, clients: int = 50) -> Steps:
    with Served(peer) as (server, load):
        asking = load.open(peer.speaks[kind], clients)
        load.ask_in_turn(asking, 0.5)
        while True:
            yield
            with Used(server) as used:
                started = time.perf_counter()
                count = len(load.ask_in_turn(asking, 0.8))
                seconds = time.perf_counter() - started
            figures.add(cpu=used.us(count), rate=count / seconds)


for _name, _title in {
    "edn": "event with reply, EDN",
    "json": "event with reply, JSON",
    "ajax edn": "the same by Ajax, EDN",
    "ajax json": "the same by Ajax, JSON",
}.items():
    scenario(_name, _title, ECHO, _name)(_echo)


@scenario("large", "echo of 64 KB", ECHO, "large")
def _large(peer: Peer, figures: Figures, kind: str) -> Steps:
    yield from _echo(peer, figures, kind, clients=10)


@scenario("latency", "500 events a second", {"p50": "ms", "p99": "ms", "cpu": "µs"}, "push")
def _latency(peer: Peer, figures: Figures, kind: str) -> Steps:
    with Served(peer) as (server, load):
        asking = load.open(peer.speaks[kind], 100)
        load.ask_at_rate(asking, 500, 1.0)
        while True:
            yield
            with Used(server) as used:
                took = load.ask_at_rate(asking, 500, 2.0)
            cuts = quantiles(took, n=100)
            figures.add(p50=cuts[49] * 1e3, p99=cuts[98] * 1e3, cpu=used.us(len(took)))


# events from the server ------------------------------------------------------------------------


def _broadcast(peer: Peer, figures: Figures, kind: str, events: int, gap_ms: int) -> Steps:
    with Served(peer) as (server, load):
        listening = load.open(peer.speaks[kind], 200)
        load.pump(lambda: False, time.perf_counter() + 0.5)
        path = f"/broadcast/{events}/{gap_ms}"
        load.count_events(listening, 200 * events, path)
        while True:
            yield
            with Used(server) as used:
                load.count_events(listening, 200 * events, path)
            figures.add(cpu=used.us(200 * events))


@scenario("paced", "a delivery to 200, 50 ms apart", {"cpu": "µs"}, "push")
def _paced(peer: Peer, figures: Figures, kind: str) -> Steps:
    yield from _broadcast(peer, figures, kind, events=30, gap_ms=50)


@scenario("burst", "a delivery to 200, in a burst", {"cpu": "µs"}, "push")
def _burst(peer: Peer, figures: Figures, kind: str) -> Steps:
    yield from _broadcast(peer, figures, kind, events=100, gap_ms=0)


@scenario("push", "push to one of 2,000 users", {"cpu": "µs"}, "push")
def _push(peer: Peer, figures: Figures, kind: str) -> Steps:
    with Served(peer) as (server, load):
        listening = load.open(peer.speaks[kind], 2000)
        load.pump(lambda: False, time.perf_counter() + 0.5)
        load.count_events(listening, 2000, "/push/2000/2000")
        while True:
            yield
            with Used(server) as used:
                load.count_events(listening, 4000, "/push/4000/2000")
            figures.add(cpu=used.us(4000))


REST = 0.1  # seconds after a burst: its last batches gather for 30 ms


@scenario(
    "redis",
    "through Redis: 200 clients at one server, events from another",
    {"broadcast": "µs", "push": "µs", "publish": "µs", "Redis": "µs", "p50": "ms", "p99": "ms"},
    "relay",
    rounds=8,  # its p99 is of 400 requests
)
def _redis(peer: Peer, figures: Figures, kind: str) -> Steps:
    """CPU per delivery of paced broadcasts, and per push at either server and in Redis.

    The latency is of 200 pushes a second, from the event that asks the other server for one;
    each of 20 clients hears ten of them, so that none waits for a batch to gather.
    """
    with Redis() as redis, Served(peer, redis) as (near, load), Served(peer, redis) as (far, _):
        hearing = load.open(peer.speaks["push"], 200)
        load.port = far.port
        asking = load.open(peer.speaks[kind], 20)
        for asks, hears in zip(asking, hearing, strict=False):
            asks.hears = hears
        load.ask_at_rate(asking, 200, 1.0)
        while True:
            yield
            with Used(near) as by_broadcast:
                load.count_events(hearing, 200 * 30, "/broadcast/30/50")
            with Used(near) as by_push, Used(far) as by_publish, Used(redis) as by_redis:
                load.count_events(hearing, 1000, "/push/1000/200")
            load.pump(lambda: False, time.perf_counter() + REST)
            took = load.ask_at_rate(asking, 200, 2.0)
            cuts = quantiles(took, n=100)
            figures.add(
                broadcast=by_broadcast.us(200 * 30),
                push=by_push.us(1000),
                publish=by_publish.us(1000),
                Redis=by_redis.us(1000),
                p50=cuts[49] * 1e3,
                p99=cuts[98] * 1e3,
            )


# connections -----------------------------------------------------------------------------------


@scenario("connects", "a connect", {"cpu": "µs", "rate": "/s"}, "push")
def _connects(peer: Peer, figures: Figures, kind: str) -> Steps:
    with Served(peer) as (server, load):
        load.open(peer.speaks[kind], 100, at_once=20)
        first = 1000
        while True:
            yield
            with Used(server) as used:
                started = time.perf_counter()
                new = load.open(peer.speaks[kind], 300, first=first, at_once=20)
                seconds = time.perf_counter() - started
            figures.add(cpu=used.us(300), rate=300 / seconds)
            load.close(new)
            load.pump(lambda: False, time.perf_counter() + 0.3)
            first += 300


def _memory(peer: Peer, figures: Figures, kind: str, steps: tuple[int, ...]) -> Steps:
    """KB per connection, over what the process has with a hundred of them."""
    while True:
        yield
        with Served(peer) as (server, load):
            load.open(peer.speaks[kind], 100)
            load.pump(lambda: False, time.perf_counter() + 1.0)
            before = server.pss()
            for count in steps:
                load.open(peer.speaks[kind], count - len(load.clients), first=len(load.clients))
                load.pump(lambda: False, time.perf_counter() + 1.0)
                grown = server.pss() - before
                figures.add(**{f"{count:,}": grown / (count - 100) / 1024})


KB = {"1,000": "KB", "5,000": "KB", "10,000": "KB"}
PYTHON_PEERS = (
    "flask-socketio",
    "flask-socketio simple",
    "flask-sock",
    "python-socketio",
)


@scenario(
    "idle",
    "idle WebSocket, memory",
    KB,
    "push",
    rounds=2,
    passes=1,
    only=("flask_chsk", "socket.io"),
)
def _idle(peer: Peer, figures: Figures, kind: str) -> Steps:
    yield from _memory(peer, figures, kind, (1000, 5000, 10_000))


@scenario("idle peers", "idle WebSocket, memory", KB, "push", rounds=1, passes=1, only=PYTHON_PEERS)
def _idle_peers(peer: Peer, figures: Figures, kind: str) -> Steps:
    yield from _memory(peer, figures, kind, (1000, 5000))


@scenario(
    "poll",
    "parked poll, memory",
    KB,
    "poll",
    rounds=1,
    passes=1,
    only=("flask_chsk", "flask-socketio", "flask parked"),
)
def _poll(peer: Peer, figures: Figures, kind: str) -> Steps:
    yield from _memory(polled(peer) if peer.ours else peer, figures, kind, (1000, 5000))


# how it grows ----------------------------------------------------------------------------------

OURS_ONLY = ("flask_chsk",)
SIZES = (10, 100, 1000, 10_000)


@scenario(
    "grow event",
    "event with reply, by connections",
    {f"{size:,}": "µs" for size in SIZES},
    "edn",
    rounds=1,
    only=OURS_ONLY,
)
def _grow(peer: Peer, figures: Figures, kind: str) -> Steps:
    """Every connection takes its turn, 50 at a time: caches do not help the larger number."""
    yield
    with Served(peer) as (server, load):
        for size in SIZES:
            load.open(peer.speaks[kind], size - len(load.clients), first=len(load.clients))
            load.pump(lambda: False, time.perf_counter() + 0.5)
            asking = load.clients[:: max(1, size // 50)]
            load.ask_in_turn(asking, 0.3)
            costs = []
            for _ in range(5):
                with Used(server) as used:
                    count = len(load.ask_in_turn(asking, 0.5))
                costs.append(used.us(count))
            figures.add(**{f"{size:,}": median(costs)})


@scenario(
    "grow broadcast",
    "a delivery of a broadcast, by connections",
    {f"{size:,}": "µs" for size in SIZES},
    "push",
    rounds=1,
    only=OURS_ONLY,
)
def _grow_broadcast(peer: Peer, figures: Figures, kind: str) -> Steps:
    yield
    with Served(peer) as (server, load):
        for size in SIZES:
            load.open(peer.speaks[kind], size - len(load.clients), first=len(load.clients))
            load.pump(lambda: False, time.perf_counter() + 0.5)
            events = max(3, min(40, 6000 // size))
            gap = max(50, size // 10)
            costs = []
            for _ in range(3):
                with Used(server) as used:
                    load.count_events(load.clients, size * events, f"/broadcast/{events}/{gap}")
                costs.append(used.us(size * events))
            figures.add(**{f"{size:,}": median(costs)})


@scenario(
    "storm",
    "5,000 clients come back at once",
    {"all back": "s", "bystander": "ms", "cpu": "µs"},
    "push",
    rounds=1,
    only=OURS_ONLY,
)
def _storm(peer: Peer, figures: Figures, kind: str) -> Steps:
    """The worst answer to a client that stays, and asks every 10 ms meanwhile."""
    yield
    with Served(peer) as (server, load):
        (bystander,) = load.open(peer.speaks["edn"], 1, first=10_000)
        crowd = load.open(peer.speaks[kind], 5000)
        worst = 0.0
        due = 0.0
        asking = False

        def replied(client: Client) -> None:
            nonlocal worst, asking
            asking = False
            worst = max(worst, time.perf_counter() - due)

        def ask_now_and_then() -> None:
            nonlocal asking, due
            now = time.perf_counter()
            if not asking and now >= due + 0.010:
                asking, due = True, now
                load.ask(bystander, replied)

        load.beside = ask_now_and_then
        with Used(server) as used:
            started = time.perf_counter()
            load.close(crowd)
            load.open(peer.speaks[kind], 5000, at_once=256)
            seconds = time.perf_counter() - started
        load.pump(lambda: not asking)
        load.beside = None
        figures.add(**{"all back": seconds, "bystander": worst * 1e3, "cpu": used.us(5000)})


@scenario("tabs", "push to one user's 64 tabs", {"cpu": "µs"}, "edn", only=OURS_ONLY)
def _tabs(peer: Peer, figures: Figures, kind: str) -> Steps:
    """CPU per push, which is 64 deliveries; 20 pushes between turns of the sockets."""
    with Served(peer) as (server, load):
        for _ in range(64):
            load.open(peer.speaks[kind], 1)
        while True:
            yield
            with Used(server) as used:
                load.count_events(load.clients, 64 * 400, "/push/400/1")
            figures.add(cpu=used.us(400))


@scenario(
    "absent",
    "100,000 sends to absent users",
    {"cpu": "µs", "grown": "KB"},
    "edn",
    rounds=1,
    only=OURS_ONLY,
)
def _absent(peer: Peer, figures: Figures, kind: str) -> Steps:
    yield
    with Served(peer) as (server, load):
        load.open(peer.speaks[kind], 10)
        server.get("/absent/10000")
        before = server.pss()
        with Used(server) as used:
            server.get("/absent/100000")
        figures.add(cpu=used.us(100_000), grown=(server.pss() - before) / 1024)


@scenario(
    "mixed",
    "an hour in 20 seconds: 300 clients",
    {"core": "%", "p99": "ms", "grown": "KB"},
    "push",
    rounds=1,
    only=(*OURS_ONLY, "flask-socketio"),
)
def _mixed(peer: Peer, figures: Figures, kind: str) -> Steps:
    """200 events a second with replies, ten broadcasts, and clients that come and go."""
    yield
    with Served(peer) as (server, load):
        staying = load.open(peer.speaks[kind], 200)
        moving = load.open(peer.speaks[kind], 100, first=200)
        number = 300

        def a_second() -> list[float]:
            nonlocal moving, number
            load.close(moving[:5], abruptly=True)
            moving = moving[5:] + load.open(peer.speaks[kind], 5, first=number)
            number += 5
            with load.command("/broadcast/1/0") as finished:
                took = load.ask_at_rate(staying, 200, 0.9)
                load.pump(finished)
            return took

        for _ in range(3):
            a_second()
        before = server.pss()
        took: list[float] = []
        with Used(server) as used:
            started = time.perf_counter()
            for _ in range(20):
                took += a_second()
            seconds = time.perf_counter() - started
        figures.add(
            core=used.seconds / seconds * 100,
            p99=quantiles(took, n=100)[98] * 1e3,
            grown=(server.pss() - before) / 1024,
        )

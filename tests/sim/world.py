"""One history: a worker, its pages, a network, and what a seed makes of them.

Each step is an action drawn from the seed: time passes, an application publishes, a page sends, a
connection breaks. At the end the network heals, and all must be level.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from greenlet import greenlet

from flask_chsk.brokers.contract import (
    ANONYMOUS,
    EVERYONE,
    client_channel,
    topic_channel,
    user_channel,
)
from flask_chsk.brokers.memory.broker import MemoryBroker
from flask_chsk.client.session import AT_REST
from flask_chsk.config import Config
from flask_chsk.errors import ChskError
from flask_chsk.protocol.event import Event
from flask_chsk.server.dispatch import Host
from flask_chsk.server.router import EventMessage, Handler, Handlers, Router
from flask_chsk.server.worker import Worker
from flask_chsk.values import Keyword

from .checker import Checker, Limits, Published
from .client import Page, WebSocket
from .front import Front, NoFront
from .network import Call, Wire
from .runtime import SimHub, Stuck

ClientKey = tuple[str | None, str]  # the user and the client id

USERS = ("ann", "ben", None)
TOPICS = ("news", "chat")
HEALING = 100.0  # seconds from the last fault: a ping (35 s), backoffs and a grace go by
LARGEST = 2_000  # bytes of an event, or of a reply
PROMPT = 10.0  # seconds in which an event arrives, where all is well: less than a poll lasts


class Violated(AssertionError):
    """An invariant does not hold."""


class Application:
    """What runs handlers, in place of Flask's contexts (``dispatch.Host``)."""

    def __init__(self, router: Router) -> None:
        self._router = router

    def run(self, handler: Handler, ev: EventMessage, request: Any) -> Any:
        return self._router.run(handler, ev)

    def run_plain(self, fn: Callable[..., object], *args: Any) -> None:
        fn(*args)

    def explain(self, error: BaseException) -> tuple[int, str]:
        return 500, repr(error)


class World:
    """All of one history."""

    make_checker = Checker
    actions: list[tuple[Callable[[Any], object], float]]  # with their weights

    def __init__(self, seed: int) -> None:
        self.seed = seed
        # For what happens; each step has its own, so that one can be left out.
        self.rng = rng = random.Random(f"world {seed}")
        self.chance = random.Random(f"chance {seed}")  # for what it leads to
        self.lines: list[str] = []
        self.last_step = -1
        self.hub = SimHub(random.Random(f"hub {seed}"), slow=rng.choice((0.0, 0.0, 0.0, 0.0005)))
        self.slowest = rng.choice((0.02, 0.1, 1.0))  # seconds of latency
        self.dawdles = rng.choice((0.0, 0.0, 0.3, 2.0))  # seconds of an application
        self.config = self._draw_config()
        limits = Limits(
            self.config.recovery_seconds, self.config.recovery_events, self.config.recovery_bytes
        )
        self.checker = self.make_checker(lambda: self.hub.wall(), limits)
        self.checker.say = self.say
        self.capacity = rng.choice((1_000, 16_000, 1_000_000))  # bytes of the network
        self.workers = 0  # that were started
        self.pages: list[Page] = []
        self.wires: list[tuple[Page, Wire]] = []
        self.offline: dict[Page, None] = {}
        self.blocked: dict[Page, None] = {}  # no WebSocket gets through
        self.users: dict[str | None, str | None] = {user: user for user in USERS}
        self._numbers = iter(range(1, 10**9))
        self._names = iter(range(1, 10**9))
        self._begin()

    def _begin(self) -> None:
        """Start what serves."""
        self._start_worker()

    def _draw_config(self) -> Config:
        rng = self.rng
        window = rng.choice((30.0, 120.0, 120.0))
        slow = self.slowest + self.dawdles >= 1.0  # then polls do not follow each other in time
        return Config(
            recovery_seconds=window,
            lp_timeout=min(20.0, window / 4),
            recovery_events=rng.choice((5, 256, 256)),
            recovery_bytes=rng.choice((2_000, 1024 * 1024, 1024 * 1024)),
            max_outbox_bytes=rng.choice((4_000, 4 * 1024 * 1024)),
            send_buf_ws=rng.choice((0.0, 0.03, 0.5)),
            send_buf_ajax=rng.choice((0.1, 2.0)),
            close_grace_ws=rng.choice((0.5, 2.5)),
            close_grace_ajax=5.0 if slow else rng.choice((1.0, 5.0)),
            max_inbox=rng.choice((2, 128)),
        )

    def _start_worker(self) -> None:
        self.workers += 1
        router = self._handlers(self.workers)._router
        host: Host = Application(router)
        broker = MemoryBroker(self.config)
        self.server = Worker(self.config, broker, router, host, self.hub)
        self.server.start()
        self.front = Front(self.hub, self.server, self._dawdle)
        journal = broker._journal
        self.checker.counter = lambda: (broker.epoch, journal.last)

    def _handlers(self, worker: int) -> Handlers:
        handlers = Handlers()

        @handlers.on("sim/note")
        @handlers.on("sim/echo")
        def take(ev: EventMessage) -> int:
            number: int = ev.data
            self.checker.handled(number, ev.uid, self._life(worker))
            self.say(f"handler of send {number}")
            if self.chance.random() < 0.2:
                self.hub.sleep(self.chance.random() * self.dawdles)
            if self.chance.random() < 0.2 and ev.client_id is not None:
                self._publish(client_channel(ev.uid, ev.client_id))
            return number

        @handlers.on("chsk/uidport-open")
        def came(ev: EventMessage) -> None:
            self._presence(worker, ev, True)

        @handlers.on("chsk/uidport-close")
        def went(ev: EventMessage) -> None:
            self._presence(worker, ev, False)

        return handlers

    def _life(self, worker: int) -> int:
        """The number of the broker's life, in which a key of a send holds."""
        return worker

    def _presence(self, worker: int, ev: EventMessage, came: bool) -> None:
        if worker != self.workers:
            return  # it ends, and what it knows ends with it
        self.say(f"{ev.data} {'came' if came else 'went'}")
        self.checker.presence(ev.data, came, ev.generation or 0)

    # chance --------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        self.lines.append(f"{self.hub.loop.time - 1000:9.3f} s  {text}")

    def latency(self) -> float:
        return self.chance.random() ** 3 * self.slowest

    def _dawdle(self) -> float:
        return self.chance.random() * self.dawdles if self.chance.random() < 0.3 else 0.0

    def fate_of_upgrade(self, page: Page) -> str:
        if page in self.offline:
            return self.chance.choice(("refused", "lost"))
        if page in self.blocked:
            return self.chance.choice(("refused", "lost", "deaf"))
        return ""

    def fate_of_request(self, page: Page) -> str:
        if page in self.offline:
            return "lost"
        return "answer lost" if page.loses_answer() else ""

    def call(self, page: Page, method: str, *args: Any) -> Call:
        """A request that a page makes, at a worker."""
        front = self.front_for(page)
        serve = partial(getattr(front, method), *args)
        return Call(self.hub, self.latency, serve, front.hub)

    def front_for(self, page: Page) -> Front | NoFront:
        """Where the next request of a page arrives."""
        return self.front

    def wire(self, end: WebSocket, page: Page) -> Wire:
        wire = Wire(self.hub, self.latency, end, self.capacity)
        self.wires = [(one, old) for one, old in self.wires if not old.cut] + [(page, wire)]
        if page in self.offline or page in self.blocked:
            wire.break_off(0.0, server_hears=False, client_hears=False)
        return wire

    # what happens --------------------------------------------------------------------------

    def step(self, number: int) -> None:
        """One action, and some time."""
        self.rng = random.Random(f"step {number} of {self.seed}")
        seconds = self._some_time()
        actions = [action for action, _ in self.actions]
        action = self.rng.choices(actions, [weight for _, weight in self.actions])[0]
        action(self)
        self.run(seconds)

    def run(self, seconds: float) -> None:
        try:
            self.hub.loop.run(seconds)
        except Stuck:
            self.checker.violated("the loop is stuck")
        most = self.config.max_outbox_bytes + LARGEST
        for worker in self._workers():
            for connection in worker.registry:
                if connection.session.outbox_bytes > most:
                    self.checker.violated("an outbox is over its limit")
        if self.checker.violations:
            raise Violated(self.checker.violations[0])

    def _some_time(self) -> float:
        x = self.rng.random()
        if x < 0.5:
            return self.rng.random() * 0.05
        if x < 0.95:
            return self.rng.random() * 2.0
        return self.rng.random() * 40.0

    def _some_page(self, *, loaded: bool = True) -> Page | None:
        pages = [page for page in self.pages if page.loaded or not loaded]
        return self.rng.choice(pages) if pages else None

    def load(self) -> None:
        """A page is opened."""
        if sum(page.loaded for page in self.pages) >= 5:
            return
        user = self.rng.choice(USERS)
        self._load(user, self.rng.choice(("auto", "auto", "ws", "ajax")))

    def _load(self, uid: str | None, kind: str) -> None:
        name = f"{uid or 'nobody'}'s page {next(self._names)}"
        page = Page(self, name, uid, kind, self.rng.choice(("edn", "json")))
        self.say(f"{name} is loaded ({kind})")
        self.pages.append(page)
        page.do(page.session.connect)

    def reload(self) -> None:
        page = self._some_page()
        if page is not None:
            self.say(f"{page.name} is reloaded")
            self._unload(page)
            self._load(page.uid, page.session.options.type)

    def _unload(self, page: Page) -> None:
        page.unload()
        self.offline.pop(page, None)
        self.blocked.pop(page, None)

    def leave(self) -> None:
        """A page is closed."""
        page = self._some_page()
        if page is not None:
            self.say(f"{page.name} is closed by its user")
            self._unload(page)

    def publish(self) -> None:
        self._publish(self._some_channel())

    def burst(self) -> None:
        """Much at once, from one greenlet."""
        size = self.rng.choice((10, 300, 1500))
        self._publish_all(self._some_channel(), size, self.rng.randrange(3, 12))

    def _publish_all(self, channel: str, size: int, count: int) -> None:
        for _ in range(count):
            self._publish(channel, size)

    def _some_channel(self) -> str:
        user = self.rng.choice(USERS)
        page = self._some_page()
        channels = [
            EVERYONE,
            ANONYMOUS if user is None else user_channel(user),
            topic_channel(self.rng.choice(TOPICS)),
        ]
        if page is not None:
            channels.append(client_channel(page.seen.uid, page.session.client_id))
        return self.rng.choice(channels)

    def _publish(self, channel: str, size: int = 10, exclude: bool = True) -> None:
        """:param exclude: now and then one client is left out."""
        number = next(self._numbers)
        broker = self.server.broker
        to = tuple(sorted(broker.topics.members(channel[2:]))) if channel.startswith("t:") else ()
        left_out = self._left_out(channel, exclude)
        offset = self._hand_over(self.server, number, channel, size, left_out)
        kept = offset is not None
        at = offset if offset is not None else int(self.hub.wall() * 1e6)
        # Nothing arrives at a page before this: the network takes its time.
        self.checker.publishes(
            Published(
                number, channel, broker.epoch, at, size + 40, kept=kept, to=to, exclude=left_out
            )
        )

    def _left_out(self, channel: str, exclude: bool) -> ClientKey | None:
        page = self._some_page() if channel == EVERYONE else None
        if exclude and page is not None and self.rng.random() < 0.3:
            return page.seen.uid, page.session.client_id
        return None

    def _hand_over(
        self, server: Worker, number: int, channel: str, size: int, left_out: ClientKey | None
    ) -> int | None:
        """Have a worker publish an event; its offset."""
        self.say(f"event {number} of {size} characters is sent to {channel}")
        event = [Keyword("sim/event"), [number, "x" * size]]
        kind, _, rest = channel.partition(":")
        if channel == EVERYONE:
            sender = None
            if left_out is not None:
                sender = EventMessage(Event(Keyword("sim/said")), *left_out)
            return server.sending.broadcast(event, sender)
        if kind == "t":
            return server.sending.publish(rest, event)
        if kind == "c":
            client_id, _, uid = rest.partition(":")
            return server.sending.send(uid or None, event, client_id)
        return server.sending.send(rest or None if kind == "u" else None, event)

    def send(self) -> None:
        """A page sends."""
        page = self._some_page()
        if page is not None:
            number = next(self._numbers)
            wants, key = self.rng.random() < 0.7, self.rng.random() < 0.5
            self.say(f"{page.name} sends {number}")
            page.send(number, wants, key)

    def join(self) -> None:
        user, topic = self.rng.choice(USERS[:2]), self.rng.choice(TOPICS)
        if self.server.broker.topics.join(str(user), topic):
            self.say(f"{user} joins {topic}")
            self._control(user_channel(str(user)))

    def quit(self) -> None:
        user, topic = self.rng.choice(USERS[:2]), self.rng.choice(TOPICS)
        if self.server.broker.topics.leave(str(user), topic):
            self.say(f"{user} leaves {topic}")
            self.checker.left[user, topic] = int(self.hub.wall() * 1e6)
            self._control(user_channel(str(user)))

    def _control(self, channel: str) -> None:
        """Something that is no application's went by a channel, and takes a place in it."""
        at, epoch = int(self.hub.wall() * 1e6), self.server.broker.epoch
        self.checker.publishes(Published(0, channel, epoch, at, 30, control=True))

    # faults --------------------------------------------------------------------------------

    def cut(self) -> None:
        """A page's WebSocket breaks in the middle of what is on its way."""
        page = self._some_page()
        if page is None:
            return
        server_hears, client_hears = self.rng.choice(
            ((True, True), (True, True), (False, True), (True, False), (False, False))
        )
        part = self.rng.choice((0.0, self.rng.random(), 1.0))
        for one, wire in self.wires:
            if one is page and not wire.cut:
                self.say(f"the WebSocket of {page.name} is cut")
                wire.break_off(part, server_hears=server_hears, client_hears=client_hears)

    def cut_requests(self) -> None:
        """A page's poll and POSTs break."""
        page = self._some_page()
        if page is not None:
            self.cut_requests_of(page, self.rng.random() < 0.5)

    def cut_requests_of(self, page: Page, server_hears: bool = False) -> None:
        for transport in page.transports():
            for call in [getattr(transport, "poll", None), *getattr(transport, "posts", ())]:
                if call is not None:
                    self.say(f"a request of {page.name} is cut")
                    call.break_off(server_hears)

    def lose_answer(self) -> None:
        """The answers to a page's next requests get lost."""
        page = self._some_page()
        if page is not None:
            page.lost_answers = self.rng.randrange(1, 3)
            self.say(f"the next {page.lost_answers} answers to {page.name} will be lost")
            for transport in page.transports():
                call = getattr(transport, "poll", None)
                if call is not None and page.loses_answer():
                    call.lose_answer()

    def go_offline(self) -> None:
        page = self._some_page()
        if page is not None:
            self.say(f"{page.name} is offline")
            self.offline[page] = None
            for one, wire in self.wires:
                if one is page:
                    wire.break_off(0.0, server_hears=False, client_hears=self.rng.random() < 0.5)
            self.cut_requests_of(page)
            self.hub.later(self.rng.random() ** 2 * 60.0, self._go_online, page)

    def _go_online(self, page: Page) -> None:
        if page in self.offline:
            self.say(f"{page.name} is online")
            del self.offline[page]
            if page.loaded and self.chance.random() < 0.7:
                page.do(page.session.connect)

    def block(self) -> None:
        """A proxy lets no WebSocket of a page through."""
        page = self._some_page()
        if page is not None:
            self.say(f"WebSockets of {page.name} are blocked")
            self.blocked[page] = None
            self.cut_wires_of(page)
            self.hub.later(self.rng.random() * 60.0, self._unblock, page)

    def cut_wires_of(self, page: Page) -> None:
        for one, wire in self.wires:
            if one is page:
                wire.break_off(0.0, server_hears=True, client_hears=True)

    def _unblock(self, page: Page) -> None:
        if self.blocked.pop(page, 0) is None:
            self.say(f"WebSockets of {page.name} are not blocked any more")

    def stall(self) -> None:
        """A page does not read."""
        page = self._some_page()
        if page is not None:
            self.say(f"{page.name} does not read")
            wires = [wire for one, wire in self.wires if one is page]
            for wire in wires:
                wire.stall()
                self.hub.later(self.rng.random() * 20.0, wire.read_on)

    def fall_asleep(self) -> None:
        page = self._some_page()
        if page is not None and not page.asleep:
            self.say(f"the machine of {page.name} sleeps")
            page.sleep()
            self.hub.later(self.rng.random() ** 2 * 90.0, self._wake, page)

    def _wake(self, page: Page) -> None:
        if page.asleep:
            self.say(f"the machine of {page.name} wakes up")
            page.wake()

    def reconnect(self) -> None:
        page = self._some_page()
        if page is not None:
            self.say(f"{page.name} reconnects")
            page.do(page.session.reconnect)

    def close(self) -> None:
        """The application closes a user's clients, to come back."""
        user = self.rng.choice(USERS)
        self.say(f"the application closes {user or 'nobody'}")
        self._close(user, reconnect=True)

    def _close(self, user: str | None, reconnect: bool) -> None:
        self.server.sending.close(user, None, reconnect=reconnect)
        self._control(ANONYMOUS if user is None else user_channel(user))

    def sign_out(self) -> None:
        """A user signs out in one page; all of theirs are told, and sign in again or not."""
        page = self._some_page()
        if page is None or page.uid is None:
            return
        user = page.uid
        self.say(f"{user} signs out")
        pages = [one for one in self.pages if one.loaded and one.uid == user]
        for one in pages:
            one.uid = None
        self._close(user, reconnect=False)
        self.hub.later(self.rng.random() * 10.0, self._sign_in, user, pages)

    def _sign_in(self, user: str, pages: list[Page]) -> None:
        self.say(f"{user} signs in again")
        for page in pages:
            page.uid = user
            if page.loaded and not page.asleep:
                page.do(page.session.reconnect)

    def worker_stalls(self) -> None:
        """The worker does nothing for some seconds: all is late."""
        seconds = self.rng.random() * 30.0
        self.say(f"the worker stalls for {seconds:.1f} s")
        self.hub.loop.time += seconds

    def restart(self) -> None:
        """The worker drains and ends; another takes its place, with a broker of its own."""
        self.say("the worker restarts")
        old, wires = self.server, [wire for _, wire in self.wires]
        old.drain()
        self._start_worker()
        self.checker.worker_ended()
        self.hub.later(3.0, self._worker_ends, old, wires)

    def _worker_ends(self, worker: Worker, wires: list[Wire]) -> None:
        worker.retire()
        for wire in wires:
            wire.break_off(1.0, server_hears=True, client_hears=True)

    # asking --------------------------------------------------------------------------------

    def ask(self) -> None:
        """The application asks a user's pages."""
        asking = greenlet(self._ask, self.hub.gevent_hub)
        user, number = self.rng.choice(USERS), next(self._numbers)
        self.hub.loop.run_callback(asking.switch, self.server, user, number)

    def _ask(self, server: Worker, uid: str | None, number: int) -> None:
        self.say(f"{uid or 'nobody'} is asked {number}")
        self.checker.asks(number)
        self._control(ANONYMOUS if uid is None else user_channel(uid))
        try:
            answer = server.asks.ask(uid, [Keyword("sim/ask"), number], None, 5.0)
        except ChskError as error:
            answer = type(error).__name__
        self.checker.answered(number, answer)

    def answer(self, page: Page, ask_id: str, event: Event) -> None:
        """A page's application answers what the server asks."""
        seconds = self.chance.random() * 3.0
        answer = partial(page.session.answer, value=event.data)
        self.hub.later(seconds, page.awake, page.do, answer, ask_id)

    # the end -------------------------------------------------------------------------------

    def heal(self) -> None:
        """No more faults; when all that they led to is over, everybody is level."""
        self.say("all is well again")
        for page in self.pages:
            self._go_online(page)
            self._unblock(page)
            page.lost_answers = 0
            self._wake(page)
        for _, wire in self.wires:
            wire.read_on()
        self.run(HEALING)
        self.say("one more event for everybody")
        self._publish(EVERYONE, exclude=False)
        self.run(PROMPT)
        connected: dict[str, bool] = {}
        for page in self.pages:
            if page.loaded and page.status not in AT_REST:
                if page.status != "open":
                    self.checker.violated(f"{page.name} is {page.status}, and all is well")
                elif page.seen.uid is not None:
                    connected[page.seen.uid] = True
        self.checker.all_is_level(connected)
        for uid in USERS:
            there = {
                page.session.client_id
                for page in self.pages
                if page.loaded and page.status == "open" and page.seen.uid == uid
            }
            if (recorded := self._recorded(uid)) != there:
                self.checker.violated(
                    f"of {uid or 'nobody'} the broker's record has {sorted(recorded)},"
                    f" and there are {sorted(there)}"
                )
        for worker in self._workers():
            left = (len(worker.dispatcher), len(worker.asks), worker.budget.bytes)
            if any(left):
                self.checker.violated(f"events, asks and bytes are left in a worker: {left}")
        if self.checker.violations:
            raise Violated(self.checker.violations[0])

    def _workers(self) -> list[Worker]:
        """Those that serve."""
        return [self.server]

    def _recorded(self, uid: str | None) -> set[str]:
        """The clients of a user, as the broker knows it."""
        return {*self.server.broker.clients.askable(uid)}

    def end(self) -> None:
        """Let go of what the process keeps."""
        for page in self.pages:
            if page.loaded:
                page.unload()
        self.server.retire()
        self.hub.loop.run(10.0)


World.actions = [
    (World.load, 6),
    (World.publish, 30),
    (World.burst, 4),
    (World.send, 15),
    (World.join, 3),
    (World.quit, 2),
    (World.cut, 6),
    (World.cut_requests, 4),
    (World.lose_answer, 4),
    (World.go_offline, 2),
    (World.block, 2),
    (World.stall, 2),
    (World.fall_asleep, 1),
    (World.reconnect, 2),
    (World.reload, 2),
    (World.leave, 1),
    (World.close, 1),
    (World.sign_out, 1),
    (World.worker_stalls, 1),
    (World.restart, 0.5),
    (World.ask, 3),
]


class _Errors(logging.Handler):
    """Makes a violation of what the package logs as an error."""

    def __init__(self, checker: Checker) -> None:
        super().__init__(logging.ERROR)
        self._checker = checker

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += f": {record.exc_info[1]!r}"
        self._checker.violated(f"logged as an error: {text}")


@contextmanager
def errors_are_violations(checker: Checker) -> Iterator[None]:
    package = logging.getLogger("flask_chsk")
    handler = _Errors(checker)
    level = package.level
    package.addHandler(handler)
    package.setLevel(logging.ERROR)  # the rest would be thousands of lines
    try:
        yield
    finally:
        package.setLevel(level)
        package.removeHandler(handler)


def play(seed: int, steps: Iterable[int], kind: Callable[[int], World] = World) -> World:
    """The history of *seed*.

    :param steps: the numbers of those that happen.
    :raises Violated: where an invariant does not hold; the world is its second argument.
    """
    world = kind(seed)
    with errors_are_violations(world.checker):
        try:
            for number in steps:
                world.last_step = number
                world.step(number)
            world.heal()
        except Violated as violated:
            raise Violated(*violated.args, world) from None
        except Exception as error:
            world.say(f"!! {error!r}")
            raise Violated(f"an error is raised: {error!r}", world) from error
        finally:
            world.end()
    return world

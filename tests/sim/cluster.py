"""A history of several workers that share one Redis: the real broker and its real scripts.

A :class:`Cluster` is a :class:`~tests.sim.world.World` in which each request of a page may reach
another worker. Redis is ``tests/redis_model.py``, behind a network that is slow or away. What was
published, and to whom, the checker hears from the model as it happens: an event is owed from the
moment when its script ran, whoever hears of that.
"""

from __future__ import annotations

import copy
import logging
import random
import re
from collections.abc import Callable, Mapping
from typing import Any

from flask_chsk.brokers.redis import scripts
from flask_chsk.brokers.redis.broker import RedisBroker
from flask_chsk.brokers.redis.records import published_push, to_text
from flask_chsk.errors import ChskError
from flask_chsk.server.router import EventMessage
from flask_chsk.server.worker import Worker
from tests.redis_model import Model, Reply

from .checker import Checker, Published
from .client import Page
from .front import Front, NoFront
from .network import Call, Wire
from .redis import RedisNetwork
from .runtime import Process, SimHub
from .world import Application, ClientKey, World

UNSURE = 15.0  # seconds after a fault of Redis in which calls that it has failed are yet to end
BASE = b"chsk:0:"
NUMBER = re.compile(r"\[:sim/event \[(\d+)[ \]]")
CONTROL = re.compile(r"\[:chsk/")


class WatchedModel(Model):
    """A model of Redis that tells what its scripts did."""

    def __init__(self, world: Cluster) -> None:
        super().__init__(world.hub.time_of_day)
        self._world = world

    def _publish(self, channel: bytes, message: bytes) -> int:
        head, _, data = message.partition(b" ")
        name = channel.removeprefix(BASE)
        if head.isdigit() and data[:2] != b"E " and name[:2] != b"w:" and name != b"!":
            self._world.published(*published_push(data))
        return super()._publish(channel, message)

    def run(self, text: str, keys: list[bytes], args: list[bytes]) -> Reply:
        reply = super().run(text, keys, args)
        if text == scripts.PUBLISH.text and reply is None:
            self._world.found_nobody(to_text(args[0]), to_text(args[2]))
        elif text == scripts.LEAVE.text:
            self._world.left(to_text(args[0]), to_text(args[1]))
        elif text == scripts.JOIN.text and reply == 1:
            self._world.joined(to_text(args[0]), to_text(args[1]))
        return reply

    @property
    def offset(self) -> int:
        """Of the counter."""
        return int(self.data.get(BASE + b"m", {}).get(b"o", 0))

    @property
    def epoch(self) -> str:
        return to_text(self.data.get(BASE + b"m", {}).get(b"epoch", b""))


class SharedChecker(Checker):
    """What holds of several workers: each coming and going is told by one of them."""

    no_answers = (*Checker.no_answers, "BrokerUnavailable", "PublishUnknown")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.lossy = False  # something died that may have had to tell
        self._told: dict[tuple[str, int], bool] = {}

    def presence(self, uid: str, came: bool, generation: int) -> None:
        if (uid, generation) in self._told:
            self.violated(f"it is told twice of {uid} in generation {generation}")
        self._told[uid, generation] = came

    def forget_asks(self, numbers: list[int]) -> None:
        """The workers that asked are dead."""
        for number in numbers:
            self._asks.pop(number, None)

    def all_is_level(self, connected: Mapping[str, bool]) -> None:
        here: dict[str, tuple[bool, int]] = {}
        for (uid, generation), came in sorted(self._told.items()):
            before, _ = here.get(uid, (False, 0))
            if came == before and not self.lossy:
                self.violated(f"{uid} {'came' if came else 'went'} twice, at last in {generation}")
            here[uid] = came, generation
        if self.lossy:
            here = dict.fromkeys(connected, (True, 0))
        self._here = here
        super().all_is_level(connected)


class Served:
    """One worker in its process."""

    def __init__(self, world: Cluster, number: int) -> None:
        self.number = number
        self.name = f"worker {number}"
        self.process = Process(world.hub.loop)
        rng = random.Random(f"hub {world.seed} {number}")
        self.hub = SimHub(rng, slow=world.hub._slow, loop=self.process)
        self.hub.skew = world.chance.choice((0.0, 0.0, 0.0, -20.0, 3.0, 50.0))
        router = world._handlers(number)._router
        broker = RedisBroker(world.config, world.redis.address(hub=self.hub))
        self.worker = Worker(world.config, broker, router, Application(router), self.hub)
        self.worker.start()
        self.front = Front(self.hub, self.worker, world._dawdle)
        self.calls: list[Call] = []
        self.wires: list[Wire] = []
        self.asks: list[int] = []
        self.takes = True  # new requests

    def end(self) -> None:
        """The process ends, whatever it was at; the system closes its connections."""
        self.takes = False
        self.process.kill()
        self.hub.over = True
        for wire in self.wires:
            wire.break_off(1.0, server_hears=False, client_hears=True)
        for call in self.calls:
            call.break_off(server_hears=False)


class Cluster(World):
    """All of one history of several workers."""

    make_checker = SharedChecker
    checker: SharedChecker

    def _begin(self) -> None:
        rng = self.rng
        self.served: list[Served] = []
        self.buried: list[Served] = []
        self.members: dict[tuple[str, str], None] = {}  # users, and the topics that they joined
        self.lives = 1  # of Redis' counter
        self.round_trip = rng.choice((0.001, 0.01, 0.2))  # seconds to Redis and back, at most
        self.is_slow = False
        self.redis = RedisNetwork(self.hub, self._way_to_redis)
        self.redis.model = model = WatchedModel(self)
        self.stale = ""
        self.checker.counter = lambda: (
            ("", 0) if model.epoch == self.stale else (model.epoch, model.offset)
        )
        self.sticky = rng.choice((0.0, 0.5, 1.0))  # how often a page stays at its worker
        self.at: dict[Page, Served] = {}
        self.nobody = NoFront(self.hub)
        for _ in range(rng.choice((2, 2, 3))):
            self._start_worker()

    def _start_worker(self) -> None:
        self.workers += 1
        self.served.append(Served(self, self.workers))
        self.say(f"worker {self.workers} starts")

    def _way_to_redis(self) -> float:
        at_most = self.round_trip / 2 + (3.0 if self.is_slow else 0.0)
        return float(self.chance.random() ** 3 * at_most)

    def _up(self) -> list[Served]:
        return [one for one in self.served if one.takes]

    def front_for(self, page: Page) -> Front | NoFront:
        up = self._up()
        if not up:
            return self.nobody
        served = self.at.get(page)
        if served is None or not served.takes or self.chance.random() >= self.sticky:
            served = self.at[page] = self.chance.choice(up)
        return served.front

    def call(self, page: Page, method: str, *args: Any) -> Call:
        made = super().call(page, method, *args)
        for served in self.served:
            if served.hub is made.process:
                served.calls = [one for one in served.calls if not one.over] + [made]
        return made

    def wire(self, end: Any, page: Page) -> Wire:
        made = super().wire(end, page)
        self.at[page].wires.append(made)
        return made

    def _unsure(self, seconds: float = UNSURE) -> None:
        """Calls to Redis fail, or have failed: then workers go on without it."""
        until = self.hub.wall() + seconds
        self.checker.unsure_until = max(self.checker.unsure_until, until)

    def some_worker(self, do: Callable[..., object], *args: Any) -> None:
        """Have one worker do something that may wait for Redis, with its errors."""
        up = self._up()
        if up:
            served = self.chance.choice(up)
            self.hub.loop.run_callback(served.hub.spawn, self._try, do, served, *args)

    def _try(self, do: Callable[..., object], *args: Any) -> None:
        try:
            do(*args)
        except ChskError as error:
            self.say(f"that ended with {type(error).__name__}: {error}")

    # what Redis tells ------------------------------------------------------------------------

    def published(self, epoch: str, push: Any) -> None:
        """The publish script ran, or one that tells of a membership."""
        found = NUMBER.match(push.text)
        channel, size = push.channel, len(push.text.encode())
        to: tuple[str, ...] = ()
        perhaps: tuple[str, ...] = ()
        if channel.startswith("t:"):
            topic = channel[2:]
            members = self.redis.model.data.get(BASE + b"k:" + topic.encode(), {})
            to = tuple(sorted(map(to_text, members)))
            # A Redis that began anew hears of older memberships later.
            perhaps = tuple(uid for uid, of in self.members if of == topic)
        number = int(found[1]) if found else 0
        self.say(f"{f'event {number}' if number else push.text} has offset {push.offset}")
        event = Published(number, channel, epoch, push.offset, size)
        event.control, event.to, event.exclude = not number, to, push.exclude
        event.perhaps_to = perhaps
        self.checker.publishes(event)

    def found_nobody(self, channel: str, text: str) -> None:
        found = NUMBER.match(text)
        if found:
            self.say(f"event {found[1]} found nobody")
            at, epoch = self.redis.model.offset, self.redis.model.epoch
            self.checker.publishes(Published(int(found[1]), channel, epoch, at, 0, kept=False))

    def left(self, uid: str, topic: str) -> None:
        self.say(f"{uid} leaves {topic}")
        self.members.pop((uid, topic), None)
        self.checker.left[uid, topic] = self.redis.model.offset

    def joined(self, uid: str, topic: str) -> None:
        self.say(f"{uid} joins {topic}")
        self.members[uid, topic] = None

    # what applications do ---------------------------------------------------------------------

    def _publish(self, channel: str, size: int = 10, exclude: bool = True) -> None:
        self._publish_all(channel, size, 1, exclude)

    def _publish_all(self, channel: str, size: int, count: int, exclude: bool = True) -> None:
        events = [(next(self._numbers), self._left_out(channel, exclude)) for _ in range(count)]
        self.some_worker(self._publish_by, channel, size, events)

    def _publish_by(
        self, served: Served, channel: str, size: int, events: list[tuple[int, ClientKey | None]]
    ) -> None:
        for number, left_out in events:
            self._try(self._hand_over, served.worker, number, channel, size, left_out)

    def join(self) -> None:
        user, topic = str(self.rng.choice(("ann", "ben"))), self.rng.choice(("news", "chat"))
        self.say(f"{user} is to join {topic}")
        self.some_worker(lambda served: served.worker.broker.topics.join(user, topic))

    def quit(self) -> None:
        user, topic = str(self.rng.choice(("ann", "ben"))), self.rng.choice(("news", "chat"))
        self.say(f"{user} is to leave {topic}")
        self.some_worker(lambda served: served.worker.broker.topics.leave(user, topic))

    def _close(self, user: str | None, reconnect: bool) -> None:
        self.some_worker(
            lambda served: served.worker.sending.close(user, None, reconnect=reconnect)
        )

    def _control(self, channel: str) -> None:
        """Redis tells of it."""

    def ask(self) -> None:
        self.some_worker(self._ask_by, self.rng.choice((None, "ann", "ben")), next(self._numbers))

    def _ask_by(self, served: Served, uid: str | None, number: int) -> None:
        served.asks.append(number)
        self._ask(served.worker, uid, number)

    def _life(self, worker: int) -> int:
        return self.lives

    def _presence(self, worker: int, ev: EventMessage, came: bool) -> None:
        self.say(f"worker {worker}: {ev.data} {'came' if came else 'went'} ({ev.generation})")
        self.checker.presence(ev.data, came, ev.generation or 0)

    # faults of workers ------------------------------------------------------------------------

    def _some_served(self) -> Served | None:
        up = self._up()
        return self.rng.choice(up) if up else None

    def restart(self) -> None:
        """A worker drains and ends; another takes its place."""
        served = self._some_served()
        if served is not None:
            self.say(f"{served.name} drains")
            self._start_worker()
            served.takes = False
            served.worker.drain()
            self.hub.later(3.0, self._retire, served)

    def _retire(self, served: Served) -> None:
        if served in self.served:
            self.say(f"{served.name} ends")
            served.worker.retire()
            self.hub.later(0.5, self._bury, served)

    def _bury(self, served: Served) -> None:
        if served in self.served:
            self.served.remove(served)
            served.end()
            self.redis.end_of(served.hub)
            self.checker.forget_asks(served.asks)
            self.buried.append(served)

    def kill(self) -> None:
        """A worker is killed; another is started in its place, later."""
        served = self._some_served()
        if served is not None:
            self.say(f"{served.name} is killed")
            self.checker.lossy = True
            self._bury(served)
            self.hub.later(self.rng.random() ** 2 * 20.0, self._start_worker)
            if self.rng.random() < 0.5:  # whose user sees that, and goes
                self.rng.choice((self.leave, self.reload))()

    def worker_stalls(self) -> None:
        """One worker does nothing for some seconds."""
        served = self._some_served()
        if served is not None:
            seconds = self.rng.random() ** 2 * 30.0
            self.say(f"{served.name} stalls for {seconds:.1f} s")
            served.process.stall(seconds)
            self._unsure(seconds + UNSURE)

    # faults of Redis --------------------------------------------------------------------------

    def redis_slow(self) -> None:
        self.say("Redis is slow")
        self._unsure(10.0 + UNSURE)
        self.checker.lossy = True
        self.is_slow = True
        self.hub.later(self.rng.random() * 10.0, self._redis_fast)

    def _redis_fast(self) -> None:
        if self.is_slow:
            self.say("Redis is as fast as before")
            self.is_slow = False

    def redis_cut(self) -> None:
        """All connections to Redis break: answers are lost of what was done."""
        self.say("the connections to Redis are cut")
        self._unsure()
        self.checker.lossy = True
        self.redis.cut()

    def redis_away(self) -> None:
        self.redis_cut()
        self.say("Redis is away")
        self._unsure(20.0 + UNSURE)
        self.redis.away = True
        self.hub.later(self.rng.random() ** 2 * 20.0, self._redis_back)

    def _redis_back(self) -> None:
        if self.redis.away:
            self.say("Redis is back")
            self.redis.away = False

    def redis_empty(self) -> None:
        self.say("Redis restarts, with nothing in it")
        self._new_life()
        self.redis.restart()

    def _new_life(self) -> None:
        self._unsure()
        self.checker.lossy = True
        self.checker.began_anew = self.hub.wall()
        self.lives += 1

    def redis_fails_over(self) -> None:
        """A replica takes over, without what was written last."""
        model = self.redis.model
        data, until = copy.deepcopy((model.data, model.until))
        self.hub.later(self.rng.random() * 3.0, self._fail_over, data, until)

    def _fail_over(self, data: Any, until: Any) -> None:
        self.say("Redis fails over to a replica that lacks the last writes")
        self._new_life()
        self.redis.restart(empty=False)
        model = self.redis.model
        model.data, model.until = data, until
        self.stale = model.epoch  # its counter is behind what clients have, until somebody says so

    # the end ----------------------------------------------------------------------------------

    def heal(self) -> None:
        self._redis_back()
        self._redis_fast()
        if not self._up():
            self._start_worker()
        super().heal()

    def _workers(self) -> list[Worker]:
        return [served.worker for served in self._up()]

    def _recorded(self, uid: str | None) -> set[str]:
        return {*map(to_text, self.redis.model.call(scripts.CLIENTS, uid or ""))}

    def end(self) -> None:
        package = logging.getLogger("flask_chsk")
        level = package.level
        package.setLevel(logging.CRITICAL + 1)  # greenlets that are ended are no errors
        for page in self.pages:
            if page.loaded:
                page.unload()
        for served in [*self.served]:
            self._bury(served)
        for served in self.buried:
            served.hub.end_greenlets()
        package.setLevel(level)


Cluster.actions = [
    *((getattr(Cluster, action.__name__), weight) for action, weight in World.actions),
    (Cluster.kill, 2),
    (Cluster.redis_slow, 1),
    (Cluster.redis_cut, 1),
    (Cluster.redis_away, 0.5),
    (Cluster.redis_empty, 0.25),
    (Cluster.redis_fails_over, 0.25),
]

KINDS: dict[str, Callable[[int], World]] = {"alone": World, "cluster": Cluster}

"""One worker process: builds its parts, hears the broker, drains, counts.

All on the hub, except what says otherwise. It knows no Flask: handlers run through a
:class:`~flask_chsk.server.dispatch.Host`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial

from ..brokers.contract import KEY_SECONDS, Broker
from ..config import Config
from ..errors import BrokerError, ConfigError, Refused
from ..hub import Hub, on_hub
from ..logs import logger
from ..packers import VALUE_BYTES
from ..protocol import session as s
from ..protocol.push import Push
from ..transports.budget import MemoryBudget
from .asks import Asks
from .clients import Clients
from .close_log import CloseLog
from .connection import Connection, Uid
from .controls import Controls
from .delayed_closes import PREFIX, DelayedCloses
from .delivery import Delivery
from .dispatch import Dispatcher, Host
from .idempotency import Idempotency
from .inspection import Inspection
from .memberships import Memberships
from .polls import Polls
from .presence import Presence
from .receiver import Receiver
from .registration import BrokerRegistration
from .registry import Registry
from .replay import CONTROLS, History
from .replies import Replies
from .router import Router
from .sending import Sending
from .sockets import Sockets
from .topics import Topics
from .trace import Trace

log = logger(__name__)

DRAIN = 0.5  # seconds that queued events have to be handled, when the worker ends
SWEEP = 1.0  # seconds between looks for what is past its time


class Worker:
    """The channel sockets of one application in one process.

    What it builds in the constructor is in the order of its imports: each part knows those above
    it. Three of them tell something to a part that is built later; they get a method of the
    worker's.

    :ivar followers: called once a second, and at the end, by whoever shows the figures elsewhere.
    """

    def __init__(
        self, config: Config, broker: Broker, router: Router, host: Host, hub: Hub
    ) -> None:
        self.hub = hub
        self.config = config
        self.broker = broker
        self.counters: Counter[str] = Counter()
        self.followers: list[Callable[[], object]] = []
        self.registry: Registry[Connection] = Registry()
        self.budget = MemoryBudget(config.max_inbound_bytes, self.counters)
        self.trace = Trace()
        self.close_log = CloseLog(self.counters, self.trace)
        self.sending = Sending(config, broker, self.registry, self.counters)
        self._build_events(router, host)
        self._build_delivery()
        self._build_clients()
        self._build_ways_in()
        self.inspection = Inspection(
            hub, broker, self.registry, self.topics, self.trace, self.stats
        )
        self._swept = hub.now()

    def start(self) -> None:
        """Begin to hear the broker; once, when nothing more is to be set."""
        self.broker.start(self.hub, self)
        self.hub.run(self.clients.begin_epoch, self.broker.epoch, 0)
        self.hub.run(self.hub.every_sweep, self._sweep)

    def _build_events(self, router: Router, host: Host) -> None:
        """What runs handlers, and asks clients."""
        config, hub, counters = self.config, self.hub, self.counters
        largest = config.max_message_bytes + VALUE_BYTES * config.max_message_values
        self.dispatcher = Dispatcher(
            hub,
            config.max_inbox,
            largest,
            self.budget,
            router,
            host,
            counters,
            self.trace,
            signed_out=self._signed_out,
        )
        self.presence = Presence(hub, self.broker, self.dispatcher, host, self.sending)
        say = partial(self.sending.send, flush=True)
        self.asks = Asks(hub, self.broker, say, self.budget, largest, counters)

    def _build_delivery(self) -> None:
        """What gets events to clients, live or from history."""
        hub, counters = self.hub, self.counters
        self.topics = Topics(self.config.recovery_seconds)
        self.delivery = Delivery(hub, self.config, self.registry, self.topics, counters, self.trace)
        self.history = History(
            hub, self.broker, self.topics, self.delivery, counters, control=self._control
        )
        self.memberships = Memberships(self.broker, self.registry, self.topics, self.delivery)

    def _build_clients(self) -> None:
        """What knows who is here."""
        hub, broker = self.hub, self.broker
        self.controls = Controls()
        self.delayed_closes = DelayedCloses(hub, broker, self.counters)
        self.registration = BrokerRegistration(
            hub,
            broker,
            self.registry,
            self.topics,
            self.memberships,
            self.presence,
            taken_over=self.client_taken_over,
        )
        self.clients = Clients(
            hub,
            self.config,
            broker,
            registry=self.registry,
            memberships=self.memberships,
            controls=self.controls,
            delivery=self.delivery,
            history=self.history,
            presence=self.presence,
            registration=self.registration,
            dispatcher=self.dispatcher,
            asks=self.asks,
            delayed_closes=self.delayed_closes,
            close_log=self.close_log,
            counters=self.counters,
            trace=self.trace,
        )

    def _build_ways_in(self) -> None:
        """What takes requests, messages and sockets in."""
        hub, config, broker, counters = self.hub, self.config, self.broker, self.counters
        self.idempotency = Idempotency(hub, broker, counters, config.reply_timeout)
        self.receiver = Receiver(
            hub,
            config,
            broker,
            clients=self.clients,
            dispatcher=self.dispatcher,
            replies=self._replies(),
            delivery=self.delivery,
            asks=self.asks,
            budget=self.budget,
            counters=counters,
        )
        self.sockets = Sockets(
            hub,
            config,
            clients=self.clients,
            receiver=self.receiver,
            delivery=self.delivery,
            history=self.history,
            budget=self.budget,
            close_log=self.close_log,
            counters=counters,
        )
        self.polls = Polls(
            hub,
            config,
            broker,
            registry=self.registry,
            clients=self.clients,
            registration=self.registration,
            delivery=self.delivery,
            history=self.history,
            delayed_closes=self.delayed_closes,
            close_log=self.close_log,
            counters=counters,
        )

    def _replies(self) -> Replies:
        """What the ways back to clients need."""
        return Replies(
            hub=self.hub,
            sending=self.sending,
            presence=self.presence,
            idempotency=self.idempotency,
            delivery=self.delivery,
            counters=self.counters,
            trace=self.trace,
            max_bytes=self.config.max_outbox_bytes // 2,
            timeout=self.config.reply_timeout,
        )

    # what is told to a part that is built later ---------------------------------------------

    @on_hub
    def _signed_out(self, uid: Uid, client_id: str) -> None:
        self.clients.close(uid, client_id, s.SIGNED_OUT, "signed out")

    @on_hub
    def _control(self, push: Push, connection: Connection) -> None:
        self.clients.control(push, connection)

    # the broker ----------------------------------------------------------------------------

    def ready(self) -> None:
        """Wait until the broker is there; at once, but for the first requests. From any thread.

        :raises Refused: 503, also where the broker cannot be used as it is set up.
        """
        try:
            self.broker.ready()
        except (BrokerError, ConfigError) as error:
            raise Refused(503, f"try again: {error}", retry_after=1) from error

    def broker_health(self) -> str:
        """Why no events pass, in one line; empty where they do. May wait for the broker."""
        try:
            self.broker.ready()
        except (BrokerError, ConfigError) as error:
            return str(error)
        return self.broker.health()

    # what the broker tells (brokers.Listener) -------------------------------------------------

    @on_hub
    def deliver(self, push: Push) -> None:
        """Do what a published event says, or hand it to the connections it is for."""
        if push.text.startswith(CONTROLS):
            self.controls.note(push, self.hub.now())
            self.clients.control(push)
        else:
            self.delivery.deliver(push)
            if push.flush:
                self.delivery.flush(push.channel)

    @on_hub
    def client_taken_over(self, uid: Uid, client_id: str, token: str) -> None:
        """A client of ours was let in by another process."""
        self.clients.taken_over(uid, client_id, token)

    @on_hub
    def user_presence_changed(self, uid: str, online: bool, generation: int) -> None:
        """The broker found that a user came or went, whose process could not say so."""
        self.presence.user_presence_changed(uid, online, generation)

    @on_hub
    def reset(self, since: int) -> None:
        """The broker's counter began a new life: every client is told of the gap."""
        self.topics.restart(since)
        self.presence.restart()
        self.clients.begin_epoch(self.broker.epoch, since)

    @on_hub
    def resync_required(self) -> None:
        """Events may have been missed: every client reads from history before anything else."""
        self.clients.resync()
        self.presence.changed()

    @on_hub
    def reattach(self, silent: bool) -> None:
        """The broker lost sight of our clients."""
        self.registration.reattach(silent)

    @on_hub
    def needs(self, name: str) -> bool:
        """Whether a client here listens to a channel."""
        kind, _, rest = name.partition(":")
        if kind == "t":
            return rest in self.topics
        if kind == "u":
            return self.controls.awaits(rest) or self.registry.count(rest) > 0
        if kind == "c":
            return self.controls.awaits(rest) or self.registry.get(None, rest) is not None
        return self.registry.count(None) > 0

    @on_hub
    def changed(self) -> None:
        """Users came or went, in whatever process."""
        self.presence.changed()

    @on_hub
    def on_worker_message(self, text: str) -> None:
        """Another process knows that a client answered what was asked here, or of a close."""
        if text.startswith(PREFIX):
            self.delayed_closes.on_worker_message(text.removeprefix(PREFIX))
        elif not (self.inspection.on_worker_message(text) or self.asks.on_worker_message(text)):
            self.counters["answers_unasked"] += 1

    # time ----------------------------------------------------------------------------------

    @on_hub
    def _sweep(self, now: float) -> None:
        self.delivery.frames.clear()
        if now - self._swept >= SWEEP:
            self._swept = now
            self.trace.look()
            self.broker.sweep()
            self.controls.sweep(now)
            self.clients.expiries.sweep(now)
            self.presence.sweep()
            self.idempotency.forget(now - max(self.config.recovery_seconds, KEY_SECONDS))
            self._call_followers()

    def _call_followers(self) -> None:
        for follower in self.followers:
            follower()

    # the end -------------------------------------------------------------------------------

    @on_hub
    def drain(self) -> None:
        """Begin to end, without blocking.

        Nothing more is read and polls are answered at once; what is queued has half a second
        to be handled; then :meth:`end`.
        """
        if self.clients.draining:
            return
        self.hub.background(self._retire_from_broker)
        self.clients.drain()
        if len(self.dispatcher):
            self.dispatcher.when_idle = self.end
            self.hub.timer(DRAIN, self.end)
        else:
            self.end()

    @on_hub
    def end(self) -> None:
        """Send every client away, to come back within the seconds that the close names."""
        if self.clients.sent_away:
            return
        self.clients.draining = True
        self.dispatcher.stop()
        self.delayed_closes.release_all()
        self.clients.send_away()
        self._call_followers()

    @on_hub
    def is_drained(self) -> bool:
        """Whether every client was sent away, and the last socket is closed."""
        return self.clients.sent_away and not any(one.transport for one in self.registry)

    def _retire_from_broker(self) -> None:
        """Whoever does not come back elsewhere is signed off by another process."""
        try:
            self.broker.retire(self.clients.longest_absence)
        except BrokerError as error:
            log.debug("the lease ends by itself: %s", error)

    @on_hub
    def retire(self) -> None:
        """End for good: the application is gone."""
        self.end()
        self.clients.forget_all()
        self.hub.no_more_sweeps(self._sweep)
        self.broker.stop()

    def at_rest(self) -> bool:
        """Whether nothing is under way: no handler, no job, no watcher."""
        return not (len(self.dispatcher) or self.hub.jobs or self.presence.comparing)

    # figures -------------------------------------------------------------------------------

    def stats(self) -> dict[str, int]:
        """Counters since the start, and gauges of now; from any thread."""
        return {**self.counters, **self.broker.stats(), **self.hub.run(self._gauges)}

    @on_hub
    def _gauges(self) -> dict[str, int]:
        uids = self.registry.connected_uids  # of this process
        return {
            "clients": len(self.registry),
            "parked": sum(
                1 for c in self.registry if c.transport is not None and c.transport.parked
            ),
            "uids": len(uids.any),
            "uids_ws": len(uids.ws),
            "uids_ajax": len(uids.ajax),
            "inboxes": len(self.dispatcher),
            "asks": len(self.asks),
            "arriving": self.budget.bytes,
            "closes_waiting": len(self.delayed_closes),
        }

"""Connects sessions, transports, registry, broker and handlers: open, receive, deliver, close.

All on the hub, except what says otherwise. It knows no Flask: handlers run through a
:class:`Host`.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from gevent import GreenletExit, Timeout

from . import session as s
from .brokers import (
    ANONYMOUS,
    EVERYONE,
    Arrival,
    Broker,
    Page,
    client_channel,
    topic_channel,
    user_channel,
)
from .config import Config
from .errors import (
    AskFailed,
    AskTimeout,
    BadEvent,
    BrokerError,
    ClientGone,
    NoClient,
    PackError,
    Refused,
)
from .event import Event, assert_event
from .hub import SLICE, Hub, Waiter
from .link import Link
from .logs import Sparse
from .longpoll import Parked, Poller, body
from .push import CANONICAL, Push
from .registry import ConnectedUids, Registry
from .router import Channel, EventMessage, Handler, Handlers
from .session import Rules, ServerSession
from .values import Keyword
from .websocket import WebSocket
from .wire import Composer, Data

log = logging.getLogger("flask_chsk.server")
sparse = Sparse(log)

Uid = str | None
Transport = WebSocket | Poller

JOINED, LEFT = Keyword("chsk/joined"), Keyword("chsk/left")
OURS = (s.CLOSE, s.ASK)  # sent by way of send(); the others are not for sending
CONTROLS = ("[:chsk/close", "[:chsk/joined", "[:chsk/left")  # done, not delivered
TAKEOVERS_PER_SECOND = 2  # of one client's parked polls by its own newer ones
REPLACED = "replaced by a newer connection of this client"
ADDRESSES = 65_536  # whose requests are counted
KEYS = 256  # keyed sends of one client that are remembered
KEPT_REPLY = 16 * 1024  # a larger reply is not kept for a repetition
DRAIN = 0.5  # seconds that queued events have to be handled, when the server ends
CLOSED_SOON = 5.0  # seconds until a socket that is being closed is looked at again


class Host(Protocol):
    """The application around the handlers: contexts, errors and their words."""

    def run(self, handler: Handler, ev: EventMessage, request: Any) -> Any:
        """What the handler answers; raises what it raises.

        :raises SignedOut: the session behind *request* has another user by now.
        """

    def run_plain(self, fn: Callable[..., object], *args: Any) -> None:
        """Call a hook in an application context."""

    def explain(self, error: BaseException) -> tuple[int, str]:
        """Status and message for a client."""


class SignedOut(Exception):
    """Whoever opened this connection is not its user any more."""


class KeptRequest(Protocol):
    """The request behind a connection, kept small while nobody looks at it."""

    def context(self, app: Any) -> Any:
        """The application's context for one event."""

    def rest(self) -> None:
        """Let go of what can be made again."""


@dataclass(frozen=True)
class Opening:
    """A checked handshake, poll or POST: who it is and what they speak."""

    uid: Uid
    client_id: str
    composer: Composer
    request: KeptRequest | None = None
    v1: bool = False
    cursor: str | None = None
    trusted: bool = False  # its resume token is ours
    data: Any = None  # the application's handshake data
    csrf_token: str | None = None
    resume: str | None = None  # the token it gets
    number: int | None = None  # polls of our clients count up


class Entered(NamedTuple):
    """A client that was let in; *recovered* is None where it did not ask for what it missed."""

    opening: Opening
    connection: Connection
    recovered: bool | None


class Connection:
    """One client of this process: its session, its transport, its request."""

    __slots__ = (
        "bucket",
        "catching",
        "filed",
        "flushed",
        "kind",
        "lost_at",
        "request",
        "server",
        "session",
        "token",
        "transport",
        "trial",
    )

    def __init__(self, server: Server, session: ServerSession, kind: str) -> None:
        self.server = server
        self.session = session
        self.kind = kind
        self.transport: Transport | None = None
        self.trial: WebSocket | None = None  # a poller tries it, and has said nothing on it yet
        self.request: KeptRequest | None = None  # of the handshake
        self.flushed = 0.0  # when a batch last left
        self.lost_at: float | None = None  # since when there is no socket or poll
        self.filed: float | None = None  # the deadline it waits for
        self.bucket: tuple[float, float] | None = None  # rate limit: tokens, when counted
        self.catching = False  # a page of history is being read
        self.token = ""  # of its opening, at the broker

    @property
    def key(self) -> tuple[Uid, str]:
        """What it is found by."""
        return self.session.uid, self.session.client_id

    def due(self, now: float) -> float | None:
        """The next deadline after doing what is due now; None for a stale one."""
        if self.filed is None or now < self.filed:
            return None
        self.filed = self.server.look_at(self, now)
        return self.filed


class Inbox:
    """Events of one client (or a user's comings and goings) that wait for their handlers."""

    __slots__ = ("beside", "jobs", "key", "paused", "running")

    def __init__(self, key: Any) -> None:
        self.key = key
        self.jobs: deque[Job] = deque()
        self.running = False  # a worker handles them, one after another
        self.beside = 0  # events whose concurrent handlers run
        self.paused: Transport | None = None


class Job:
    """One event and the handler that takes it."""

    __slots__ = ("channel", "ev", "handler", "request", "then")

    def __init__(
        self,
        ev: EventMessage,
        handler: Handler | None,
        channel: _Channel | None,
        request: Any,
        then: Callable[[], object] | None = None,
    ) -> None:
        self.ev = ev
        self.handler = handler
        self.channel = channel
        self.request = request
        self.then = then


class Server:
    """The channel sockets of one application in one process."""

    def __init__(self, config: Config, broker: Broker, handlers: Handlers, host: Host) -> None:
        self.config = config
        self.broker = broker
        self.handlers = handlers
        self.host = host
        self.registry: Registry[Connection] = Registry()
        self.counters: Counter[str] = Counter()
        self.frames: dict[Any, bytes] = {}  # batches of this tick, by what they hold
        self.closing = False
        self._over = False  # no event is handled any more
        self.recv_put: Callable[[EventMessage], bool] | None = None  # once somebody wants ch_recv
        self.opened: list[Callable[[str, bool], None]] = []  # user came (True) or went
        self.watchers: list[Callable[[ConnectedUids, ConnectedUids], object]] = []
        self.canonical = CANONICAL  # or one that knows the application's pack_default
        self._absent_noted: set[str] = set()
        self._idlers: list[Waiter] = []
        self._inboxes: dict[Any, Inbox] = {}
        self._asks: dict[str, _Ask] = {}
        self._addresses: dict[str, tuple[float, float]] = {}  # rate limits by address
        self._told_at_next_poll: dict[tuple[Uid, str], tuple[int, str, float]] = {}  # closes
        self._kept: dict[tuple[Uid, str], dict[Any, Kept]] = {}  # keyed sends, by client
        self._topics: dict[str, dict[str, int]] = {}  # user here -> topic -> since which offset
        self._members: dict[str, set[str]] = {}  # topic -> users here
        self._dirty: dict[str, set[Connection]] = {"ws": set(), "ajax": set()}
        self._windows = {"ws": config.send_buf_ws, "ajax": config.send_buf_ajax}
        self._graces = {"ws": config.close_grace_ws, "ajax": config.close_grace_ajax}
        self.hub: Hub = None  # type: ignore[assignment]  # until start

    def start(self, hub: Hub) -> None:
        """Begin to live on *hub*; at the first request of a process."""
        self.hub = hub
        self.broker.start(hub, self)
        self.rules = Rules(
            epoch=self.broker.epoch,
            kalive=self.config.ws_kalive,
            ping_timeout=self.config.ws_ping_timeout,
            cursor_every=max(self.config.recovery_seconds / 4, 1.0),
            max_outbox_bytes=self.config.max_outbox_bytes,
        )
        self._swept = hub.now()
        hub.every_sweep(self._sweep)

    def _sweep(self, now: float) -> None:
        self.frames.clear()
        if now - self._swept >= 1.0:
            self._swept = now
            self.broker.sweep()
            for key, (_, _, when) in list(self._told_at_next_poll.items()):
                if now - when > self.config.close_grace_ajax:
                    del self._told_at_next_poll[key]
            if self._kept:
                self._forget_keys(now - self.config.recovery_seconds)

    # opening ---------------------------------------------------------------------------

    def enter(self, opening: Opening, kind: str) -> Entered:
        """Let a client in, or back in; from any thread, and waits for the broker.

        What is left to do on the hub is to give it a transport and the handshake.

        :raises Refused: 503 draining, 403 a client id of somebody else, 429 too many.
        :raises BrokerUnavailable: nobody can be let in now.
        """
        uid, client_id = opening.uid, opening.client_id
        self.hub.run(self._admit, opening)
        arrival = self.broker.attach(uid, client_id)
        connection, recovered = self.hub.run(self._register, opening, kind, arrival)
        while recovered and connection.session.behind and not connection.session.outbox:
            recovered = self._next_page(connection)
        return Entered(opening, connection, recovered)

    def _admit(self, opening: Opening) -> None:
        if self.closing:
            raise Refused(503, "the server restarts: try again", retry_after=1)
        known = self.registry.get(opening.uid, opening.client_id)
        if known is not None:
            if opening.uid is None and known.session.v1 and not opening.trusted:
                raise Refused(403, "this client id is in use: take a new one, or send its resume=")
        elif (
            opening.uid is not None
            and self.registry.count(opening.uid) >= self.config.max_clients_per_uid
        ):
            raise Refused(
                429,
                f"this user has {self.config.max_clients_per_uid} clients already"
                " (CHSK_MAX_CLIENTS_PER_UID)",
                retry_after=10,
            )

    def _register(
        self, opening: Opening, kind: str, arrival: Arrival
    ) -> tuple[Connection, bool | None]:
        """Make or find the connection, with its session where the client says it is."""
        now = self.hub.now()
        watermark = self.broker.watermark()
        uid, client_id = opening.uid, opening.client_id
        cursor = s.read_cursor(opening.cursor, self.broker.epoch) if opening.trusted else None
        connection = self.registry.get(uid, client_id)
        if connection is None:
            one = ServerSession(
                uid, client_id, opening.composer, self.rules, now, v1=opening.v1, offset=watermark
            )
            connection = Connection(self, one, kind)
            if uid is not None and not self.registry.count(uid):
                self._learn_topics(uid, arrival.topics)
            self.registry.add(uid, client_id, connection, kind)
            self.counters["opened"] += 1
            if cursor is not None and opening.v1:
                one.resume_unknown(cursor)
        else:
            one = connection.session
            if isinstance(connection.transport, WebSocket):
                # From now on nothing leaves by it that the newcomer would miss.
                connection.transport.end(s.REPLACED, REPLACED)
                connection.transport = None
            if opening.v1 and (cursor is None or not one.v1):
                one.start_at(watermark)
            elif cursor is not None and cursor > watermark:
                one.resume_unknown(cursor)  # forged, or from another process: history knows
            elif cursor is not None:
                one.resume(cursor)
            one.composer = opening.composer
            one.v1 = opening.v1
        connection.token = arrival.token
        if kind == "ws":
            connection.request = opening.request
        if connection.transport is None:
            connection.lost_at = now  # until it is given one
        self._file(connection, now + 1.0)
        self._presence(uid, arrival.first, came=True)
        if opening.cursor is None or not opening.v1:
            return connection, None
        return connection, cursor is not None

    def open_websocket(self, entered: Entered, link: Link, leftover: bytes) -> None:
        """The socket of a client that was let in was taken over: greet it."""
        connection = entered.connection
        if self.registry.get(*connection.key) is not connection:
            link.close()  # closed in between: the client comes again
            return
        websocket = WebSocket(self, connection, link)
        if isinstance(connection.transport, Poller) and entered.opening.v1:
            # Its polls go on until it has said something here: a proxy may let the upgrade
            # through and nothing after it.
            websocket.proven = False
            self._end_trial(connection)
            connection.trial = websocket
        else:
            self._attach(connection, websocket)
        websocket.start(self._handshake(entered), leftover)

    def _end_trial(self, connection: Connection) -> None:
        trial, connection.trial = connection.trial, None
        if trial is not None:
            trial.end(s.TRY_LATER, "said nothing while its client was here")

    def _attach(self, connection: Connection, transport: Transport) -> None:
        old, connection.transport = connection.transport, transport
        if old is not None and old is not transport:
            if isinstance(old, Poller):
                old.release()
            else:
                old.end(s.REPLACED, REPLACED)
        one = connection.session
        one.keeps = one.v1 and transport.kind == "ajax"
        one.heard = self.hub.now()
        one.pinged = None
        if one.outbox and (old is not transport):
            # Replies and pings were for the socket that is gone; pushes are for the client.
            one.forget_messages()
        connection.lost_at = None
        connection.flushed = 0.0
        if connection.kind != transport.kind:
            old_uids = self.connected_uids
            self.registry.move(one.uid, connection.kind, transport.kind)
            connection.kind = transport.kind
            self._changed(old_uids)
        self._file(connection, self.hub.now() + min(self.config.ws_kalive, 1.0))

    def _handshake(self, entered: Entered) -> Data:
        opening, one = entered.opening, entered.connection.session
        extras: dict[Any, Any] | None = None
        if one.v1:
            extras = {
                "cursor": f"{self.rules.epoch}:{one.acked}",
                "resume": opening.resume,
                "recovered": entered.recovered,
                "kalive-ms": int(self.config.ws_kalive * 1000),
                "lp-timeout-ms": int(self.config.lp_timeout * 1000),
                "max-bytes": self.config.max_message_bytes,
                "server": "flask_chsk",
            }
        return one.handshake(opening.data, csrf_token=opening.csrf_token, extras=extras)

    # history ---------------------------------------------------------------------------

    def catch_up(self, connection: Connection) -> None:
        """Give a session that is behind its next page of history, or tell it of the gap.

        With a broker in this process at once; else the transport is woken when it came.
        """
        if connection.catching:
            return
        connection.catching = True
        if self.broker.local:
            self._catch_up(connection)
        else:
            self.hub.spawn(self._catch_up_and_wake, connection)

    def _catch_up(self, connection: Connection) -> None:
        try:
            if not self._next_page(connection):
                self.hub.run(self._tell_gap, connection)
        finally:
            connection.catching = False

    def _catch_up_and_wake(self, connection: Connection) -> None:
        try:
            self._catch_up(connection)
        except BrokerError as error:
            log.warning("history of uid %r cannot be read: %s", connection.session.uid, error)
            return  # still behind: the next wake tries again
        self.hub.call(self.wake, connection)

    def _next_page(self, connection: Connection) -> bool:
        """Read and take in a page; may wait for the broker. False: there is a gap."""
        one = connection.session
        channels = self.hub.run(self._channels, one)
        page = self.broker.since(channels, one.queued, s.PAGE_BYTES)
        return self.hub.run(self._take_page, one, page)

    def _take_page(self, one: ServerSession, page: Page) -> bool:
        if not page.complete:
            one.start_at(self.broker.watermark())
            return False
        pushes = [push for push in page.pushes if not push.text.startswith(CONTROLS)]
        self.counters["recovered"] += len(pushes)
        one.caught_up(pushes, page.end, more=page.more)
        return True

    def _tell_gap(self, connection: Connection) -> None:
        self.counters["gaps"] += 1
        connection.session.gap(self.broker.watermark())

    def _channels(self, one: ServerSession) -> dict[str, int]:
        uid = one.uid
        channels = {EVERYONE: 0, client_channel(uid, one.client_id): 0}
        if uid is None:
            channels[ANONYMOUS] = 0
        else:
            channels[user_channel(uid)] = 0
            for topic, joined in self._topics.get(uid, {}).items():
                channels[topic_channel(topic)] = joined
        return channels

    def reset(self) -> None:
        """The broker's counter began a new life: every client is told of the gap."""
        self.rules = replace(self.rules, epoch=self.broker.epoch)
        for connection in self.registry:
            connection.session.rules = self.rules
            self._tell_gap(connection)
            self.wake(connection)

    # topics, as far as users of this process are members ----------------------------------

    def _learn_topics(self, uid: str, topics: Mapping[str, int]) -> None:
        for topic, joined in topics.items():
            self._joined(uid, topic, joined)

    def _joined(self, uid: str, topic: str, offset: int) -> None:
        self._topics.setdefault(uid, {})[topic] = offset
        self._members.setdefault(topic, set()).add(uid)

    def _left(self, uid: str, topic: str) -> None:
        if self._topics.get(uid, {}).pop(topic, None) is not None:
            members = self._members[topic]
            members.discard(uid)
            if not members:
                del self._members[topic]
        if not self._topics.get(uid, True):
            del self._topics[uid]

    def _control(self, push: Push) -> None:
        """Do what a control event says; it travels as others do, so its place is in order."""
        id, data = CANONICAL.unpack(push.text)
        if id == s.CLOSE:
            code, reason = s.CLOSED_BY_APP, ""
            if isinstance(data, dict) and isinstance(data.get("code"), int):
                code, reason = data["code"], str(data.get("reason", ""))
            for connection in self._receivers(push.channel):
                self.close(*connection.key, code, reason)
            return
        uid = push.channel.partition(":")[2]
        if not self.registry.count(uid):
            return
        if id == JOINED:
            self._joined(uid, data, push.offset)
            if not self.broker.local:
                for connection in self.registry.of(uid):
                    connection.session.fall_behind()  # read from the topic's history
                    self.wake(connection)
        elif id == LEFT:
            self._left(uid, data)

    # receiving -------------------------------------------------------------------------

    def received(self, connection: Connection, websocket: WebSocket, data: Data) -> None:
        """A message came over a WebSocket."""
        one = connection.session
        if connection.transport is not websocket:
            if connection.trial is not websocket:
                return  # replaced, and about to notice
            connection.trial = None
            websocket.proven = True
            self._attach(connection, websocket)
            websocket.wake()
        happening = one.receive(data, self.hub.now())
        if self.config.rate is not None and self._too_fast(connection):
            websocket.end(s.FLOODING, "more events per second than CHSK_RATE")
            return
        if isinstance(happening, s.Received):
            channel = _SocketChannel(self, connection, websocket, happening.cb)
            if happening.key is None or not self._came_before(connection.key, happening, channel):
                self._take(connection, happening.event, channel)
        elif isinstance(happening, s.Pinged):
            if happening.cb is not None:
                cursor = one.cursor(self.broker.watermark(), self.hub.now())
                one.say(one.composer.message("pong", happening.cb, cursor))
                websocket.wake()
            self._take(connection, Event(s.WS_PING), None)
        elif isinstance(happening, s.Ponged):
            self._take(connection, Event(s.WS_PONG), None)
        elif isinstance(happening, s.Answered):
            self._answered(connection, happening)
        else:
            for received in happening.events:
                self._take(connection, received.event, _SocketChannel(self, connection, websocket))

    def _too_fast(self, connection: Connection) -> bool:
        connection.bucket = _drawn(connection.bucket, self.config.rate, self.hub.now())
        return connection.bucket[0] < 0

    def address_too_fast(self, address: str | None) -> bool:
        """Whether *address* makes more requests than it may; from any thread."""
        buckets = self._addresses
        if len(buckets) >= ADDRESSES:
            buckets.clear()  # rather a burst for everybody than memory for every address
        key = address or ""
        bucket = buckets[key] = _drawn(
            buckets.get(key), self.config.rate_per_address, self.hub.now()
        )
        return bucket[0] < 0

    def _take(self, connection: Connection, event: Event, channel: _Channel | None) -> None:
        one = connection.session
        handler = self.handlers.find(event.id)
        if handler is None and event.id.startswith("chsk/ws-p"):
            return
        self.counters["events_in"] += 1
        ev = EventMessage(event, one.uid, one.client_id, channel)
        job = Job(ev, handler, channel, connection.request)
        self._enqueue((one.uid, one.client_id), job, connection.transport)

    def posted(self, opening: Opening, happening: s.Happening) -> Data | Waiter:
        """A message came by POST: its answer, or what will be told it.

        :raises Refused: 429 where too many of this client's events wait already.
        """
        composer = opening.composer
        key = (opening.uid, opening.client_id)
        inbox = self._inboxes.get(key)
        if inbox is not None and self._full(inbox):
            self.counters["inbox_full"] += 1
            raise Refused(
                429,
                "too many events of this client wait for their handlers (CHSK_MAX_INBOX)",
                retry_after=1,
            )
        connection = self.registry.get(*key)
        done = composer.message(s.DUMMY_CB_200)
        if isinstance(happening, s.Pinged):
            return done if happening.cb is None else composer.message("pong")
        if isinstance(happening, s.Answered):
            if connection is not None:
                self._answered(connection, happening)
            return done
        if isinstance(happening, s.Ponged):
            return done
        events = happening.events if isinstance(happening, s.Batched) else (happening,)
        asks = isinstance(happening, s.Received) and happening.cb is not None
        waiter = self.hub.waiter() if asks else None
        for received in events:
            channel = _PostChannel(self, opening, waiter if received.cb is not None else None)
            event = received.event
            known = opening.trusted or opening.uid is not None  # else another's reply could be had
            if known and received.key is not None and self._came_before(key, received, channel):
                continue
            handler = self.handlers.find(event.id)
            self.counters["events_in"] += 1
            ev = EventMessage(event, opening.uid, opening.client_id, channel)
            job = Job(ev, handler, channel, opening.request)
            self._enqueue(key, job, None)
        return done if waiter is None else waiter

    def _came_before(
        self, client: tuple[Uid, str], received: s.Received, channel: _Channel
    ) -> bool:
        """Whether a keyed send is a repetition; then its reply is, or will be, given again."""
        kept = self._kept.setdefault(client, {})
        before = kept.get(received.key)
        if before is None:
            if len(kept) >= KEYS:
                del kept[next(iter(kept))]
            channel.kept = kept[received.key] = Kept(self.hub.now())
            return False
        self.counters["repeated"] += 1
        before.repeat(channel)
        return True

    def _forget_keys(self, before: float) -> None:
        for client, kept in list(self._kept.items()):
            for key in [key for key, one in kept.items() if one.since < before]:
                del kept[key]
            if not kept:
                del self._kept[client]

    def _enqueue(self, key: Any, job: Job, transport: Transport | None) -> None:
        inbox = self._inboxes.get(key)
        if inbox is None:
            inbox = self._inboxes[key] = Inbox(key)
        if job.handler is not None and job.handler.concurrent:
            inbox.beside += 1
            self.hub.spawn(self._run_beside, inbox, job)
        else:
            inbox.jobs.append(job)
            if not inbox.running:
                inbox.running = True
                self.hub.spawn(self._run_inbox, inbox)
        if transport is not None and inbox.paused is None and self._full(inbox):
            inbox.paused = transport
            transport.pause()

    def _full(self, inbox: Inbox) -> bool:
        return len(inbox.jobs) + inbox.beside >= self.config.max_inbox

    def _run_inbox(self, inbox: Inbox) -> None:
        """In a worker: one event after another, until none waits."""
        jobs = inbox.jobs
        hub = self.hub
        while True:
            until = hub.now() + SLICE
            while jobs and hub.now() < until:
                self._run(jobs.popleft())
                if inbox.paused is not None:
                    hub.call(self._unpause, inbox)
            if not jobs:
                break
            hub.breathe()
        hub.call(self._rest, inbox)

    def _run_beside(self, inbox: Inbox, job: Job) -> None:
        """In a worker: one event, while the client's others go on."""
        self._run(job)
        self.hub.call(self._rest_beside, inbox)

    def _rest_beside(self, inbox: Inbox) -> None:
        inbox.beside -= 1
        self._unpause(inbox)
        self._done_with(inbox)

    def _unpause(self, inbox: Inbox) -> None:
        waiting = len(inbox.jobs) + inbox.beside
        if inbox.paused is not None and waiting <= self.config.max_inbox // 2:
            paused, inbox.paused = inbox.paused, None
            paused.resume()

    def _rest(self, inbox: Inbox) -> None:
        if inbox.jobs:
            self.hub.spawn(self._run_inbox, inbox)
        else:
            inbox.running = False
            self._unpause(inbox)
            self._done_with(inbox)

    def _done_with(self, inbox: Inbox) -> None:
        if inbox.running or inbox.beside:
            return
        self._inboxes.pop(inbox.key, None)
        if not self._inboxes:
            if self.closing:
                self.end()
            for waiter in self._idlers:
                waiter.set(True)
            self._idlers.clear()

    def idle(self) -> Waiter:
        """What is told when no event waits for its handler; from any thread."""
        waiter = self.hub.waiter_here()

        def ask() -> None:
            if self._inboxes:
                self._idlers.append(waiter)
            else:
                waiter.set(True)

        self.hub.call(ask)
        return waiter

    def _run(self, job: Job) -> None:
        """In a worker: run the handler of one event, and see that it is answered."""
        ev, channel = job.ev, job.channel
        try:
            if self._over and channel is not None:
                channel.closed()
                return
            if job.handler is None:
                self._unhandled(ev, channel)
                return
            if job.handler.parse is not None:
                try:
                    ev.data = job.handler.parse(ev.data)
                except Exception as error:
                    self.counters["refused_by_parse"] += 1
                    line = first_line(error)
                    sparse.warning(
                        f"parse {ev.id}", "%s from uid %r was refused: %s", ev.id, ev.uid, line
                    )
                    if channel is not None:
                        channel.error(400, first_line(error))
                    return
            value = self.host.run(job.handler, ev, job.request)
            if channel is not None and ev.wants_reply:
                if ev.deferred:
                    self.hub.call(channel.expire_later, ev)
                else:
                    ev.reply(value)
        except SignedOut:
            if channel is not None:
                channel.error(401, "signed out")
            self.hub.call(self.close, ev.uid, ev.client_id, s.SIGNED_OUT, "signed out")
        except (Exception, Timeout, GreenletExit) as error:  # gevent's are no Exceptions
            self._failed(ev, channel, error)
        finally:
            if job.then is not None:
                job.then()

    def _failed(self, ev: EventMessage, channel: _Channel | None, error: BaseException) -> None:
        status, message = self.host.explain(error)
        if status >= 500:
            self.counters["handler_errors"] += 1
            log.error("handler of %s failed, uid %r", ev.id, ev.uid, exc_info=error)
        if channel is not None and ev.wants_reply:
            channel.error(status, message)

    def _unhandled(self, ev: EventMessage, channel: _Channel | None) -> None:
        if self.recv_put is not None:
            if not self.recv_put(ev):
                self.counters["recv_dropped"] += 1
            if channel is not None and ev.wants_reply:
                self.hub.call(channel.expire_later, ev)
            return
        self.counters["unhandled"] += 1
        if not ev.id.startswith("chsk/uidport"):
            id = str(ev.id)
            words = "no handler for %s (from uid %r): add @chsk.on(%r)"
            # One kind, whatever the id: ids are the peer's words.
            sparse.warning("no handler", words, id, ev.uid, id)
        if channel is not None and ev.wants_reply:
            channel.error(404, f"no handler for {ev.id}")

    # sending ---------------------------------------------------------------------------

    def send(
        self,
        uid: Uid,
        event: Any,
        client_id: str | None = None,
        flush: bool = False,
    ) -> int | None:
        """Publish *event* to a user, or one client of theirs; from any thread.

        :raises BadEvent: for what is no event.
        :raises PackError: naming the path to what cannot be packed.
        """
        if client_id is not None:
            channel = client_channel(uid, client_id)
        else:
            channel = ANONYMOUS if uid is None else user_channel(uid)
        return self._publish(channel, event, flush=flush)

    def broadcast(self, event: Any, but: tuple[Uid, str] | None = None) -> int | None:
        """Publish *event* to every client; from any thread."""
        return self._publish(EVERYONE, event, but=but)

    def publish(self, topic: str, event: Any) -> int | None:
        """Publish *event* to the members of *topic*; from any thread."""
        return self._publish(topic_channel(topic), event)

    def _publish(
        self,
        channel: str,
        event: Any,
        *,
        but: tuple[Uid, str] | None = None,
        flush: bool = False,
    ) -> int | None:
        id, data = assert_event(event)
        if id.startswith("chsk/") and id not in OURS:
            raise BadEvent(f"ids in the chsk namespace are the protocol's own, not {id!r}")
        text = self.canonical.pack([id, data], root="event")
        if len(text) > self.config.max_outbox_bytes // 2:
            raise PackError(
                f"an event of {len(text)} bytes: more than half of CHSK_MAX_OUTBOX_BYTES"
                f" ({self.config.max_outbox_bytes})"
            )
        offset = self.broker.publish(channel, text, but=but)
        self.counters["dropped_absent" if offset is None else "events_out"] += 1
        if flush and offset is not None:
            self.hub.call(self._flush_channel, channel)
        return offset

    @staticmethod
    def check_event(event: Any) -> None:
        """Refuse what cannot be sent, where there is nobody to send it to."""
        id, data = assert_event(event)
        CANONICAL.pack([id, data], root="event")

    def note_absent(self, uid: Uid) -> None:
        """Log the first drop to a user who is not there: mostly a uid spelt differently."""
        if uid is None or uid in self._absent_noted or len(self._absent_noted) >= 1000:
            return
        self._absent_noted.add(uid)
        some = sorted(self.connected_uids.any)[:5]
        log.info("nothing was sent to uid %r, who is not connected; connected: %s", uid, some)

    def deliver(self, push: Push) -> None:
        """Hand a published event to the connections it is for; in the broker's order."""
        if push.text.startswith(CONTROLS):
            self._control(push)
            return
        if push.channel == EVERYONE or push.channel == ANONYMOUS or push.channel[0] == "t":
            self._deliver_to_many(push, self._receivers(push.channel), self.hub.now())
        else:
            for connection in self._receivers(push.channel):
                if connection.session.deliver(push):
                    self.wake(connection)

    def _deliver_to_many(self, push: Push, receivers: list[Connection], now: float) -> None:
        # All get it into their outbox now, so that order holds; it leaves in slices.
        leaving = [
            connection
            for connection in receivers
            if connection.session.deliver(push) and not self._waits(connection, now)
        ]
        if not leaving:
            return

        def wake() -> Iterator[None]:
            for connection in leaving:
                transport = connection.transport
                if transport is not None:
                    transport.wake()
                yield

        self.hub.sliced(wake)

    def _receivers(self, channel: str) -> list[Connection]:
        if channel == EVERYONE:
            return list(self.registry)
        if channel == ANONYMOUS:
            return list(self.registry.of(None))
        kind, _, rest = channel.partition(":")
        if kind == "u":
            return list(self.registry.of(rest))
        if kind == "c":
            client_id, _, uid = rest.partition(":")
            connection = self.registry.get(uid or None, client_id)
            return [] if connection is None else [connection]
        receivers: list[Connection] = []
        for uid in self._members.get(rest, ()):
            receivers += self.registry.of(uid)
        return receivers

    def _waits(self, connection: Connection, now: float) -> bool:
        """Whether what was put into the outbox waits for the window's end (PROTOCOL 4)."""
        transport = connection.transport
        if connection.session.overfull:
            self._overfull(connection)
            return True
        if transport is None:
            return True  # for the client to come back
        kind = connection.kind
        if now - connection.flushed >= self._windows[kind]:
            connection.flushed = now
            return False
        dirty = self._dirty[kind]
        if not dirty:
            self.hub.timer(self._windows[kind], lambda: self._end_window(kind))
        dirty.add(connection)
        return True

    def wake(self, connection: Connection) -> None:
        """Send what a connection has, if its window is over."""
        if not self._waits(connection, self.hub.now()):
            transport = connection.transport
            if transport is not None:
                transport.wake()

    def _end_window(self, kind: str) -> None:
        dirty, self._dirty[kind] = self._dirty[kind], set()
        now = self.hub.now()

        def flush() -> Iterator[None]:
            for connection in dirty:
                connection.flushed = now
                if connection.transport is not None:
                    connection.transport.wake()
                yield
            self.frames.clear()

        self.hub.sliced(flush)

    def _flush_channel(self, channel: str) -> None:
        for connection in self._receivers(channel):
            if connection.transport is not None:
                connection.flushed = self.hub.now()
                connection.transport.wake()

    def _overfull(self, connection: Connection) -> None:
        """A client that cannot be told of a gap has too much waiting (PROTOCOL 8, 4002)."""
        self.counters["too_slow"] += 1
        one = connection.session
        if one.v1:
            one.fall_behind()  # its pushes come again, from history
        one.outbox = None
        one.outbox_bytes = 0
        transport = connection.transport
        if transport is not None:
            transport.end(s.TOO_SLOW, "too slow: its outbox passed CHSK_MAX_OUTBOX_BYTES")

    # polls -----------------------------------------------------------------------------

    def poll(self, opening: Opening, handshake: bool, wait: bool = True) -> bytes | Waiter:
        """A GET: the answer that is there, or what will be told it; from any thread.

        :param wait: False: an empty answer at once instead of parking (tests).
        :raises Refused: see :meth:`enter`; 429 where polls chase each other.
        """
        if not handshake:
            answer = self.hub.run(self._poll_known, opening, wait)
            if answer is not None:
                return answer
        entered = self.enter(opening, "ajax")
        # A client that came from another process, with all it needs to go on, just polls.
        greets = handshake or not entered.recovered
        return self.hub.run(self._open_poller, entered, greets, wait)

    def _open_poller(self, entered: Entered, greets: bool, wait: bool) -> bytes | Waiter:
        connection = entered.connection
        poller = Poller(self, connection)
        self._attach(connection, poller)
        if not greets:
            return self._poll(connection, poller, entered.opening, wait)
        self.between_polls(connection)
        return body(self._handshake(entered))

    def _poll_known(self, opening: Opening, wait: bool) -> bytes | Waiter | None:
        key = (opening.uid, opening.client_id)
        known = self.registry.get(*key)
        if key in self._told_at_next_poll and opening.trusted:
            code, reason, _ = self._told_at_next_poll.pop(key)
            return body(self.close_message(opening.composer, opening.v1, code, reason))
        if known is None:
            return None
        if self.closing:
            one = known.session
            return body(self.close_message(one.composer, one.v1, s.RESTART, self._spread()))
        transport = known.transport
        if isinstance(transport, WebSocket):
            # A poll that was on its way while the client changed to WebSocket.
            return body(self.poll_end(known))
        if isinstance(transport, Poller) and (not known.session.v1 or opening.trusted):
            return self._poll(known, transport, opening, wait)
        return None

    def _poll(
        self, connection: Connection, poller: Poller, opening: Opening, wait: bool
    ) -> bytes | Waiter:
        one = connection.session
        now = self.hub.now()
        if opening.number is not None:
            if opening.number <= poller.number:
                return body(self.poll_end(connection))
            poller.number = opening.number
        if poller.parked:
            if now - poller.takeover_window >= 1.0:
                poller.takeover_window, poller.takeovers = now, 0
            poller.takeovers += 1
            if poller.takeovers > TAKEOVERS_PER_SECOND:
                self.counters["takeovers_refused"] += 1
                raise Refused(429, "polls of this client chase each other", retry_after=1)
        if one.v1 and opening.cursor is not None:
            cursor = s.read_cursor(opening.cursor, self.broker.epoch)
            if cursor is None or cursor > self.broker.watermark():
                self._tell_gap(connection)
            else:
                one.resume(cursor)
        one.heard = now
        if one.behind or now - connection.flushed >= self._windows["ajax"] or not wait:
            answer = poller.answer()
            if answer is not None:
                connection.flushed = now
                poller.release()
                self.between_polls(connection)
                return answer
        if not wait:
            return body(self.poll_end(connection))
        waiter = self.hub.waiter()
        poller.park(waiter)
        connection.lost_at = None
        if one.outbox:
            self._waits(connection, now)
        return waiter

    def parked(self, connection_of: Opening, waiter: Waiter) -> Parked:
        """The body of a poll's answer."""
        key = (connection_of.uid, connection_of.client_id)

        def expire(waiter: Waiter) -> bytes | None:
            return self.hub.run(self._expire, key, waiter)

        def abandon(waiter: Waiter) -> None:
            self.hub.call(self._abandon, key, waiter)

        return Parked(waiter, self.config.lp_timeout, expire, abandon)

    def _expire(self, key: tuple[Uid, str], waiter: Waiter) -> bytes | None:
        connection = self.registry.get(*key)
        if connection is not None and isinstance(connection.transport, Poller):
            return connection.transport.expire(waiter)
        return None

    def _abandon(self, key: tuple[Uid, str], waiter: Waiter) -> None:
        connection = self.registry.get(*key)
        if connection is not None and isinstance(connection.transport, Poller):
            connection.transport.abandon(waiter)

    def between_polls(self, connection: Connection) -> None:
        """A poll was answered: the connection lives on for its grace."""
        connection.lost_at = self.hub.now()
        self._file(connection, connection.lost_at + self.config.close_grace_ajax)

    def poll_end(self, connection: Connection) -> Data:
        """``[:chsk/timeout nil cursor?]``."""
        one = connection.session
        cursor = None
        if isinstance(connection.transport, Poller):
            cursor = one.cursor(self.broker.watermark(), self.hub.now())
        return one.composer.message(s.TIMEOUT, None, cursor)

    def close_message(self, composer: Composer, v1: bool, code: int, reason: str) -> Data:
        """What tells a poller to go: ours as a push, Sente's as the end of the poll."""
        if not v1:
            return composer.message(s.TIMEOUT)
        return composer.message([[s.CLOSE, {"code": code, "reason": reason}]])

    # leaving ---------------------------------------------------------------------------

    def lost(self, connection: Connection, websocket: WebSocket) -> None:
        """A WebSocket is gone; its client may come back within the grace."""
        if connection.trial is websocket:
            connection.trial = None
        if connection.transport is not websocket:
            return  # a late close of an old one
        connection.transport = None
        connection.lost_at = self.hub.now()
        inbox = self._inboxes.get((connection.session.uid, connection.session.client_id))
        if inbox is not None:
            inbox.paused = None
        if isinstance(websocket, WebSocket):
            self._file(connection, connection.lost_at + self.config.close_grace_ws)

    def look_at(self, connection: Connection, now: float) -> float | None:
        """Do what is due of one connection; when to look again, None: never."""
        one = connection.session
        transport = connection.transport
        if connection.lost_at is not None:
            over = connection.lost_at + self._graces[connection.kind]
            if now < over:
                return over
            self._forget(connection)
            return None
        if not isinstance(transport, WebSocket):
            return now + self.config.lp_timeout  # a parked poll ends by itself
        if connection.request is not None:
            connection.request.rest()
        if transport.stalled(now):
            self.counters["stalled"] += 1
            transport.end(s.TOO_SLOW, "took no byte for 10 seconds")
            return now + CLOSED_SOON
        due, when = one.check(now, reading=transport.reading)
        if due == s.DEAD:
            self.counters["pings_unanswered"] += 1
            transport.end(s.PING_UNANSWERED, "ping unanswered")
            return now + CLOSED_SOON
        if due == s.PING:
            one.say(one.ping(self.broker.watermark(), now))
            transport.wake()
        return min(when, now + 5.0) if one.outbox else when

    def _file(self, connection: Connection, when: float) -> None:
        if connection.filed is None or when < connection.filed:
            connection.filed = when
            self.hub.deadline(connection, when)

    def _forget(self, connection: Connection) -> None:
        """A client is gone for good."""
        if self._remove(connection):
            uid, client_id = connection.key
            if self.broker.local:
                self._detach(uid, client_id, connection.token)
            else:
                self.hub.spawn(self._detach, uid, client_id, connection.token)

    def _remove(self, connection: Connection) -> bool:
        uid, client_id = connection.key
        if self.registry.get(uid, client_id) is not connection:
            return False
        self.registry.remove(uid, client_id, connection.kind)
        connection.filed = None
        transport, connection.transport = connection.transport, None
        if transport is not None:
            transport.end(s.NORMAL)
        self._end_trial(connection)
        self.counters["closed"] += 1
        if uid is not None and not self.registry.count(uid):
            for topic in list(self._topics.get(uid, ())):
                self._left(uid, topic)
        for ask in [ask for ask in self._asks.values() if connection in ask.asked]:
            ask.gone(connection)
        return True

    def _detach(self, uid: Uid, client_id: str, token: str) -> None:
        try:
            last = self.broker.detach(uid, client_id, token)
        except BrokerError as error:
            log.warning("uid %r could not be signed off: %s", uid, error)
        else:
            self.hub.call(self._presence, uid, last, False)

    def released(self, uid: Uid, client_id: str, token: str) -> None:
        """A client of ours was let in by another process."""
        connection = self.registry.get(uid, client_id)
        if connection is not None and connection.token == token:
            if connection.transport is not None:
                connection.transport.end(
                    s.REPLACED, "replaced by a newer connection of this client"
                )
            self._remove(connection)

    def presence(self, uid: str, came: bool) -> None:
        """The broker found that a user came or went, whose process could not say so."""
        self._presence(uid, True, came)

    def close(
        self, uid: Uid, client_id: str | None, code: int = s.CLOSED_BY_APP, reason: str = ""
    ) -> None:
        """Close a user's connections in this process, at once, and forget them."""
        connections = (
            list(self.registry.of(uid))
            if client_id is None
            else [c for c in (self.registry.get(uid, client_id),) if c is not None]
        )
        for connection in connections:
            transport = connection.transport
            if isinstance(transport, Poller) and not transport.parked:
                self._told_at_next_poll[connection.key] = (code, reason, self.hub.now())
            elif transport is not None:
                sente = not connection.session.v1
                transport.end(s.NORMAL if sente and code == s.CLOSED_BY_APP else code, reason)
            self._forget(connection)

    def close_everywhere(self, uid: Uid, client_id: str | None, reconnect: bool) -> None:
        """Close a user's connections, in whatever process; from any thread."""
        code, reason = (
            (s.CLOSED_BY_APP, "closed by the application")
            if reconnect
            else (s.SIGNED_OUT, "signed out")
        )
        self.send(uid, [s.CLOSE, {"code": code, "reason": reason}], client_id)

    # presence --------------------------------------------------------------------------

    @property
    def connected_uids(self) -> ConnectedUids:
        """Who is connected; from any thread."""
        return self.registry.connected_uids

    def _presence(self, uid: Uid, changed: bool, came: bool) -> None:
        if uid is None or not changed:
            return
        log.info("uid %r %s", uid, "connected" if came else "disconnected")
        now = self.connected_uids
        before = ConnectedUids(now.ws, now.ajax, now.any - {uid} if came else now.any | {uid})
        event = Event(s.UIDPORT_OPEN if came else s.UIDPORT_CLOSE, uid)
        ev = EventMessage(event, uid, None, _Elsewhere(self))
        handler = self.handlers.find(event.id) or Handler(lambda ev: None)
        job = Job(ev, handler, None, None, lambda: self._tell_presence(uid, came, before, now))
        self._enqueue((uid, None), job, None)

    def _tell_presence(
        self, uid: str, came: bool, before: ConnectedUids, now: ConnectedUids
    ) -> None:
        for tell in self.opened:
            self.host.run_plain(tell, uid, came)
        for watch in list(self.watchers):
            self.host.run_plain(watch, before, now)

    def _changed(self, before: ConnectedUids) -> None:
        now = self.connected_uids
        if self.watchers and now != before:
            for watch in list(self.watchers):
                self.hub.spawn(self.host.run_plain, watch, before, now)

    # asking ----------------------------------------------------------------------------

    def ask(self, uid: Uid, event: Any, client_id: str | None, timeout: float) -> Any:
        """Ask a client, or all of a user's, and block for the first answer; from any thread.

        :raises NoClient: at once, where nobody could answer.
        :raises ClientGone: when the last one asked went away.
        :raises AskTimeout: after *timeout* seconds.
        :raises AskFailed: when all that were asked answered with an error.
        """
        id, data = assert_event(event)
        self.canonical.pack(data, root="event")
        waiter = self.hub.waiter_here()
        ask_id = secrets.token_urlsafe(12)
        self.hub.run(self._begin_ask, ask_id, uid, client_id, waiter)
        try:
            self.send(uid, [s.ASK, [ask_id, [id, data]]], client_id, flush=True)
            answer = waiter.wait(timeout)
        finally:
            self.hub.call(self._asks.pop, ask_id, None)
        if answer is None:
            raise AskTimeout(f"uid {uid!r} did not answer {id} within {timeout:g} s")
        kind, value = answer
        if kind == "gone":
            raise ClientGone(f"the last client of uid {uid!r} that was asked went away")
        if kind == "error":
            raise AskFailed(f"{id}: {value}")
        return value

    def _begin_ask(self, ask_id: str, uid: Uid, client_id: str | None, waiter: Waiter) -> _Ask:
        asked = {
            connection
            for connection in self.registry.of(uid)
            if connection.session.v1
            and (client_id is None or connection.session.client_id == client_id)
        }
        if not asked:
            raise NoClient(f"uid {uid!r} has no client that can be asked")
        ask = self._asks[ask_id] = _Ask(asked, waiter)
        return ask

    def _answered(self, connection: Connection, answer: s.Answered) -> None:
        ask = self._asks.get(answer.id)
        if ask is None or connection not in ask.asked:
            self.counters["answers_unasked"] += 1
            return
        ask.answer(connection, answer)

    # ending ----------------------------------------------------------------------------

    def drain(self) -> None:
        """Begin to end, without blocking.

        Nothing more is read and polls are answered at once; what is queued has half a second
        to be handled; then :meth:`end`.
        """
        if self.closing:
            return
        self.closing = True
        for connection in self.registry:
            transport = connection.transport
            if isinstance(transport, WebSocket):
                transport.pause()
            elif transport is not None:
                transport.end(s.RESTART, self._spread())
        if self._inboxes:
            self.hub.timer(DRAIN, self.end)
        else:
            self.end()

    def end(self) -> None:
        """Send every client away, to come back within the seconds that the close names."""
        self.closing = True
        if self._over:
            return
        self._over = True  # what is handled from now on is answered :chsk/closed
        for inbox in list(self._inboxes.values()):
            while inbox.jobs:
                job = inbox.jobs.popleft()
                if job.channel is not None:
                    job.channel.closed()
        for connection in self.registry:
            transport = connection.transport
            if transport is not None:
                transport.wake()
                transport.end(s.RESTART, self._spread())

    def _spread(self) -> str:
        # 500 clients a second are let in without trouble by one worker.
        return f"spread={min(60, 2 + len(self.registry) // 500)}"

    def stats(self) -> dict[str, int]:
        """Counters since the start, and gauges of now; from any thread."""
        return {**self.counters, **self.hub.run(self._gauges)}

    def _gauges(self) -> dict[str, int]:
        uids = self.connected_uids
        return {
            "clients": len(self.registry),
            "parked": sum(
                1 for c in self.registry if c.transport is not None and c.transport.parked
            ),
            "uids": len(uids.any),
            "uids_ws": len(uids.ws),
            "uids_ajax": len(uids.ajax),
            "inboxes": len(self._inboxes),
            "asks": len(self._asks),
        }


def _drawn(
    bucket: tuple[float, float] | None, limit: tuple[float, int] | None, now: float
) -> tuple[float, float]:
    """A token bucket, (tokens, when they were counted), with one token taken."""
    rate, burst = limit or (0.0, 0)
    tokens, counted = bucket or (float(burst), now)
    return min(float(burst), max(tokens, 0.0) + (now - counted) * rate) - 1.0, now


def first_line(error: Exception) -> str:
    """What an error says, in one short line."""
    text = str(error).strip() or type(error).__name__
    return " ".join(text.split())[:300]


class _Ask:
    """One question: who may still answer it."""

    __slots__ = ("asked", "error", "waiter")

    def __init__(self, asked: set[Connection], waiter: Waiter) -> None:
        self.asked = asked
        self.waiter = waiter
        self.error: str | None = None

    def answer(self, connection: Connection, answer: s.Answered) -> None:
        self.asked.discard(connection)
        if answer.error is None:
            self.waiter.set(("value", answer.value))
        else:
            self.error = answer.error
            self._last("error", answer.error)

    def gone(self, connection: Connection) -> None:
        self.asked.discard(connection)
        if self.error is None:
            self._last("gone", None)
        else:
            self._last("error", self.error)

    def _last(self, kind: str, value: Any) -> None:
        if not self.asked:
            self.waiter.set((kind, value))


class Kept:
    """A keyed send that was dispatched: its answer, or who waits for it."""

    __slots__ = ("answer", "since", "waiting")

    def __init__(self, since: float) -> None:
        self.since = since
        self.answer: tuple[Any, Any] | None = None
        self.waiting: list[_Channel] | None = None

    def repeat(self, channel: _Channel) -> None:
        """The same send came again."""
        if self.answer is not None:
            channel.give(*self.answer)
        elif self.waiting is None:
            self.waiting = [channel]
        else:
            self.waiting.append(channel)

    def settle(self, piece: Any, third: Any) -> None:
        """The send was answered."""
        if not isinstance(piece, str | bytes) or len(piece) <= KEPT_REPLY:
            self.answer = (piece, third)
        waiting, self.waiting = self.waiting, None
        for channel in waiting or ():
            channel.give(piece, third)


class _Elsewhere(Channel):
    """What an event that no client sent can do: send."""

    __slots__ = ("server",)

    def __init__(self, server: Server) -> None:
        self.server = server

    def send(self, uid: Any, event: Any, **options: Any) -> int | None:
        return self.server.send(uid, event, **options)

    @property
    def connected_uids(self) -> ConnectedUids:
        return self.server.connected_uids


class _Channel(_Elsewhere):
    """The way back to the client of one event."""

    __slots__ = ()

    cb: Any
    kept: Kept | None

    @property
    def composer(self) -> Composer:
        """How the client wants it packed."""
        raise NotImplementedError

    @property
    def v1(self) -> bool:
        """Whether the client is one of ours."""
        raise NotImplementedError

    @property
    def wants_reply(self) -> bool:  # type: ignore[override]
        return self.cb is not None

    def reply(self, value: Any) -> bool:
        return self._settle(self.composer.piece(value), None)

    def error(self, status: int, message: str) -> None:
        composer = self.composer
        third = composer.piece({"status": status, "message": message}) if self.v1 else None
        self._settle(composer.piece(s.ERROR), third)

    def closed(self) -> None:
        """Answer ``:chsk/closed``: the server ends before the event was handled."""
        self.give(self.composer.piece(s.CLOSED), None)

    def expired(self) -> None:
        """Answer ``:chsk/timeout``."""
        self.give(self.composer.piece(s.TIMEOUT), None)

    def _settle(self, piece: Any, third: Any) -> bool:
        if self.kept is not None:
            self.server.hub.call(self.kept.settle, piece, third)
        return self.give(piece, third)

    def give(self, piece: Any, third: Any) -> bool:
        """Send what is packed already; False where nobody waits for it."""
        raise NotImplementedError

    def expire_later(self, ev: EventMessage) -> None:
        """See that the client gets ``:chsk/timeout`` where no reply comes."""
        raise NotImplementedError


class _SocketChannel(_Channel):
    """Back over the WebSocket the event came by."""

    __slots__ = ("cb", "connection", "kept", "websocket")

    def __init__(
        self, server: Server, connection: Connection, websocket: WebSocket, cb: Any = None
    ) -> None:
        self.server = server
        self.connection = connection
        self.websocket = websocket
        self.cb = cb
        self.kept = None

    @property
    def composer(self) -> Composer:
        return self.connection.session.composer

    @property
    def v1(self) -> bool:
        return self.connection.session.v1

    def give(self, piece: Any, third: Any) -> bool:
        if self.cb is None:
            return False
        if self.connection.transport is not self.websocket:
            self.server.counters["replies_undeliverable"] += 1
            return False
        composer = self.composer
        self.server.hub.call(self._say, composer.compose(piece, composer.piece(self.cb), third))
        return True

    def _say(self, message: Data) -> None:
        connection = self.connection
        if connection.transport is self.websocket:
            connection.session.say(message)
            if connection.session.overfull:
                self.server._overfull(connection)
            else:
                self.websocket.wake()

    def expire_later(self, ev: EventMessage) -> None:
        hub = self.server.hub
        hub.deadline(_Expiry(self, ev), hub.now() + self.server.config.reply_timeout)

    def push(self, event: Any) -> int | None:
        one = self.connection.session
        return self.server.send(one.uid, event, one.client_id)


class _Expiry:
    """The end of the wait for a deferred reply."""

    __slots__ = ("channel", "ev")

    def __init__(self, channel: _Channel, ev: EventMessage) -> None:
        self.channel = channel
        self.ev = ev

    def due(self, now: float) -> None:
        if self.ev.wants_reply:
            self.ev.give_up()
            self.channel.expired()


class _PostChannel(_Channel):
    """Back as the answer of the POST the event came by; *waiter* is None where none waits."""

    __slots__ = ("cb", "kept", "opening")

    def __init__(self, server: Server, opening: Opening, waiter: Waiter | None) -> None:
        self.server = server
        self.opening = opening
        self.cb = waiter
        self.kept = None

    @property
    def composer(self) -> Composer:
        return self.opening.composer

    @property
    def v1(self) -> bool:
        return self.opening.v1

    def give(self, piece: Any, third: Any) -> bool:
        if self.cb is None:
            return False
        self.server.hub.call(self.cb.set, body(self.composer.compose(piece, None, third)))
        return True

    def expire_later(self, ev: EventMessage) -> None:
        """Nothing: the POST itself waits no longer than the reply timeout."""

    def push(self, event: Any) -> int | None:
        return self.server.send(self.opening.uid, event, self.opening.client_id)

"""Connects sessions, transports, registry, broker and handlers: open, receive, deliver, close.

All on the hub, except what says otherwise. It knows no Flask: handlers run through a
:class:`~flask_chsk.server.dispatch.Host`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from ..brokers import (
    ANONYMOUS,
    EVERYONE,
    Arrival,
    Broker,
    client_channel,
    is_close,
    pubsub_of,
    topic_channel,
    user_channel,
)
from ..config import Config
from ..errors import BadEvent, BrokerError, ConfigError, PackError, Refused
from ..hub import Hub
from ..interrupts import from_signal
from ..logs import logger
from ..packers import VALUE_BYTES
from ..protocol import session as s
from ..protocol.event import assert_event
from ..protocol.frames import close_frame
from ..protocol.push import CANONICAL, Push
from ..protocol.session import Rules, ServerSession
from ..protocol.uids import ConnectedUids
from ..protocol.wire import Data
from ..security import check_may_act
from ..transports.budget import MemoryBudget
from ..transports.link import Link
from ..transports.longpoll import Poller
from ..transports.transport import Transport
from ..transports.websocket import CLOSING, STALLED, WebSocket, frame
from ..values import Keyword
from .asks import Asks
from .attachments import Attachments
from .closes import REPLACED, Closes
from .closing import PREFIX, Close, DelayedCloses, PendingResponse
from .connection import Asked, Connection, Entered, Opening, Uid
from .delivery import Delivery
from .dispatch import Dispatcher, Host
from .inbound import Inbound
from .polls import Farewell, Polls
from .presence import Presence
from .registry import Registry
from .replay import CONTROLS, History
from .replies import Elsewhere
from .router import Router
from .topics import Topics

log = logger(__name__)

JOINED, LEFT = Keyword("chsk/joined"), Keyword("chsk/left")
OURS = (s.CLOSE, s.ASK)  # sent by way of send(); the others are not for sending
DRAIN = 0.5  # seconds that queued events have to be handled, when the server ends
OPENING = 60.0  # seconds that a request may take from who it is to its connection
CLOSED_SOON = 5.0  # seconds until a socket that is being closed is looked at again


class Server:
    """The channel sockets of one application in one process."""

    def __init__(self, config: Config, broker: Broker, router: Router, host: Host) -> None:
        self.config = config
        self.broker = broker
        self.router = router
        self.host = host
        self.registry: Registry[Connection] = Registry()
        self.counters: Counter[str] = Counter()
        self.closes = Closes(self.counters)
        self.closing = False
        self._over = False  # every client was sent away
        self.budget = MemoryBudget(config.max_inbound_bytes, self.counters)
        message = config.max_message_bytes + VALUE_BYTES * config.max_message_values  # the largest
        self.dispatcher = Dispatcher(
            config.max_inbox,
            message,
            self.budget,
            router,
            host,
            self.counters,
        )
        self.who = Presence(self.registry, broker, self.dispatcher, host)
        self.canonical = CANONICAL  # or one that knows the application's pack_default
        self.check_receivers: Callable[[str, Any, str], object] = lambda id, data, text: None
        self._absent_noted: set[str] = set()
        self._epoch_began = 0
        say = partial(self.send, flush=True)
        self.asks = Asks(broker, self.registry, say, self.budget, message, self.counters)
        self._arriving: dict[
            str, list[list[Push]]
        ] = {}  # user (or client) let in -> controls since
        self._lapses = 0
        self._closes: dict[str, tuple[float, Push]] = {}  # channel -> its latest close, and when
        self.topics = Topics(config.recovery_seconds)
        self.delivery = Delivery(config, self.registry, self.topics, self.counters)
        self.history = History(broker, self.topics, self.delivery, self.counters)
        self.attachments = Attachments(self)
        self.delayed_closes = DelayedCloses(broker, self.counters)
        self.inbound = Inbound(self)
        self.received = self.inbound.received
        self.polls = Polls(self)
        # Which of two openings is the later one, several processes cannot tell: a request that
        # was given up may arrive last. The client that lives comes back.
        self._replaced = s.REPLACED if broker.local else s.TRY_LATER
        self._graces = {"ws": config.close_grace_ws, "ajax": config.close_grace_ajax}
        self.hub: Hub = None  # type: ignore[assignment]  # until start

    def start(self, hub: Hub) -> None:
        """Begin to live on *hub*; at the first request of a process."""
        self.hub = hub
        self.broker.start(hub, self)
        self.dispatcher.start(hub, self._signed_out)
        self.delivery.start(hub)
        self.history.start(hub, self._control)
        self.attachments.start(hub)
        self.delayed_closes.start(hub)
        self.inbound.start(hub)
        self.polls.start(hub)
        self.who.start(hub)
        self.asks.start(hub)
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
        self.delivery.frames.clear()
        if now - self._swept >= 1.0:
            self._swept = now
            self.broker.sweep()
            self.polls.sweep(now)
            self.who.sweep()
            self.inbound.sweep(now)
            for channel, (when, _) in list(self._closes.items()):
                if now - when < OPENING:
                    break
                del self._closes[channel]

    # opening ---------------------------------------------------------------------------

    def enter(self, opening: Opening, kind: str) -> Entered | None:
        """Let a client in, or back in; from any thread, and waits for the broker.

        What is left to do on the hub is to give it a transport and the handshake. None: its
        request is late, the client has another connection by now.

        :param kind: ``"ws"``, ``"ajax"``, or ``"poll"`` for one that brings no handshake.
        :raises Refused: 503 draining or without a broker, 409 a client id of somebody else,
            429 too many.
        :raises Farewell: it was closed while it did not poll.
        """
        uid, client_id, v1 = opening.uid, opening.client_id, opening.v1
        self.hub.run(self._admit, opening)
        controls: list[Push] = []
        quiet = False
        if not self.broker.local:
            self.hub.run(self._expect, uid or client_id, controls)
            quiet = self.hub.run(self.attachments.had_before, uid)
        try:
            asked = "try" if kind == "ws" and v1 else kind
            arrival = self.broker.attach(
                uid, client_id, asked, v1, digest=opening.digest, quiet=quiet
            )
            if arrival is None:
                return None
            if arrival.farewell is not None:
                raise Farewell(arrival.farewell)
            try:
                entered = self.hub.run(self._register, opening, kind, arrival, controls)
                connection, recovered = entered.connection, entered.recovered
                while recovered and connection.session.behind and not connection.session.outbox:
                    recovered = self.history.next_page(connection)
            except BaseException:
                self.hub.call(self._half_entered, opening, arrival)
                raise
        except BrokerError as error:
            raise Refused(503, f"try again: {error}", retry_after=1) from error
        finally:
            if not self.broker.local:
                self.hub.run(self._expect_no_more, uid or client_id, controls)
        return entered._replace(recovered=recovered)

    def _half_entered(self, opening: Opening, arrival: Arrival) -> None:
        """Something failed after the broker let a client in: nobody stays without a way here."""
        uid, client_id = opening.uid, opening.client_id
        connection = self.registry.get(uid, client_id)
        if connection is None:
            if arrival.token:
                if arrival.first:
                    self.user(uid, True, arrival.generation)  # before the other half of it
                self.attachments.detach(uid, client_id, arrival.token)
            return
        if arrival.token:
            connection.token = arrival.token  # by which the broker knows it
        if connection.transport is None:
            if connection.lost_at is None:
                connection.lost_at = self.hub.now()
            self.look_by(connection, connection.lost_at + 1.0)

    def check_may_act(self, opening: Opening) -> None:
        """Refuse a POST in the name of somebody else's client; from any thread, may wait.

        Handshakes and polls are checked where they are let in.

        :raises Refused: 409; 503 where only the broker could tell, and is away.
        """
        uid, client_id = opening.uid, opening.client_id
        if uid is not None:
            return
        known = self.registry.get(uid, client_id)
        try:
            held = self.broker.holder(uid, client_id) if known is None else known.digest
        except BrokerError as error:
            raise Refused(503, f"try again: {error}", retry_after=1) from error
        check_may_act(uid, held, opening.digest)

    def asked(self) -> Asked:
        """Now, before somebody is asked for; from any thread, and may wait for the broker."""
        with suppress(BrokerError):  # said where they would be let in
            self.broker.listen()
        return self.hub.run(lambda: Asked(self.broker.watermark(), self._lapses))

    def ready(self) -> None:
        """Wait until the broker is there; at once, but for the first requests.

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

    def _expect(self, who: str, controls: list[Push]) -> None:
        """Keep what is decided about a user, or an anonymous client, until it is registered."""
        self._arriving.setdefault(who, []).append(controls)

    def _expect_no_more(self, who: str, controls: list[Push]) -> None:
        rest = [one for one in self._arriving.get(who, ()) if one is not controls]
        if rest:
            self._arriving[who] = rest
        else:
            self._arriving.pop(who, None)

    def _admit(self, opening: Opening) -> None:
        if self.closing:
            raise Refused(503, "the server restarts: try again", retry_after=1)
        known = self.registry.get(opening.uid, opening.client_id)
        if known is not None:
            check_may_act(opening.uid, known.digest, opening.digest)
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
        self, opening: Opening, kind: str, arrival: Arrival, controls: Iterable[Push]
    ) -> Entered:
        """Make or find the connection, with its session where the client says it is."""
        if opening.asked.lapses != self._lapses:
            raise Refused(503, "try again: the broker was away", retry_after=1)
        now = self.hub.now()
        kind = "ajax" if kind == "poll" else kind
        # Its "now": what went by here before is over, what was sent before it came, too.
        watermark = self.broker.watermark()
        current = not arrival.epoch or arrival.epoch == self.broker.epoch
        if current:
            watermark = max(watermark, arrival.offset)
        uid, client_id = opening.uid, opening.client_id
        cursor = None
        if opening.trusted:
            cursor = s.read_cursor(opening.cursor, self.broker.epoch, opening.since)
        unsaid = cursor is not None and self.attachments.has_topics_of(uid)
        if cursor is not None and cursor > self._epoch_began and not arrival.whole:
            # Perhaps of a process that did not know all topics.
            cursor = None if cursor < arrival.restored or unsaid else cursor
        connection = self.registry.get(uid, client_id)
        if uid is not None and current:
            self.take_topics(uid, arrival, complete=False)
        elif uid is not None:  # the broker began anew since, and knows nothing of this opening
            for topic in arrival.topics:
                self.topics.joined(uid, topic, self._epoch_began)
        if connection is None:
            one = ServerSession(
                uid, client_id, opening.composer, self.rules, now, v1=opening.v1, offset=watermark
            )
            connection = Connection(self, one, kind)
            with self.who.noting(uid):
                self.registry.add(uid, client_id, connection, kind)
            self.counters["opened"] += 1
            if cursor is not None and opening.v1:
                one.resume_unknown(cursor)
            elif arrival.cursor is not None and not opening.v1:
                one.resume_unknown(arrival.cursor)
            else:
                self._start_at(one, watermark)
        else:
            check_may_act(uid, connection.digest, opening.digest)  # it came while the broker began
            one = connection.session
            if connection.transport is not None and connection.poller is None:
                # From now on nothing leaves by it that the newcomer would miss.
                connection.transport.replaced(self._replaced, REPLACED)
                connection.transport = None
            if opening.v1 and (cursor is None or not one.v1):
                self._start_at(one, watermark)
                connection.gap_due = False
            elif cursor is not None and cursor > watermark:
                one.resume_unknown(cursor)  # forged, or from another process: history knows
            elif cursor is not None:
                one.resume(cursor)
            elif not opening.v1 and arrival.cursor is not None:
                one.ack(arrival.cursor)  # served elsewhere, and we have not heard of it yet
            one.composer = opening.composer
            one.v1 = opening.v1
        connection.digest = opening.digest
        self.polls.is_back(opening.owner)
        connection.generation = opening.generation
        connection.openings += 1
        connection.asked = opening.asked.offset
        connection.since = watermark if self.broker.local or not current else arrival.offset
        if not arrival.trial:
            connection.token = arrival.token
        if not current:
            self.attachments.reattach(quiet=True, only=connection)
        if kind == "ws":
            connection.request = opening.request
        if connection.transport is None:
            connection.lost_at = now  # until it is given one
        self.look_by(connection, now + 1.0)
        if arrival.first:
            self.user(uid, True, arrival.generation)
        mine = (None if uid is None else user_channel(uid), client_channel(uid, client_id))
        for push in controls:
            if push.offset > arrival.offset and push.channel in mine:
                self._control(push, connection)
        for channel in (*mine, EVERYONE, ANONYMOUS if uid is None else None):
            _, close = self._closes.get(channel or "", (0.0, None))
            if close is not None and close.offset > opening.asked.offset:
                self._close_as(close, [connection])
        recovered = None if opening.cursor is None or not opening.v1 else cursor is not None
        return Entered(
            opening, connection, recovered, arrival.known, connection.openings, watermark
        )

    def _start_at(self, one: ServerSession, offset: int) -> None:
        """Begin at *offset*; what topics had since, this process may not hear yet."""
        one.start_at(offset)
        if one.uid is not None and self.topics.of(one.uid) and not self.broker.local:
            one.fall_behind()

    def open_websocket(self, entered: Entered, link: Link, leftover: bytes) -> None:
        """The socket of a client that was let in was taken over: greet it."""
        connection = entered.connection
        if self._over or not self.is_latest(entered):
            # Closed in between, or its client gave it up and opened another: what left by this
            # one would be missed by that.
            code, why = (s.RESTART, self.spread) if self._over else (s.TRY_LATER, REPLACED)
            self.closes.note(connection.session.uid, code, why)
            link.write(close_frame(code, why))
            link.close_when_flushed(CLOSING)
            return
        greeting = self.handshake(entered)
        websocket = WebSocket(self, connection, link, self.config.max_message_bytes)
        polls = connection.poller is not None or not connection.token
        on_trial = polls and entered.opening.v1
        if on_trial:
            # Its polls go on until it has said something here: a proxy may let the upgrade
            # through and nothing after it.
            self._end_trial(connection)
            connection.trial = websocket
        else:
            self.attach(connection, websocket)
        try:
            websocket.start(greeting, leftover, on_trial=on_trial)
        except BaseException:  # its link is closed, and tells nobody: it was not listened to yet
            self.lost(connection, websocket)
            raise

    def is_latest(self, entered: Entered) -> bool:
        """Whether the client was neither closed since, nor let in by another request."""
        connection = entered.connection
        return (
            self.registry.get(*connection.key) is connection
            and connection.openings == entered.number
        )

    def outgoing(self, connection: Connection, websocket: WebSocket[Connection]) -> bytes:
        """The frames that a WebSocket may send now."""
        one = connection.session
        if one.behind and not one.outbox:
            self.history.catch_up(connection)  # wakes it again if it has to wait
        try:
            return one.take(frame, self.delivery.frames)
        except BaseException as error:
            self.unsendable(connection, websocket, error)
            return b""

    def write_stalled(self, connection: Connection) -> None:
        """The peer of a WebSocket takes no more at present."""
        self.look_by(connection, self.hub.now() + STALLED)

    def count_close(self, connection: Connection, code: int, reason: str) -> None:
        """A WebSocket tells its client to go."""
        self.closes.note(connection.session.uid, code, reason)

    def trust(self, connection: Connection, websocket: Transport) -> bool:
        """A message came by a WebSocket on trial: it is the transport from now on.

        False: it is on trial no more.
        """
        if connection.trial is not websocket:
            return False
        connection.trial = None
        self.attach(connection, websocket)
        if not self.broker.local:
            self.hub.background(self.attachments.claim, connection)
        websocket.wake()
        return True

    def _end_trial(self, connection: Connection) -> None:
        trial, connection.trial = connection.trial, None
        if trial is not None:
            trial.end(s.TRY_LATER, "said nothing while its client was here")

    def attach(
        self,
        connection: Connection,
        transport: Transport,
        poller: Poller[Connection] | None = None,
    ) -> None:
        """Give a connection its transport; an older one ends.

        :param poller: the transport, where it is one.
        """
        old, connection.transport = connection.transport, transport
        connection.poller = poller
        if old is not None:
            old.replaced(self._replaced, REPLACED)
        one = connection.session
        one.keeps = one.v1 and transport.kind == "ajax"
        one.heard = self.hub.now()
        one.pinged = None
        if one.outbox:
            # Replies and pings were for the socket that is gone; pushes are for the client.
            one.forget_messages()
        connection.lost_at = None
        connection.flushed = 0.0
        if connection.kind != transport.kind:
            with self.who.noting(one.uid):
                self.registry.move(one.uid, connection.kind, transport.kind)
                connection.kind = transport.kind
        self.look_by(connection, self.hub.now() + min(self.config.ws_kalive, 1.0))

    def handshake(self, entered: Entered) -> Data:
        """The first message to a client that was let in."""
        opening, one = entered.opening, entered.connection.session
        extras: dict[Any, Any] | None = None
        if one.v1:
            extras = {
                "cursor": f"{self.rules.epoch}:{one.acked}",
                "resume": self._resume(entered),
                "recovered": entered.recovered,
                "kalive-ms": int(self.config.ws_kalive * 1000),
                "lp-timeout-ms": int(self.config.lp_timeout * 1000),
                "max-bytes": self.config.max_message_bytes,
                # Half a burst: a whole one comes together only while nothing else is sent.
                **({} if not self.config.rate else {"max-batch": self.config.rate[1] // 2 or 1}),
                "server": "flask_chsk",
            }
        return one.handshake(opening.data, csrf_token=opening.csrf_token, extras=extras)

    def _resume(self, entered: Entered) -> str | None:
        opening, since = entered.opening, entered.since
        if opening.trusted:
            since = min(since, opening.since)  # ahead: of an epoch on another clock
        return opening.resume and opening.resume(since)

    # history ---------------------------------------------------------------------------

    def reset(self, since: int) -> None:
        """The broker's counter began a new life: every client is told of the gap."""
        self.rules = replace(self.rules, epoch=self.broker.epoch)
        self._epoch_began = since
        self.topics.restart(since)
        self.who.restart()
        self._closes.clear()
        for connection in self.registry:
            connection.asked = connection.since = connection.served = 0
            connection.session.queued = connection.session.given = 0
            connection.gap_due = False
            connection.session.rules = self.rules
            self.history.gap(connection)
            self.delivery.wake(connection)

    def lapsed(self) -> None:
        """Events may have been missed: every client reads from history before anything else."""
        self._lapses += 1
        watermark = self.broker.watermark()
        for connection in self.registry:
            connection.session.settle(watermark)
            connection.session.fall_behind()
            self.delivery.wake(connection)
        self.who.changed()

    def reattach(self, quiet: bool) -> None:
        """The broker lost sight of our clients."""
        self.attachments.reattach(quiet)

    def needs(self, name: str) -> bool:
        """Whether a client here listens to a channel."""
        kind, _, rest = name.partition(":")
        if kind == "t":
            return rest in self.topics
        if kind == "u":
            return rest in self._arriving or self.registry.count(rest) > 0
        if kind == "c":
            return rest in self._arriving or self.registry.get(None, rest) is not None
        return self.registry.count(None) > 0

    # topics ----------------------------------------------------------------------------

    def _control(self, push: Push, connection: Connection | None = None) -> None:
        """Do what a control event says; it travels as others do, so its place is in order.

        :param connection: whose opening or history gave it; None where it came live. A close is
            for this one alone then; a topic is its user's in any case.
        """
        id, data = CANONICAL.unpack(push.text)
        if id == s.CLOSE:
            if connection is None:
                reached = self.delivery.receivers(push.channel)
                self._close_as(push, [one for one in reached if push.offset > one.asked])
            elif push.offset > connection.since:
                self._close_as(push, [connection])
            return
        uid = push.channel.partition(":")[2]
        if self.registry.count(uid):
            if id == JOINED:
                # With its offset where it is told after it began.
                topic, since = data if isinstance(data, list) else (data, push.offset)
                if topic not in self.topics.of(uid):
                    self._joined(uid, topic, since)
            elif id == LEFT:
                self._left(uid, data, push.offset)
        elif id == LEFT:
            self.attachments.moved_user_left(uid, data)

    def _close_as(self, push: Push, connections: list[Connection]) -> None:
        close = Close.read(push.text)
        for one in connections:
            if self.registry.get(*one.key) is one:
                self.close(*one.key, close.code, close.reason, close.after)

    def take_topics(self, uid: str, arrival: Arrival, *, complete: bool) -> None:
        """What the broker knows of a user's topics holds.

        That it began anew and does not know a topic says nothing, nor does when it was joined.

        :param complete: those that it does not name have ended.
        """
        for topic, joined in arrival.topics.items():
            if arrival.whole or topic not in self.topics.of(uid):
                self._joined(uid, topic, joined)
        if complete and arrival.whole:
            for topic in [one for one in self.topics.of(uid) if one not in arrival.topics]:
                self._left(uid, topic, arrival.offset)

    def _joined(self, uid: str, topic: str, offset: int) -> None:
        if self.topics.joined(uid, topic, offset) and not self.broker.local:
            for connection in self.registry.of(uid):
                one = connection.session
                one.settle(min(offset, self.broker.watermark()))
                if max(one.acked, one.given) > max(offset, one.start):
                    # It was served past events of this topic, which nobody here knew to be its own.
                    self.history.owe_gap(connection)
                else:
                    one.fall_behind()  # read from the topic's history
                self.delivery.wake(connection)

    def lost_topic(self, uid: str, topic: str) -> None:
        """A membership could not be kept: what its user misses from now on is told as a gap."""
        if topic in self.topics.of(uid):
            self._left(uid, topic, self.broker.watermark())
            for connection in self.registry.of(uid):
                self.history.owe_gap(connection)
                self.delivery.wake(connection)

    def _left(self, uid: str, topic: str, offset: int) -> None:
        if self.topics.left(uid, topic, offset):
            self.broker.unused(topic_channel(topic))

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
        self.check_receivers(id, data, text)
        if len(text) > self.config.max_outbox_bytes // 2:
            raise PackError(
                f"an event of {len(text)} bytes: more than half of CHSK_MAX_OUTBOX_BYTES"
                f" ({self.config.max_outbox_bytes})"
            )
        offset = self.broker.publish(channel, text, but=but, flush=flush)
        self.counters["dropped_absent" if offset is None else "events_out"] += 1
        return offset

    def note_absent(self, uid: Uid) -> None:
        """Log the first drop to a user who is not there: mostly a uid spelt differently."""
        if uid is None or uid in self._absent_noted or len(self._absent_noted) >= 1000:
            return
        self._absent_noted.add(uid)
        some = sorted(self.registry.connected_uids.any)[:5]
        log.info("nothing was sent to uid %r, who is not connected; in this process: %s", uid, some)

    def deliver(self, push: Push) -> None:
        """Do what a published event says, or hand it to the connections it is for."""
        if push.text.startswith(CONTROLS):
            for controls in self._arriving.get(pubsub_of(push.channel)[2:], ()):
                controls.append(push)
            if is_close(push.text):
                self._closes.pop(push.channel, None)
                self._closes[push.channel] = self.hub.now(), push
            self._control(push)
        else:
            self.delivery.deliver(push)
            if push.flush:
                self.delivery.flush(push.channel)

    # leaving ---------------------------------------------------------------------------

    def lost(self, connection: Connection, websocket: WebSocket[Connection]) -> None:
        """A WebSocket is gone; its client may come back within the grace."""
        if connection.trial is websocket:
            connection.trial = None
        if connection.transport is not websocket:
            return  # a late close of an old one
        connection.transport = None
        connection.lost_at = self.hub.now()
        self.dispatcher.forget_transport(connection.key)
        if not connection.session.v1 and not self.broker.local:
            connection.session.settle(self.broker.watermark())
            self.hub.background(self.attachments.leave_cursor, connection)
        self.look_by(connection, connection.lost_at + self.config.close_grace_ws)

    def unsendable(
        self, connection: Connection, transport: Transport, error: BaseException
    ) -> None:
        """A packer failed, an application's own: its client misses something, and others nothing.

        :raises BaseException: *error*, where it ends the process.
        """
        if from_signal(error):
            raise error
        uid = connection.session.uid
        log.error("what waits for uid %r cannot be packed", uid, exc_info=error)
        transport.end(s.INTERNAL_ERROR, "what waits cannot be packed")

    def look_at(self, connection: Connection, now: float) -> float | None:
        """Do what is due of one connection; when to look again, None: never."""
        one = connection.session
        transport = connection.transport
        if connection.lost_at is not None:
            over = connection.lost_at + self._graces[connection.kind]
            if self.closing:
                over += self._spread_seconds()  # which it was told to take
            if now < over:
                return over
            self._forget(connection)
            return None
        if transport is None or (transport.kind == "ajax" and not transport.parked):
            connection.lost_at = now  # an error answered its poll
            return now + self._graces[connection.kind]
        if connection.poller is not None:
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
        return when if one.at_rest else min(when, now + 5.0)

    def look_by(self, connection: Connection, when: float) -> None:
        """See that a connection is looked at by *when*, at the latest."""
        if connection.filed is None or when < connection.filed:
            connection.filed = when
            self.hub.deadline(connection, when)

    def _forget(self, connection: Connection) -> None:
        """A client is gone for good."""
        if self._remove(connection):
            uid, client_id = connection.key
            self.attachments.detach(uid, client_id, connection.token)

    def _remove(self, connection: Connection) -> bool:
        uid, client_id = connection.key
        if self.registry.get(uid, client_id) is not connection:
            return False
        with self.who.noting(uid):
            self.registry.remove(uid, client_id, connection.kind)
        connection.filed = None
        transport, connection.transport, connection.poller = connection.transport, None, None
        if transport is not None:
            transport.end(s.NORMAL)
        self._end_trial(connection)
        self.counters["closed"] += 1
        self.broker.unused(client_channel(uid, client_id))
        if uid is None:
            if not self.registry.count(None):
                self.broker.unused(ANONYMOUS)
        elif not self.registry.count(uid):
            for topic in self.topics.gone(uid):
                self.broker.unused(topic_channel(topic))
        if self.broker.local:
            self.asks.gone(connection.key)
        return True

    def released(self, uid: Uid, client_id: str, token: str) -> None:
        """A client of ours was let in by another process."""
        connection = self.registry.get(uid, client_id)
        if connection is not None and connection.token == token:
            if connection.transport is not None:
                connection.transport.replaced(self._replaced, REPLACED)
            topics = list(self.topics.of(uid)) if uid is not None else []
            self._remove(connection)
            if uid is not None and not self.registry.count(uid):
                self.attachments.moved(uid, topics)

    def presence(self, uid: str, came: bool, generation: int) -> None:
        """The broker found that a user came or went, whose process could not say so."""
        self.user(uid, came, generation)

    def close(
        self,
        uid: Uid,
        client_id: str | None,
        code: int = s.CLOSED_BY_APP,
        reason: str = "",
        after: PendingResponse | None = None,
    ) -> None:
        """Close a user's connections in this process, at once, and forget them.

        :param after: tell the clients when this response has ended.
        """
        connections = (
            list(self.registry.of(uid))
            if client_id is None
            else [c for c in (self.registry.get(uid, client_id),) if c is not None]
        )
        for connection in connections:
            transport = connection.transport
            # Events that were sent before the close leave before it.
            if transport is not None:
                transport.flush()
            if connection.poller is not None and not connection.poller.parked:
                self.polls.farewell(connection.owner, code, reason, after)
            elif transport is not None:
                # Sente's own close is 1000. One with a reason asks for a reconnect: not where
                # 1000 is final.
                final = not reason or not connection.generation.clean_close_is_final
                sentes = code == s.CLOSED_BY_APP and not connection.session.v1 and final
                shown = s.NORMAL if sentes else code
                if after is None:
                    transport.end(shown, reason)
                else:
                    connection.transport = connection.poller = None
                    self.delayed_closes.when_ended(after, partial(transport.mute(), shown, reason))
            self._forget(connection)

    def _signed_out(self, uid: Uid, client_id: str) -> None:
        self.close(uid, client_id, s.SIGNED_OUT, "signed out")

    def close_everywhere(
        self, uid: Uid, client_id: str | None, reconnect: bool, after: PendingResponse | None = None
    ) -> None:
        """Close a user's connections, in whatever process; from any thread.

        :param after: tell the clients when this response has ended.
        """
        code, reason = (
            (s.CLOSED_BY_APP, "closed by the application")
            if reconnect
            else (s.SIGNED_OUT, "signed out")
        )
        data: dict[str, Any] = {"code": code, "reason": reason}
        if after is not None:
            data["after"] = [*after]
        self.send(uid, [s.CLOSE, data], client_id)

    # presence --------------------------------------------------------------------------

    @property
    def connected_uids(self) -> ConnectedUids:
        """Who is connected; from any thread."""
        return self.who.connected_uids

    def changed(self) -> None:
        """Users came or went, in whatever process."""
        self.who.changed()

    def user(self, uid: Uid, came: bool, generation: int) -> None:
        self.who.user(uid, came, generation, Elsewhere(self))

    # asking ----------------------------------------------------------------------------

    def told(self, text: str) -> None:
        """Another process knows that a client answered what was asked here, or of a close."""
        if text.startswith(PREFIX):
            self.delayed_closes.on_worker_message(text.removeprefix(PREFIX))
        elif not self.asks.told(text):
            self.counters["answers_unasked"] += 1

    # ending ----------------------------------------------------------------------------

    def drain(self) -> None:
        """Begin to end, without blocking.

        Nothing more is read and polls are answered at once; what is queued has half a second
        to be handled; then :meth:`end`.
        """
        if self.closing:
            return
        self.closing = True
        if not self.broker.local:
            self.hub.background(self._retire_from_broker)
        for connection in self.registry:
            if connection.transport is not None:
                connection.transport.drain(self.spread)
        if len(self.dispatcher):
            self.dispatcher.when_idle = self.end
            self.hub.timer(DRAIN, self.end)
        else:
            self.end()

    def end(self) -> None:
        """Send every client away, to come back within the seconds that the close names."""
        self.closing = True
        if self._over:
            return
        self._over = True
        self.dispatcher.stop()
        self.delayed_closes.release_all()
        for connection in self.registry:
            transport = connection.transport
            if transport is not None:
                transport.wake()
                transport.end(s.RESTART, self.spread)

    def _retire_from_broker(self) -> None:
        """Whoever does not come back elsewhere is signed off by another process."""
        try:
            self.broker.retire(self._spread_seconds() + self.config.close_grace_ajax)
        except BrokerError as error:
            log.debug("the lease ends by itself: %s", error)

    def retire(self) -> None:
        """End for good: the application is gone."""
        self.end()
        for connection in self.registry:
            connection.filed = None
            self.registry.remove(*connection.key, connection.kind)
        self.hub.no_more_sweeps(self._sweep)
        self.broker.stop()

    @property
    def spread(self) -> str:
        """The reason of close code 1012: seconds over which to come back."""
        # 500 clients a second are let in without trouble by one worker.
        return f"spread={self._spread_seconds()}"

    def _spread_seconds(self) -> int:
        return min(60, 2 + len(self.registry) // 500)

    def stats(self) -> dict[str, int]:
        """Counters since the start, and gauges of now; from any thread."""
        return {**self.counters, **self.broker.stats(), **self.hub.run(self._gauges)}

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

"""A client's life in this worker, from the top of the file to its end.

It is let in (:meth:`Clients.enter`), registered, given transports, checked at its deadlines,
closed or lost, and forgotten. On the hub, except what says that it may wait for the broker.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from ..brokers.contract import (
    ANONYMOUS,
    EVERYONE,
    Arrival,
    Broker,
    client_channel,
    too_many_clients,
    user_channel,
)
from ..config import Config
from ..errors import BrokerError, Refused
from ..hub import Hub, on_hub
from ..interrupts import from_signal
from ..logs import logger
from ..protocol import session as s
from ..protocol.push import CANONICAL, Push
from ..protocol.session import Rules, ServerSession
from ..protocol.wire import Data
from ..security import Began, check_may_act
from ..transports.longpoll import Poller
from ..transports.transport import Transport
from .asks import Asks
from .close_log import REPLACED, CloseLog
from .connection import Asked, Connection, Entered, Opening, State, Uid
from .controls import Controls
from .delayed_closes import Close, DelayedCloses
from .delivery import Delivery
from .dispatch import Dispatcher
from .expiries import Expiries
from .memberships import LEFT, Memberships
from .presence import Presence
from .registration import BrokerRegistration
from .registry import Registry
from .replay import History
from .trace import Trace

log = logger(__name__)

FIRST_CHECK = 1.0  # seconds from the registration until its request must have given a transport
CLOSED_SOON = 5.0  # seconds until a socket that is being closed is checked again
OWED = 5.0  # seconds between checks of a socket while something is owed to its client


def _rules(config: Config) -> Rules:
    """What sessions go by, until the broker says its epoch."""
    return Rules(
        epoch="",
        kalive=config.ws_kalive,
        ping_timeout=config.ws_ping_timeout,
        cursor_every=max(config.recovery_seconds / 4, 1.0),
        max_outbox_bytes=config.max_outbox_bytes,
    )


class ClosedWhileAway(Exception):
    """A client that polls was closed while no poll was here."""

    def __init__(self, close: Close) -> None:
        super().__init__(close)
        self.close = close


class Clients:
    """The clients of one worker.

    :ivar expiries: when the identities behind these clients expire.
    :ivar draining: nobody is let in any more.
    :ivar sent_away: every client was told to come back elsewhere.
    """

    def __init__(
        self,
        hub: Hub,
        config: Config,
        broker: Broker,
        *,
        registry: Registry[Connection],
        memberships: Memberships,
        controls: Controls,
        delivery: Delivery,
        history: History,
        presence: Presence,
        registration: BrokerRegistration,
        dispatcher: Dispatcher,
        asks: Asks,
        delayed_closes: DelayedCloses,
        close_log: CloseLog,
        counters: Counter[str],
        trace: Trace,
    ) -> None:
        self.hub = hub
        self._config = config
        self._broker = broker
        self._registry = registry
        self._memberships = memberships
        self._controls = controls
        self._delivery = delivery
        self._history = history
        self._presence = presence
        self._registration = registration
        self._dispatcher = dispatcher
        self._asks = asks
        self._delayed_closes = delayed_closes
        self._close_log = close_log
        self._counters = counters
        self._trace = trace
        self.expiries = Expiries(hub, self._expire)
        self._epoch_began = 0
        self._rules = _rules(config)
        # One worker knows which of two openings of a client is the later one. Several cannot order
        # them, since an abandoned request may arrive last: the loser is closed with 1013, and a
        # live client reconnects.
        self._replaced = s.REPLACED if broker.local else s.TRY_LATER
        self._graces = {"ws": config.close_grace_ws, "ajax": config.close_grace_ajax}
        self.draining = False
        self.sent_away = False

    # a request asks to be let in -----------------------------------------------------------

    def asked(self) -> Asked:
        """The present moment, for a request that is about to ask who its user is.

        From any thread, and may wait for the broker.
        """
        with suppress(BrokerError):  # said where they would be let in
            self._broker.listen()
        return self.hub.run(lambda: self._controls.asked(self._broker.watermark()))

    def check_may_act(self, opening: Opening) -> None:
        """Refuse a POST in the name of somebody else's client; from any thread, may wait.

        Handshakes and polls are checked where they are let in.

        :raises Refused: 409; 503 where only the broker could tell, and is away.
        """
        uid, client_id = opening.uid, opening.client_id
        if uid is not None:
            return
        known = self._registry.get(uid, client_id)
        try:
            held = self._broker.clients.holder(uid, client_id) if known is None else known.digest
        except BrokerError as error:
            raise Refused(503, f"try again: {error}", retry_after=1) from error
        check_may_act(uid, held, opening.digest)

    def enter(self, opening: Opening, kind: str) -> Entered | None:
        """Let a client in, or back in; from any thread, and waits for the broker.

        What is left to do on the hub is to give it a transport and the handshake. None: its
        request is late, the client has another connection by now.

        :param kind: ``"ws"``, ``"ajax"``, or ``"poll"`` for one that brings no handshake.
        :raises Refused: 503 draining or without a broker, 409 a client id of somebody else,
            429 too many.
        :raises ClosedWhileAway: it was closed while it did not poll.
        """
        hub, uid, client_id, v1 = self.hub, opening.uid, opening.client_id, opening.v1
        hub.run(self._admit, opening)
        controls: list[Push] = hub.run(self._controls.buffer, uid or client_id)
        try:
            asked = "try" if kind == "ws" and v1 else kind
            silent = hub.run(self._registration.had_before, uid)
            arrival = self._broker.clients.attach(
                uid, client_id, asked, v1, digest=opening.digest, silent=silent
            )
            if arrival is None:
                return None
            if arrival.missed_close is not None:
                raise ClosedWhileAway(Close.read(arrival.missed_close))
            try:
                entered = hub.run(self._register, opening, kind, arrival, controls)
                connection, recovered = entered.connection, entered.recovered
                one = connection.session
                # Where the page polls meanwhile, whichever link it takes tells it of a gap.
                on_trial = kind == "ws" and connection.poller is not None
                while recovered and not on_trial and one.needs_replay and not one.outbox:
                    recovered = self._history.next_page(connection) and entered.goes_on
            except BaseException:
                hub.call(self._half_entered, opening, arrival)
                raise
        except BrokerError as error:
            raise Refused(503, f"try again: {error}", retry_after=1) from error
        finally:
            hub.run(self._controls.release, uid or client_id, controls)
        if opening.page:
            return hub.run(self._entered_from_page, entered, recovered)
        return entered._replace(recovered=recovered)

    @on_hub
    def _entered_from_page(self, entered: Entered, recovered: bool | None) -> Entered:
        """It has no cursor of its own, so all follows the handshake: a gap, too."""
        if recovered is False:
            self._history.page_gap(entered.connection)
        since, own = entered.began
        here = entered.connection.session.acked  # before the gap
        return entered._replace(recovered=None, began=Began(min(since, here), own))

    @on_hub
    def _admit(self, opening: Opening) -> None:
        if self.draining:
            raise Refused(503, "the server restarts: try again", retry_after=1)
        known = self._registry.get(opening.uid, opening.client_id)
        if known is not None:
            check_may_act(opening.uid, known.digest, opening.digest)
        elif opening.uid is not None:
            most = self._config.max_clients_per_uid
            if self._registry.count(opening.uid) >= most:
                raise too_many_clients(most)

    @on_hub
    def _half_entered(self, opening: Opening, arrival: Arrival) -> None:
        """Undo an entry that failed after the broker let the client in."""
        uid, client_id = opening.uid, opening.client_id
        connection = self._registry.get(uid, client_id)
        if connection is None:
            if arrival.token:
                if arrival.first:  # before the other half of it
                    self._presence.user_presence_changed(uid, True, arrival.generation)
                self._registration.detach(uid, client_id, arrival.token)
            return
        if arrival.token:
            connection.register(arrival.token, arrival.offset)
        if connection.state is State.ABSENT:
            self.schedule_check(connection, self.hub.now() + FIRST_CHECK)

    # it is registered ----------------------------------------------------------------------

    @on_hub
    def _register(
        self, opening: Opening, kind: str, arrival: Arrival, controls: list[Push]
    ) -> Entered:
        """Make or find the connection, with its session where the client says it is.

        :param controls: that the broker told since it was asked to let the client in.
        """
        if opening.asked.lapses != self._controls.lapses:
            raise Refused(503, "try again: the broker was away", retry_after=1)
        now = self.hub.now()
        current = not arrival.epoch or arrival.epoch == self._broker.epoch
        # Start offset: the client is not owed earlier events.
        watermark = max(self._broker.watermark(), arrival.offset if current else 0)
        cursor = self._cursor_of(opening, arrival)
        begins = start = self._start_of(opening, kind, arrival, cursor, watermark)
        if opening.uid is not None:
            if current:
                self._memberships.take(opening.uid, arrival, complete=False)
            else:  # the broker began anew since, and knows nothing of this opening
                self._memberships.take_from_epoch(opening.uid, arrival, self._epoch_began)
        connection = self._registry.get(opening.uid, opening.client_id)
        if connection is None:
            connection = self._begin(opening, kind, arrival, cursor, start)
        else:
            if connection.is_overtaken(opening, kind, cursor):
                # The session stays as it is: another link may tell the page that it has all of it.
                cursor = connection.session.acked
                begins = min(watermark, cursor)
            self._come_back(connection, opening, arrival, cursor, start)
        if start < watermark:
            connection.session.fall_behind()
        began = self._began(connection, opening, cursor, begins)
        number = connection.opened(
            opening,
            kind,
            None if arrival.trial else arrival.token,
            arrival.offset if current else watermark,
            now,
            began.own if opening.v1 else 0,  # of others the broker knows how far they were served
        )
        if not current:
            self._registration.reattach(silent=True, only=connection)
        self.expiries.note(connection, opening.expires_at)
        self.schedule_check(connection, now + FIRST_CHECK)
        if arrival.first:
            self._presence.user_presence_changed(opening.uid, True, arrival.generation)
        self._apply_pending(connection, opening, arrival, controls)
        recovered = None if opening.cursor is None or not opening.v1 else cursor is not None
        starts = connection.starts
        return Entered(opening, connection, recovered, arrival.known, number, began, starts)

    def _cursor_of(self, opening: Opening, arrival: Arrival) -> int | None:
        """The offset of the client's cursor; None where it cannot go on from there."""
        if not opening.trusted:
            return None
        cursor = s.read_cursor(opening.cursor, self._broker.epoch, opening.began.since)
        if opening.page and cursor is not None and cursor < arrival.dropped:
            return None
        if cursor is None or arrival.whole or cursor <= self._epoch_began:
            return cursor
        # Perhaps of a process that did not know all topics.
        known = {topic for topic, since in arrival.topics.items() if since <= self._epoch_began}
        told = known.issuperset(self._registration.unsaid(opening.uid))
        return cursor if told and cursor >= arrival.restored else None

    @staticmethod
    def _began(connection: Connection, opening: Opening, cursor: int | None, begins: int) -> Began:
        """Where the time of a client began that is being let in.

        :param cursor: of *opening*; None where it does not hold.
        :param begins: where it begins if nothing proves that it was here before.
        """
        if opening.page:
            # Whoever had its client id before was not this client.
            own = connection.own if connection.digest == opening.digest else begins
            return Began(begins if cursor is None else min(cursor, begins), own)
        since, own = opening.began if opening.trusted else (begins, begins)
        return Began(min(since, begins), min(own, begins))  # ahead: of an epoch on another clock

    def _begin(
        self, opening: Opening, kind: str, arrival: Arrival, cursor: int | None, watermark: int
    ) -> Connection:
        """A client that is not here yet."""
        uid, client_id, now = opening.uid, opening.client_id, self.hub.now()
        one = ServerSession(
            uid, client_id, opening.composer, self._rules, now, v1=opening.v1, offset=watermark
        )
        kind = "ws" if kind == "ws" else "ajax"
        connection = Connection(self, one, kind, now)
        self._registry.add(uid, client_id, connection, kind)
        self._counters["opened"] += 1
        if self._trace.on:
            self._trace.client("open", uid, client_id, about=kind)
        if cursor is not None and opening.v1:
            one.resume_unknown(cursor, after_page=opening.page)
        elif arrival.cursor is not None and not opening.v1:
            one.resume_unknown(arrival.cursor)
        else:
            self._start_at(connection, watermark, opening)
        return connection

    def _come_back(
        self,
        connection: Connection,
        opening: Opening,
        arrival: Arrival,
        cursor: int | None,
        watermark: int,
    ) -> None:
        """A client that is here still, or was a moment ago."""
        check_may_act(opening.uid, connection.digest, opening.digest)  # as the broker began
        one = connection.session
        if connection.state is State.WS:
            # Nothing more leaves by the old socket: the new one would miss it.
            assert connection.transport is not None
            connection.transport.replaced(self._replaced, REPLACED)
            connection.lose(self.hub.now())
        if opening.v1 and (cursor is None or not one.v1):
            self._start_at(connection, watermark, opening)
        elif cursor is not None and cursor > watermark:
            one.resume_unknown(cursor)  # forged, or from another process: history knows
        elif cursor is not None:
            one.resume(cursor)
        elif not opening.v1 and arrival.cursor is not None:
            one.ack(arrival.cursor)  # served elsewhere, and we have not heard of it yet
        one.change_composer(opening.composer, opening.v1)

    def _start_of(
        self, opening: Opening, kind: str, arrival: Arrival, cursor: int | None, now: int
    ) -> int:
        """Where a client begins that cannot go on from its cursor: *now*.

        One that polls and comes from the epoch before begins where this one does, as do those who
        were there: the gap is told there. Perhaps its next poll comes to a worker that has yet to
        hear of its topics, where a later cursor would not hold and the gap would be told again.
        """
        if cursor is not None or kind == "ws" or arrival.whole or not opening.trusted:
            return now
        ours = s.read_cursor(opening.cursor, self._broker.epoch) is not None
        fresh = opening.cursor is None or ours or opening.began.since > self._epoch_began
        return now if fresh else self._epoch_began

    def _start_at(self, connection: Connection, offset: int, opening: Opening) -> None:
        """Begin at *offset*, and read topics from history: the worker may not hear them yet."""
        connection.start_at(offset, after_page=opening.page)
        one = connection.session
        if one.uid is not None and self._memberships.of(one.uid):
            one.fall_behind()

    def _apply_pending(
        self, connection: Connection, opening: Opening, arrival: Arrival, controls: list[Push]
    ) -> None:
        """Apply closes and joins that came while the client was let in."""
        uid = opening.uid
        mine = (None if uid is None else user_channel(uid), client_channel(*connection.key))
        for push in controls:
            if push.offset > arrival.offset and push.channel in mine:
                self.control(push, connection)
        channels = [*filter(None, mine), EVERYONE, *([ANONYMOUS] if uid is None else [])]
        for push in self._controls.closes_after(opening.asked.offset, channels):
            self._close_as(push, [connection])

    @on_hub
    def handshake(self, entered: Entered) -> Data:
        """The first message to a client that was let in."""
        opening, one, config = entered.opening, entered.connection.session, self._config
        extras: dict[Any, Any] | None = None
        if one.v1:
            # A page's gap waits in this worker alone. Until the client has it, the client's cursor
            # is one that every worker answers with a gap.
            to_hear = opening.page and one.begins_with_gap
            extras = {
                "cursor": s.BEFORE_ALL if to_hear else f"{self._rules.epoch}:{one.acked}",
                "resume": opening.resume and opening.resume(entered.began),
                "recovered": entered.goes_on,
                "kalive-ms": int(config.ws_kalive * 1000),
                "lp-timeout-ms": int(config.lp_timeout * 1000),
                "max-bytes": config.max_message_bytes,
                # Half a burst: a whole one comes together only while nothing else is sent.
                **({} if not config.rate else {"max-batch": config.rate[1] // 2 or 1}),
                "server": "flask_chsk",
            }
        return one.handshake(opening.data, csrf_token=opening.csrf_token, extras=extras)

    # transports come and go ----------------------------------------------------------------

    @on_hub
    def attach_socket(self, connection: Connection, websocket: Transport) -> None:
        """A WebSocket serves the client from now on."""
        self._attached(connection, connection.attach_socket(websocket, self.hub.now()))

    @on_hub
    def attach_poller(self, connection: Connection, poller: Poller[Connection]) -> None:
        """Polls serve the client from now on."""
        self._attached(connection, connection.attach_poller(poller, self.hub.now()))

    def _attached(self, connection: Connection, before: Transport | None) -> None:
        if before is not None:
            before.replaced(self._replaced, REPLACED)
        kind = "ws" if connection.state is State.WS else "ajax"
        if connection.kind != kind:
            self._registry.move(connection.session.uid, connection.kind, kind)
            connection.count_as(kind)
        self.schedule_check(connection, self.hub.now() + min(self._config.ws_kalive, FIRST_CHECK))

    @on_hub
    def try_socket(self, connection: Connection, websocket: Transport) -> None:
        """A WebSocket of a client that polls is on trial: it serves when it has said something."""
        self._end_trial(connection, websocket)

    @on_hub
    def pass_trial(self, connection: Connection, websocket: Transport) -> bool:
        """A message came by a WebSocket on trial: it is the transport from now on.

        False: it is on trial no more.
        """
        if connection.trial is not websocket:
            return False
        connection.replace_trial(None)
        self.attach_socket(connection, websocket)
        self.hub.background(self._registration.confirm_socket, connection)
        websocket.wake()
        return True

    def _end_trial(self, connection: Connection, by: Transport | None = None) -> None:
        before = connection.replace_trial(by)
        if before is not None:
            before.end(s.TRY_LATER, "said nothing while its client was here")

    @on_hub
    def lost(self, connection: Connection, websocket: Transport) -> None:
        """A WebSocket is gone; its client may come back within the grace."""
        if connection.trial is websocket:
            connection.replace_trial(None)
        if connection.transport is not websocket:
            return  # a late close of an old one
        now = self.hub.now()
        connection.lose(now)
        if self._trace.on:
            self._trace.client("lost", *connection.key, about="its WebSocket has ended")
        self._dispatcher.forget_transport(connection.key)
        if not connection.session.v1:
            connection.session.advance_to(self._broker.watermark())
            self.hub.background(self._registration.leave_cursor, connection)
        self.schedule_check(connection, now + self._config.close_grace_ws)

    @on_hub
    def poll_ended(self, connection: Connection) -> None:
        """A poll was answered, or its peer is gone; the next one may come within the grace."""
        now = self.hub.now()
        connection.answered(now)
        self.schedule_check(connection, now + self._config.close_grace_ajax)

    @on_hub
    def unsendable(
        self, connection: Connection, transport: Transport, error: BaseException
    ) -> None:
        """A packer of the application failed: close its client only.

        :raises BaseException: *error*, where it ends the process.
        """
        if from_signal(error):
            raise error
        uid = connection.session.uid
        log.error("what waits for uid %r cannot be packed", uid, exc_info=error)
        transport.end(s.INTERNAL_ERROR, "what waits cannot be packed")

    # deadlines -----------------------------------------------------------------------------

    @on_hub
    def schedule_check(self, connection: Connection, when: float) -> None:
        """See that a connection's deadlines are checked by *when*, at the latest."""
        if connection.check_by(when):
            self.hub.deadline(connection, when)

    @on_hub
    def check_deadlines(self, connection: Connection, now: float) -> float | None:
        """Do what is due of one connection; when to check again, None: never."""
        if connection.lost_at is not None:
            over = connection.lost_at + self._graces[connection.kind]
            if self.draining:
                over += self._spread_seconds()  # which it was told to take
            if now < over:
                return over
            self._forget(connection)
            return None
        if connection.state is State.PARKED:
            return now + self._config.lp_timeout  # it ends by itself
        return self._check_socket(connection, now)

    def _check_socket(self, connection: Connection, now: float) -> float:
        one, transport = connection.session, connection.transport
        assert transport is not None
        if connection.request is not None:
            connection.request.rest()
        if transport.stalled(now):
            self._counters["stalled"] += 1
            transport.end(s.TOO_SLOW, "took no byte for 10 seconds")
            return now + CLOSED_SOON
        due, when = one.check(now, reading=transport.reading)
        if due == s.DEAD:
            self._counters["pings_unanswered"] += 1
            transport.end(s.PING_UNANSWERED, "ping unanswered")
            return now + CLOSED_SOON
        if due == s.PING:
            one.say(one.ping(self._broker.watermark(), now))
            transport.wake()
        return when if one.nothing_owed else min(when, now + OWED)

    # it is closed --------------------------------------------------------------------------

    @on_hub
    def control(self, push: Push, connection: Connection | None = None) -> None:
        """Do what a control event says; it travels as others do, so its place is in order.

        :param connection: whose opening or history gave it; None where it came live. A close is
            for this one alone then; a topic is its user's in any case.
        """
        id, data = CANONICAL.unpack(push.text)
        if id == s.CLOSE:
            if connection is None:
                reached = self._delivery.receivers(push.channel)
                self._close_as(push, [one for one in reached if push.offset > one.asked])
            elif push.offset > connection.since:
                self._close_as(push, [connection])
            return
        uid = push.channel.partition(":")[2]
        if self._registry.count(uid):
            self._memberships.control(uid, id, data, push.offset)
        elif id == LEFT:
            self._registration.moved_user_left(uid, data)

    def _close_as(self, push: Push, connections: list[Connection]) -> None:
        close = Close.read(push.text)
        for one in connections:
            if not one.gone:
                self._close(one, close)

    @on_hub
    def close(
        self,
        uid: Uid,
        client_id: str | None,
        code: int = s.CLOSED_BY_APP,
        reason: str = "",
    ) -> None:
        """Close a user's connections in this process, at once, and forget them."""
        for connection in self._registry.of(uid):
            if client_id in (None, connection.session.client_id):
                self._close(connection, Close(code, reason, None))

    def _close(self, connection: Connection, close: Close) -> None:
        code, reason, after = close
        transport = connection.transport
        if transport is not None:
            transport.flush()  # events that were sent before the close leave before it
        if connection.state is State.BETWEEN_POLLS:
            if connection.digest:  # else one of Sente's: it hears the handshake of a fresh session
                # The broker keeps a close that was published: the next poll says so, at any worker.
                self._close_log.note(*connection.key, code, reason)
        elif transport is not None:
            # Sente's own close is 1000. One with a reason asks for a reconnect: not where
            # 1000 is final.
            final = not reason or not connection.generation.clean_close_is_final
            sentes = code == s.CLOSED_BY_APP and not connection.session.v1 and final
            shown = s.NORMAL if sentes else code
            if after is None:
                transport.end(shown, reason)
            else:
                tell = partial(transport.mute(), shown, reason)
                self._forget(connection, muted=True)
                self._delayed_closes.when_ended(after, tell)
                return
        self._forget(connection)

    @on_hub
    def _expire(self, connection: Connection) -> None:
        """The identity behind a client has expired: whatever serves it now, serves it no more.

        The client may come back within its grace, as after a cut. Its next request has to bring an
        identity that holds, a poll too.
        """
        if connection.transport is not None:
            connection.transport.end(s.SIGNED_OUT, s.EXPIRED)
        trial = connection.replace_trial(None)
        if trial is not None:
            trial.end(s.SIGNED_OUT, s.EXPIRED)

    # it is forgotten -----------------------------------------------------------------------

    def _forget(self, connection: Connection, *, muted: bool = False) -> None:
        """A client is gone for good."""
        if self._remove(connection, muted=muted):
            self._registration.detach(*connection.key, connection.token)
            if not self._broker.disconnected:  # else another worker may have it by now
                self._asks.gone(connection.key)

    def _remove(self, connection: Connection, *, muted: bool = False) -> bool:
        """:param muted: its transport is told its end later."""
        if connection.gone:
            return False
        uid, client_id = connection.key
        self._registry.remove(uid, client_id, connection.kind)
        self.expiries.forget(connection)
        transport = connection.forget()
        if transport is not None and not muted:
            transport.end(s.NORMAL)
        self._end_trial(connection)
        self._counters["closed"] += 1
        if self._trace.on:
            self._trace.client("gone", uid, client_id)
        self._broker.unused(client_channel(uid, client_id))
        if uid is None:
            if not self._registry.count(None):
                self._broker.unused(ANONYMOUS)
        elif not self._registry.count(uid):
            self._memberships.forget(uid)
        return True

    @on_hub
    def taken_over(self, uid: Uid, client_id: str, token: str) -> None:
        """A client of ours was let in by another process."""
        connection = self._registry.get(uid, client_id)
        if connection is not None and connection.token == token:
            if connection.transport is not None:
                connection.transport.replaced(self._replaced, REPLACED)
            topics = self._memberships.of(uid) if uid is not None else []
            self._remove(connection)
            if uid is not None and not self._registry.count(uid):
                self._registration.moved(uid, topics)

    # the broker loses its memory, or we may have missed something ----------------------------

    @on_hub
    def begin_epoch(self, epoch: str, began: int) -> None:
        """The broker counts anew since the offset *began*: every client is told of the gap."""
        self._rules = replace(self._rules, epoch=epoch)
        self._epoch_began = began
        self._controls.begin_epoch()
        for connection in self._registry:
            connection.begin_epoch(self._rules)
            self._history.gap(connection)
            self._delivery.wake(connection)

    @on_hub
    def resync(self) -> None:
        """Events may have been missed: every client reads from history before anything else."""
        self._controls.lapses += 1
        watermark = self._broker.watermark()
        for connection in self._registry:
            connection.session.advance_to(watermark)
            connection.session.fall_behind()
            self._delivery.wake(connection)

    # the worker ends -----------------------------------------------------------------------

    @property
    def spread(self) -> str:
        """The reason of close code 1012: seconds over which to come back."""
        # 500 clients a second are let in without trouble by one worker.
        return f"spread={self._spread_seconds()}"

    def _spread_seconds(self) -> int:
        return min(60, 2 + len(self._registry) // 500)

    @property
    def longest_absence(self) -> float:
        """Seconds after which a client that was sent away is elsewhere, or gone."""
        return self._spread_seconds() + self._config.close_grace_ajax

    @on_hub
    def drain(self) -> None:
        """Let nobody in, read nothing more, and answer polls at once."""
        self.draining = True
        for connection in self._registry:
            if connection.transport is not None:
                connection.transport.drain(self.spread)

    @on_hub
    def send_away(self) -> None:
        """Tell every client to come back within the seconds that the close names."""
        self.draining = self.sent_away = True
        for connection in self._registry:
            transport = connection.transport
            if transport is not None:
                transport.wake()
                transport.end(s.RESTART, self.spread)

    @on_hub
    def forget_all(self) -> None:
        """The application is gone; nobody is told."""
        for connection in self._registry:
            self._registry.remove(*connection.key, connection.kind)
            connection.forget()

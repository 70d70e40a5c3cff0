"""A client's polls, GET after GET: handshake, answer, or park (docs/protocol.rst, "Long-polling").

On the hub, except what says otherwise. What stands for the client meanwhile is a
:class:`~flask_chsk.transports.longpoll.Poller`.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable
from functools import partial

from ..brokers.contract import Broker
from ..config import Config
from ..errors import BrokerError, Refused
from ..hub import Hub, Waiter, on_hub
from ..logs import RateLimitedLogger, logger
from ..protocol import session as s
from ..protocol.generations import Generation
from ..protocol.wire import Composer, Data
from ..security import check_may_act
from ..transports.longpoll import NoAnswer, Parked, Poller, body
from .clients import Clients, ClosedWhileAway
from .close_log import CloseLog
from .connection import Connection, Entered, Key, Opening, State
from .delayed_closes import Close, DelayedCloses
from .delivery import Delivery
from .registration import BrokerRegistration
from .registry import Registry
from .replay import RETRY, History

rate_limited = RateLimitedLogger(logger(__name__))

TAKEOVERS_PER_SECOND = 2  # of one client's parked polls by its own newer ones


class Polls:
    """Answers polls, or parks them."""

    def __init__(
        self,
        hub: Hub,
        config: Config,
        broker: Broker,
        *,
        registry: Registry[Connection],
        clients: Clients,
        registration: BrokerRegistration,
        delivery: Delivery,
        history: History,
        delayed_closes: DelayedCloses,
        close_log: CloseLog,
        counters: Counter[str],
    ) -> None:
        self.hub = hub
        self._config = config
        self._broker = broker
        self._registry = registry
        self._clients = clients
        self._registration = registration
        self._delivery = delivery
        self._history = history
        self._delayed_closes = delayed_closes
        self._close_log = close_log
        self._counters = counters
        self._noting: set[Connection] = set()  # up to where these are served, the broker is told

    def get(self, opening: Opening, handshake: bool, wait: bool = True) -> bytes | Waiter:
        """A GET: its answer, or a waiter for it; from any thread.

        :param wait: False: park no longer than something is on its way (tests).
        :raises Refused: as :meth:`~flask_chsk.server.clients.Clients.enter`; 429 where polls
            chase each other.
        """
        if handshake:
            if self.hub.run(self._is_overtaken, opening):
                return self._empty(opening)
        else:
            answer = self.hub.run(self._poll_known, opening, wait)
            if answer is not None:
                return answer
        try:
            entered = self._clients.enter(opening, "ajax" if handshake else "poll")
        except ClosedWhileAway as closed:
            return self.hub.run(self._say_close, opening, closed.close, wait)
        if entered is None:
            return self._empty(opening)
        # A client of another worker that brings its cursor goes on without a handshake.
        known = entered.goes_on and not opening.page if opening.v1 else entered.known
        greets = handshake or not known
        return self.hub.run(self._open, entered, greets, wait)

    @on_hub
    def _open(self, entered: Entered, greets: bool, wait: bool) -> bytes | Waiter:
        connection = entered.connection
        if not entered.is_latest:
            return self._empty(entered.opening)
        poller = Poller(self, connection)
        if entered.opening.number is not None and greets:
            poller.number = entered.opening.number
        self._clients.attach_poller(connection, poller)
        if not greets:
            return self._poll(connection, poller, entered.opening, wait)
        self._clients.poll_ended(connection)
        connection.greet(connection.session.acked)
        return body(self._clients.handshake(entered))

    @on_hub
    def _is_overtaken(self, opening: Opening) -> bool:
        """Whether a later poll of the same page came before this one."""
        known = self._registry.get(opening.uid, opening.client_id)
        return (
            opening.number is not None
            and known is not None
            and known.poller is not None
            and known.digest == opening.digest
            and opening.number <= known.poller.number
        )

    @on_hub
    def _poll_known(self, opening: Opening, wait: bool) -> bytes | Waiter | None:
        known = self._registry.get(opening.uid, opening.client_id)
        if known is None or self._registration.waits(known):
            return None
        check_may_act(opening.uid, known.digest, opening.digest)
        if self._clients.draining:
            one, spread = known.session, self._clients.spread
            self._close_log.note(one.uid, one.client_id, s.RESTART, spread)
            generation = opening.generation
            return body(self.close_message(one.composer, one.v1, generation, s.RESTART, spread))
        if known.state is State.WS:
            # The poll was on its way while the client changed to WebSocket.
            return self._empty(opening)
        poller = known.poller
        goes_on = opening.trusted and not opening.page
        if poller is not None and (not known.session.v1 or goes_on):
            self._clients.expiries.note(known, opening.expires_at)
            return self._poll(known, poller, opening, wait)
        return None

    @on_hub
    def _say_close(self, opening: Opening, close: Close, wait: bool) -> bytes | Waiter:
        """The answer to a poll of a client that was closed, when it may be told."""
        composer, generation = opening.composer, opening.generation
        said = body(self.close_message(composer, opening.v1, generation, close.code, close.reason))
        if close.after is None or not wait:
            return said
        waiter = self.hub.waiter()
        self._delayed_closes.when_ended(close.after, partial(waiter.set, said))
        return waiter

    @on_hub
    def _poll(
        self, connection: Connection, poller: Poller[Connection], opening: Opening, wait: bool
    ) -> bytes | Waiter:
        one = connection.session
        now = self.hub.now()
        if opening.number is not None:
            if opening.number <= poller.number:
                return body(self.end_of(connection))
            poller.number = opening.number
        if poller.parked:
            if now - poller.takeover_window >= 1.0:
                poller.takeover_window, poller.takeovers = now, 0
            poller.takeovers += 1
            if poller.takeovers > TAKEOVERS_PER_SECOND:
                self._counters["takeovers_refused"] += 1
                raise Refused(429, "polls of this client chase each other", retry_after=1)
        if one.v1 and opening.cursor is not None:
            cursor = s.read_cursor(opening.cursor, self._broker.epoch, opening.began.since)
            if cursor is None:
                if not one.begins_with_gap:
                    connection.owe_gap()
            elif cursor > max(self._broker.watermark(), one.queued):
                one.resume_unknown(cursor)  # forged, or from another worker: history knows
            else:
                one.resume(cursor)
                connection.confirm(cursor)
        one.alive(now)
        if (
            one.needs_replay
            or now - connection.flushed >= self._delivery.windows["ajax"]
            or not wait
        ):
            answer = self._answer(connection)
            if answer is not None:
                connection.note_flush(now)
                self._release(connection, poller)
                self._clients.poll_ended(connection)
                return answer
        self._release(connection, poller)
        waiter = self.hub.waiter()
        connection.park(waiter)
        poller.brief = not wait
        if not wait or (one.outbox and not self._delivery.waits(connection, now)):
            poller.wake()
        return waiter

    def _release(self, connection: Connection, poller: Poller[Connection]) -> None:
        """Answer a request that still waits: a newer one came."""
        if poller.parked:
            poller.give(body(self.end_of(connection)))

    def parked(self, opening: Opening, waiter: Waiter, sock: socket.socket | None) -> Parked:
        """The body of a poll's answer; *sock* is watched, where it can be."""
        seconds = max(self._config.lp_timeout, opening.generation.idle_poll)
        return Parked(self, (opening.uid, opening.client_id), waiter, sock, seconds)

    @on_hub
    def expire(self, key: Key, waiter: Waiter, at_once: bool = False) -> bytes | None:
        """The answer of a poll that has timed out; None: it was answered just now.

        :param at_once: False: None, too, where it is about to be.
        """
        connection = self._registry.get(*key)
        poller = None if connection is None else connection.poller
        if connection is None or poller is None or not poller.waits(waiter):
            return None
        if connection in self._noting and not at_once:
            return None
        poller.abandon(waiter)
        self.note_rest(connection)
        return body(self.end_of(connection))

    @on_hub
    def abandon(self, key: Key, waiter: Waiter) -> None:
        """The peer of a poll went away."""
        poller = self._poller(key)
        if poller is not None:
            poller.abandon(waiter)

    @on_hub
    def look_at(self, key: Key, waiter: Waiter, peer_is_gone: Callable[[], bool]) -> None:
        """Check that the peer of a poll is there before the poll is answered."""
        poller = self._poller(key)
        if poller is not None:
            poller.look_at(waiter, peer_is_gone)

    def _poller(self, key: Key) -> Poller[Connection] | None:
        connection = self._registry.get(*key)
        return None if connection is None else connection.poller

    # what a poller asks ------------------------------------------------------------------

    @on_hub
    def outgoing(
        self, connection: Connection, poller: Poller[Connection], last: bool
    ) -> bytes | None:
        """What may answer the parked poll now."""
        try:
            answer = self._answer(connection, last)
        except BaseException as error:
            self._clients.unsendable(connection, poller, error)
            return None
        if answer is None and not last and not connection.session.v1:
            self.note_before_answer(connection)
        if answer is None and poller.brief and not self._is_under_way(connection):
            return body(self.end_of(connection))
        return answer

    def _answer(self, connection: Connection, last: bool = False) -> bytes | None:
        one = connection.session
        if one.needs_replay and not one.outbox:
            self._history.catch_up(connection)
        noted = not last and not one.v1  # the broker keeps its cursor
        return one.answer(body, self._delivery.frames, connection.served if noted else None)

    def _is_under_way(self, connection: Connection) -> bool:
        return connection in self._noting or self._history.is_reading(connection)

    @on_hub
    def close_answer(self, connection: Connection, code: int, reason: str) -> bytes | None:
        """The answer that tells a parked poll's client to go."""
        one, generation = connection.session, connection.generation
        if code == s.RESTART and connection in self._noting and one.page():
            return None  # events are being noted for this poll: they answer it
        self._close_log.note(one.uid, one.client_id, code, reason)
        said = body(self.close_message(one.composer, one.v1, generation, code, reason))
        return NoAnswer(said) if generation.hang_up and code == s.RESTART else said

    @on_hub
    def unparked(self, connection: Connection, poller: Poller[Connection]) -> None:
        """A parked poll was answered, or is gone."""
        if connection.poller is poller:  # else something else serves the client, or nothing
            self._clients.poll_ended(connection)

    # what the broker is told -------------------------------------------------------------

    @on_hub
    def note_before_answer(self, connection: Connection) -> None:
        """Tell the broker which events the parked poll of a client without a cursor is to get.

        The broker notes exactly the events of one answer, before the client gets it: the next
        poll goes on behind them, in whatever process. The transport is woken when they are noted.
        """
        page = connection.session.page()
        if page and page[-1].offset > connection.served and connection not in self._noting:
            self._noting.add(connection)
            self.hub.background(self._note, connection, page[-1].offset)

    @on_hub
    def note_rest(self, connection: Connection) -> None:
        """An empty poll ended: a cursor that the broker keeps must not go stale."""
        one = connection.session
        now = self.hub.now()
        if one.v1 or connection in self._noting:
            return
        if one.renew_rest(self._broker.watermark(), now):
            self._noting.add(connection)
            self.hub.background(self._note, connection, one.acked)

    def _note(self, connection: Connection, offset: int) -> None:
        try:
            ours = self._broker.clients.ack(*connection.key, connection.token, offset)
        except BrokerError as error:
            words = "uid %r cannot be served: %s"
            rate_limited.warning("serve", words, connection.session.uid, error)
            self.hub.call(self.hub.timer, RETRY, lambda: self._note_again(connection))
            return
        self.hub.call(self._noted, connection, offset if ours else None)

    @on_hub
    def _noted(self, connection: Connection, offset: int | None) -> None:
        self._noting.discard(connection)
        if offset is None:
            self._clients.taken_over(*connection.key, connection.token)
            return
        connection.note_served(max(connection.served, offset))
        self._wake(connection)
        if self._is_away(connection) and connection.served > connection.session.acked:
            self._take_back(connection)

    @on_hub
    def _note_again(self, connection: Connection) -> None:
        """The broker did not answer: it may have noted the events, or not."""
        self._noting.discard(connection)
        self._wake(connection)
        if self._is_away(connection) and connection not in self._noting:
            self._take_back(connection)

    def _wake(self, connection: Connection) -> None:
        """Answer the poll, or find that its peer is gone."""
        if connection.transport is not None and not self._is_away(connection):
            connection.transport.wake()

    @staticmethod
    def _is_away(connection: Connection) -> bool:
        return connection.poller is not None and not connection.poller.parked

    def _take_back(self, connection: Connection) -> None:
        """Undo what was noted for a poll that is gone: the events are for the next one."""
        self._noting.add(connection)
        connection.note_served(connection.session.acked)
        self.hub.background(self._note, connection, connection.served)

    def end_of(self, connection: Connection) -> Data:
        """``[:chsk/timeout nil cursor?]``, or what its generation takes for no events."""
        one = connection.session
        cursor = None
        if connection.poller is not None:
            cursor = one.cursor(self._broker.watermark(), self.hub.now())
        return one.composer.message(connection.generation.poll_end, None, cursor)

    def _empty(self, opening: Opening) -> bytes:
        return body(opening.composer.message(opening.generation.poll_end))

    def close_message(
        self, composer: Composer, v1: bool, generation: Generation, code: int, reason: str
    ) -> Data:
        """The message that tells a poller to go: a push to ours, the poll's end to Sente's."""
        if not v1:
            return composer.message(generation.poll_end)
        return composer.message([[s.CLOSE, {"code": code, "reason": reason}]])

"""What clients send: messages over a WebSocket, or by POST, on their way to the handlers.

On the hub, except what says otherwise.
"""

from __future__ import annotations

from collections import Counter
from functools import partial

from ..brokers.contract import Broker
from ..config import Config
from ..errors import Refused
from ..hub import Hub, on_hub
from ..protocol import session as s
from ..protocol.event import Event
from ..protocol.wire import Data
from ..transports.budget import MemoryBudget
from ..transports.longpoll import body
from ..transports.transport import Transport
from .asks import Asks
from .clients import Clients
from .connection import Connection, Key, Opening
from .delivery import Delivery
from .dispatch import RUNNING_BYTES, Dispatcher
from .rates import RateLimit, network_of
from .replies import Pending, PostChannel, Replies, SocketChannel

OWN_RATE = 1.0, 10  # pings, pongs and answers of a client, at least
HOLD = 15.0  # seconds that a POST waits for its handlers: clients give it up after 25


class Receiver:
    """Takes messages in, within their limits; a send that comes again is dispatched once."""

    def __init__(
        self,
        hub: Hub,
        config: Config,
        broker: Broker,
        *,
        clients: Clients,
        dispatcher: Dispatcher,
        replies: Replies,
        delivery: Delivery,
        asks: Asks,
        budget: MemoryBudget,
        counters: Counter[str],
    ) -> None:
        self.hub = hub
        self._config = config
        self._broker = broker
        self._clients = clients
        self._dispatcher = dispatcher
        self._replies = replies
        self._idempotency = replies.idempotency
        self._delivery = delivery
        self._asks = asks
        self._budget = budget
        self._counters = counters
        self._addresses: RateLimit[str | None] = RateLimit(config.rate_per_address)
        rate = config.rate
        self._events: RateLimit[Key] = RateLimit(rate)
        # Our clients send some messages of the protocol at each opening, and an answer to each
        # question. These have a limit of their own, so they leave the events' tokens alone.
        own = rate and (max(rate[0], OWN_RATE[0]), max(rate[1], OWN_RATE[1]))
        self._own: RateLimit[Key] = RateLimit(own)

    @on_hub
    def received(self, connection: Connection, websocket: Transport, data: Data) -> None:
        """A message came over a WebSocket."""
        one = connection.session
        if connection.transport is not websocket and not self._clients.pass_trial(
            connection, websocket
        ):
            return  # replaced, and about to notice
        incoming, size = one.receive(data, self.hub.now())
        if self._config.rate is not None and self._too_fast(connection.key, incoming):
            self._counters["flooding"] += 1
            websocket.end(s.FLOODING, "more events per second than CHSK_RATE")
            return
        if isinstance(incoming, s.Received):
            self._take(connection, incoming, websocket, size)
        elif isinstance(incoming, s.Pinged):
            if incoming.cb is not None:
                cursor = one.cursor(self._broker.watermark(), self.hub.now())
                one.say(one.composer.message("pong", incoming.cb, cursor))
                if one.overfull:
                    self._delivery.overfull(connection)
                else:
                    websocket.wake()
            self._take(connection, s.Received(Event(s.WS_PING)), websocket)
        elif isinstance(incoming, s.Ponged):
            self._take(connection, s.Received(Event(s.WS_PONG)), websocket)
        elif isinstance(incoming, s.Answered):
            self.answered(connection.key, incoming, size)
        else:
            size //= len(incoming.events) or 1
            for received in incoming.events:
                self._take(connection, received, websocket, size)

    def _take(
        self, connection: Connection, received: s.Received, websocket: Transport, size: int = 0
    ) -> None:
        channel = SocketChannel(self._replies, connection, websocket, received.cb)
        uid, client_id = connection.key
        elsewhere = None
        if received.key is not None and connection.session.v1:
            owner = connection.owner
            if self._idempotency.came_before(owner, received.key, channel):
                return
            elsewhere = self._idempotency.handled_elsewhere(owner, received.key, channel)
        self._dispatcher.submit(
            received.event,
            uid,
            client_id,
            channel,
            connection.request,
            websocket,
            size,
            is_handled_elsewhere=elsewhere,
        )

    def _too_fast(self, client: Key, incoming: s.Incoming) -> int:
        """Seconds until a client may send what it sent; 0 where it may now."""
        if isinstance(incoming, s.Pinged | s.Ponged | s.Answered):
            return self._own.take_tokens(client, self.hub.now())
        count = len(incoming.events) if isinstance(incoming, s.Batched) else 1
        return self._events.take_tokens(client, self.hub.now(), count)

    @on_hub
    def address_too_fast(self, address: str | None) -> int:
        """Seconds until *address* may make a request; 0 where it may now."""
        return self._addresses.take_tokens(network_of(address), self.hub.now())

    @on_hub
    def posted(self, opening: Opening, incoming: s.Incoming, size: int = 0) -> Data | Pending:
        """A message came by POST: its answer, or a body that waits for it.

        Our clients send the next POST when the answer begins. The next POST may reach another
        worker; then the answer begins after the handlers, so that order holds. With one worker it
        waits for them where half of the inbox is full.

        The caller has checked that this request may act for the client
        (:meth:`~flask_chsk.server.clients.Clients.check_may_act`).

        :param size: bytes that it holds, with what is kept of its request.
        :raises Refused: 429 where too many of this client's events wait already, or come too
            fast; 503 where too much waits in this process.
        """
        composer = opening.composer
        client = (opening.uid, opening.client_id)
        self._check(client, incoming)
        done = composer.message(s.DUMMY_CB_200)
        if isinstance(incoming, s.Pinged):
            return done if incoming.cb is None else composer.message("pong")
        if isinstance(incoming, s.Answered):
            self.answered(client, incoming, size)
            return done
        if isinstance(incoming, s.Ponged):
            return done
        return self._posted_events(opening, incoming, size, done)

    def _posted_events(
        self, opening: Opening, incoming: s.Received | s.Batched, size: int, done: Data
    ) -> Data | Pending:
        """Hand the events of a POST to their handlers."""
        composer, client = opening.composer, (opening.uid, opening.client_id)
        events = incoming.events if isinstance(incoming, s.Batched) else (incoming,)
        asks = isinstance(incoming, s.Received) and incoming.cb is not None
        seconds = self._config.reply_timeout if asks else HOLD
        otherwise = body(composer.message(s.TIMEOUT) if asks else done)
        pending = Pending(self.hub, asks, otherwise, seconds, len(events))
        if opening.number is not None and events and events[0].key is None:
            # A browser may repeat a POST whose connection broke; its first event tells.
            events = (events[0]._replace(key=f"post {opening.number}"), *events[1:])
        handled = partial(self.hub.call, pending.handled) if opening.v1 else None
        elsewhere = None
        for received in events:
            channel = PostChannel(
                self._replies, opening, pending if received.cb is not None else None
            )
            if received.key is not None and opening.v1:  # of a batch, the first event's
                if self._idempotency.came_before(opening.owner, received.key, channel):
                    return pending if asks else done
                elsewhere = self._idempotency.handled_elsewhere(
                    opening.owner, received.key, channel
                )
            self._dispatcher.submit(
                received.event,
                *client,
                channel,
                opening.request,
                size=size // len(events),
                on_done=handled,
                is_handled_elsewhere=elsewhere,
            )
        if asks:
            return pending
        # The next POST may reach another worker, which must not handle its events before these.
        waits = opening.v1 and (not self._broker.local or self._dispatcher.is_half_full(client))
        return pending if waits and events else done

    def _check(
        self,
        client: Key,
        incoming: s.Incoming,
    ) -> None:
        """Whether a POST may be taken in now."""
        if self._clients.draining:
            raise Refused(503, "the server restarts: try again", retry_after=1)
        if self._budget.full:
            self._counters["intake_full"] += 1
            raise Refused(
                503, "too many events wait for their handlers (CHSK_MAX_INBOUND_BYTES)", 1
            )
        if self._dispatcher.is_full(client):
            self._counters["inbox_full"] += 1
            raise Refused(
                429,
                "too many events of this client wait for their handlers (CHSK_MAX_INBOX)",
                retry_after=1,
            )
        if wait := self._too_fast(client, incoming):
            self._counters["flooding"] += 1
            raise Refused(429, "more events per second than CHSK_RATE", wait)

    @on_hub
    def answered(self, client: Key, answer: s.Answered, size: int) -> None:
        """A client answered an ask."""
        if not self._asks.answered(client, answer, RUNNING_BYTES + size):
            self._counters["answers_unasked"] += 1

"""Opens the WebSockets of clients that were let in, and hears what they report; on the hub."""

from __future__ import annotations

from collections import Counter

from ..config import Config
from ..hub import Hub, on_hub
from ..protocol import session as s
from ..protocol.frames import close_frame
from ..protocol.wire import Data
from ..transports.budget import MemoryBudget
from ..transports.link import Link
from ..transports.websocket import CLOSING, STALLED, WebSocket, frame
from .clients import Clients
from .close_log import REPLACED, CloseLog
from .connection import Connection, Entered
from .delivery import Delivery
from .receiver import Receiver
from .replay import History


class Sockets:
    """The owner of all WebSockets of a worker."""

    def __init__(
        self,
        hub: Hub,
        config: Config,
        *,
        clients: Clients,
        receiver: Receiver,
        delivery: Delivery,
        history: History,
        budget: MemoryBudget,
        close_log: CloseLog,
        counters: Counter[str],
    ) -> None:
        self.hub = hub
        self.budget = budget
        self.counters = counters
        self._clients = clients
        self._receiver = receiver
        self._delivery = delivery
        self._history = history
        self._close_log = close_log
        self._max_message_bytes = config.max_message_bytes

    @on_hub
    def open(self, entered: Entered, link: Link, leftover: bytes) -> None:
        """The socket of a client that was let in was taken over: greet it."""
        clients, connection = self._clients, entered.connection
        if clients.sent_away or not entered.is_latest:
            # The client was closed meanwhile, or opened another socket: that one would miss what
            # leaves by this one.
            code, why = (
                (s.RESTART, clients.spread) if clients.sent_away else (s.TRY_LATER, REPLACED)
            )
            self.count_close(connection, code, why)
            link.write(close_frame(code, why))
            link.close_when_flushed(CLOSING)
            return
        greeting = clients.handshake(entered)
        websocket = WebSocket(self, connection, link, self._max_message_bytes)
        polls = connection.poller is not None or not connection.token
        on_trial = polls and entered.opening.v1
        if on_trial:
            # The client polls until it has sent something here: some proxies let the upgrade
            # through, and nothing after it.
            clients.try_socket(connection, websocket)
        else:
            clients.attach_socket(connection, websocket)
        try:
            websocket.start(greeting, leftover, on_trial=on_trial)
        except BaseException:  # the link is closed, and has no receiver yet to tell
            self.lost(connection, websocket)
            raise

    # what a WebSocket asks and tells -------------------------------------------------------

    @on_hub
    def outgoing(self, connection: Connection, websocket: WebSocket[Connection]) -> bytes:
        """The frames that may leave now."""
        one = connection.session
        if one.needs_replay and not one.outbox:
            self._history.catch_up(connection)  # may wait, and then wakes the transport
        try:
            return one.drain(frame, self._delivery.frames)
        except BaseException as error:
            self._clients.unsendable(connection, websocket, error)
            return b""

    @on_hub
    def received(
        self, connection: Connection, websocket: WebSocket[Connection], data: Data
    ) -> None:
        """A message came."""
        self._receiver.received(connection, websocket, data)

    @on_hub
    def write_stalled(self, connection: Connection) -> None:
        """The peer takes no more at present."""
        self._clients.schedule_check(connection, self.hub.now() + STALLED)

    @on_hub
    def count_close(self, connection: Connection, code: int, reason: str) -> None:
        """The client is told to go."""
        self._close_log.note(*connection.key, code, reason)

    @on_hub
    def lost(self, connection: Connection, websocket: WebSocket[Connection]) -> None:
        """The socket is gone."""
        self._clients.lost(connection, websocket)

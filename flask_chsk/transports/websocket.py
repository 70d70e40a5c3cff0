"""A client's WebSocket: frames between its link and its session.

On the hub only. It decides nothing about the protocol: what came in goes to the server,
what may go out comes from the session.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..hub import SLICE
from ..protocol import frames, session
from ..protocol.frames import FrameReader, Message
from ..protocol.generations import FINAL_CODES
from ..protocol.wire import Data
from .link import Link

if TYPE_CHECKING:
    from ..server.connection import Connection
    from ..server.worker import Server

STALLED = 10.0  # seconds without taking one byte, after which a peer is given up
PONGS = 16  # pings in a row that are answered one by one; of more, the most recent ones are
CLOSING = 2.0  # seconds a peer has to answer our close frame, and to take what is unsent


def frame(message: Data) -> bytes:
    """*message* as one frame: text, or binary from a binary packer."""
    if isinstance(message, str):
        return frames.text_frame(message)
    return frames.binary_frame(message)


def _closed_already(code: int, reason: str) -> None:
    """Do nothing."""


class WebSocket:
    """One taken-over socket of a client. ``kind``, ``wake`` and ``end``: see longpoll.py."""

    __slots__ = (
        "_arriving",
        "_closing",
        "_connection",
        "_full",
        "_link",
        "_pings",
        "_reader",
        "_server",
        "_waiting",
        "proven",
    )

    kind = "ws"
    parked = False

    def __init__(self, server: Server, connection: Connection, link: Link) -> None:
        self._server = server
        self._connection = connection
        self._link = link
        self._reader = FrameReader("server", server.config.max_message_bytes)
        self._arriving = False  # a message of which a part has come
        self._closing = False
        self._full = False  # the client's inbox is
        self._waiting: list[Message] | None = None  # read, and not looked at yet
        self._pings: list[bytes] | None = None  # payloads of pings that are not answered yet
        self.proven = True  # False: a poller tries it, and has not said anything on it yet

    def start(self, handshake: Data, leftover: bytes) -> None:
        """Send the handshake, then listen."""
        self._link.write(frame(handshake))
        if self.proven:
            self.wake()
        self._link.start(self, leftover)

    def wake(self) -> None:
        """Send what waits in the outbox, as much as the peer takes now."""
        connection = self._connection
        link = self._link
        if self._closing or link.stalled_since is not None:
            return  # link_writable comes back here
        one = connection.session
        while True:
            if one.behind and not one.outbox:
                self._server.history.catch_up(connection)  # comes back here if it has to wait
            try:
                data = one.take(frame, self._server.delivery.frames)
            except BaseException as error:
                self._server.unsendable(connection, self, error)
                return
            if not data:
                return
            if not link.write(data):
                self._server.look_by(connection, self._server.hub.now() + STALLED)
                return

    @property
    def closing(self) -> bool:
        """Whether :meth:`end` was called, or the peer is gone."""
        return self._closing

    @property
    def reading(self) -> bool:
        """Whether the socket is read; False while the client's inbox is full."""
        return self._link.reading

    def pause(self) -> None:
        """Stop reading: the client's inbox is full."""
        self._full = True
        self._link.pause()

    def resume(self) -> None:
        """Read again."""
        self._full = False
        if self._waiting is not None:
            self._server.hub.soon(self._go_on)
        elif not self._closing:
            self._link.resume()

    def stalled(self, now: float) -> bool:
        """Whether the peer took no byte for too long."""
        since = self._link.stalled_since
        return since is not None and self._server.hub.loop.now() - since > STALLED

    def end(self, code: int, reason: str = "") -> None:
        """Close with *code*; what waits in the outbox is the session's, and stays."""
        self.mute()(code, reason)

    def mute(self) -> Callable[[int, str], None]:
        """Stop sending and receiving; the returned function sends the close frame and closes."""
        if self._closing:
            return _closed_already
        self._closing = True
        self._forget_arriving()
        return self._send_close

    def _send_close(self, code: int, reason: str) -> None:
        self._server.closes.note(self._connection.session.uid, code, reason)
        if code not in FINAL_CODES and self._connection.generation.clean_close_is_final:
            self._link.close_when_flushed(CLOSING)
        else:
            self._leave(code, reason)

    def _leave(self, code: int, reason: str = "") -> None:
        self._link.write(frames.close_frame(code, reason))
        self._link.close_when_flushed(CLOSING)

    # what a link calls ---------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        messages = self._reader.feed(data)
        held = self._reader.held
        if held or self._arriving:
            self._arriving = bool(held)
            self._server.intake.arriving(self, held)
        if not self._closing:
            self._take(messages)

    def _take(self, messages: list[Message]) -> None:
        """Look at *messages*, until the inbox is full or other sockets must have their turn.

        One read can hold thousands: the rest waits then, and nothing more is read.
        """
        server, connection = self._server, self._connection
        until = server.hub.now() + SLICE
        for taken, message in enumerate(messages, 1):
            kind = type(message)
            if kind is str or kind is bytes:
                if self._pings is not None:
                    self._answer_pings()  # before what this message makes leave
                server.inbound.received(connection, self, message)  # type: ignore[arg-type]
            elif kind is frames.Ping:
                connection.session.alive(server.hub.now())
                if self._pings is None:
                    self._pings = []
                self._pings.append(message.payload)  # type: ignore[union-attr]
            elif kind is frames.Pong:
                connection.session.alive(server.hub.now())
            else:
                self._answer_pings()
                code = message.code  # type: ignore[union-attr]
                self.mute()
                self._leave(session.NORMAL if code in (None, 1005) else code)  # as it says
            if self._closing:
                return
            if taken < len(messages) and (self._full or server.hub.now() > until):
                self._waiting = messages[taken:]
                self._link.pause()
                if not self._full:
                    server.hub.soon(self._go_on)
                break
        self._answer_pings()
        if self._waiting is None and self._reader.failed is not None:
            server.counters["protocol_errors"] += 1
            self.end(self._reader.failed.code, str(self._reader.failed))

    def _go_on(self) -> None:
        if self._waiting is None or self._full or self._closing:
            return
        messages, self._waiting = self._waiting, None
        self._take(messages)
        if self._waiting is None and not self._full and not self._closing:
            self._link.resume()

    def _answer_pings(self) -> None:
        pings = self._pings
        if pings is None:
            return
        # RFC 6455 5.5.3: the most recent ping will do. So pongs cannot pile up, neither for a
        # peer that reads nothing nor out of one read with thousands of pings.
        if self._link.stalled_since is not None:
            del pings[:-1]
            return
        self._pings = None
        self._link.write(b"".join(map(frames.pong_frame, pings[-PONGS:])))

    def link_writable(self) -> None:
        self._answer_pings()
        self.wake()

    def give_up(self) -> None:
        """What is arriving, here and elsewhere, is too much: let go of it."""
        self._arriving = False
        self._reader = FrameReader("server", 0)
        self.end(session.TRY_LATER, "too much is arriving: try later")

    def _forget_arriving(self) -> None:
        if self._arriving:
            self._arriving = False
            self._server.intake.arriving(self, 0)

    def link_closed(self, error: Exception | None) -> None:
        self._closing = True
        self._forget_arriving()
        self._server.lost(self._connection, self)

"""A client's WebSocket: frames between its link and its session.

On the hub only. It decides nothing about the protocol: what came in goes to its owner,
what may go out comes from there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from ..hub import SLICE, Hub
from ..protocol import frames, session
from ..protocol.frames import FrameReader, Message
from ..protocol.generations import FINAL_CODES
from ..protocol.wire import Data
from .budget import MemoryBudget
from .link import Link
from .transport import Client

C = TypeVar("C", bound=Client)

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


class SocketOwner(Protocol[C]):
    """To whom the WebSockets of a worker report."""

    hub: Hub
    budget: MemoryBudget
    counters: Counter[str]

    def outgoing(self, client: C, websocket: WebSocket[C]) -> bytes:
        """The frames that may leave now; empty: none."""

    def received(self, client: C, websocket: WebSocket[C], data: Data) -> None:
        """A message came."""

    def write_stalled(self, client: C) -> None:
        """The peer takes nothing more at present: see in time whether it goes on."""

    def count_close(self, client: C, code: int, reason: str) -> None:
        """The client is told to go."""

    def lost(self, client: C, websocket: WebSocket[C]) -> None:
        """The socket is gone, whoever closed it."""


class WebSocket(Generic[C]):
    """The transport of a client on one socket, which was taken over from the web server."""

    __slots__ = (
        "_arriving",
        "_client",
        "_closing",
        "_full",
        "_link",
        "_owner",
        "_pings",
        "_reader",
        "_waiting",
    )

    kind = "ws"
    parked = False

    def __init__(
        self, owner: SocketOwner[C], client: C, link: Link, max_message_bytes: int
    ) -> None:
        self._owner = owner
        self._client = client
        self._link = link
        self._reader = FrameReader("server", max_message_bytes)
        self._arriving = False  # a message of which a part has come
        self._closing = False
        self._full = False  # the client's inbox is
        self._waiting: list[Message] | None = None  # read, and not looked at yet
        self._pings: list[bytes] | None = None  # payloads of pings that are not answered yet

    def start(self, handshake: Data, leftover: bytes, *, on_trial: bool) -> None:
        """Send the handshake, then listen.

        :param on_trial: the client polls until it sends something here, so what waits is not sent.
        """
        self._link.write(frame(handshake))
        if not on_trial:
            self.wake()
        self._link.start(self, leftover)

    def wake(self) -> None:
        link = self._link
        if self._closing or link.stalled_since is not None:
            return  # link_writable comes back here
        owner, client = self._owner, self._client
        one = client.session
        while one.outbox or one.needs_replay:
            data = owner.outgoing(client, self)
            if not data:
                return
            if not link.write(data):
                owner.write_stalled(client)
                return

    def flush(self) -> None:
        self.wake()

    @property
    def closing(self) -> bool:
        """Whether :meth:`end` was called, or the peer is gone."""
        return self._closing

    @property
    def reading(self) -> bool:
        """Whether the socket is read; False while the client's inbox is full."""
        return self._link.reading

    def pause(self) -> None:
        self._full = True
        self._link.pause()

    def resume(self) -> None:
        self._full = False
        if self._waiting is not None:
            self._owner.hub.call_soon(self._go_on)
        elif not self._closing:
            self._link.resume()

    def stalled(self, now: float) -> bool:
        since = self._link.stalled_since
        return since is not None and self._owner.hub.loop.now() - since > STALLED

    def end(self, code: int, reason: str = "") -> None:
        """Close with *code*; what waits in the outbox is the session's, and stays."""
        self.mute()(code, reason)

    def replaced(self, code: int, reason: str) -> None:
        self.end(code, reason)

    def drain(self, reason: str) -> None:
        """Read nothing more; the close frame is sent when what was read is handled."""
        self.pause()

    def mute(self) -> Callable[[int, str], None]:
        if self._closing:
            return _closed_already
        self._closing = True
        self._forget_arriving()
        return self._send_close

    def _send_close(self, code: int, reason: str) -> None:
        self._owner.count_close(self._client, code, reason)
        if code not in FINAL_CODES and self._client.generation.clean_close_is_final:
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
            self._owner.budget.arriving(self, held)
        if not self._closing:
            self._take(messages)

    def _take(self, messages: list[Message]) -> None:
        """Handle *messages*, until the inbox is full or other sockets must have their turn.

        One read can hold thousands. The rest then waits, and nothing more is read.
        """
        owner, client = self._owner, self._client
        hub = owner.hub
        until = hub.now() + SLICE
        for taken, message in enumerate(messages, 1):
            kind = type(message)
            if kind is str or kind is bytes:
                if self._pings is not None:
                    self._answer_pings()  # before what this message makes leave
                owner.received(client, self, message)  # type: ignore[arg-type]
            elif kind is frames.Ping:
                client.session.alive(hub.now())
                if self._pings is None:
                    self._pings = []
                self._pings.append(message.payload)  # type: ignore[union-attr]
            elif kind is frames.Pong:
                client.session.alive(hub.now())
            else:
                self._answer_pings()
                code = message.code  # type: ignore[union-attr]
                self.mute()
                self._leave(session.NORMAL if code in (None, 1005) else code)  # as it says
            if self._closing:
                return
            if taken < len(messages) and (self._full or hub.now() > until):
                self._waiting = messages[taken:]
                self._link.pause()
                if not self._full:
                    hub.call_soon(self._go_on)
                break
        self._answer_pings()
        if self._waiting is None and self._reader.failed is not None:
            owner.counters["protocol_errors"] += 1
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
        # RFC 6455 5.5.3: answering the most recent ping is enough. So pongs cannot pile up for a
        # peer that reads nothing, or after a read of thousands of pings.
        if self._link.stalled_since is not None:
            del pings[:-1]
            return
        self._pings = None
        self._link.write(b"".join(map(frames.pong_frame, pings[-PONGS:])))

    def link_writable(self) -> None:
        self._answer_pings()
        self.wake()

    def give_up(self) -> None:
        """Drop the unfinished message: too much is arriving in this worker."""
        self._arriving = False
        self._reader = FrameReader("server", 0)
        self.end(session.TRY_LATER, "too much is arriving: try later")

    def _forget_arriving(self) -> None:
        if self._arriving:
            self._arriving = False
            self._owner.budget.arriving(self, 0)

    def link_closed(self, error: Exception | None) -> None:
        self._closing = True
        self._forget_arriving()
        self._owner.lost(self._client, self)

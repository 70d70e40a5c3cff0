"""A link to the server, what goes over it, and the protocols between it and its owner.

A link is one WebSocket, or one series of polls with its POSTs. The session (session.py) decides
about links, a transport (websocket.py, polling.py) does the work on the network, and the engine
(engine.py) stands between them. Nothing here decides or waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ..protocol.wire import Data

MAX_MESSAGE = 16 * 1024 * 1024  # bytes of one message from a server

Kind = Literal["ws", "ajax"]


class Link:
    """One WebSocket, or one series of polls.

    :ivar kind: ``"ws"`` or ``"ajax"``.
    :ivar cursor: the cursor that the server was told when the link was opened.
    :ivar confirmations_left: how many messages still have to prove that the link works. Until
        none is left, the link is on trial.
    :ivar buffered: frames that came during the trial, with their sizes.
    :ivar has_credentials: the application has said which credentials to use.
    :ivar opened: the server accepted the WebSocket.
    :ivar busy: events given to it have not left yet.
    :ivar pinging: a ping is unanswered.
    :ivar due: when its silence means something.
    :ivar transport: what carries it, set by the engine.
    """

    __slots__ = (
        "buffered",
        "busy",
        "confirmations_left",
        "cursor",
        "due",
        "has_credentials",
        "kind",
        "opened",
        "pinging",
        "transport",
    )

    def __init__(self, kind: Kind, cursor: str | None) -> None:
        self.kind = kind
        self.cursor = cursor
        # A WebSocket has to prove that bytes pass both ways: by a handshake and a pong.
        self.confirmations_left = 2 if kind == "ws" else 1
        self.buffered: list[tuple[tuple[Any, Any, Any], int]] = []
        self.has_credentials = False
        self.opened = False
        self.busy = False
        self.pinging = False
        self.due: float | None = None
        self.transport: Transport | None = None

    def __repr__(self) -> str:
        return f"<Link {self.kind} confirmations_left={self.confirmations_left}>"


@dataclass(frozen=True)
class LinkClosed:
    """How a link ended, as far as is known.

    :ivar code: of the close frame; 1006 where none came.
    :ivar why: a close reason of docs/protocol.rst, "The state of a client".
    :ivar status: of an HTTP refusal.
    :ivar retry_after: seconds that the server asked to wait.
    :ivar error: what a WebSocket failed with.
    """

    code: int | None = None
    reason: str = ""
    why: str = "unexpected"
    status: int | None = None
    message: str = ""
    retry_after: float | None = None
    error: str | None = None


class Outgoing:
    """One event on its way to the server; one with an *id* waits for its reply.

    :ivar name: the event's id.
    :ivar piece: the packed event alone, for batches.
    :ivar data: the packed message.
    :ivar key: lets it be sent again after a cut: the server dispatches one key once.
    :ivar key_scope: the user, client id and epoch for which the key holds; set when it is sent.
    :ivar key_expires: until when the key holds.
    :ivar key_wall: the time of day minus the steady clock when it began to hold.
    :ivar waits: it is a request. While no connection is open, it waits for the next one.
    :ivar user: whose it is, while it waits for an opening.
    :ivar due: when its reply is overdue.
    :ivar via: the link that it was given to.
    :ivar lost: no link took it.
    """

    __slots__ = (
        "cb",
        "data",
        "due",
        "id",
        "key",
        "key_expires",
        "key_scope",
        "key_wall",
        "lost",
        "name",
        "piece",
        "timeout",
        "user",
        "via",
        "waits",
    )

    def __init__(
        self,
        name: str,
        piece: Any,
        data: Data,
        id: str | None = None,
        cb: Any = None,
        timeout: float = 0.0,
        key: str | None = None,
        waits: bool = False,
    ) -> None:
        self.name = name
        self.piece = piece
        self.data = data
        self.id = id
        self.cb = cb
        self.timeout = timeout
        self.key = key
        self.waits = waits
        self.user: Any = None
        self.key_scope: tuple[Any, ...] | None = None
        self.key_expires = 0.0
        self.key_wall = 0.0
        self.due = 0.0
        self.via: Link | None = None
        self.lost = False

    def __repr__(self) -> str:
        return f"<Outgoing {self.name} id={self.id!r}>"


class Transport(Protocol):
    """Carries one link.

    :meth:`take` and :meth:`end` are called under the owner's lock and never block;
    :meth:`flush` is called without the lock and may block until the peer took what it was given.
    """

    def start(self) -> None:
        """Begin, in a thread of its own."""

    def take(self, outgoing: Outgoing) -> bool:
        """Put *outgoing* in line; False where nothing leaves any more."""

    def end(self, code: int) -> None:
        """End in good order; a WebSocket's close frame has *code*."""

    def flush(self) -> None:
        """Send what is in line."""

    def restart(self) -> None:
        """Begin the poll anew: the network that it waits on may be gone."""

    def hurry(self) -> None:
        """End what only waits for replies: nobody wants them any more."""

    def cut(self) -> None:
        """End at once, from any thread."""


class Owner(Protocol):
    """To whom a transport reports, from any thread, never under the owner's lock."""

    def opened(self, link: Link) -> None:
        """The server accepted a WebSocket."""

    def received(self, link: Link, data: Data) -> str | None:
        """A message came; returns its value where that is a word, such as ``"chsk/timeout"``."""

    def heard(self, link: Link) -> None:
        """A sign of life came that is no message."""

    def closed(self, link: Link, how: LinkClosed) -> None:
        """The link ended by itself."""

    def finished(self, transport: Transport) -> None:
        """The transport has no thread any more."""


class PostOwner(Owner, Protocol):
    """The owner of a link that sends each event by a POST."""

    def may_poll(self) -> bool:
        """Whether a new poll may begin: it would take the client back from a WebSocket on trial."""

    def post_answered(self, outgoing: Outgoing, data: Data) -> None:
        """The server answered a POST with *data*."""

    def post_interrupted(self, outgoing: Outgoing) -> None:
        """A POST ended without an answer: it is not known whether *outgoing* arrived."""

    def post_failed(self, outgoing: Outgoing, reply: Any, details: Any = None) -> None:
        """A POST was refused or timed out: *reply* is ``chsk/error`` or ``chsk/timeout``."""

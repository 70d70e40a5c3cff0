"""One client of this process, and how it asked to be let in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from ..protocol.generations import CURRENT, Generation
from ..protocol.session import ServerSession
from ..protocol.wire import Composer
from ..transports.longpoll import Poller
from ..transports.transport import Transport

Uid = str | None
Owner = tuple[Uid, str, str]
"""The uid, the client id, and the digest of the client's secret."""


class Asked(NamedTuple):
    """When it was asked who somebody is: a later close concerns them, however late they come in."""

    offset: int = 0
    lapses: int = 0  # how often this process may have missed a close


NEVER = Asked()


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
    digest: str = field(default="", repr=False)  # of its secret; "" where it is one of Sente's
    generation: Generation = CURRENT
    cursor: str | None = None
    trusted: bool = False  # its resume token is ours
    since: int = 0  # the offset of the handshake that gave it
    asked: Asked = NEVER
    data: Any = None  # the application's handshake data, a piece of its composer
    csrf_token: Any = field(default=None, repr=False)  # another piece
    resume: Callable[[int], str] | None = None  # makes the token it gets, of where its time began
    number: int | None = None  # polls of our clients count up

    @property
    def owner(self) -> Owner:
        """Whose keyed sends these are."""
        return self.uid, self.client_id, self.digest


class Entered(NamedTuple):
    """A client that was let in; *recovered* is None where it did not ask for what it missed."""

    opening: Opening
    connection: Connection
    recovered: bool | None
    known: bool = False  # another process had it
    number: int = 0  # of this opening, among those of the connection
    since: int = 0  # the offset of this opening


class Deadlines(Protocol):
    """Who does what is due of connections."""

    def look_at(self, connection: Connection, now: float) -> float | None:
        """Do what is due of one; when to look again, None: never."""


class Connection:
    """One client of this process: its session, its transport, its request."""

    __slots__ = (
        "_deadlines",
        "asked",
        "catching",
        "digest",
        "filed",
        "flushed",
        "gap_due",
        "generation",
        "kind",
        "lost_at",
        "openings",
        "poller",
        "request",
        "served",
        "serving",
        "session",
        "since",
        "token",
        "transport",
        "trial",
    )

    def __init__(self, deadlines: Deadlines, session: ServerSession, kind: str) -> None:
        self._deadlines = deadlines
        self.session = session
        self.kind = kind
        self.digest = ""  # of the client's secret; "" where it is one of Sente's
        self.generation = CURRENT
        self.transport: Transport | None = None
        self.poller: Poller[Connection] | None = None  # the transport, where the client polls
        self.trial: Transport | None = None  # a poller tries it, and has said nothing on it yet
        self.request: KeptRequest | None = None  # of the handshake
        self.flushed = 0.0  # when a batch last left
        self.lost_at: float | None = None  # since when there is no socket or poll
        self.filed: float | None = None  # the deadline it waits for
        self.gap_due = False  # it missed what it was not known to be owed
        self.catching = False  # a page of history is being read
        self.asked = 0  # the offset when its opening asked who this is
        self.since = 0  # the offset of its opening: what was decided before was done
        self.openings = 0  # of two that overlap the later one counts
        self.token = ""  # of its opening, at the broker
        self.served = 0  # a poller without a cursor: the broker knows it is served up to here
        self.serving = False  # the broker is being told

    @property
    def key(self) -> tuple[Uid, str]:
        """What it is found by."""
        return self.session.uid, self.session.client_id

    @property
    def owner(self) -> Owner:
        """Whose keyed sends these are."""
        return self.session.uid, self.session.client_id, self.digest

    def due(self, now: float) -> float | None:
        """The next deadline after doing what is due now; None for a stale one."""
        if self.filed is None or now < self.filed:
            return None
        self.filed = self._deadlines.look_at(self, now)
        return self.filed

"""One client of this worker: how it asked to be let in, and the states of its connection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple, Protocol, cast

from ..hub import Waiter
from ..protocol.generations import CURRENT, Generation
from ..protocol.session import TRY_LATER, Rules, ServerSession
from ..protocol.wire import Composer
from ..security import Began
from ..transports.longpoll import Poller
from ..transports.transport import Transport

Uid = str | None
Key = tuple[Uid, str]
"""The uid and the client id."""
Owner = tuple[Uid, str, str]
"""The uid, the client id, and the digest of the client's secret."""


class Asked(NamedTuple):
    """When a request asked the application who its user is. A later close applies to that user."""

    offset: int = 0
    lapses: int = 0  # how often this process may have missed a close


NEVER = Asked()
ANEW = Began(0, 0)  # nothing proves that a client was here before


class KeptRequest(Protocol):
    """The request behind a connection, kept small while nobody looks at it."""

    def context(self, app: Any) -> Any:
        """The application's context for one event."""

    def rest(self) -> None:
        """Let go of what can be made again."""


@dataclass(frozen=True)
class Opening:
    """A checked handshake, poll or POST: whose it is, and what its client speaks."""

    uid: Uid
    client_id: str
    composer: Composer
    request: KeptRequest | None = None
    v1: bool = False
    digest: str = field(default="", repr=False)  # of its secret; "" where it is one of Sente's
    generation: Generation = CURRENT
    expires_at: float | None = None  # of the identity, by the hub's clock; None: never
    cursor: str | None = None
    trusted: bool = False  # the cursor is a page's, or its resume token is ours
    began: Began = ANEW  # what it proves
    page: bool = False  # the cursor is one of a page, which has had no handshake yet
    asked: Asked = NEVER
    data: Any = None  # the application's handshake data, a piece of its composer
    csrf_token: Any = field(default=None, repr=False)  # another piece
    resume: Callable[[Began], str] | None = None  # makes the token that it gets
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
    began: Began = ANEW  # where the client's time began
    starts: int = 0  # how often the session had begun anew by then

    @property
    def goes_on(self) -> bool | None:
        """*recovered*, but False where the session has begun anew since, by another request.

        That request's handshake may never be heard of.
        """
        return self.recovered and self.connection.starts == self.starts

    @property
    def is_latest(self) -> bool:
        """Whether the client was neither closed since, nor let in by another request."""
        return not self.connection.gone and self.connection.openings == self.number


class State(Enum):
    """What carries a client's messages now."""

    ABSENT = "absent"  # nothing: the client was let in just now, or its WebSocket is gone
    WS = "ws"  # a WebSocket
    PARKED = "parked"  # a poll that waits
    BETWEEN_POLLS = "between_polls"  # the last poll was answered
    GONE = "gone"  # nothing ever again: the worker has forgotten the client


class Change(Enum):
    """What changes the state."""

    SOCKET = "socket"  # it is given a WebSocket
    POLLER = "poller"  # it polls from now on
    PARK = "park"  # a poll begins to wait
    ANSWER = "answer"  # the poll was answered, or its peer went away
    LOSE = "lose"  # the WebSocket is gone
    FORGET = "forget"


_GIVEN = {Change.SOCKET: State.WS, Change.POLLER: State.BETWEEN_POLLS, Change.FORGET: State.GONE}
TRANSITIONS: dict[State, dict[Change, State]] = {
    State.ABSENT: {**_GIVEN},
    State.WS: {**_GIVEN, Change.LOSE: State.ABSENT},
    State.PARKED: {**_GIVEN, Change.ANSWER: State.BETWEEN_POLLS},
    State.BETWEEN_POLLS: {
        **_GIVEN,
        Change.PARK: State.PARKED,
        Change.ANSWER: State.BETWEEN_POLLS,  # at once: it did not wait
    },
    State.GONE: {},
}
"""Each state, with what can happen in it and the state that follows.

A client that polls may have a WebSocket on trial besides: its polls carry everything until the
socket has proved to work (:attr:`Connection.trial`). A trial is no state of its own.
"""


def transition_table() -> str:
    """:data:`TRANSITIONS` as text: a line for each state, a column for each change."""
    rows = [["", *(change.value for change in Change)]]
    for state, changes in TRANSITIONS.items():
        after = (changes.get(change) for change in Change)
        rows.append([state.value, *("-" if one is None else one.value for one in after)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


class Deadlines(Protocol):
    """Who does what is due of connections."""

    def check_deadlines(self, connection: Connection, now: float) -> float | None:
        """Do what is due of one; when to check again, None: never."""


class Connection:
    """One client of this worker: its session, its transport, its request.

    Its state, and what hangs on it, is changed by its methods only; they follow
    :data:`TRANSITIONS`.
    """

    __slots__ = (
        "_begins_at",
        "_deadlines",
        "asked",
        "digest",
        "flushed",
        "gap_due",
        "generation",
        "kind",
        "lost_at",
        "next_check_at",
        "openings",
        "own",
        "registered_at",
        "request",
        "served",
        "session",
        "since",
        "starts",
        "state",
        "token",
        "transport",
        "trial",
    )

    def __init__(
        self, deadlines: Deadlines, session: ServerSession, kind: str, now: float = 0.0
    ) -> None:
        self._deadlines = deadlines
        self.session = session
        self.state = State.ABSENT
        self.transport: Transport | None = None
        self.lost_at: float | None = now  # since when no socket or waiting poll is there
        self.trial: Transport | None = None  # a poller's WebSocket that has said nothing yet
        self.kind = kind  # as the registry counts it: that of the last transport
        self.flushed = 0.0  # when a batch last left
        self.next_check_at: float | None = None
        # Of the latest opening:
        self.digest = ""  # of the client's secret; "" where it is one of Sente's
        self.generation = CURRENT
        self.request: KeptRequest | None = None  # of the latest WebSocket's handshake
        self.asked = 0  # the offset when it was asked who this is
        self.since = 0  # its own offset: what was decided before was done
        self.starts = 0  # how often the session began anew
        self.openings = 0  # of two that overlap the later one counts
        self.token = ""  # its name at the broker
        self.registered_at = 0  # the offset at which the broker gave it that name
        self.own = 0  # from here on it is owed what is sent to this client alone
        self._begins_at = 0  # where a handshake let the page begin; 0: a poll has confirmed it
        # Of reading history (replay.py):
        self.gap_due = False  # the client missed what it was not known to be owed
        # Of a poller without a cursor (polls.py):
        self.served = 0  # the broker knows that it is served up to here

    def __repr__(self) -> str:
        return f"<Connection of {self.session.uid!r}: {self.state.value}>"

    @property
    def key(self) -> Key:
        """The key of the registry."""
        return self.session.uid, self.session.client_id

    @property
    def owner(self) -> Owner:
        """Whose keyed sends its are, in the idempotency cache."""
        return self.session.uid, self.session.client_id, self.digest

    @property
    def gone(self) -> bool:
        """Whether the worker has forgotten the client."""
        return self.state is State.GONE

    @property
    def poller(self) -> Poller[Connection] | None:
        """The transport, where the client polls."""
        if self.state in (State.PARKED, State.BETWEEN_POLLS):
            return cast("Poller[Connection]", self.transport)
        return None

    # what changes the state ----------------------------------------------------------------

    def _change(self, change: Change, lost_at: float | None) -> None:
        after = TRANSITIONS[self.state].get(change)
        if after is None:
            raise RuntimeError(f"{change.value} cannot happen to a connection that is {self.state}")
        self.state = after
        self.lost_at = lost_at

    def attach_socket(self, websocket: Transport, now: float) -> Transport | None:
        """A WebSocket carries its messages from now on; the transport before it."""
        self._change(Change.SOCKET, None)
        return self._attach(websocket, now)

    def attach_poller(self, poller: Poller[Connection], now: float) -> Transport | None:
        """Polls carry its messages from now on; the transport before them."""
        self._change(Change.POLLER, now)
        return self._attach(poller, now)

    def _attach(self, transport: Transport, now: float) -> Transport | None:
        before, self.transport = self.transport, transport
        self.flushed = 0.0
        self.session.change_transport(transport.kind, now)
        return before

    def park(self, waiter: Waiter) -> None:
        """A poll begins to wait."""
        poller = self.poller
        self._change(Change.PARK, None)
        assert poller is not None
        poller.park(waiter)

    def answered(self, now: float) -> None:
        """A poll was answered, or its peer went away."""
        self._change(Change.ANSWER, now)

    def lose(self, now: float) -> Transport | None:
        """Its WebSocket carries nothing any more; that WebSocket."""
        self._change(Change.LOSE, now)
        transport, self.transport = self.transport, None
        return transport

    def forget(self) -> Transport | None:
        """It is gone for good; the transport that it had."""
        self._change(Change.FORGET, None)
        self.next_check_at = None
        transport, self.transport = self.transport, None
        return transport

    def replace_trial(self, websocket: Transport | None) -> Transport | None:
        """Try another WebSocket, or none; the one that was tried."""
        before, self.trial = self.trial, websocket
        return before

    # a page has several links --------------------------------------------------------------

    def greet(self, begins_at: int) -> None:
        """A handshake tells the page where it begins, or goes on."""
        self._begins_at = begins_at

    def confirm(self, cursor: int) -> None:
        """A poll shows how far the page has come: whether the page heard where it begins."""
        if cursor >= self._begins_at:
            self._begins_at = 0

    def is_overtaken(self, opening: Opening, kind: str, cursor: int | None) -> bool:
        """Whether another link of the same page was faster than the request of *opening*.

        That request knows less of the page than the session does.

        :param kind: of the request: ``"ws"``, ``"ajax"`` or ``"poll"``.
        :param cursor: of the request; None where it does not hold, as that of another user.
        """
        one = self.session
        if not (one.v1 and opening.v1 and self.digest == opening.digest):
            return False  # another page
        if opening.cursor is None:
            return True  # it was made before the page had a cursor
        polls = self.poller is not None and not self._begins_at
        if cursor is None:
            return polls and kind == "ws"  # a poll is the latest that the page asked for
        return polls and cursor <= one.acked

    def start_at(self, offset: int, *, after_page: bool = False) -> None:
        """Begin the session at *offset*: nothing from before is owed, nor that it is missing.

        The handshake of a WebSocket on trial told the page where the session was before, so the
        page has to come back if it takes that one.
        """
        trial = self.replace_trial(None)
        if trial is not None:
            trial.end(TRY_LATER, "its client began anew by another request")
        self.gap_due = False
        self.starts += 1
        self.session.start_at(offset, after_page=after_page)

    # what else changes ---------------------------------------------------------------------

    def opened(
        self,
        opening: Opening,
        kind: str,
        token: str | None,
        since: int,
        now: float,
        own: int = 0,
    ) -> int:
        """Another handshake or poll of the client was let in; its number.

        :param kind: of the request: ``"ws"``, ``"ajax"`` or ``"poll"``.
        :param token: of this opening, at the broker; None: the one before holds.
        :param since: its offset.
        :param own: from where on it is owed what is sent to this client alone.
        """
        self.own = own
        self.digest = opening.digest
        self.generation = opening.generation
        self.asked = opening.asked.offset
        self.since = since
        self.openings += 1
        if kind == "ws":
            self.request = opening.request
        if token is not None:
            self.register(token, since)
        if self.state is State.ABSENT:
            self.lost_at = now
        return self.openings

    def register(self, token: str, offset: int) -> None:
        """The broker knew the client by *token* at *offset*.

        Its answers to two calls may come in the other order: the later call counts.
        """
        if offset >= self.registered_at:
            self.token, self.registered_at = token, offset

    def count_as(self, kind: str) -> None:
        """The registry counts the client as one on this kind of transport."""
        self.kind = kind

    def owe_gap(self) -> None:
        """Tell the client that it missed something, once the broker has said where it is."""
        self.gap_due = True
        self.session.fall_behind()

    def note_served(self, offset: int) -> None:
        """The broker knows that the client, which keeps no cursor, is served up to *offset*."""
        self.served = offset

    def begin_epoch(self, rules: Rules) -> None:
        """The broker counts anew: offsets from before mean nothing."""
        self.asked = self.since = self.served = self.registered_at = 0
        self.gap_due = False
        self.session.begin_epoch(rules)

    def note_flush(self, now: float) -> None:
        """A batch leaves."""
        self.flushed = now

    def may_flush(self, now: float, window: float) -> bool:
        """Whether a batch may leave now: none did for *window* seconds. Then this one does."""
        if now - self.flushed < window:
            return False
        self.flushed = now
        return True

    def check_by(self, when: float) -> bool:
        """See to a check by *when*; False: there is one before, or nothing to check any more."""
        if self.gone or (self.next_check_at is not None and self.next_check_at <= when):
            return False
        self.next_check_at = when
        return True

    def due(self, now: float) -> float | None:
        """The next deadline after doing what is due now; None for a stale one."""
        if self.next_check_at is None or now < self.next_check_at:
            return None
        self.next_check_at = self._deadlines.check_deadlines(self, now)
        return self.next_check_at

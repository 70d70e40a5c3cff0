"""What a client decides, as values: which link to try, to trust, to leave, and what it heard.

The other end of :mod:`flask_chsk.protocol.session`, on the same names and numbers; the twin of
``static/chsk.js``. No socket, thread, clock or log: calls say what happened and when
(``now``, seconds of any steady clock), and :meth:`ClientSession.take_effects` says what is
to be done about it. It never sends an event twice and never delivers one twice.

A link is one WebSocket or one series of polls. There is at most one that is trusted
(``link``), one that is being tried (``candidate``), and polls beside that (``beside``).
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from ..errors import PackError, UnpackError
from ..protocol.backoff import STABLE, exp_backoff
from ..protocol.event import Event, as_event, is_event
from ..protocol.session import (
    ANSWER,
    ASK,
    BAD_PACKAGE,
    BAD_PACKAGE_SHOWN,
    BATCH,
    CLOSE,
    CLOSED,
    CLOSED_BY_APP,
    ERROR,
    GAP,
    HANDSHAKE,
    NORMAL,
    PING_UNANSWERED,
    REPLACED,
    RESTART,
    SIGNED_OUT,
    TIMEOUT,
    TRY_LATER,
    WS_PING,
    WS_PONG,
)
from ..protocol.wire import Composer, Data
from ..values import Keyword

Kind = Literal["ws", "ajax"]
State = Mapping[str, Any]

PING = "ping"  # the callback id of keep-alives; those of sends are c1, c2, …
STATE = Keyword("chsk/state")

PROBE = 3.0  # seconds: a server that lives answers before a user loses patience
SPREAD = 2.0  # seconds over which to come back after a restart that names none
UPGRADE = 30.0  # seconds from a fallback to the next try of a WebSocket, then doubling
UPGRADE_CAP = 600.0
RETURN = 2.0  # the first wait where WebSockets have worked: then a cut led to Ajax
AGAIN = 1.0  # seconds until what a failed POST carried is said again
BESIDE = 1.0  # seconds of silence of a WebSocket that is tried: then polls are tried beside it
BRIEF = 2  # WebSockets in a row that were cut within STABLE: then polls for a while
HURRY = 1.0  # seconds between two waits that connect() cuts short
REQUESTS = 1000  # that wait for an opening
BATCH_EVENTS = 64  # half of what the server lets wait for one client's handlers
KEEP = 100.0  # seconds for which a key holds: the server's 120 less what may be under way
WOKEN = 5.0  # seconds by which the wall clock runs ahead where the machine slept

REQUESTED_RECONNECT = 3000  # close codes of ours, for logs of the server
BROKEN = 3001

# Close codes after which a client stays closed, and the reason it tells:
# docs/protocol.rst, "Close codes".
_FINAL = {NORMAL: "clean", REPLACED: "replaced", SIGNED_OUT: "signed-out"}
# What refuses a client refuses it over either transport.
_REFUSED = (401, 403)
_HELD = 409  # somebody else has this client id
_SPOKEN = (*_REFUSED, _HELD, 429, 503)
_NIL_UIDS = ("sente/nil-uid", "taoensso.sente/nil-uid")
AT_REST = ("closed", "refused", "destroyed")
_UNKNOWN: Any = object()  # a user of whom the server has not told yet
_WORDS = (CLOSED, TIMEOUT, ERROR)


class Link:
    """One WebSocket, or one series of polls.

    ``wants``: how much must come before it is trusted; ``held``: what came till then;
    ``asked``: the credentials are known; ``cursor``: what the server was told; ``opened``: the
    server accepted it; ``busy``: events are still leaving; ``due``: when its silence means
    something.
    """

    __slots__ = (
        "asked",
        "busy",
        "cursor",
        "due",
        "held",
        "kind",
        "opened",
        "pinging",
        "transport",
        "wants",
    )

    def __init__(self, kind: Kind, cursor: str | None) -> None:
        self.kind = kind
        self.cursor = cursor
        # A WebSocket has to prove that bytes pass both ways: a handshake, and a pong.
        self.wants = 2 if kind == "ws" else 1
        self.held: list[tuple[tuple[Any, Any, Any], int]] = []
        self.asked = False
        self.opened = False
        self.busy = False
        self.pinging = False
        self.due: float | None = None
        self.transport: Any = None  # whoever does what is decided here keeps theirs here

    def __repr__(self) -> str:
        return f"<Link {self.kind} wants={self.wants}>"


class Item:
    """One message on its way; with an *id* it waits for its reply.

    One with a *key* may be said again after a cut: the server dispatches it once, for the
    same user, within the same ``life`` of its counter and until ``keep``. ``lost``: the link
    that got it did not take it. One that ``waits`` is a request: while it is not open, it is
    held for the next opening, for the same ``user``.
    """

    __slots__ = (
        "cb",
        "data",
        "due",
        "id",
        "keep",
        "key",
        "life",
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
        self.piece = piece  # the packed event alone
        self.data = data
        self.id = id
        self.cb = cb
        self.timeout = timeout
        self.key = key
        self.waits = waits
        self.user: Any = None
        self.life: Any = None
        self.keep = 0.0
        self.due = 0.0
        self.via: Link | None = None
        self.lost = False


@dataclass(frozen=True)
class Cut:
    """How a link ended, as far as known.

    *why* is a close reason of docs/protocol.rst, "The state of a client"; *status*, of a refusal;
    *retry_after*, seconds the server asked to wait; *error*, what a WebSocket failed with.
    """

    code: int | None = None
    reason: str = ""
    why: str = "unexpected"
    clean: bool = False
    status: int | None = None
    message: str = ""
    retry_after: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class Options:
    """The numbers a client goes by, in seconds."""

    type: Literal["auto", "ws", "ajax"] = "auto"
    ws_kalive: float = 25.0
    ws_ping_timeout: float = 10.0
    connect_timeout: float = 5.0
    offline_queue: int = 0
    client_id: str | None = None  # the application's; None: a new one, and another where it is held
    backoff: Callable[[int], float] = exp_backoff


# What is to be done ----------------------------------------------------------------------


class Open(NamedTuple):
    """Begin *link*: ask for credentials, connect, and tell what comes."""

    link: Link


class End(NamedTuple):
    """End *link*; a WebSocket's close frame has *code*."""

    link: Link
    code: int


class Again(NamedTuple):
    """Begin the poll of *link* anew: it may hang on a network that is gone."""

    link: Link


class Say(NamedTuple):
    """Send *item* over *link*."""

    link: Link
    item: Item


class Deliver(NamedTuple):
    """*event* is for the application; *pushed*: a server sent it to this user.

    *size*: its part of the bytes, or characters, of the message that it came in.
    """

    event: Event
    pushed: bool = False
    size: int = 0


class Asked(NamedTuple):
    """The server asks *event* and waits for the answer to *id*."""

    id: str
    event: Event


class Replied(NamedTuple):
    """*item* has its reply; *details* are what came beside a ``chsk/error``."""

    item: Item
    reply: Any
    details: Any = None


class Dropped(NamedTuple):
    """*item* waited for an opening; then the user was another, or the client was closed."""

    item: Item
    why: str


class Changed(NamedTuple):
    """The state became another."""

    old: State
    new: State


Effect = Open | End | Again | Say | Deliver | Asked | Replied | Dropped | Changed


class ClientSession:
    """One client, over all its links."""

    def __init__(
        self,
        composer: Composer,
        options: Options,
        *,
        random: Callable[[], float],
        new_id: Callable[[], str],
        wall: float = 0.0,
    ) -> None:
        """
        :param random: evenly from 0 to 1.
        :param new_id: makes a client id.
        :param wall: the time of day minus ``now``, in seconds; :meth:`tick` keeps it.
        """
        self.composer = composer
        self.options = options
        self.client_id = options.client_id or new_id()
        self.link: Link | None = None
        self.candidate: Link | None = None
        self.beside: Link | None = None  # polls that are tried beside a WebSocket
        self.last: Link | None = None  # replaced, and may still post what it was given
        self.resume: str | None = None
        self.server: dict[Any, Any] = {}  # what the server told of itself
        self.csrf: str | None = None
        self.auth: str | None = None
        self.state: State = MappingProxyType(
            {
                "status": "closed",
                "type": options.type,
                "open": False,
                "ever_opened": False,
                "first_open": False,
                "uid": None,
                "csrf_token": None,
                "handshake_data": None,
                "last_ws_error": None,
                "last_ws_close": None,
                "last_close": None,
                "udt_next_reconnect": None,
            }
        )
        self._has_keywords = composer.has_keywords
        self._random = random
        self._new_id = new_id
        self._wall = wall
        self._cursor: tuple[str, int] | None = None  # how far events have come
        self._effects: list[Effect] = []
        self._timers: dict[str, float] = {}  # due times by name
        self._pending: dict[str, Item] = {}
        self._deadlines: list[tuple[float, int, Item]] = []
        self._sends = count(1)
        self._offline: list[Item] = []
        self._turn = 0  # how often all links were dropped
        self._again: list[Item] = []  # cut off, and to be said again
        self._tries = 0
        self._hurried = float("-inf")
        self._user: Any = _UNKNOWN  # whose connection this is
        self._renewed = False  # refused since the last opening, tried again with new credentials
        self._works: Kind | None = None  # the transport that worked last
        self._downgraded = False  # WebSockets failed where Ajax works
        self._failed: Cut | None = None  # how polls failed beside a WebSocket
        self._brief = 0  # WebSockets in a row that were cut soon
        self._adopted = float("-inf")  # when the link was
        self._upgrade_wait = UPGRADE
        self._upgraded = float("-inf")
        self._ping = self.item(Event(WS_PING), cb_id=PING)

    def take_effects(self) -> list[Effect]:
        """What is to be done, in this order; once."""
        effects, self._effects = self._effects, []
        return effects

    @property
    def cursor(self) -> str | None:
        """How far events have come, such as ``"e7f3:1042"``."""
        return None if self._cursor is None else f"{self._cursor[0]}:{self._cursor[1]}"

    @property
    def batches(self) -> bool:
        """Whether this server knows ``chsk/batch``."""
        return bool(self.server)

    @property
    def max_batch(self) -> int:
        """How many events may be in one message."""
        if not self.batches:
            return 1
        most = self.server.get("max-batch")
        return min(most, BATCH_EVENTS) if isinstance(most, int) and most > 0 else BATCH_EVENTS

    # sending -------------------------------------------------------------------------

    def item(
        self,
        event: Event,
        cb: Any = None,
        timeout: float = 0.0,
        *,
        cb_id: str | None = None,
        key: str | None = None,
        waits: bool = False,
    ) -> Item:
        """*event* packed, in the caller's thread; it waits for a reply where it has a *cb*.

        One with a *key* needs a *cb*: only its reply tells that it need not be said again.

        :param waits: it may wait for an opening, whatever ``offline_queue`` says.

        :raises PackError: for what cannot be packed, or is over the server's limit.
        """
        composer = self.composer
        id, data = event
        value = [Keyword(id)] if data is None else [Keyword(id), data]
        try:
            piece = composer.piece(value)
        except PackError as error:
            # The value that was packed is the event: its second element is what they gave.
            raise PackError(str(error).replace("data[1]", "data", 1)) from error.__cause__
        if cb_id is None and cb is not None:
            cb_id = f"c{next(self._sends)}"
        message = composer.compose(
            piece,
            None if cb_id is None else composer.piece(cb_id),
            None if key is None else composer.piece({"key": key}),
        )
        limit = self.server.get("max-bytes")
        if isinstance(limit, int) and len(message) * 4 > limit:
            size = len(message.encode() if isinstance(message, str) else message)
            if size > limit:
                raise PackError(f"data: {size} bytes, of the {limit} that the server takes")
        return Item(id, piece, message, None if cb is None else cb_id, cb, timeout, key, waits)

    def batch(self, items: list[Item]) -> Data:
        """Events without callbacks as one message."""
        if len(items) == 1:
            return items[0].data
        composer = self.composer
        events = composer.array([item.piece for item in items])
        return composer.compose(composer.array([composer.piece(BATCH), events]))

    def send(self, item: Item, now: float) -> bool:
        """Whether *item* leaves, or waits in line for the next opening."""
        status = self.state["status"]
        if item.id is not None:
            item.due = now + item.timeout
            self._pending[item.id] = item
            heapq.heappush(self._deadlines, (item.due, next(self._sends), item))
        if status in ("connecting", "waiting") and self._queue(item):
            return True
        if status == "open":
            self._transmit(item, now)
            return True
        self.reply(item, CLOSED)
        return False

    def _queue(self, item: Item) -> bool:
        """Whether it may wait for an opening."""
        before = sum(other.waits == item.waits for other in self._offline)
        if before >= (REQUESTS if item.waits else self.options.offline_queue):
            return False
        item.user = self._user
        self._offline.append(item)
        return True

    def answer(
        self, ask_id: str, now: float, *, value: Any = None, error: str | None = None
    ) -> None:
        """Answer an ask.

        :raises PackError: for a *value* that cannot be packed.
        """
        data = [ask_id, value] if error is None else [ask_id, None, error]
        item = self.item(Event(ANSWER, data))
        if self.state["open"]:
            self._transmit(item, now)

    def _transmit(self, item: Item, now: float) -> None:
        # What was given to the link before arrives before what is sent now.
        last = self.last
        link = last if last is not None and last.busy else self.link
        if link is None:
            self.reply(item, CLOSED)
            return
        if item.key is not None and item.life is None:
            item.life = self._life
            item.keep = now + KEEP
        item.via = link
        self._effects.append(Say(link, item))

    def posted(self, item: Item, data: Data) -> None:
        """*data* answered the POST of *item*."""
        try:
            value, _, details = self.composer.read(data)
        except UnpackError as error:
            value, details = ERROR, {"status": None, "message": f"no reply: {error}"}
        self.reply(item, value, details)

    def cut_off(self, item: Item, now: float) -> None:
        """Whether *item* arrived is not known: it is said again where that is safe."""
        if item.id not in self._pending or item in self._again:
            return
        if item.key is None or item.life is None or self.state["status"] in AT_REST:
            self.reply(item, CLOSED)
            return
        self._again.append(item)
        if self.state["open"]:  # a POST failed, the polls did not: not in a rush
            self._timers.setdefault("again", now + AGAIN)

    def _say_again(self, now: float) -> None:
        items, self._again = self._again, []
        for item in items:
            if item.id not in self._pending:
                continue
            if item.life == self._life and now < item.keep:
                self._transmit(item, now)
            else:
                self.reply(item, CLOSED)

    @property
    def _life(self) -> tuple[Any, ...]:
        """For whom, and in which life of the server, a key holds."""
        return self.state["uid"], self.client_id, self._cursor and self._cursor[0]

    def wanted(self, item: Item) -> bool:
        """Whether *item* has no reply yet, or expects none: what was rejected is not sent."""
        return item.id is None or item.id in self._pending

    def unsent(self, item: Item, now: float) -> None:
        """Its link did not take *item*."""
        # One that is closing takes nothing more: the next one may.
        if item.waits and item.via is not None and item.via.kind == "ws" and self._queue(item):
            item.via = None
            return
        self.cut_off(item, now)
        item.lost = item not in self._again

    def reply(self, item: Item, reply: Any, details: Any = None) -> None:
        """*item* has its reply; only the first counts."""
        if item.id is None or self._pending.pop(item.id, None) is None:
            return
        if type(reply) is str and reply in _WORDS and not self._has_keywords:
            reply = Keyword(reply)
        if item in self._offline:
            self._offline.remove(item)
        self._effects.append(Replied(item, reply, details))

    # coming and going ----------------------------------------------------------------

    def connect(self, now: float) -> None:
        """Open, where it is closed, and wait no longer, where it waits for the next attempt."""
        status = self.state["status"]
        if status in ("closed", "refused"):
            self.reconnect(now)
        elif status == "waiting" and now - self._hurried >= HURRY:
            self._hurried = now
            self._attempt(now)

    def reconnect(self, now: float) -> None:
        """Drop the connection, and open again at once."""
        if self._hang_up(REQUESTED_RECONNECT, "requested-reconnect", now):
            self._user = _UNKNOWN  # perhaps another from now on
            self._attempt(now)

    def disconnect(self, now: float) -> None:
        """Close, until :meth:`connect`."""
        if self._hang_up(NORMAL, "requested-disconnect", now):
            self._rest("closed")

    def destroy(self, now: float) -> None:
        """Close for good."""
        if self._hang_up(NORMAL, "requested-disconnect", now):
            self._rest("destroyed")

    def cut(self, now: float) -> None:
        """As if the network had cut the connection."""
        for link in (self.link,) if self.link is not None else (self.candidate, self.beside):
            if link is not None:
                self._effects.append(End(link, BROKEN))
                self.down(link, Cut(), now)

    def woken(self, now: float) -> None:
        """The machine slept, or the network changed: what is open may be dead."""
        if "retry" in self._timers:
            self._attempt(now)
        link = self.link
        if link is None:
            return
        if link.kind == "ajax":
            self._effects.append(Again(link))
        elif not link.pinging:
            self._probe(link, now, PROBE)

    def _hang_up(self, code: int, reason: str, now: float) -> bool:
        if self.state["status"] == "destroyed":
            return False
        was_open = self.state["open"]
        self._tries = 0
        self._renewed = False
        if self.link is not None:
            self._effects.append(End(self.link, code))
        self._drop(now)
        if was_open:
            self._set(last_close={"udt": self._udt(now), "reason": reason})
        return True

    def _drop(self, now: float) -> None:
        """No link any more, nor one that is being tried; what is next begins afresh."""
        link = self.link
        self._turn += 1
        for tried in (self.candidate, self.beside):
            if tried is not None:
                self._effects.append(End(tried, NORMAL))
        self.link = self.candidate = self.beside = None
        self.last = link or self.last
        if link is not None and link.kind == "ws":  # posts answer for themselves
            for item in [item for item in self._pending.values() if item.via is link]:
                self.cut_off(item, now)
        self._stop("retry", "stable", "upgrade", "beside", "again")

    def _rest(self, status: str) -> None:
        self._timers.clear()
        for item in list(self._pending.values()):
            self.reply(item, CLOSED)
        self._effects.extend(Dropped(item, status) for item in self._offline if item.id is None)
        self._offline.clear()
        self._again.clear()
        self.last = None
        self._set(status=status, udt_next_reconnect=None)

    def _stop(self, *timers: str) -> None:
        for name in timers:
            self._timers.pop(name, None)

    def _attempt(self, now: float, kind: Kind | None = None) -> None:
        wanted = self.options.type
        if kind is None:
            kind = wanted if wanted != "auto" else "ajax" if self._downgraded else "ws"
        self._stop("retry")
        self._failed = None
        self._set(status="connecting", type=kind, udt_next_reconnect=None)
        self._try(kind, now)

    def _try(self, kind: Kind, now: float) -> None:
        """Begin a link; it counts once it is trusted."""
        link = self.candidate = Link(kind, self.cursor)
        if kind == "ws":
            link.due = now + self.options.connect_timeout
            # Where none has worked yet, polls are tried beside it after some silence.
            if self.link is None and self.options.type == "auto" and self._works != "ws":
                self._timers["beside"] = now + BESIDE
        self._effects.append(Open(link))

    def shakes(self, link: Link) -> bool:
        """Whether a poll asks for a handshake, which evicts a WebSocket of ours at the server.

        Without it, a server that has one leaves that alone.
        """
        alone = link is not self.beside or self.candidate is None or self.state["ever_opened"]
        return bool(link.wants and alone)

    def opened(self, link: Link, now: float) -> None:
        """The server accepted a WebSocket: see whether bytes pass both ways."""
        link.opened = True
        if "beside" in self._timers:
            self._timers["beside"] = now + BESIDE
        if link is self.candidate or link is self.link:
            self._effects.append(Say(link, self._ping))

    def _adopt(self, link: Link, now: float) -> None:
        old = self.link
        self._stop("beside")
        if link is self.beside:
            self.beside = None  # the WebSocket is still tried
        else:
            self.candidate = None
            if self.beside is not None:
                self._effects.append(End(self.beside, NORMAL))
                self.beside = None
        self.link = link
        self._adopted = now
        link.wants = 0
        if old is not None:
            self._effects.append(End(old, NORMAL))
            self.last = old
            self._upgraded = now
        self._renewed = False
        self._timers["stable"] = now + STABLE
        self._works = link.kind
        self._downgraded = self.options.type == "auto" and link.kind == "ajax"
        if not self._downgraded:
            self._upgrade_wait = self._upgrade_wait if self._brief else RETURN
        elif self.candidate is None:
            self._upgrade_later(now)
        self._heard(link, now)
        held, link.held = link.held, []
        for frame, size in held:
            self._receive(link, frame, size, now)

    def _upgrade_later(self, now: float) -> None:
        self._timers["upgrade"] = now + self._upgrade_wait
        self._upgrade_wait = min(self._upgrade_wait * 2, UPGRADE_CAP)

    def down(self, link: Link, cut: Cut, now: float) -> None:
        """*link* ended by itself."""
        if not self._knows(link):
            return
        udt = self._udt(now)
        if link.kind == "ws":
            if cut.error is not None:
                self._set(last_ws_error={"udt": udt, "error": cut.error})
            close = {"udt": udt, "code": cut.code, "reason": cut.reason, "clean": cut.clean}
            self._set(last_ws_close=close)
        # What a server says it means. Any other end may be the fault of something between
        # that lets no WebSocket through, or none for long.
        code = cut.code or 0
        spoken = code >= 4000 or code in (NORMAL, RESTART, TRY_LATER) or cut.status in _SPOKEN
        blocked = link.kind == "ws" and self.options.type == "auto" and not spoken
        if link is self.link:
            instead = self._ended_soon(link, blocked, now)
        else:
            if link is self.beside:
                self.beside = None
                if self.candidate is not None:
                    self._failed = cut
                    return
            else:
                self.candidate = None
            if cut.code == REPLACED:
                self._upgrade_wait = RETURN  # by our own polls: WebSockets work
            if self.link is not None:
                self._upgrade_later(now)  # the polls go on, and nobody noticed
                return
            if self.beside is not None:
                return
            self._downgraded = False  # neither worked, so nothing is known of WebSockets
            instead = blocked and self._failed is None
            cut = self._failed or cut
        self._drop(now)
        if instead:
            self._set(last_close={"udt": udt, "reason": "downgrading-ws-to-ajax"})
            self._attempt(now, "ajax")
        else:
            self._retry(cut, now)

    def _ended_soon(self, link: Link, blocked: bool, now: float) -> bool:
        """Whether WebSockets are cut so soon that polls are the better way for a while."""
        if link.kind == "ajax":
            return False
        if now - self._adopted >= STABLE:
            self._brief = 0
            self._upgrade_wait = RETURN
        elif blocked:
            self._brief += 1
        if not blocked or self._brief < BRIEF:
            return False
        self._upgrade_wait = max(self._upgrade_wait, UPGRADE)
        return True

    def _knows(self, link: Link) -> bool:
        """Whether *link* is in use, or being tried."""
        return link is self.link or link is self.candidate or link is self.beside

    def _retry(self, cut: Cut, now: float) -> None:
        udt = self._udt(now)
        refused = cut.status in _REFUSED
        renew = refused and not self._renewed  # each attempt asks for credentials anew
        self._renewed = self._renewed or refused
        # Where our own change of transport crossed a poll of ours, nobody else replaced us.
        crossed = cut.code == REPLACED and now - self._upgraded < STABLE
        final = None
        if refused:
            final = None if renew else "refused"
        elif cut.code is not None and not crossed:
            final = _FINAL.get(cut.code)
        last_close = {"udt": udt, "reason": final or cut.why}
        message = cut.message or cut.reason or cut.error
        more = {"code": cut.code, "status": cut.status, "message": message or None}
        last_close.update((key, value) for key, value in more.items() if value is not None)
        self._set(last_close=last_close)
        if final is not None:
            self._rest("refused" if refused else "closed")
            return
        if cut.code == CLOSED_BY_APP:
            self._cursor = None  # a fresh session
        renamed = cut.status == _HELD and self.options.client_id is None
        if renamed:
            self.client_id = self._new_id()
            self.resume = None  # it was the old one's
        asked = None if renamed else cut.retry_after
        if asked is not None:
            wait = asked
        elif renew:
            wait = 0.0
        elif cut.code == RESTART:
            wait = self._random() * _spread(cut.reason)
        else:
            turn, attempt = self._turn, self._tries
            self._tries += 1
            wait = self.options.backoff(attempt)
            if turn != self._turn:
                return  # the application said what to do, from its backoff
        self._set(status="waiting", udt_next_reconnect=udt + int(wait * 1000))
        self._timers["retry"] = now + wait

    # receiving -----------------------------------------------------------------------

    def heard(self, link: Link, now: float) -> None:
        """A sign of life that is no message, such as a protocol-level ping."""
        if link is self.link:
            self._heard(link, now)

    def _heard(self, link: Link, now: float) -> None:
        if link.kind == "ws":
            link.pinging = False
            link.due = now + self.options.ws_kalive

    def receive(self, link: Link, data: Data, now: float) -> str | None:
        """Take one message of *link* in; its value, where that is a word."""
        if not self._knows(link):
            return None
        try:
            frame = self.composer.read(data)
        except UnpackError:
            shown = data if isinstance(data, str) else data.decode("latin-1")
            self._effects.append(Deliver(Event(BAD_PACKAGE, shown[:BAD_PACKAGE_SHOWN])))
            return ERROR
        value, cb, _ = frame
        if link is self.link:
            self._heard(link, now)
            self._receive(link, frame, len(data), now)
        else:
            # What an untrusted link says counts only when it is trusted: if it fails, the
            # next one begins at the same cursor, and nothing is lost or doubled.
            link.held.append((frame, len(data)))
            ids = [event[0] for event in _events(value) if is_event(event)]
            if CLOSE in ids:
                self._receive(link, frame, len(data), now)
            elif cb == PING or HANDSHAKE in ids:
                link.wants -= 1
                if not link.wants:
                    self._adopt(link, now)
        return str(value) if isinstance(value, str) else None

    def _receive(self, link: Link, frame: tuple[Any, Any, Any], size: int, now: float) -> None:
        value, cb, third = frame
        if cb is not None:
            if cb == PING:
                self._effects.append(Deliver(Event(WS_PONG)))
            elif isinstance(cb, str) and cb in self._pending:
                self.reply(self._pending[cb], value, third)
            return
        events = _events(value)
        epoch, offsets = _read_offsets(third)
        if value == WS_PING or (events and events[0][:1] == [WS_PING]):
            self._transmit(self.item(Event(WS_PONG)), now)
            self._effects.append(Deliver(Event(WS_PING)))
            events = []
        if not events:
            # A frame without events tells how far there is nothing more.
            if offsets and self._cursor is not None and epoch == self._cursor[0]:
                self._passes(epoch, offsets[0])
            return
        for index, event in enumerate(events):
            if not self._knows(link):
                return  # it was closed by what came before
            if index < len(offsets) and not self._passes(epoch, offsets[index]):
                continue
            self._event(link, as_event(event), size // len(events), now)

    def _passes(self, epoch: str, offset: int) -> bool:
        """Move the cursor; whether that is onwards."""
        here = self._cursor
        if here is not None and epoch == here[0] and offset <= here[1]:
            return False
        self._cursor = (epoch, offset)
        return True

    def _event(self, link: Link, event: Event, size: int, now: float) -> None:
        id, data = event
        if not id.startswith("chsk/"):
            self._effects.append(Deliver(event, True, size))
        elif id == HANDSHAKE and isinstance(data, list):
            self._handshake(link, [*data, None, None, None, None], now)
        elif id == CLOSE:  # over a link that has no close frames
            more = data if isinstance(data, dict) else {}
            code = more.get("code", NORMAL)
            self._effects.append(End(link, NORMAL))
            cut = Cut(code, str(more.get("reason", "")), "clean", True)
            self.down(link, cut, now)
        elif id == ASK and _is_ask(data):
            self._effects.append(Asked(str(data[0]), as_event(data[1])))
        elif id == GAP:
            self._effects.append(Deliver(Event(GAP)))
        else:
            self._effects.append(Deliver(event, True, size))

    def _handshake(self, link: Link, body: list[Any], now: float) -> None:
        uid, csrf, handshake_data, server = body[:4]
        was_open, ever_opened = self.state["open"], self.state["ever_opened"]
        self.server = server if isinstance(server, dict) else {}
        self.resume = self.server.get("resume", self.resume)
        recovered = self.server.get("recovered")
        epoch, offsets = _read_offsets(self.server.get("cursor"))
        # Where it is recovered, what was missed is still to come, above our own cursor.
        if offsets and not (link.cursor is not None and recovered):
            self._cursor = (epoch, offsets[0])
        if self.csrf is None:
            self.csrf = csrf
        if uid in _NIL_UIDS and isinstance(uid, Keyword):
            uid = None
        self._user = uid
        gap = link.cursor is not None and recovered is False
        self._set(
            status="open",
            type=link.kind,
            ever_opened=True,
            first_open=not ever_opened,
            uid=uid,
            csrf_token=self.csrf,
            handshake_data=handshake_data,
        )
        self._effects.append(Deliver(Event(HANDSHAKE, [uid, csrf, handshake_data])))
        if gap:
            self._effects.append(Deliver(Event(GAP)))
        if not was_open:
            self._say_again(now)
            offline, self._offline = self._offline, []
            for item in offline:
                if item.user is _UNKNOWN or item.user == uid:
                    self._transmit(item, now)
                else:
                    self._effects.append(Dropped(item, "the user changed"))
                    self.reply(item, CLOSED, {"message": "the user changed"})

    # time ----------------------------------------------------------------------------

    def next_due(self) -> float | None:
        """When :meth:`tick` has something to do."""
        dues = list(self._timers.values())
        for link in (self.link, self.candidate):
            if link is not None and link.due is not None:
                dues.append(link.due)
        deadlines = self._deadlines
        while deadlines and deadlines[0][2].id not in self._pending:
            heapq.heappop(deadlines)
        if deadlines:
            dues.append(deadlines[0][0])
        return min(dues, default=None)

    def tick(self, now: float, wall: float | None = None) -> None:
        """Do what is due.

        :param wall: the time of day minus *now*: where it jumped ahead, the machine slept.
        """
        if wall is not None:
            slept, self._wall = wall - self._wall, wall
            if slept > WOKEN:
                self.woken(now)
        for name, due in sorted(self._timers.items(), key=lambda timer: timer[1]):
            if due <= now and self._timers.pop(name, None) is not None:
                self._timer(name, now)
        for link in (self.link, self.candidate):
            if link is not None and link.due is not None and link.due <= now:
                self._silent(link, now)
        deadlines = self._deadlines
        while deadlines and deadlines[0][0] <= now:
            item = heapq.heappop(deadlines)[2]
            waiting = item in self._offline
            self.reply(item, TIMEOUT, {"message": "not open yet"} if waiting else None)

    def _timer(self, name: str, now: float) -> None:
        if name == "stable":
            self._tries = 0
        elif name == "again":
            self._say_again(now)
        elif name == "beside":
            self.beside = Link("ajax", self.cursor)
            self._effects.append(Open(self.beside))
        elif name == "upgrade":
            if self.candidate is None:
                self._try("ws", now)
        else:
            self._attempt(now)

    def _silent(self, link: Link, now: float) -> None:
        if link is self.candidate:
            self._effects.append(End(link, PING_UNANSWERED))
            silent = "no answer" if link.asked else "csrf_token, auth or chsk_url returned nothing"
            self.down(link, Cut(why="ws-error", error=f"{silent} within connect_timeout"), now)
        elif link.pinging:
            self._effects.append(End(link, PING_UNANSWERED))
            self.down(link, Cut(PING_UNANSWERED, why="ws-ping-timeout"), now)
        else:
            self._probe(link, now, self.options.ws_ping_timeout)

    def _probe(self, link: Link, now: float, within: float) -> None:
        link.pinging = True
        link.due = now + within
        self._effects.append(Say(link, self._ping))

    # state ---------------------------------------------------------------------------

    def _set(self, **changes: Any) -> None:
        old = self.state
        new = {**old, **changes}
        new["open"] = new["status"] == "open"
        self.state = MappingProxyType(new)
        self._effects.append(Changed(old, self.state))
        self._effects.append(Deliver(Event(STATE, self.state)))

    def _udt(self, now: float) -> int:
        return int((now + self._wall) * 1000)


def _spread(reason: str) -> float:
    found = re.search(r"spread=(\d{1,4})", reason)
    return float(found[1]) if found else SPREAD


def _events(value: Any) -> list[list[Any]]:
    """The events in a message's value: a vector of them, or one."""
    if not isinstance(value, list) or not value:
        return []
    return value if isinstance(value[0], list) else [value]


def _is_ask(data: Any) -> bool:
    return isinstance(data, list) and len(data) == 2 and is_event(data[1])


_OFFSETS = re.compile(r"([a-z0-9]{1,20}):([0-9]{1,16}(?:,\+[0-9]{1,16})*)")


def _read_offsets(text: Any) -> tuple[str, list[int]]:
    """``"e7f3:1042,+1,+7"`` as its epoch and offsets; none from anything else.

    docs/protocol.rst, "Pushes".
    """
    found = _OFFSETS.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return "", []
    offsets = []
    at = 0
    for step in found[2].split(","):
        at += int(step)
        offsets.append(at)
    return found[1], offsets

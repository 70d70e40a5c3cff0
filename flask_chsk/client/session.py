"""One client over all its links: what happened goes in, what is to be done comes out.

The other end of :mod:`flask_chsk.protocol.session`, on the same names and numbers; the twin of
``static/chsk.js``. It has no socket, thread, clock or log: calls say what happened and when
(``now``, seconds of any steady clock), and :meth:`ClientSession.take_effects` returns what is to be
done (effects.py). The choice of transport and the waits are in policy.py, packing, replies and
timeouts in requests.py.

A link is on trial until enough came over it (:attr:`Link.confirmations_left`); then it is
confirmed. There is at most one confirmed link, one on trial, and one series of polls on trial
beside a WebSocket that says nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from ..errors import UnpackError
from ..protocol.backoff import STABLE
from ..protocol.event import Event, as_event, is_event
from ..protocol.session import (
    ANSWER,
    ASK,
    BAD_PACKAGE,
    BAD_PACKAGE_SHOWN,
    CLOSE,
    CLOSED,
    CLOSED_BY_APP,
    ERROR,
    GAP,
    HANDSHAKE,
    NORMAL,
    PING_UNANSWERED,
    WS_PING,
    WS_PONG,
)
from ..protocol.wire import Composer, Data
from .cursor import Cursor, read_offsets
from .effects import STATE, Asked, Changed, Deliver, Effect, End, Open, Repoll, Send, State
from .handshake import Handshake, ServerInfo
from .link import Kind, Link, LinkClosed, Outgoing
from .policy import ID_TAKEN, Options, Policy
from .requests import UNKNOWN_USER, Requests

PING = "ping"  # the callback id of keep-alives; those of sends are c1, c2, …

PROBE = 3.0  # seconds: a server that lives answers before a user loses patience
RESEND = 1.0  # seconds until what a failed POST carried is sent again
BESIDE = 1.0  # seconds of silence of a WebSocket on trial: then polls are tried beside it
WOKEN = 5.0  # seconds by which the wall clock runs ahead where the machine slept

REQUESTED_RECONNECT = 3000  # close codes of ours, for logs of the server
BROKEN = 3001

AT_REST = ("closed", "refused", "destroyed")

# docs/protocol.rst, "The state of a client".
INITIAL: State = {
    "status": "closed",
    "type": "auto",
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


class ClientSession:
    """One client, over all its links.

    :ivar link: the confirmed link.
    :ivar trial: the link on trial.
    :ivar fallback_trial: polls on trial beside a WebSocket on trial.
    :ivar previous: the link before; it may still post what it was given.
    :ivar wall: the time of day minus ``now``; whoever calls keeps it true.
    """

    def __init__(
        self,
        composer: Composer,
        options: Options,
        *,
        random: Callable[[], float],
        new_id: Callable[[], str],
        wall: float = 0.0,
        cursor: str | None = None,
    ) -> None:
        """
        :param random: evenly from 0 to 1.
        :param new_id: makes a client id.
        :param wall: the time of day minus ``now``, in seconds.
        :param cursor: of the page, as a view returned it.
        """
        self.composer = composer
        self.options = options
        self.client_id = options.client_id or new_id()
        self.link: Link | None = None
        self.trial: Link | None = None
        self.fallback_trial: Link | None = None
        self.previous: Link | None = None
        self.resume: str | None = None
        self.server = ServerInfo()
        self.csrf: str | None = None
        self.auth: str | None = None
        self.state: State = MappingProxyType({**INITIAL, "type": options.type})
        self._effects: list[Effect] = []
        self._emit = self._effects.append
        self.requests = Requests(composer, self._emit, options.offline_queue)
        self._policy = Policy(options, random)
        self._new_id = new_id
        self.wall = self._wall_at_tick = wall
        self._cursor = Cursor(cursor)
        self._timers: dict[str, float] = {}  # due times by name
        self._drops = 0  # how often all links were dropped
        self._user: Any = UNKNOWN_USER  # whose connection this is
        self._fallback_closed: LinkClosed | None = None  # how the polls on trial ended
        self._ping = self.requests.pack(Event(WS_PING), cb_id=PING)

    def take_effects(self) -> list[Effect]:
        """What is to be done, in this order; once."""
        effects = self._effects[:]
        self._effects.clear()
        return effects

    @property
    def cursor(self) -> str | None:
        """How far events have come, such as ``"e7f3:1042"``."""
        return self._cursor.text

    # sending -------------------------------------------------------------------------

    def pack(
        self,
        event: Event,
        cb: Any = None,
        timeout: float = 0.0,
        *,
        key: str | None = None,
        waits: bool = False,
    ) -> Outgoing:
        """*event* packed, in the caller's thread: see :meth:`Requests.pack`.

        :raises PackError: for what cannot be packed, or is over the server's limit.
        """
        max_bytes = self.server.max_bytes
        return self.requests.pack(event, cb, timeout, key=key, waits=waits, max_bytes=max_bytes)

    def send(self, outgoing: Outgoing, now: float) -> bool:
        """Whether *outgoing* leaves, or waits in line for the next opening."""
        requests, status = self.requests, self.state["status"]
        requests.expect(outgoing, now)
        if status in ("connecting", "waiting") and requests.enqueue(outgoing, self._user):
            return True
        if status == "open":
            self._transmit(outgoing, now)
            return True
        requests.reply(outgoing, CLOSED)
        return False

    def answer(
        self, ask_id: str, now: float, *, value: Any = None, error: str | None = None
    ) -> None:
        """Answer an ask.

        :raises PackError: for a *value* that cannot be packed.
        """
        data = [ask_id, value] if error is None else [ask_id, None, error]
        outgoing = self.pack(Event(ANSWER, data))
        if self.state["open"]:
            self._transmit(outgoing, now)

    def _transmit(self, outgoing: Outgoing, now: float) -> None:
        # What the link before was given has to arrive before what is sent now.
        previous = self.previous
        link = previous if previous is not None and previous.busy else self.link
        if link is None:
            self.requests.reply(outgoing, CLOSED)
            return
        self.requests.sent(outgoing, link, self._key_scope, now, self.wall)
        self._emit(Send(link, outgoing))

    def not_taken(self, outgoing: Outgoing, now: float) -> None:
        """Its link did not take *outgoing*."""
        # A WebSocket that is closing takes nothing more: a request waits for the next link.
        via = outgoing.via
        may_wait = outgoing.waits and via is not None and via.kind == "ws"
        if may_wait and self.requests.enqueue(outgoing, self._user):
            outgoing.via = None
            return
        outgoing.lost = not self._interrupted(outgoing, now)

    def post_answered(self, outgoing: Outgoing, data: Data) -> None:
        """*data* answered the POST of *outgoing*."""
        try:
            value, _, details = self.composer.read(data)
        except UnpackError as error:
            self._tell_bad_package(data)
            value, details = ERROR, {"status": None, "message": f"no reply: {error}"}
        self.requests.reply(outgoing, value, details)

    def post_interrupted(self, outgoing: Outgoing, now: float) -> None:
        """Whether *outgoing* arrived is not known: it is sent again where that is safe."""
        self._interrupted(outgoing, now)

    def _interrupted(self, outgoing: Outgoing, now: float) -> bool:
        resend = self.state["status"] not in AT_REST
        again = self.requests.interrupted(outgoing, resend=resend)
        if again and self.state["open"]:  # a POST failed, but polls work: wait a moment
            self._timers.setdefault("resend", now + RESEND)
        return again

    def _resend(self, now: float) -> None:
        for outgoing in self.requests.resend(self._key_scope, now, self.wall):
            self._transmit(outgoing, now)

    @property
    def _key_scope(self) -> tuple[Any, ...]:
        """For which user, client id and epoch of the server a key holds."""
        return self.state["uid"], self.client_id, self._cursor.epoch

    # coming and going ----------------------------------------------------------------

    def connect(self, now: float) -> None:
        """Open where it is closed; end the wait where it waits for the next attempt."""
        status = self.state["status"]
        if status in ("closed", "refused"):
            self.reconnect(now)
        elif status == "waiting" and self._policy.may_hurry(now):
            self._attempt(now)

    def reconnect(self, now: float) -> None:
        """Drop the connection, and open again at once."""
        if self._hang_up(REQUESTED_RECONNECT, "requested-reconnect", now):
            self._user = UNKNOWN_USER  # perhaps another from now on
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
        links = (self.trial, self.fallback_trial) if self.link is None else (self.link,)
        for link in links:
            if link is not None:
                self._emit(End(link, BROKEN))
                self.closed(link, LinkClosed(), now)

    def woken(self, now: float) -> None:
        """The machine slept, or the network changed: what is open may be dead."""
        if "retry" in self._timers:
            self._attempt(now)
        link = self.link
        if link is None:
            return
        if link.kind == "ajax":
            self._emit(Repoll(link))
        elif not link.pinging:
            self._probe(link, now, PROBE)

    def _hang_up(self, code: int, reason: str, now: float) -> bool:
        if self.state["status"] == "destroyed":
            return False
        was_open = self.state["open"]
        self._policy.reset()
        if self.link is not None:
            self._emit(End(self.link, code))
        self._drop(now)
        if was_open:
            self._set(last_close={"udt": self._udt(now), "reason": reason})
        return True

    def _drop(self, now: float) -> None:
        """Leave all links, those on trial too; the next attempt begins afresh."""
        link = self.link
        self._drops += 1
        for trial in (self.trial, self.fallback_trial):
            if trial is not None:
                self._emit(End(trial, NORMAL))
        self.link = self.trial = self.fallback_trial = None
        self.previous = link or self.previous
        if link is not None and link.kind == "ws":  # POSTs have answers of their own
            for outgoing in self.requests.sent_over(link):
                self._interrupted(outgoing, now)
        self._stop("retry", "stable", "upgrade", "beside", "resend")

    def _rest(self, status: str) -> None:
        self._timers.clear()
        self.requests.close(status)
        self.previous = None
        self._set(status=status, udt_next_reconnect=None)

    def _stop(self, *timers: str) -> None:
        for name in timers:
            self._timers.pop(name, None)

    # links ---------------------------------------------------------------------------

    def _attempt(self, now: float, kind: Kind | None = None) -> None:
        kind = kind or self._policy.next_kind()
        self._stop("retry")
        self._fallback_closed = None
        self._set(status="connecting", type=kind, udt_next_reconnect=None)
        self._try(kind, now)

    def _try(self, kind: Kind, now: float) -> None:
        """Begin a trial."""
        link = self.trial = Link(kind, self.cursor)
        if kind == "ws":
            link.due = now + self.options.connect_timeout
            if self.link is None and self._policy.polls_beside:
                self._timers["beside"] = now + BESIDE
        self._emit(Open(link))

    def asks_for_handshake(self, link: Link) -> bool:
        """Whether the next poll asks for a handshake.

        A server that gives one ends the WebSocket that it has of this client. It leaves that open
        where the poll asks for none.
        """
        beside = link is self.fallback_trial and self.trial is not None
        may_end_it = not beside or self.state["ever_opened"]
        return bool(link.confirmations_left and may_end_it)

    def opened(self, link: Link, now: float) -> None:
        """The server accepted a WebSocket: see whether bytes pass both ways."""
        link.opened = True
        if "beside" in self._timers:
            self._timers["beside"] = now + BESIDE
        if link is self.trial or link is self.link:
            self._emit(Send(link, self._ping))

    def _confirm(self, link: Link, now: float) -> None:
        """The trial of *link* ended well: it is the client's link from now on."""
        before = self.link
        self._stop("beside")
        if link is self.fallback_trial:
            self.fallback_trial = None
        else:
            self.trial = None
            if self.fallback_trial is not None:
                self._emit(End(self.fallback_trial, NORMAL))
                self.fallback_trial = None
        self.link = link
        link.confirmations_left = 0
        if before is not None:
            self._emit(End(before, NORMAL))
            self.previous = before
        self._policy.confirmed(link.kind, now, takes_over=before is not None)
        self._timers["stable"] = now + STABLE
        if self._policy.wants_websocket and self.trial is None:
            self._upgrade_later(now)
        self._sign_of_life(link, now)
        buffered, link.buffered = link.buffered, []
        for frame, size in buffered:
            self._receive(link, frame, size, now)
        if self.trial is not None:
            # It began before polls had a cursor: it would skip what is missed here.
            self._emit(End(self.trial, NORMAL))
            self._try("ws", now)

    def _upgrade_later(self, now: float) -> None:
        self._timers["upgrade"] = now + self._policy.next_upgrade()

    def closed(self, link: Link, how: LinkClosed, now: float) -> None:
        """*link* ended by itself."""
        if not self._knows(link):
            return
        if link.kind == "ws":
            self._tell_ws_close(how, now)
        blocked = self._policy.is_blocked(link.kind, how)
        if link is self.link:
            falls_back = self._policy.confirmed_link_closed(link.kind, blocked, now)
        elif self._goes_on_without(link, how, now):
            return
        else:
            self._policy.trials_failed()
            falls_back = blocked and self._fallback_closed is None
            how = self._fallback_closed or how
        self._drop(now)
        if falls_back:
            self._set(last_close={"udt": self._udt(now), "reason": "downgrading-ws-to-ajax"})
            self._attempt(now, "ajax")
        else:
            self._retry(how, now)

    def _goes_on_without(self, trial: Link, how: LinkClosed, now: float) -> bool:
        """*trial* ended; whether there is another link."""
        if trial is self.fallback_trial:
            self.fallback_trial = None
            if self.trial is not None:
                self._fallback_closed = how
                return True
        else:
            self.trial = None
        self._policy.trial_closed(how)
        if self.link is not None:
            self._upgrade_later(now)  # the polls go on, and nobody noticed
            return True
        return self.fallback_trial is not None

    def _knows(self, link: Link) -> bool:
        """Whether *link* is in use or on trial."""
        return link is self.link or link is self.trial or link is self.fallback_trial

    def _retry(self, how: LinkClosed, now: float) -> None:
        """No link is left: wait for the next attempt, or rest."""
        udt = self._udt(now)
        verdict = self._policy.judge(how, now)
        self._set(last_close=_close(how, udt, verdict.reason))
        if verdict.status != "waiting":
            self._rest(verdict.status)
            return
        if how.code == CLOSED_BY_APP:
            self._cursor.clear()  # a new session
        renamed = how.status == ID_TAKEN and self.options.client_id is None
        if renamed:
            self.client_id = self._new_id()
            self.resume = None  # it was the old id's
        drops = self._drops
        wait = self._policy.wait(how, verdict, renamed=renamed)
        if drops != self._drops:
            return  # the application's backoff called connect() or the like
        self._set(status="waiting", udt_next_reconnect=udt + int(wait * 1000))
        self._timers["retry"] = now + wait

    # receiving -----------------------------------------------------------------------

    def heard(self, link: Link, now: float) -> None:
        """A sign of life came that is no message, such as a ping of RFC 6455."""
        if link is self.link:
            self._sign_of_life(link, now)

    def _sign_of_life(self, link: Link, now: float) -> None:
        if link.kind == "ws":
            link.pinging = False
            link.due = now + self.options.ws_kalive

    def received(self, link: Link, data: Data, now: float) -> str | None:
        """Take one message of *link* in; its value, where that is a word."""
        if not self._knows(link):
            return None
        try:
            frame = self.composer.read(data)
        except UnpackError:
            self._tell_bad_package(data)
            return ERROR
        if link is self.link:
            self._sign_of_life(link, now)
            self._receive(link, frame, len(data), now)
        else:
            self._receive_on_trial(link, frame, len(data), now)
        value = frame[0]
        return str(value) if isinstance(value, str) else None

    def _tell_bad_package(self, data: Data) -> None:
        shown = data if isinstance(data, str) else data.decode("latin-1")
        self._emit(Deliver(Event(BAD_PACKAGE, shown[:BAD_PACKAGE_SHOWN])))

    def _receive_on_trial(
        self, link: Link, frame: tuple[Any, Any, Any], size: int, now: float
    ) -> None:
        # Frames count only when the link is confirmed: if its trial fails, the next link begins at
        # the same cursor, and nothing is lost or doubled.
        value, cb, _ = frame
        link.buffered.append((frame, size))
        if link.kind == "ws":  # the pong comes behind all that waited for us
            link.due = now + self.options.connect_timeout
        ids = [event[0] for event in _events(value) if is_event(event)]
        if CLOSE in ids:
            self._receive(link, frame, size, now)
        elif cb == PING or HANDSHAKE in ids:
            link.confirmations_left -= 1
            if not link.confirmations_left:
                self._confirm(link, now)

    def _receive(self, link: Link, frame: tuple[Any, Any, Any], size: int, now: float) -> None:
        value, cb, third = frame
        if cb is not None:
            if cb == PING:
                self._emit(Deliver(Event(WS_PONG)))
            else:
                self.requests.answered(cb, value, third)
            return
        events = _events(value)
        epoch, offsets = read_offsets(third)
        if value == WS_PING or (events and events[0][:1] == [WS_PING]):
            self._transmit(self.pack(Event(WS_PONG)), now)
            self._emit(Deliver(Event(WS_PING)))
            events = []
        if not events:
            # A frame without events tells up to which offset the client has all.
            if offsets and epoch == self._cursor.epoch:
                self._cursor.advance(epoch, offsets[0])
            return
        for index, event in enumerate(events):
            if not self._knows(link):
                return  # an event before this one closed it
            if index < len(offsets) and not self._cursor.advance(epoch, offsets[index]):
                continue
            self._event(link, as_event(event), size // len(events), now)

    def _event(self, link: Link, event: Event, size: int, now: float) -> None:
        id, data = event
        if not id.startswith("chsk/"):
            self._emit(Deliver(event, True, size))
        elif id == HANDSHAKE and isinstance(data, list):
            self._handshake(link, Handshake.read(data), now)
        elif id == CLOSE:  # over a link that has no close frames
            more = data if isinstance(data, dict) else {}
            self._emit(End(link, NORMAL))
            reason = str(more.get("reason", ""))
            self.closed(link, LinkClosed(more.get("code", NORMAL), reason, "clean"), now)
        elif id == ASK and _is_ask(data):
            self._emit(Asked(str(data[0]), as_event(data[1])))
        elif id == GAP:
            self._emit(Deliver(Event(GAP, data)))
        else:
            self._emit(Deliver(event, True, size))

    def _handshake(self, link: Link, handshake: Handshake, now: float) -> None:
        server = self.server = handshake.server
        was_open, ever_opened = self.state["open"], self.state["ever_opened"]
        self.resume = server.resume(self.resume)
        epoch, offsets = read_offsets(server.cursor)
        resumed = link.cursor is not None
        # Where it is recovered, what was missed is still to come, above our own cursor.
        if offsets and not (resumed and server.recovered):
            self._cursor.move(epoch, offsets[0])
        if self.csrf is None:
            self.csrf = handshake.csrf_token
        self._user = uid = handshake.uid
        self._set(
            status="open",
            type=link.kind,
            ever_opened=True,
            first_open=not ever_opened,
            uid=uid,
            csrf_token=self.csrf,
            handshake_data=handshake.data,
        )
        self._emit(Deliver(Event(HANDSHAKE, [uid, handshake.csrf_token, handshake.data])))
        if resumed and server.recovered is False:
            self._emit(Deliver(Event(GAP)))
        if not was_open:
            self._resend(now)
            for outgoing in self.requests.dequeue(uid):
                self._transmit(outgoing, now)

    # time ----------------------------------------------------------------------------

    def next_due(self) -> float | None:
        """When :meth:`tick` has something to do."""
        dues = list(self._timers.values())
        for link in (self.link, self.trial):
            if link is not None and link.due is not None:
                dues.append(link.due)
        overdue = self.requests.next_due()
        if overdue is not None:
            dues.append(overdue)
        return min(dues, default=None)

    def tick(self, now: float, wall: float | None = None) -> None:
        """Do what is due.

        :param wall: the time of day minus *now*: where it jumped ahead, the machine slept.
        """
        if wall is not None:
            slept, self._wall_at_tick = wall - self._wall_at_tick, wall
            self.wall = wall
            if slept > WOKEN:
                self.woken(now)
        for name, due in sorted(self._timers.items(), key=lambda timer: timer[1]):
            if due <= now and self._timers.pop(name, None) is not None:
                self._timer(name, now)
        for link in (self.link, self.trial):
            if link is not None and link.due is not None and link.due <= now:
                self._silent(link, now)
        self.requests.expire(now)

    def _timer(self, name: str, now: float) -> None:
        if name == "stable":
            self._policy.stable()
        elif name == "resend":
            self._resend(now)
        elif name == "beside":
            self.fallback_trial = Link("ajax", self.cursor)
            self._emit(Open(self.fallback_trial))
        elif name == "upgrade":
            if self.trial is None:
                self._try("ws", now)
        else:
            self._attempt(now)

    def _silent(self, link: Link, now: float) -> None:
        """Nothing came over *link* for too long."""
        if link is self.trial:
            silent = "no answer"
            if not link.has_credentials:
                silent = "csrf_token, auth or chsk_url returned nothing"
            how = LinkClosed(why="ws-error", error=f"{silent} within connect_timeout")
        elif link.pinging:
            how = LinkClosed(PING_UNANSWERED, why="ws-ping-timeout")
        else:
            self._probe(link, now, self.options.ws_ping_timeout)
            return
        self._emit(End(link, PING_UNANSWERED))
        self.closed(link, how, now)

    def _probe(self, link: Link, now: float, within: float) -> None:
        link.pinging = True
        link.due = now + within
        self._emit(Send(link, self._ping))

    # state ---------------------------------------------------------------------------

    def _tell_ws_close(self, how: LinkClosed, now: float) -> None:
        udt = self._udt(now)
        if how.error is not None:
            self._set(last_ws_error={"udt": udt, "error": how.error})
        self._set(last_ws_close=_close(how, udt, how.why))

    def _set(self, **changes: Any) -> None:
        old = self.state
        new = {**old, **changes}
        new["open"] = new["status"] == "open"
        self.state = MappingProxyType(new)
        self._emit(Changed(old, self.state))
        self._emit(Deliver(Event(STATE, self.state)))

    def _udt(self, now: float) -> int:
        return int((now + self.wall) * 1000)


def _close(how: LinkClosed, udt: int, reason: str) -> dict[str, Any]:
    """How a link ended, as the state shows it: with what is known."""
    close = {
        "udt": udt,
        "reason": reason,
        "code": how.code,
        "status": how.status,
        "message": how.message or how.reason or how.error or None,
        "retry_after_ms": None if how.retry_after is None else round(how.retry_after * 1000),
    }
    return {name: value for name, value in close.items() if value is not None}


def _events(value: Any) -> list[list[Any]]:
    """The events in a message's value: a vector of them, or one."""
    if not isinstance(value, list) or not value:
        return []
    return value if isinstance(value[0], list) else [value]


def _is_ask(data: Any) -> bool:
    return isinstance(data, list) and len(data) == 2 and is_event(data[1])

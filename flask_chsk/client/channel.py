"""The channel socket of a Python program: the seed's client API, in blocking calls.

Calls block the calling thread or greenlet only. It decides nothing about the protocol
(session.py does) and knows no socket (links.py does): here decisions are carried out, in
order, and users' functions are called, never under a lock and never by a thread that reads.
"""

from __future__ import annotations

import logging
import random
import secrets
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from http.cookiejar import CookieJar
from ssl import SSLContext
from types import MappingProxyType
from typing import Any, TypeVar, overload
from urllib.parse import urlsplit

from .. import forks, packers
from ..errors import (
    ChannelClosed,
    ChskError,
    ConfigError,
    PackError,
    ReplyError,
    ReplyTimeout,
    UsageError,
)
from ..interrupts import from_signal
from ..logs import logger
from ..packers import PackDefault, Packer
from ..plain import plain
from ..printable import masked
from ..protocol.backoff import exp_backoff
from ..protocol.event import Event, assert_event, is_event
from ..protocol.session import CLOSED, ERROR, GAP, TIMEOUT, cb_success
from ..protocol.wire import WIRES, Composer, Data
from ..security import RESUME_HEADER, SECRET_HEADER
from ..values import Keyword
from . import session as s
from .links import MAX_MESSAGE, Polling, WebSocket
from .options import Questions, Token, assert_known, checked_backoff, handler_id, seconds, token
from .session import AT_REST, ClientSession, Cut, Item, Link, Options, State
from .waiting import Crew, Flag, Lane, Queue
from .web import Web, cookie_jar

log = logger("flask_chsk.client")
T = TypeVar("T")

EVENTS = 10_000  # that may wait for their handlers; then the oldest go, and a gap is told
EVENTS_BYTES = 4 * MAX_MESSAGE  # of these
RECV_BYTES = MAX_MESSAGE  # that ch_recv keeps of what nobody takes
FOREIGN = 15.0  # seconds till the next try where a login page answers: it stays for a while
JOIN = 1.0  # seconds destroy() waits for threads; one that is connecting ends by itself
REPLY = 10.0  # seconds to wait for a reply where nothing else is said
REMEDY = "write a plain function (def): it runs in a thread of the client, and may block"
TICK = 5.0  # seconds between looks whether the machine slept


@dataclass(frozen=True, slots=True)
class EventMsg:
    """One event as a handler or a router gets it: ``event``, and its ``id`` and ``data``."""

    event: Event

    @property
    def id(self) -> str:
        """The event's id, such as ``"chat/said"``."""
        return self.event.id

    @property
    def data(self) -> Any:
        """The event's datum; None where it has none."""
        return self.event.data


Handler = Callable[[EventMsg], Any]
Watcher = Callable[[State, State], object]
H = TypeVar("H", bound=Handler)


def is_event_msg(x: object) -> bool:
    """Whether *x* is what ``ch_recv`` gives."""
    return isinstance(x, EventMsg)


class RecvQueue(Queue[EventMsg]):
    """Event messages that no handler took; where it is full the oldest is let go.

    It is full with *limit* events, or with 16 MiB of what came.
    """

    def __init__(self, limit: int | None = None) -> None:
        super().__init__(limit, RECV_BYTES)

    def put(self, item: Any, size: int = 0) -> None:
        """Append an event message, or an event ``[id, data]``, which came as *size* bytes.

        :raises BadEvent: for anything else.
        """
        dropped = self.dropped
        super().put(item if isinstance(item, EventMsg) else EventMsg(assert_event(item)), size)
        if self.dropped and not dropped:
            log.warning("events that nobody takes are dropped: register on(id), or read ch_recv")


def default_chsk_url(path: str, location: Mapping[str, str], websocket: bool) -> str:
    """Where the server is: *path* on the host of *location*, over ``ws(s)`` or ``http(s)``.

    *path* may be a whole URL.

    :param location: ``href protocol hostname host pathname search hash``, as a browser's
        ``window.location`` has them, of the URL that was given.
    """
    whole = path if "://" in path else f"{location['protocol']}//{location['host']}{path}"
    return f"ws{whole[4:]}" if websocket and whole.startswith("http") else whole


def location_of(url: str) -> dict[str, str]:
    """*url* in the parts of a browser's ``window.location``."""
    parts = urlsplit(url)
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    if scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"{url!r}: a program has no page to be relative to, so give the whole URL,"
            " such as https://example.org/chsk"
        )
    return {
        "href": url,
        "protocol": f"{scheme}:",
        "hostname": parts.hostname,
        "host": parts.netloc.rpartition("@")[2],
        "pathname": parts.path or "/",
        "search": f"?{parts.query}" if parts.query else "",
        "hash": f"#{parts.fragment}" if parts.fragment else "",
    }


class ChannelSocket:
    """One event channel to a server, over WebSocket where it works and polling where not.

    ::

        with ChannelSocket("https://example.org/chsk") as chsk:
            reply = chsk.request(["chat/say", {"text": "hi"}])

    It connects at once and reconnects by itself; as a context manager it waits until it is
    open, and is destroyed in the end. Handlers run one after another, in a thread of their
    own, or in a greenlet where it was made in one.
    """

    def __new__(cls, *args: Any, **given: Any) -> ChannelSocket:
        """Refuse unknown options before ``__init__`` does: Python's message names no other."""
        assert_known(cls.__init__, given)
        return super().__new__(cls)

    def __init__(
        self,
        url: str,
        type: str = "auto",
        packer: str | Packer | None = "edn",
        client_id: str | None = None,
        csrf_token: Token = None,
        ws_kalive: float = 25.0,
        lp_timeout: float = 25.0,
        recv_buf: int | RecvQueue = 2048,
        chsk_url: Callable[[str, Mapping[str, str], bool], str] | None = default_chsk_url,
        ajax_opts: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        backoff: Callable[[int], float] | None = exp_backoff,
        wrap_recv: bool = True,
        *,
        auth: Token = None,
        cookies: CookieJar | Mapping[str, str] | None = None,
        ssl_context: SSLContext | None = None,
        ws_ping_timeout: float = 10.0,
        connect_timeout: float = 5.0,
        offline_queue: int = 0,
        pack_default: PackDefault | None = None,
        connect: bool = True,
        lp_kalive: float | None = None,
        client_uuid: str | None = None,
    ) -> None:
        """
        :param url: of the server's channel socket, ``https://example.org/chsk``.
        :param type: ``"ws"``, ``"ajax"``, or ``"auto"``: what works, WebSocket first.
        :param packer: ``"edn"``, ``"json"``, …, or one of your own.
        :param csrf_token: a string, or a function, which is asked for each connection.
        :param ws_kalive: seconds of silence after which the server is pinged.
        :param lp_timeout: seconds to wait for the end of a poll or a POST.
        :param recv_buf: how many events ``ch_recv`` keeps, or a queue of your own.
        :param chsk_url: called with path, location and whether it is for a WebSocket.
        :param ajax_opts: ``params``, ``headers`` for HTTP requests (not the WebSocket).
        :param params: with every request: the query of a GET and a WebSocket, the form of a POST
            (``request.values`` reads either).
        :param headers: for every request, the WebSocket's handshake included.
        :param backoff: seconds to wait before retry number 0, 1, 2 …
        :param wrap_recv: whether pushed events are ``["chsk/recv", event]`` in ``ch_recv``.
        :param auth: a bearer token, or a function that is asked for one, as *csrf_token* is.
        :param cookies: names and values, or a jar (``requests.Session().cookies`` is one).
        :param ssl_context: instead of the default one, which verifies.
        :param offline_queue: how many sends wait for the next opening; 0: none.
        :param connect: False: only when :meth:`connect` is called, or a ``with`` begins.
        :param lp_kalive: the seed's other name of *lp_timeout*.
        :param client_uuid: deprecated name of *client_id*.
        """
        if client_uuid is not None:
            warnings.warn("client_uuid is now client_id", DeprecationWarning, stacklevel=2)
        if type not in ("auto", "ws", "ajax"):
            raise ConfigError(f'type is "auto", "ws" or "ajax", not {type!r}')
        for name, given in (("ws_kalive", ws_kalive), ("lp_timeout", lp_timeout)):
            if not seconds(name, given) > 0:
                raise ConfigError(f"{name} is in seconds, and more than 0: not {given!r}")
        for name, credential in (("csrf_token", csrf_token), ("auth", auth)):
            if not callable(credential):
                token(name, credential)
        if unknown := set(ajax_opts or ()) - {"params", "headers"}:
            raise ConfigError(f"ajax_opts has params and headers, not {sorted(unknown)}")
        self._location = location_of(url)
        self.lp_timeout = seconds("lp_timeout", lp_timeout if lp_kalive is None else lp_kalive)
        self.ch_recv = recv_buf if isinstance(recv_buf, RecvQueue) else RecvQueue(recv_buf)
        self.crew = Crew()
        self._questions = Questions(self.crew)
        self.gone = threading.Event()
        self._warned_foreign = False
        self.lock = threading.RLock()
        self._deciding: int | None = None  # the thread that has the lock, for _do()
        self.web = Web(ssl_context, cookie_jar(cookies, url), connect_timeout)
        self._csrf_token = csrf_token
        self._auth = auth
        self._chsk_url = chsk_url or default_chsk_url
        self._ajax_opts = dict(ajax_opts or {})
        self._params = dict(params or {})
        self._headers = dict(headers or {})
        self._wrap_recv = wrap_recv
        self._query = self._location["search"][1:]
        packer = packer or "edn"
        if isinstance(packer, str):
            packer = packers.make(
                packer, max_bytes=MAX_MESSAGE, max_values=None, pack_default=pack_default
            )
        options = Options(
            type=type,  # type: ignore[arg-type]
            ws_kalive=ws_kalive,
            ws_ping_timeout=ws_ping_timeout,
            connect_timeout=connect_timeout,
            offline_queue=offline_queue,
            backoff=checked_backoff(backoff or exp_backoff),
            client_id=client_id or client_uuid,
        )
        self._session = ClientSession(
            Composer(packer, WIRES["1.21"]),
            options,
            random=random.random,
            new_id=lambda: secrets.token_urlsafe(16),
            wall=_wall(),
        )
        self._secret = secrets.token_urlsafe(16)  # proves to the server that this is one client
        self._handlers: dict[str, list[Handler]] = {}
        self._watchers: list[Watcher] = []
        self._events = Lane(self.crew.start_users, "events", EVENTS, self._overflow, EVENTS_BYTES)
        self._replies = Lane(self.crew.start_users, "replies")
        self._writes = Lane(self.crew.start, "writes")
        self._missed = False  # events were let go, and nobody was told yet
        self._opening: list[Flag] = []
        self._polls = 0
        self._alarm: Flag | None = None  # of the thread that keeps the time, if there is one
        self._alarm_at = 0.0
        self._links: list[Any] = []  # transports, to cut in the end
        self._parents = False  # in a child: whoever forked has it
        forks.register(self)
        if connect:
            self.connect()

    def forked(self) -> None:
        """Its threads and connections are the parent's."""
        self._parents = True
        closed = {**self._session.state, "status": "closed", "open": False}
        self._session.state = MappingProxyType(closed)

    def __repr__(self) -> str:
        return f"<ChannelSocket {masked(self._location['href'])} {self.state['status']}>"

    def __enter__(self) -> ChannelSocket:
        self.connect()
        try:
            self.wait_open()
        except BaseException:
            self.destroy()
            raise
        return self

    def __exit__(self, *args: object) -> None:
        self.destroy()

    # state ---------------------------------------------------------------------------

    @property
    def client_id(self) -> str:
        """The client id; another one after the server said that it is somebody else's.

        One that was given to the constructor stays.
        """
        return self._session.client_id

    @property
    def state(self) -> State:
        """A snapshot; every change makes a new one. Times are in ms.

        docs/protocol.rst, "The state of a client", has the names and close reasons.
        """
        return self._session.state

    def watch(self, fn: Watcher) -> Callable[[], None]:
        """Call ``fn(old, new)`` on every change of state; returns the undo."""
        self._watchers.append(plain(fn, "watch()", REMEDY, takes="old, new"))
        return partial(_remove, self._watchers, fn)

    def wait_open(self, timeout: float = REPLY) -> None:
        """Return when it is open.

        :raises ChannelClosed: where it is closed or refused, or still not open after
            *timeout* seconds.
        """
        self._may_block("wait_open")
        until = time.monotonic() + seconds("timeout", timeout)
        while True:
            flag = Flag()
            self._opening.append(flag)
            try:
                state = self.state
                if state["open"]:
                    return
                if state["status"] in AT_REST or not flag.wait(until - time.monotonic()):
                    raise ChannelClosed(f"not open: {_why(self.state)}")
            finally:
                _remove(self._opening, flag)

    # events --------------------------------------------------------------------------

    @overload
    def on(self, id: str) -> Callable[[H], H]: ...
    @overload
    def on(self, id: str, fn: Handler) -> Callable[[], None]: ...
    def on(self, id: str, fn: Handler | None = None) -> Any:
        """Call a function with each :class:`EventMsg` of this *id*; a decorator, without *fn*.

        ``"*"`` takes what no other takes. What the function returns answers an ask. With
        *fn* the result is the undo.

        :raises BadEvent: for an id without a namespace.
        """
        handler_id(id)
        if fn is None:

            def register(fn: H) -> H:
                self.on(id, fn)
                return fn

            return register
        plain(fn, f"on({id!r})", REMEDY, takes="ev")
        with self.lock:
            self._handlers[id] = [*self._handlers.get(id, ()), fn]

        def undo() -> None:
            with self.lock:
                left = [one for one in self._handlers.get(id, ()) if one is not fn]
                if left:
                    self._handlers[id] = left
                else:
                    self._handlers.pop(id, None)

        return undo

    def events(self) -> Iterator[EventMsg]:
        """Events that no handler took, as they come, until it is destroyed."""
        for ev in self.ch_recv:
            yield EventMsg(ev.data) if ev.id == "chsk/recv" and is_event(ev.data) else ev

    def put(self, event: Any) -> None:
        """Inject an event, as if the server had pushed it.

        :raises BadEvent: for what is no event.
        """
        self._deliver(assert_event(event), True)

    def send(
        self,
        event: Any,
        timeout: float | Mapping[str, Any] | None = None,
        cb: Any = None,
        *,
        key: str | bool | None = None,
        flush: bool = False,
    ) -> bool:
        """Send ``[id, data]``; whether it left, or waits in line.

        :param timeout: seconds until *cb* gets ``chsk/timeout``; or all three as a mapping.
        :param cb: called with the reply, or with ``chsk/closed``, ``chsk/timeout`` or
            ``chsk/error``; or a queue, which gets ``[Keyword("chat/say.cb"), reply]``.
        :param key: where a cut leaves it open whether the event arrived, send it again; the
            server dispatches one key of a client once. True: a new key.
        :param flush: accepted as Sente does; nothing is held back here.
        :raises BadEvent: for what is no event.
        :raises PackError: naming the path to what cannot be packed.
        """
        if isinstance(timeout, Mapping):
            timeout, cb = _send_options(timeout)
        return self._send(event, timeout, cb, key)

    def _send(
        self,
        event: Any,
        timeout: float | None,
        cb: Any,
        key: str | bool | None,
        waits: bool = False,
    ) -> bool:
        if key is True:
            key = secrets.token_urlsafe(9)
        if key and cb is None:
            cb = _ignore
        item = self._session.item(
            assert_event(event),
            cb,
            REPLY if timeout is None else seconds("timeout", timeout),
            key=key or None,
            waits=waits,
        )
        return self._do(self._session.send, item) and not item.lost

    def request(self, event: Any, timeout: float = REPLY, *, key: str | bool | None = None) -> Any:
        """Send ``[id, data]`` and block for its reply.

        While a connection is being opened it waits for that, within its timeout.

        :param key: as for :meth:`send`; a cut then costs time, but no answer.
        :raises ReplyTimeout: after *timeout* seconds.
        :raises ChannelClosed: it is closed, or was closed before the reply.
        :raises ReplyError: the server answered with an error; with its status.
        """
        self._may_block("request")
        waiting = _Request()
        self._send(event, timeout, waiting, key, waits=True)
        waiting.flag.wait()
        reply, details = waiting.reply, waiting.details
        if cb_success(reply):
            return reply
        id = event[0]
        details = details if isinstance(details, dict) else {}
        message = details.get("message")
        if reply == TIMEOUT:
            raise ReplyTimeout(f"{id}: {message or 'no reply'} within {timeout:g} s")
        if reply == CLOSED:
            raise ChannelClosed(f"{id}: {message or _why(self.state)}")
        raise ReplyError(f"{id}: {message or ERROR}", details.get("status"))

    # coming and going ----------------------------------------------------------------

    def connect(self) -> None:
        """Open, where it is closed, and wait no longer, where it waits for the next attempt."""
        self._do(self._session.connect)

    def reconnect(self) -> None:
        """Drop the connection, and open again at once: after a login or a logout."""
        self._do(self._session.reconnect)

    def disconnect(self) -> None:
        """Close, until :meth:`connect`."""
        self._do(self._session.disconnect)

    def break_connection(self) -> None:
        """As if the network had cut the connection, for tests."""
        self._do(self._session.cut)

    def destroy(self) -> None:
        """Close for good; no thread, greenlet or socket stays.

        In a child of the process that made it: nothing, it has none of them.
        """
        if self._parents:
            return
        self._do(self._session.destroy)
        self.gone.set()
        self.ch_recv.close()
        self._events.close(finish=True)
        self._replies.close(finish=True)
        self._writes.close(finish=True)
        with self.lock:
            links = list(self._links)
        for transport in links:
            transport.hurry()
        if not self.crew.join(JOIN / 2):
            for transport in links:
                transport.cut()
            self.crew.join(JOIN / 2)
        self.web.close()
        self._handlers.clear()
        self._watchers.clear()

    # carrying out --------------------------------------------------------------------

    def _do(self, decide: Callable[..., T], *args: Any) -> T:
        """Let the session decide, and carry out what it decided.

        :raises UsageError: in a child of the process that made it.
        """
        if self._parents:
            raise UsageError(
                "this ChannelSocket belongs to the process that forked this one: make another here"
            )
        with self.lock:
            outer, self._deciding = self._deciding, threading.get_ident()
            try:
                result = decide(*args, time.monotonic())
                written = self._carry_out()
                self._set_alarm()
            finally:
                self._deciding = outer
        for transport in written:
            if self.crew.on_hub():
                self._writes.put(transport.flush)
            else:
                transport.flush()
        return result

    def _may_block(self, name: str) -> None:
        """
        :raises UsageError: in a function that the client waits for, before it goes on.
        """
        if self._deciding == threading.get_ident():
            raise UsageError(f"{name}() blocks, which a backoff must not: use send()")

    def _carry_out(self) -> list[Any]:
        """Do what never blocks; the result are transports that have something to write."""
        written = []
        while effects := self._session.take_effects():
            for effect in effects:
                if isinstance(effect, s.Say):
                    transport = effect.link.transport
                    if transport.take(effect.item):
                        written.append(transport)
                    else:
                        self._session.unsent(effect.item, time.monotonic())
                elif isinstance(effect, s.Deliver):
                    self._deliver(effect.event, effect.pushed, effect.size)
                elif isinstance(effect, s.Replied):
                    self._reply(effect)
                elif isinstance(effect, s.Dropped):
                    log.warning("%s: %s, which waited, is dropped", effect.why, effect.item.name)
                elif isinstance(effect, s.Changed):
                    self._changed(effect.old, effect.new)
                elif isinstance(effect, s.Open):
                    self._open(effect.link)
                elif isinstance(effect, s.End):
                    effect.link.transport.end(effect.code)
                    written.append(effect.link.transport)
                elif isinstance(effect, s.Asked):
                    self.crew.start_users("ask", partial(self._answer, effect.id, effect.event))
                else:
                    effect.link.transport.again()
        return written

    def _open(self, link: Link) -> None:
        kind = WebSocket if link.kind == "ws" else Polling
        link.transport = transport = kind(self, link)
        self._links.append(transport)
        transport.start()

    def _changed(self, old: State, new: State) -> None:
        status = new["status"]
        if status != old["status"]:
            level = logging.ERROR if status == "refused" else logging.DEBUG
            log.log(level, "%s: %s", masked(self._location["href"]), _why(new))
            if status == "open" or status in AT_REST:
                for flag in self._opening:
                    flag.set()
        for fn in tuple(self._watchers):
            self._events.put(partial(fn, old, new))

    def _deliver(self, event: Event, pushed: bool, size: int = 0) -> None:
        fns = self._handlers.get(event.id)
        if fns is None:
            if event.id.startswith("chsk/ws-p"):
                return  # keep-alive is for those who ask for it by name
            fns = self._handlers.get("*")
        if fns is None:
            if pushed and self._wrap_recv:
                event = Event(Keyword("chsk/recv"), event)
            self.ch_recv.put(EventMsg(event), size)
            return
        ev = EventMsg(event)
        for fn in fns:
            self._events.put(partial(self._handle, fn, ev), size)

    def _handle(self, fn: Handler, ev: EventMsg) -> None:
        """In the lane of events: call a handler, unless that would be after the end."""
        if self._missed:
            self._missed = False
            self._deliver_now(Event(GAP))
        if ev.id == s.STATE or not self.gone.is_set():
            fn(ev)

    def _deliver_now(self, event: Event) -> None:
        for fn in self._handlers.get(event.id) or self._handlers.get("*") or ():
            try:
                fn(EventMsg(event))
            except BaseException as error:
                if from_signal(error):
                    raise
                log.exception("handler of %s failed", event.id)

    def _overflow(self) -> None:
        """The oldest event that waited for its handler was let go."""
        if not self._missed:
            log.warning("handlers are too slow: events were let go")
        self._missed = True

    def _reply(self, replied: s.Replied) -> None:
        cb, reply = replied.item.cb, replied.reply
        if isinstance(cb, _Request):
            cb.set(reply, replied.details)
        elif hasattr(cb, "put"):
            self._replies.put(partial(cb.put, [Keyword(f"{replied.item.name}.cb"), reply]))
        else:
            self._replies.put(partial(cb, reply))

    def _answer(self, ask_id: str, event: Event) -> None:
        fns = self._handlers.get(event.id) or self._handlers.get("*")
        try:
            if not fns:
                raise ChskError(f"no handler for {event.id}")
            value = fns[0](EventMsg(event))
            self._do(partial(self._session.answer, ask_id, value=value))
        except BaseException as error:
            if from_signal(error):
                raise
            if fns and not isinstance(error, PackError):
                log.exception("answering %s failed", event.id)
            text = str(error) or type(error).__name__
            self._do(partial(self._session.answer, ask_id, error=text))

    # time ----------------------------------------------------------------------------

    def _set_alarm(self) -> None:
        """See that somebody looks when something is due."""
        resting = self.state["status"] in AT_REST
        if self._alarm is None:
            if not resting:
                self._alarm = Flag()
                self._alarm_at = 0.0
                self.crew.start("clock", self._keep_time)
            return
        due = self._session.next_due()
        if resting or (due is not None and due < self._alarm_at):
            self._alarm.set()

    def _keep_time(self) -> None:
        while True:
            with self.lock:
                if self.state["status"] in AT_REST:
                    self._alarm = None
                    return
                now = time.monotonic()
                due = self._session.next_due()
                self._alarm_at = now + TICK if due is None else min(due, now + TICK)
                alarm = self._alarm = Flag()
                seconds = self._alarm_at - now
            alarm.wait(seconds)
            self._do(lambda now: self._session.tick(now, _wall()))

    # what links ask ------------------------------------------------------------------

    def trying(self) -> bool:
        """Whether a WebSocket that the server accepted is being tried."""
        candidate = self._session.candidate
        return candidate is not None and candidate.opened

    def binary(self) -> bool:
        """Whether the packer is."""
        return self._session.composer.packer.binary

    def server_lp_timeout(self) -> float:
        """Seconds for which the server parks polls."""
        ms = self._session.server.get("lp-timeout-ms")
        return ms / 1000 if isinstance(ms, int) else 0.0

    def batches(self) -> bool:
        """Whether the server knows batches."""
        return self._session.batches

    def max_batch(self) -> int:
        """How many events the server takes in one message."""
        return self._session.max_batch

    def wanted(self, item: Item) -> bool:
        """Whether *item* has no reply yet, or expects none."""
        return self._session.wanted(item)

    def batch(self, items: list[Item]) -> Data:
        """Events as one message."""
        return self._session.batch(items)

    def ask_credentials(self) -> None:
        """Ask the application for its credentials, anew; it may block."""
        csrf = self._questions.ask("csrf_token", self._csrf_token)
        auth = self._questions.ask("auth", self._auth)
        with self.lock:
            self._session.csrf, self._session.auth = csrf, auth

    def url(self, websocket: bool) -> str:
        """Where to go."""
        location = self._location
        url = self._chsk_url(location["pathname"], location, websocket)
        if not isinstance(url, str) or not url:
            raise ConfigError(f"chsk_url must return a URL, not {url!r}")
        scheme, _, rest = url.partition("://")
        secure = scheme in ("https", "wss")
        wanted = ("wss" if secure else "ws") if websocket else ("https" if secure else "http")
        if self._query and "?" not in rest:
            rest += f"?{self._query}"
        return f"{wanted}://{rest}"

    def params(self, link: Link | None) -> dict[str, Any]:
        """The query; that of a POST where there is no *link*."""
        params = dict(self._params)
        if link is None or link.kind == "ajax":
            params.update(self._ajax_opts.get("params") or {})
        session = self._session
        params.update(
            {
                "client-id": self.client_id,
                "udt": int(time.time() * 1000),
                "packer": session.composer.packer.name,
                "v": 1,
            }
        )
        if link is not None:
            with self.lock:
                self._polls += 1
                if link.kind == "ajax":
                    link.cursor = session.cursor
                params.update(cursor=link.cursor, n=self._polls)
            if link.kind == "ajax" and session.shakes(link):
                params["handshake?"] = 1
        return params

    def headers(self, websocket: bool) -> dict[str, str]:
        """Headers of the application, and credentials."""
        headers = {} if websocket else dict(self._ajax_opts.get("headers") or {})
        headers.update(self._headers)
        session = self._session
        # What opens something travels in headers: URLs stand in logs.
        headers[SECRET_HEADER] = self._secret
        if session.resume:
            headers[RESUME_HEADER] = session.resume
        if session.csrf:
            headers["X-CSRF-Token"] = session.csrf
        if session.auth:
            headers["Authorization"] = f"Bearer {session.auth}"
        return headers

    # what links tell -----------------------------------------------------------------

    def foreign(self, what: str) -> Cut:
        """Something else than a channel socket answered: logged once, and tried again slowly."""
        url = masked(self._location["href"])
        message = f"{url} is answered by {what}: exempt it from what redirects to a login"
        if self._warned_foreign:
            return Cut(message=message, retry_after=FOREIGN)
        self._warned_foreign = True
        log.warning("%s, or look at what stands between", message)
        return Cut(message=message)

    def opened(self, link: Link) -> None:
        """The server accepted a WebSocket."""
        self._do(self._session.opened, link)

    def received(self, link: Link, data: Data) -> str | None:
        """A message; the word that it is, if it is one."""
        return self._do(self._session.receive, link, data)

    def heard(self, link: Link) -> None:
        """A sign of life."""
        self._do(self._session.heard, link)

    def lost(self, link: Link, cut: Cut) -> None:
        """*link* ended by itself."""
        self._do(self._session.down, link, cut)

    def finished(self, transport: Any) -> None:
        """The threads of *transport* are done."""
        with self.lock:
            _remove(self._links, transport)

    def posted(self, item: Item, data: Data) -> None:
        """The answer to a POST."""
        self._do(lambda now: self._session.posted(item, data))

    def cut_off(self, item: Item) -> None:
        """Whether *item* arrived is not known."""
        self._do(self._session.cut_off, item)

    def replied(self, item: Item, reply: Any, details: Any = None) -> None:
        """*item* has its reply."""
        self._do(lambda now: self._session.reply(item, reply, details))


class _Request:
    """A call that waits for its reply."""

    __slots__ = ("details", "flag", "reply")

    def __init__(self) -> None:
        self.flag = Flag()
        self.reply: Any = None
        self.details: Any = None

    def set(self, reply: Any, details: Any) -> None:
        self.reply, self.details = reply, details
        self.flag.set()


def _ignore(reply: Any) -> None:
    """A callback for nobody."""


def _send_options(options: Mapping[str, Any]) -> tuple[float | None, Any]:
    """Timeout and callback out of the seed's map of options."""
    given = {key.replace("-", "_").rstrip("?"): value for key, value in options.items()}
    timeout = given.pop("timeout", None)
    if (ms := given.pop("timeout_ms", None)) is not None:
        timeout = ms / 1000
    cb = given.pop("cb", None)
    given.pop("flush", None)
    if given:
        raise ConfigError(f"send takes timeout, timeout_ms, cb and flush, not {sorted(given)}")
    return timeout, cb


def _wall() -> float:
    return time.time() - time.monotonic()


def _why(state: State) -> str:
    """Why it is not open, for messages."""
    close = state["last_close"]
    if close is None or state["open"]:
        return str(state["status"])
    said = close.get("message") or close.get("code")
    return f"{state['status']} ({close['reason']}{f': {said}' if said else ''})"


def _remove(items: list[Any], item: Any) -> None:
    if item in items:
        items.remove(item)


__all__ = [
    "ChannelSocket",
    "EventMsg",
    "RecvQueue",
    "default_chsk_url",
    "is_event_msg",
]

"""The channel socket of a Python program: Sente's client API, in blocking calls.

The public face, and no more: it checks what the application gives and asks the engine (engine.py).
Calls block the calling thread or greenlet only.
"""

from __future__ import annotations

import random
import secrets
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from http.cookiejar import CookieJar
from ssl import SSLContext
from typing import Any, TypeVar, overload

from .. import packers
from ..errors import ChannelClosed, ConfigError, ReplyError, ReplyTimeout
from ..packers import PackDefault, Packer
from ..plain import plain
from ..protocol.backoff import exp_backoff
from ..protocol.event import Event, assert_event, is_event
from ..protocol.session import CLOSED, ERROR, TIMEOUT, cb_success
from ..protocol.wire import WIRES, Composer
from .dispatch import Dispatcher, EventMsg, Handler, PendingReply, RecvQueue, Watcher
from .effects import State
from .endpoint import Endpoint, UrlFunction, default_chsk_url
from .engine import Engine, wall, why
from .http_client import HttpClient, cookie_jar
from .link import MAX_MESSAGE
from .options import (
    Credentials,
    Token,
    assert_known,
    count,
    handler_id,
    page_cursor,
    positive,
    seconds,
    session_options,
)
from .policy import Options
from .session import ClientSession
from .waiting import ThreadGroup

H = TypeVar("H", bound=Handler)

REMEDY = "write a plain function (def): it runs in a thread of the client, and may block"
REPLY = 10.0  # seconds to wait for a reply where nothing else is said


class ChannelSocket:
    """One event channel to a server, over WebSocket where it works and long-polling where not.

    ::

        with ChannelSocket("https://example.org/chsk") as chsk:
            reply = chsk.request(["chat/say", {"text": "hi"}])

    It connects at once and reconnects by itself; as a context manager it waits until it is
    open, and is destroyed at the end. Handlers run one after another, in a thread of their
    own, or in a greenlet where it was made in one.

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
    :param cursor: ``chsk.page_cursor()`` of data that a view returned: what was sent since follows.
    :param offline_queue: how many sends wait for the next opening; 0: none.
    :param connect: False: only when :meth:`connect` is called, or a ``with`` begins.
    :param lp_kalive: Sente's other name of *lp_timeout*.
    :param client_uuid: deprecated name of *client_id*.
    :raises ConfigError: naming an option that cannot be.
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
        chsk_url: UrlFunction | None = default_chsk_url,
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
        cursor: str | None = None,
        offline_queue: int = 0,
        pack_default: PackDefault | None = None,
        connect: bool = True,
        lp_kalive: float | None = None,
        client_uuid: str | None = None,
    ) -> None:
        if client_uuid is not None:
            warnings.warn("client_uuid is now client_id", DeprecationWarning, stacklevel=2)
            client_id = client_id or client_uuid
        options = session_options(
            type, ws_kalive, ws_ping_timeout, connect_timeout, offline_queue, backoff, client_id
        )
        lp_timeout = positive("lp_timeout", lp_timeout if lp_kalive is None else lp_kalive)
        session = _session(packer, pack_default, options, cursor)
        lock, threads = threading.RLock(), ThreadGroup()
        credentials = Credentials(threads, csrf_token, auth)
        http = HttpClient(ssl_context, cookie_jar(cookies, url), connect_timeout)
        endpoint = Endpoint(
            url, session, credentials, http, lock, lp_timeout, chsk_url, ajax_opts, params, headers
        )
        if not isinstance(recv_buf, RecvQueue):
            recv_buf = RecvQueue(count("recv_buf", recv_buf, 1))
        self._dispatcher = Dispatcher(threads, recv_buf, wrap_recv)
        self._engine = Engine(session, endpoint, self._dispatcher, threads, lock)
        self._name = endpoint.shown
        if connect:
            self.connect()

    def __repr__(self) -> str:
        return f"<ChannelSocket {self._name} {self.state['status']}>"

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
        """The client id; another one after the server said that another client has it.

        One that was given to the constructor stays.
        """
        return self._engine.session.client_id

    @property
    def state(self) -> State:
        """A snapshot; every change makes a new one. Times are in ms.

        docs/protocol.rst, "The state of a client", has the names and close reasons.
        """
        return self._engine.session.state

    @property
    def ch_recv(self) -> RecvQueue:
        """The queue of events that no handler took."""
        return self._dispatcher.ch_recv

    def watch(self, fn: Watcher) -> Callable[[], None]:
        """Call ``fn(old, new)`` on every change of state; returns the undo."""
        return self._dispatcher.watch(plain(fn, "watch()", REMEDY, takes="old, new"))

    def wait_open(self, timeout: float = REPLY) -> None:
        """Return when it is open.

        :raises ChannelClosed: where it is closed or refused, or still not open after
            *timeout* seconds.
        """
        self._engine.may_block("wait_open")
        self._engine.wait_open(seconds("timeout", timeout))

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
        if fn is not None:
            return self._dispatcher.on(id, plain(fn, f"on({id!r})", REMEDY, takes="ev"))

        def register(fn: H) -> H:
            self.on(id, fn)
            return fn

        return register

    def events(self) -> Iterator[EventMsg]:
        """Events that no handler took, as they come, until it is destroyed."""
        for ev in self.ch_recv:
            yield EventMsg(ev.data) if ev.id == "chsk/recv" and is_event(ev.data) else ev

    def put(self, event: Any) -> None:
        """Inject an event, as if the server had pushed it.

        :raises BadEvent: for what is no event.
        """
        self._dispatcher.deliver(assert_event(event), True)

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
        checked = assert_event(event)  # before its data passes for a timeout
        if isinstance(timeout, Mapping):
            timeout, cb = _send_options(timeout)
        return self._send(checked, timeout, cb, key)

    def _send(
        self,
        event: Event,
        timeout: float | None,
        cb: Any,
        key: str | bool | None,
        waits: bool = False,
    ) -> bool:
        session = self._engine.session
        if key is True:
            key = secrets.token_urlsafe(9)
        if key and cb is None:
            cb = _ignore
        timeout = REPLY if timeout is None else seconds("timeout", timeout)
        outgoing = session.pack(event, cb, timeout, key=key or None, waits=waits)
        return self._engine.decide(session.send, outgoing) and not outgoing.lost

    def request(self, event: Any, timeout: float = REPLY, *, key: str | bool | None = None) -> Any:
        """Send ``[id, data]`` and block for its reply.

        While a connection is being opened it waits for that, within its timeout.

        :param key: as for :meth:`send`; a cut then costs time, but no answer.
        :raises ReplyTimeout: after *timeout* seconds.
        :raises ChannelClosed: it is closed, or was closed before the reply.
        :raises ReplyError: the server answered with an error; with its status.
        """
        self._engine.may_block("request")
        pending = PendingReply()
        self._send(assert_event(event), timeout, pending, key, waits=True)
        pending.flag.wait()
        reply, details = pending.reply, pending.details
        if cb_success(reply):
            return reply
        id = event[0]
        details = details if isinstance(details, dict) else {}
        message = details.get("message")
        if reply == TIMEOUT:
            raise ReplyTimeout(f"{id}: {message or 'no reply'} within {timeout:g} s")
        if reply == CLOSED:
            raise ChannelClosed(f"{id}: {message or why(self.state)}")
        raise ReplyError(f"{id}: {message or ERROR}", details.get("status"))

    # coming and going ----------------------------------------------------------------

    def connect(self) -> None:
        """Open where it is closed; end the wait where it waits for the next attempt."""
        self._engine.decide(self._engine.session.connect)

    def reconnect(self) -> None:
        """Drop the connection, and open again at once: after a login or a logout."""
        self._engine.decide(self._engine.session.reconnect)

    def disconnect(self) -> None:
        """Close, until :meth:`connect`."""
        self._engine.decide(self._engine.session.disconnect)

    def break_connection(self) -> None:
        """As if the network had cut the connection, for tests."""
        self._engine.decide(self._engine.session.cut)

    def destroy(self) -> None:
        """Close for good; no thread, greenlet or socket stays.

        In a child of the process that made it: nothing, the child has none of them.
        """
        self._engine.destroy()


def _session(
    packer: str | Packer | None,
    pack_default: PackDefault | None,
    options: Options,
    cursor: str | None,
) -> ClientSession:
    packer = packer or "edn"
    if isinstance(packer, str):
        packer = packers.make(
            packer, max_bytes=MAX_MESSAGE, max_values=None, pack_default=pack_default
        )
    return ClientSession(
        Composer(packer, WIRES["1.21"]),
        options,
        random=random.random,
        new_id=lambda: secrets.token_urlsafe(16),
        wall=wall(),
        cursor=page_cursor(cursor),
    )


def _ignore(reply: Any) -> None:
    """The callback of a send with a key and no callback."""


def _send_options(options: Mapping[str, Any]) -> tuple[float | None, Any]:
    """Timeout and callback out of Sente's map of options."""
    given = {key.replace("-", "_").rstrip("?"): value for key, value in options.items()}
    timeout = given.pop("timeout", None)
    if (ms := given.pop("timeout_ms", None)) is not None:
        timeout = ms / 1000
    cb = given.pop("cb", None)
    given.pop("flush", None)
    if given:
        raise ConfigError(f"send takes timeout, timeout_ms, cb and flush, not {sorted(given)}")
    return timeout, cb

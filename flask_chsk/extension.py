"""``Chsk``: the extension object, and what it keeps per application.

``init_app`` reads ``app.config["CHSK_…"]`` (config.py lists every key), registers the routes
and starts nothing; the server of a process starts at its first request.
"""

from __future__ import annotations

import atexit
import gc
import os
import secrets
import signal
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import blinker
from flask import Flask, current_app, has_app_context, has_request_context, url_for
from markupsafe import Markup, escape
from werkzeug.exceptions import HTTPException

from . import brokers, forks, packers
from .config import Config
from .errors import BrokerError, ConfigError, PackError, Refused, UsageError
from .hub import Hub, starting
from .interrupts import from_signal
from .logs import logger
from .packers import PackDefault
from .packers.edn import EdnPacker
from .plain import REMEDY, plain
from .protocol.event import assert_event, assert_whole
from .protocol.uids import NOBODY, ConnectedUids, as_uid, is_text
from .protocol.wire import WIRES, Composer
from .security import resume_key
from .server.connection import KeptRequest
from .server.dispatch import SignedOut
from .server.recv import RecvQueue, start_router
from .server.router import EventMessage, Handler, Handlers
from .server.worker import Server
from .transports.upgrade import socket_of
from .web.contexts import EventContext, response_value
from .web.cookieless import Cookieless
from .web.hooks import Hooks
from .web.migrants import no_attribute
from .web.neighbours import Neighbours
from .web.responding import after_response, responds
from .web.views import Endpoint

if TYPE_CHECKING:
    from .testing import ChskTestClient

log = logger(__name__)

uid_connected = blinker.signal("flask_chsk.uid_connected")
uid_disconnected = blinker.signal("flask_chsk.uid_disconnected")

ALIVE_POLL = 0.1  # seconds between looks at gunicorn's worker.alive: --max-requests has no signal


class State:
    """One application's channel sockets; ``app.extensions["chsk"]``."""

    def __init__(self, chsk: Chsk, app: Flask, config: Config) -> None:
        self._app = weakref.ref(app)
        self.config = config
        self.hooks = chsk.hooks
        self.handlers = chsk
        self._composers: dict[tuple[str, str], Composer] = {}
        self._server: Server | None = None
        self._pid = 0
        self._refusals: Counter[str] = Counter()
        self._recv: RecvQueue | None = None
        self.watchers: list[Callable[[ConnectedUids, ConnectedUids], object]] = []
        self.cookieless = Cookieless(app)
        self.neighbours = Neighbours(app)
        self._random_key = secrets.token_bytes(32)
        self._serves = False  # requests come to this process
        self._warned_unserved = False
        self._offered: dict[str, Config] = {}  # packers, with an endpoint that speaks them
        self._unpackable: set[tuple[str, str]] = set()  # packers and ids that were told
        self._addresses: dict[Any, Any] = {}  # to which they come
        self._parent_serves = False  # or came to the one that forked it
        self._shares_listener = False
        forks.register(self)

    def forked(self) -> None:
        """Let the server go: its clients are the parent's."""
        server, self._server = self._server, None
        if self._serves and server is not None:
            self._parent_serves = True
            # A native thread that accepts connections is not copied; gevent's loop is.
            self._shares_listener = not server.hub.native_threads
            if self._shares_listener and forks.by_greenlet():
                for address in self._addresses.values():
                    forks.silence_address(address)
        self._serves = False

    def serve(self, environ: Mapping[str, Any]) -> None:
        """A request came.

        :raises Refused: 503, where it came by the listener of a parent.
        """
        if self._shares_listener:
            raise Refused(
                503,
                "this process was forked by a worker, which serves its clients itself: start child"
                " processes with multiprocessing's spawn method",
                retry_after=1,
            )
        self._serves = True
        place = environ.get("SERVER_PORT")
        if place not in self._addresses:
            sock = socket_of(environ)
            self._addresses[place] = None if sock is None else sock.getsockname()

    @property
    def app(self) -> Flask:
        """The application, which owns this state and not the other way round."""
        app = self._app()
        assert app is not None
        return app

    @property
    def is_alive(self) -> bool:
        """Whether there is still an application."""
        return self._app() is not None

    # the server of this process ----------------------------------------------------------

    def server(self) -> Server:
        """The server of this process; started now, if it is not yet."""
        server = self._server
        if server is None or self._pid != os.getpid():
            with starting():
                if self._server is None or self._pid != os.getpid():
                    self._server = self._start()
                    self._pid = os.getpid()
                server = self._server
        return server

    def running(self) -> Server | None:
        """The server of this process, if it has started."""
        return self._server if self._pid == os.getpid() else None

    def sending(self) -> Server | None:
        """The server to send by. Clients of a shared broker may be elsewhere: it starts then."""
        if not self.config.broker_url.startswith("memory:"):
            return self.server()
        if not self._serves:
            self._warn_unserved()
        return self.running()

    def acting(self) -> Server:
        """The server to ask, join or look up members by; it starts where it has not."""
        if not self._serves and self.config.broker_url.startswith("memory:"):
            self._warn_unserved()
        return self.server()

    def _warn_unserved(self) -> None:
        """Say once that what is sent reaches nobody, where this process serves no requests."""
        self._warn_child()
        server = self.running()
        if self._warned_unserved or has_request_context() or (server and len(server.registry)):
            return
        self._warned_unserved = True
        log.warning(
            "this process serves nobody yet, and CHSK_BROKER_URL=memory:// does not reach the"
            " clients of another one: to send from a task, a cron job or a shell, set"
            " CHSK_BROKER_URL=redis://… here and in the workers, or use flask_chsk.publisher"
        )

    def _warn_child(self) -> None:
        """Say once that what is sent in a forked child reaches no client of its parent."""
        if self._parent_serves and not self._serves:
            self._parent_serves, self._warned_unserved = False, True
            log.warning(
                "this process serves nobody: it was forked by a worker, and CHSK_BROKER_URL=memory://"
                " does not reach that worker's clients; set CHSK_BROKER_URL=redis://…, or send in"
                " the worker"
            )

    def _start(self) -> Server:
        if self.config.broker_url.startswith("memory:"):
            self._warn_child()
        server = Server(self.config, brokers.make(self.config), self.handlers, self)
        server.canonical = self.canonical
        server.check_receivers = self.check_receivers
        server.who.signals.append(self._tell_signals)
        server.who.watchers = self.watchers
        if self._recv is not None:
            server.dispatcher.recv_put = self._recv.offer
        hub = Hub.of_process()
        server.start(hub)
        hub.run(self._watch_worker, server)
        atexit.register(_end, weakref.ref(server), os.getpid())
        # Applications come and go in tests; their channel sockets go with them.
        weakref.finalize(self.app, hub.soon, server.retire).atexit = False
        return server

    def _watch_worker(self, server: Server) -> None:
        """See the end of a gunicorn worker coming: it closes nothing that was taken over."""
        worker = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
        if self._shares_listener or worker is None or not hasattr(worker, "alive"):
            return
        timer = server.hub.loop.timer(ALIVE_POLL, repeat=ALIVE_POLL, ref=False)

        def look() -> None:
            if server.hub.over:
                timer.stop()
            elif not worker.alive:
                timer.stop()
                server.drain()

        timer.start(look)

    # what the server asks (server.Host) ----------------------------------------------------

    def run(self, handler: Handler, ev: EventMessage, request: KeptRequest | None) -> Any:
        """Run a handler in the contexts of one event."""
        app = self.app
        if request is None:
            with app.app_context():
                return response_value(self.handlers.run(handler, ev))
        context: EventContext = request.context(app)
        ev.request = context.request
        with context:
            if self._sessions_change and self.hooks.uid() != ev.uid:
                raise SignedOut
            return context.value(self.handlers.run(handler, ev), ev.id)

    @property
    def _sessions_change(self) -> bool:
        """Whether a session can change behind a request: it is kept on the server."""
        from flask.sessions import SecureCookieSessionInterface

        return not isinstance(self.app.session_interface, SecureCookieSessionInterface)

    def run_plain(self, fn: Callable[..., object], *args: Any) -> None:
        """Call a hook in an application context; its error is logged."""
        app = self._app()
        if app is None:
            return  # it went while the event waited
        with app.app_context():
            try:
                fn(*args)
            except BaseException as error:
                if from_signal(error) or (isinstance(error, SystemExit) and forks.is_caller()):
                    raise
                log.exception("error in %r", fn)

    def explain(self, error: BaseException) -> tuple[int, str]:
        """What a client may know of an error: HTTP errors are meant for it, others not."""
        if isinstance(error, HTTPException):
            response = error.response
            status = error.code or (response.status_code if response is not None else 500)
            return status, error.description or error.name
        if isinstance(error, BrokerError):
            return 503, "try again later"
        return 500, "the handler failed"

    def _tell_signals(self, uid: str, came: bool) -> None:
        signal = uid_connected if came else uid_disconnected
        signal.send(self.app, _async_wrapper=_refuse_async, uid=uid)

    # what the views ask ----------------------------------------------------------------------

    @property
    def resume_keys(self) -> list[bytes]:
        """The key of resume tokens, then those of ``SECRET_KEY_FALLBACKS``.

        Without a secret key there is one that holds for this process only.
        """
        app = self.app
        fallbacks = app.config.get("SECRET_KEY_FALLBACKS") or ()
        return [resume_key(one) for one in (app.secret_key or self._random_key, *fallbacks)]

    def composer(self, packer: str, config: Config) -> Composer:
        """The composer of one packer and wire.

        :raises Refused: 400 for a packer that is not offered.
        """
        composer = self._composers.get((packer, config.wire))
        if composer is None:
            if packer not in config.packers:
                offered = ", ".join(config.packers)
                raise Refused(400, f"unknown packer: this server speaks {offered} (CHSK_PACKERS)")
            made = packers.make(
                packer,
                max_bytes=config.max_message_bytes,
                max_values=config.max_message_values,
                pack_default=self._pack_default,
            )
            composer = Composer(made, WIRES[config.wire])
            composer.on_unpackable = partial(self._warn_unpackable, packer)
            self._composers[packer, config.wire] = composer
        return composer

    def _warn_unpackable(self, packer: str, id: str, error: PackError) -> None:
        """Log once for each id that clients of a packer cannot get its events."""
        if (packer, id) not in self._unpackable and len(self._unpackable) < 1000:
            self._unpackable.add((packer, id))
            words = "clients whose packer is %s hear chsk/unpackable in place of %s: %s"
            log.warning(words, packer, id, str(error).replace("data[1]", "its data"))

    def offer(self, config: Config) -> None:
        """Make the packers of an endpoint, so that what is missing is said now."""
        for packer in config.packers:
            self.composer(packer, config)
            self._offered[packer] = config

    def check_event(self, event: Any) -> None:
        """Refuse what cannot be sent, where there is nobody to send it to."""
        id, data = assert_event(event)
        self.check_receivers(id, data, self.canonical.pack([id, data], root="event"))

    def check_receivers(self, id: str, data: Any, text: str) -> None:
        """Refuse an event that no packer offered can carry.

        :param text: its canonical form.
        :raises PackError: naming the path to what cannot be packed.
        """
        if "edn" in self._offered and "#chsk/bytes" not in text:
            return
        errors = []
        for packer, config in self._offered.items():
            try:
                self.composer(packer, config).packer.pack([id, data])
                return
            except PackError as error:
                errors.append(str(error).replace("data[1]", "event[1]", 1))
        offered = ", ".join(self._offered)
        raise PackError(f"{errors[0]} (CHSK_PACKERS offers {offered}, which cannot carry it)")

    @property
    def canonical(self) -> EdnPacker:
        """A packer of events as the broker keeps them."""
        return EdnPacker(bytes_tag=True, pack_default=self._pack_default)

    @property
    def _pack_default(self) -> PackDefault | None:
        """What makes packable values of others: CHSK_NAIVE_DATETIMES, then ``pack_default``."""
        return packers.zoned(self.config.naive_datetimes, self.hooks.pack_default)

    def forget_packers(self) -> None:
        """Make them anew when they are needed: ``pack_default`` was registered."""
        self._composers.clear()
        server = self.running()
        if server is not None:
            server.canonical = self.canonical

    def uid_of_request(self) -> str | None:
        """Who is behind the current request."""
        return self.hooks.uid()

    def count_refusal(self, status: int) -> None:
        """Count an HTTP refusal."""
        self._refusals[f"refused_{status}"] += 1

    # what users ask --------------------------------------------------------------------------

    @property
    def recv(self) -> RecvQueue:
        """The queue of events that no handler took; from now on they go there."""
        if self._recv is None:
            self._recv = RecvQueue(self.config.recv_buf)
            server = self.running()
            if server is not None:
                server.dispatcher.recv_put = self._recv.offer
        return self._recv

    def stats(self) -> dict[str, int]:
        """Counters and gauges."""
        server = self.running()
        unpackable = sum(composer.unpackable for composer in self._composers.values())
        counted = {**self._refusals, "unpackable": unpackable}
        return {**(server.stats() if server is not None else {}), **counted}


def _refuse_async(receiver: Callable[..., Any]) -> Callable[..., Any]:
    raise UsageError(f"{receiver!r}, which a signal calls, is async and would never run: {REMEDY}")


def _end(server: weakref.ref[Server], pid: int) -> None:
    """Send clients away as the process ends, where nothing did before."""
    ending = server()
    if ending is not None and pid == os.getpid():
        with suppress(KeyboardInterrupt):  # a second Ctrl-C: then without good manners
            ending.hub.run_at_exit(ending.end)


class Sender:
    """What can be asked of an initialised application's channel sockets, from any thread."""

    def _state(self) -> State:
        raise NotImplementedError

    if not TYPE_CHECKING:  # type checkers name what is missing by themselves

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(self, name)

    def send(
        self,
        uid: Any,
        event: Any,
        *more: NoReturn,
        client_id: str | None = None,
        flush: bool = False,
    ) -> int | None:
        """Push ``[id, data]`` to every client of a user; the event's offset.

        None where that user is not there: then nothing is kept for them.

        :param client_id: only to this one of their clients.
        :param flush: do not wait for the batch window to end.
        :raises BadEvent: for what is no event.
        :raises PackError: naming the path to what cannot be packed.
        :raises BrokerUnavailable: where the broker is away; nothing was sent.
        """
        assert_whole("chsk.send(uid, {})", event, more)
        state = self._state()
        server = state.sending()
        key = as_uid(uid)
        if server is None:  # no request yet in this process: nobody is there
            state.check_event(event)
            return None
        offset = server.send(key, event, client_id, flush)
        if offset is None:
            server.note_absent(key)
        return offset

    def broadcast(
        self, event: Any, *more: NoReturn, exclude: EventMessage | None = None
    ) -> int | None:
        """Push ``[id, data]`` to every connected client, packed once.

        :param exclude: the event message whose sender shall not get it.
        """
        assert_whole("chsk.broadcast({})", event, more)
        server = self._state().sending()
        if server is None:
            self._state().check_event(event)
            return None
        but = None
        if exclude is not None and exclude.client_id is not None:
            but = (exclude.uid, exclude.client_id)
        return server.broadcast(event, but)

    def ask(self, uid: Any, event: Any, client_id: str | None = None, timeout: float = 10.0) -> Any:
        """Ask a client, or the first of a user's that answers; blocks for its answer.

        :raises NoClient: at once, where there is none.
        :raises ClientGone: when the last one that was asked went away.
        :raises AskTimeout: after *timeout* seconds.
        :raises AskFailed: when its handler raised, or it has none.
        """
        return self._state().acting().asks.ask(as_uid(uid), event, client_id, timeout)

    def close(
        self,
        uid: Any,
        client_id: str | None = None,
        reconnect: bool = True,
        *,
        now: bool = False,
    ) -> None:
        """Close a user's connections, or one of them: no later event reaches them.

        Their pages are told when the response of the current view has ended, at most 5 seconds
        later: a page that goes elsewhere at once would give up the request that signed it out,
        and lose its cookie. Outside a view they are told at once.

        :param reconnect: False: they stay closed and tell their application
            (``signed-out``); call it so after a logout.
        :param now: True: tell them at once.
        """
        key = as_uid(uid)
        state = self._state()
        server = state.sending()
        if server is None:
            return
        response = None
        if not now and responds(state.cookieless):
            response = server.delayed_closes.expect_response()
            after_response(partial(server.delayed_closes.response_ended, response))
        try:
            server.close_everywhere(key, client_id, reconnect, response)
        except BaseException:
            if response is not None:
                server.delayed_closes.cancel(response)
            raise

    def join(self, uid: Any, topic: str) -> bool:
        """Make a user, all their clients, a member of *topic*; False where they were one."""
        key = as_uid(uid)
        if key is None:
            raise UsageError("anonymous clients cannot join a topic: give them a uid")
        return self._state().acting().broker.join(key, _topic(topic))

    def leave(self, uid: Any, topic: str) -> bool:
        """End a user's membership of *topic*; False where there was none."""
        key = as_uid(uid)
        return key is not None and self._state().acting().broker.leave(key, _topic(topic))

    def publish(self, topic: str, event: Any, *more: NoReturn) -> int | None:
        """Push ``[id, data]`` to every client of every member of *topic*."""
        assert_whole("chsk.publish(topic, {})", event, more)
        server = self._state().sending()
        if server is None:
            self._state().check_event(event)
            return None
        return server.publish(_topic(topic), event)

    def members(self, topic: str) -> frozenset[str]:
        """The uids that joined *topic*."""
        return self._state().acting().broker.members(_topic(topic))

    @property
    def connected_uids(self) -> ConnectedUids:
        """A snapshot ``ConnectedUids(ws, ajax, any)`` of frozensets of uids."""
        server = self._state().sending()
        return NOBODY if server is None else server.connected_uids

    def watch(self, fn: Callable[[ConnectedUids, ConnectedUids], object]) -> Callable[[], None]:
        """Call ``fn(old, new)`` when `connected_uids` changes; returns its undo."""
        plain(fn, "chsk.watch()", takes="old, new")
        watchers = self._state().watchers
        watchers.append(fn)

        def undo() -> None:
            if fn in watchers:
                watchers.remove(fn)

        return undo

    @property
    def ch_recv(self) -> RecvQueue:
        """The queue of event messages that no ``on`` handler took (Sente's way)."""
        return self._state().recv

    def start_router(self, handler: Callable[[EventMessage], object]) -> Callable[[], None]:
        """Call *handler* with each event message of `ch_recv`; returns its stop."""
        plain(handler, "chsk.start_router()", takes="ev")
        state = self._state()
        return start_router(state.recv, lambda ev: state.run_plain(handler, ev))

    def stats(self) -> dict[str, int]:
        """Every counter and gauge as one mapping."""
        return self._state().stats()


def _topic(topic: str) -> str:
    if not isinstance(topic, str) or not 1 <= len(topic) <= 255:
        raise UsageError(f"a topic is a str of 1 to 255 characters, not {topic!r}")
    if not is_text(topic):
        raise UsageError(f"a topic is text, and {topic!r} has half of a surrogate pair in it")
    return topic


class Bound(Sender):
    """A :class:`Chsk` bound to one application, for use outside its context."""

    def __init__(self, state: State) -> None:
        self._bound = state

    def _state(self) -> State:
        return self._bound


class Chsk(Handlers, Sender):
    """Channel sockets for Flask.

    ::

        chsk = Chsk(app)            # or Chsk(), and chsk.init_app(app) later

        @chsk.on("chat/say")
        def say(ev):
            chsk.broadcast(["chat/said", ev.data])
            return {"ok": True}

    Settings as keyword arguments (``path="/chsk"``) or ``app.config["CHSK_PATH"]``.
    """

    def __init__(self, app: Flask | None = None, **config: Any) -> None:
        super().__init__()
        self.hooks = Hooks()
        self._given = config
        self._states: weakref.WeakSet[State] = weakref.WeakSet()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask, **config: Any) -> None:
        """Register the routes with *app*; starts nothing.

        A second call with another ``path`` adds that path, with a ``wire``, ``packer`` and
        ``allowed_origins`` of its own, to the same channel sockets.

        :raises ConfigError: naming the setting that cannot work.
        """
        given = {**self._given, **config}
        checked = Config.of(app.config, **given)
        state = app.extensions.get("chsk")
        name = "chsk"
        if state is None:
            state = app.extensions["chsk"] = State(self, app, checked)
            self._states.add(state)
            names = {"chsk_script": self.script, "chsk_csrf_token": self.hooks.page_csrf_token}
            app.context_processor(lambda: names)
            from .cli import commands

            app.cli.add_command(commands)
        elif state.handlers is not self:
            raise ConfigError(
                "this application has a Chsk already: import that one where you need it"
                " (with several applications: one Chsk(), and chsk.init_app(app) for each)"
            )
        else:
            if any(rule.rule == checked.path for rule in app.url_map.iter_rules()):
                raise ConfigError(f"CHSK_PATH {checked.path!r} is taken: give another path=")
            name = "chsk" + checked.path.replace("/", "_").replace(".", "_")
        if not (checked.csrf or checked.broker_url.startswith("memory:") or app.secret_key):
            raise ConfigError(
                "CHSK_BROKER_URL is shared by several processes, and each would sign the tokens"
                " of its clients with a random key of its own: set app.secret_key, the same in"
                " all of them, before chsk.init_app(app)"
            )
        state.offer(checked)
        brokers.make(checked)  # and a URL that cannot be used
        blueprint = Endpoint(state, checked).blueprint(name)
        app.register_blueprint(blueprint)
        state.cookieless.paths.add(checked.path)
        state.cookieless.blueprints.add(blueprint.name)
        state.neighbours.blueprints.append(blueprint)

    def _state(self) -> State:
        if has_app_context():
            state = current_app.extensions.get("chsk")
            if state is not None:
                return state  # type: ignore[no-any-return]
        states = self._alive()
        if len(states) > 1:
            gc.collect()  # an application is in circles, which outlive a test by themselves
            states = self._alive()
        if len(states) == 1:
            return states[0]
        if not states:
            raise UsageError("no application yet: call chsk.init_app(app) first")
        names = ", ".join(sorted(state.app.name for state in states))
        raise UsageError(
            f"{len(states)} applications use this Chsk and none is current: {names}. Call it in a"
            " view or a handler, within app.app_context(), or as chsk.bind(app).send(…). In a test:"
            " with app.app_context() around the call, or an app fixture with scope='session'"
        )

    def _alive(self) -> list[State]:
        return [state for state in self._states if state.is_alive]

    def bind(self, app: Flask) -> Bound:
        """The same, for *app*, wherever it is called."""
        state = app.extensions.get("chsk")
        if state is None:
            raise UsageError("this application has no chsk: call chsk.init_app(app) first")
        return Bound(state)

    def test_client(
        self, flask_client: Any = None, uid: Any = None, headers: Mapping[str, str] | None = None
    ) -> ChskTestClient:
        """A client in process, without a port: see :mod:`flask_chsk.testing`."""
        from .testing import ChskTestClient

        return ChskTestClient(self._state(), flask_client, uid, headers)

    # hooks -----------------------------------------------------------------------------

    def user_id(self, fn: Callable[[], Any]) -> Callable[[], Any]:
        """Register what says who is behind the current request: a uid, or None.

        By default Flask-Login's user where that is set up, else ``session["uid"]``.
        """
        self.hooks.user_id = plain(fn, "@chsk.user_id", takes="")
        return fn

    def handshake_data(self, fn: Callable[[], Any]) -> Callable[[], Any]:
        """Register what makes the data that a client gets with its handshake."""
        self.hooks.handshake_data = plain(fn, "@chsk.handshake_data", takes="")
        return fn

    def csrf_token(self, fn: Callable[[], str]) -> Callable[[], str]:
        """Register what returns the CSRF token of the current session, a str.

        For a page it makes a token where the session has none; for a request of the channel
        socket None says that there is none, which refuses.
        """
        self.hooks.csrf_token = plain(fn, "@chsk.csrf_token", takes="")
        return fn

    def authorize(self, fn: Callable[[], Any]) -> Callable[[], Any]:
        """Register a check of each request: return True to let it in.

        What is not true, such as None, is answered with 401. So are a coroutine, a response, and
        Flask-Login's user who is not signed in, which Python takes for true.
        """
        self.hooks.authorize = plain(fn, "@chsk.authorize", takes="")
        return fn

    def reject(self, fn: Callable[[], Any]) -> Callable[[], Any]:
        """Register the first check of each request; a true value or a response refuses."""
        self.hooks.reject = plain(fn, "@chsk.reject", takes="")
        return fn

    def pack_default(self, fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Register ``fn(value)``: a packable value for one that no packer knows.

        It raises for what it does not know either. None is taken for that, too: a function that
        falls off its end would otherwise send nil.
        """
        self.hooks.pack_default = plain(fn, "@chsk.pack_default", takes="value")
        for state in self._states:
            state.forget_packers()
        return fn

    # templates -------------------------------------------------------------------------

    def script(self) -> Markup:
        """``{{ chsk_script() }}``: a meta element with path and CSRF token, and the client.

        Nothing inline, so a strict Content-Security-Policy holds.
        """
        state = self._state()
        path = url_for("chsk.poll")
        token = self.hooks.page_csrf_token() if state.config.csrf else ""
        source = url_for("chsk.static", filename="chsk.js")
        return Markup(
            f'<meta name="chsk" content="" data-path="{escape(path)}"'
            f' data-csrf-token="{escape(token)}">\n'
            f'<script type="module" src="{escape(source)}"></script>'
        )

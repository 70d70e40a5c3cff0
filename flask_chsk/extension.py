"""``Chsk``: the extension object; ``Bound``: the same, bound to one application.

``init_app`` reads ``app.config["CHSK_…"]`` (config.py lists every key), registers the routes
and starts nothing. What belongs to one application is in state.py.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from flask import Flask, current_app, has_app_context, url_for
from markupsafe import Markup, escape

from .brokers.urls import make as make_broker
from .config import Config
from .errors import ConfigError, UsageError
from .logs import logger
from .plain import plain
from .protocol.event import Event, assert_whole
from .protocol.uids import NOBODY, ConnectedUids, as_member, as_topic, as_uid
from .server.recv import RecvQueue, start_router
from .server.router import EventMessage, Handlers
from .state import State
from .web.hooks import Hooks
from .web.migrants import no_attribute
from .web.responding import after_response, responds
from .web.views import Endpoint

if TYPE_CHECKING:
    from .after_commit import AnySession
    from .server.worker import Worker
    from .testing import ChskTestClient

log = logger(__name__)


class Sender:
    """Sends, asks and looks up, for one application, from any thread."""

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
        exclude: EventMessage | None = None,
        after_commit: AnySession | None = None,
    ) -> int | None:
        """Push ``[id, data]`` to every client of a user; returns the event's offset.

        It returns None, and keeps nothing, where that user has no client: then the function of
        :meth:`Chsk.absent` is called.

        :param client_id: only to this one of their clients.
        :param flush: do not wait for the batch window to end.
        :param exclude: an event message: the client that sent it does not get the event, only the
            other clients of the user do.
        :param after_commit: a session of SQLAlchemy, such as ``db.session``. The event is checked
            and packed now, and sent when the root transaction of the session has committed, in the
            order of the calls. It is dropped where that, or its savepoint, ends otherwise. Returns
            None. What goes wrong after the commit is logged, not raised.
        :raises BadEvent: for what is no event.
        :raises PackError: naming the path to what cannot be packed.
        :raises BrokerUnavailable: where the broker is away; nothing was sent.
        :raises UsageError: where *after_commit* is no session, or its transaction is over.
        """
        assert_whole("chsk.send(uid, {})", event, more)
        state = self._state()
        server = _worker_to_send_by(state, after_commit)
        key = as_uid(uid)
        if server is None:  # no request yet in this process: nobody is there
            checked = state.check_event(event, exclude)
            if key is not None and client_id is None:
                state.tell_absent(key, checked)
            return None
        return server.sending.send(key, event, client_id, flush, exclude, after_commit)

    def broadcast(
        self,
        event: Any,
        *more: NoReturn,
        exclude: EventMessage | None = None,
        after_commit: AnySession | None = None,
    ) -> int | None:
        """Push ``[id, data]`` to every connected client, packed once.

        :param exclude: an event message: the client that sent it does not get the event.
        :param after_commit: as in :meth:`send`.
        """
        assert_whole("chsk.broadcast({})", event, more)
        state = self._state()
        server = _worker_to_send_by(state, after_commit)
        if server is None:
            state.check_event(event, exclude)
            return None
        return server.sending.broadcast(event, exclude, after_commit)

    def ask(self, uid: Any, event: Any, client_id: str | None = None, timeout: float = 10.0) -> Any:
        """Ask a user's clients, or one of them; block for the first answer and return it.

        :raises NoClient: at once, where the user has no client.
        :raises ClientGone: the last client that was asked went away.
        :raises AskTimeout: after *timeout* seconds.
        :raises AskFailed: the client's handler raised, or it has none.
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

        In a view the pages are told when its response has ended, at most 5 seconds later: a page
        that leaves at once would abort the request that signs it out, and lose its cookie.
        Outside a view they are told at once.

        :param reconnect: False: the clients stay closed and tell their application
            (``signed-out``). Use it after a logout.
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
            server.sending.close(key, client_id, reconnect, response)
        except BaseException:
            if response is not None:
                server.delayed_closes.cancel(response)
            raise

    def join(self, uid: Any, topic: str) -> bool:
        """Make a user, with all their clients, a member of *topic*; False if they were one."""
        key = as_member(uid)
        return self._state().acting().broker.topics.join(key, as_topic(topic))

    def leave(self, uid: Any, topic: str) -> bool:
        """End a user's membership of *topic*; False if there was none."""
        key = as_uid(uid)
        return key is not None and self._state().acting().broker.topics.leave(key, as_topic(topic))

    def publish(
        self,
        topic: str,
        event: Any,
        *more: NoReturn,
        exclude: EventMessage | None = None,
        after_commit: AnySession | None = None,
    ) -> int | None:
        """Push ``[id, data]`` to every client of every member of *topic*.

        :param exclude: an event message: the client that sent it does not get the event. The
            sender's other clients do.
        :param after_commit: as in :meth:`send`.
        """
        assert_whole("chsk.publish(topic, {})", event, more)
        name = as_topic(topic)
        state = self._state()
        server = _worker_to_send_by(state, after_commit)
        if server is None:
            state.check_event(event, exclude)
            return None
        return server.sending.publish(name, event, exclude, after_commit)

    def members(self, topic: str) -> frozenset[str]:
        """The uids that joined *topic*."""
        return self._state().acting().broker.topics.members(as_topic(topic))

    @property
    def connected_uids(self) -> ConnectedUids:
        """Who is connected: a snapshot ``ConnectedUids(ws, ajax, any)`` of frozensets of uids."""
        server = self._state().sending()
        return NOBODY if server is None else server.presence.connected_uids

    def watch(self, fn: Callable[[ConnectedUids, ConnectedUids], object]) -> Callable[[], None]:
        """Call ``fn(old, new)`` when `connected_uids` changes; returns the undo."""
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
        """Call *handler* with each event message of `ch_recv`; returns what stops it."""
        plain(handler, "chsk.start_router()", takes="ev")
        state = self._state()
        return start_router(state.recv, lambda ev: state.run_plain(handler, ev))

    def stats(self) -> dict[str, int]:
        """All counters and gauges, by name."""
        return self._state().stats()


def _worker_to_send_by(state: State, after_commit: AnySession | None) -> Worker | None:
    """The worker of this process; None where nobody can be there, neither now nor later."""
    return state.sending() if after_commit is None else state.acting()


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
        self._hooks = Hooks()
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
            state = app.extensions["chsk"] = State(app, checked, self._hooks, self._router)
            self._states.add(state)
            names = {"chsk_script": self.script, "chsk_csrf_token": self.page_csrf_token}
            app.context_processor(lambda: names)
            from .cli import commands

            app.cli.add_command(commands)
        elif state.router is not self._router:
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
        make_broker(checked)  # raises for a URL that cannot be used
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
            gc.collect()  # applications of earlier tests are in reference cycles
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
        """An object with the methods that send, ask and look up, for *app* in any context.

        :raises UsageError: where *app* was not initialised.
        """
        state = app.extensions.get("chsk")
        if state is None:
            raise UsageError("this application has no chsk: call chsk.init_app(app) first")
        return Bound(state)

    def test_client(
        self,
        flask_client: Any = None,
        uid: Any = None,
        headers: Mapping[str, str] | None = None,
        cursor: str | None = None,
    ) -> ChskTestClient:
        """A client in this process, without a port: see :mod:`flask_chsk.testing`."""
        from .testing import ChskTestClient

        return ChskTestClient(self._state(), flask_client, uid, headers, cursor)

    def run(
        self,
        app: Flask,
        host: str = "127.0.0.1",
        port: int = 5000,
        *,
        debug: bool | None = None,
        use_reloader: bool | None = None,
        use_debugger: bool | None = None,
        certfile: str | None = None,
        keyfile: str | None = None,
        access_log: bool = True,
        trace: bool = False,
        graceful_timeout: float = 30.0,
    ) -> None:
        """Serve *app* with gevent's WSGI server until SIGTERM or Ctrl-C; ``flask chsk serve``.

        The script has to patch first: ``from gevent import monkey; monkey.patch_all()``.

        :param debug: set ``app.debug``, on which reloader and debugger depend by default.
        :param certfile: a certificate: serve HTTPS. *keyfile* has its key.
        :param trace: print each event, reply, open and close.
        :param graceful_timeout: seconds that requests have to end. Clients are told to come back.
        :raises UsageError: in a process that gevent has not patched; for a port in use.
        """
        from .serving import Options, is_ignored, serve

        if is_ignored():
            return
        if debug is not None:
            app.debug = debug
        options = Options(
            host=host,
            port=port,
            certfile=certfile,
            keyfile=keyfile,
            use_reloader=app.debug if use_reloader is None else use_reloader,
            use_debugger=app.debug if use_debugger is None else use_debugger,
            access_log=access_log,
            trace=trace,
            graceful_timeout=graceful_timeout,
        )
        serve(lambda: app, options)

    # hooks -----------------------------------------------------------------------------

    def user_id(self, fn: Callable[[], Any]) -> Callable[[], Any]:
        """Register a function that returns the uid of the current request's user, or None.

        The default is Flask-Login's user where that is set up, else ``session["uid"]``.
        """
        self._hooks.user_id = plain(fn, "@chsk.user_id", takes="")
        return fn

    def handshake_data(self, fn: Callable[[], Any]) -> Callable[[], Any]:
        """Register a function that returns the data that a client gets with its handshake."""
        self._hooks.handshake_data = plain(fn, "@chsk.handshake_data", takes="")
        return fn

    def csrf_token(self, fn: Callable[[], str]) -> Callable[[], str]:
        """Register a function that returns the CSRF token of the current session, a str.

        For a page it makes a token where the session has none. For a request of the channel
        socket it may return None: there is no token, and the request is refused.
        """
        self._hooks.csrf_token = plain(fn, "@chsk.csrf_token", takes="")
        return fn

    def authorize(self, fn: Callable[[], Any]) -> Callable[[], Any]:
        """Register a check of each request: it returns True to let the request in.

        Any value that is not true, such as None, is answered with 401. So are some values that
        Python takes for true: a coroutine, a response, Flask-Login's user who is not signed in.
        """
        self._hooks.authorize = plain(fn, "@chsk.authorize", takes="")
        return fn

    def reject(self, fn: Callable[[], Any]) -> Callable[[], Any]:
        """Register the first check of each request: it refuses by a true value or a response."""
        self._hooks.reject = plain(fn, "@chsk.reject", takes="")
        return fn

    def pack_default(self, fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Register a function that converts values that the packers cannot encode.

        It is called with the value and raises for one that it cannot convert. None counts as that
        too, because a function without a return would send nil.
        """
        self._hooks.pack_default = plain(fn, "@chsk.pack_default", takes="value")
        for state in self._states:
            state.forget_packers()
        return fn

    def absent(self, fn: Callable[[str, Event], object]) -> Callable[[str, Event], object]:
        """Register a function for events that nobody is there to get: to write a mail, say.

        It is called with the uid and the event of a ``send`` to a user who has no client in any
        process, and had none within ``CHSK_RECOVERY_SECONDS``. It runs within that ``send``, in an
        application context of its own. Its errors are logged.
        """
        self._hooks.absent = plain(fn, "@chsk.absent", takes="uid, event")
        return fn

    # pages -----------------------------------------------------------------------------

    def page_csrf_token(self) -> str:
        """``{{ chsk_csrf_token() }}``: the session's CSRF token, for a page that is no template.

        It is made where the session has none: call it in a view.
        """
        return self._hooks.page_csrf_token()

    def page_cursor(self) -> str:
        """The cursor of the data that this view returns: ``new ChannelSocket(path, { cursor })``.

        Events that are sent since the request began follow it, or the page hears ``chsk/gap``. They
        are kept for the user of the request for CHSK_PAGE_GRACE.

        :raises UsageError: outside a request.
        """
        return self._state().page_cursor()

    def script(self, from_request: bool = False) -> Markup:
        """``{{ chsk_script() }}``: the client's script, with path and CSRF token in a meta element.

        It has no inline script, so a strict Content-Security-Policy allows it.

        :param from_request: True: the page gets the events that are sent since its request began
            (:meth:`page_cursor`). False: those that are sent since it connected.
        """
        state = self._state()
        path = url_for("chsk.poll")
        token = self._hooks.page_csrf_token() if state.config.csrf else ""
        source = url_for("chsk.static", filename="chsk.js")
        cursor = f' data-cursor="{escape(state.page_cursor())}"' if from_request else ""
        return Markup(
            f'<meta name="chsk" content="" data-path="{escape(path)}"'
            f' data-csrf-token="{escape(token)}"{cursor}>\n'
            f'<script type="module" src="{escape(source)}"></script>'
        )

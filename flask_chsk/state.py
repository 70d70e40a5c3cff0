"""``State``: the channel sockets of one application, and the worker of this process.

It starts the worker at the first request or send that needs one, packs for it, and runs its
handlers in Flask's contexts. After a fork it lets the parent's worker go.
"""

from __future__ import annotations

import atexit
import os
import secrets
import signal
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import Context, ContextVar
from functools import partial
from typing import Any

import blinker
from flask import Flask, has_request_context, request_started
from werkzeug.exceptions import HTTPException

from . import forks, packers
from .brokers.urls import make as make_broker
from .config import Config
from .errors import BrokerError, PackError, Refused, UsageError
from .figures import AT_START
from .hub import Hub, starting
from .interrupts import OF_CODE, from_signal
from .logs import logger
from .packers import PackDefault
from .packers.edn import EdnPacker
from .plain import REMEDY
from .protocol.event import Event
from .protocol.uids import ConnectedUids
from .protocol.wire import WIRES, Composer
from .security import resume_key
from .server.connection import KeptRequest
from .server.dispatch import SignedOut
from .server.recv import RecvQueue
from .server.router import EventMessage, Handler, Router
from .server.sending import packed
from .server.worker import Worker
from .transports.upgrade import socket_of
from .web.contexts import EventContext, response_value
from .web.cookieless import Cookieless
from .web.hooks import Hooks
from .web.neighbours import Neighbours
from .web.pages import assert_in_view, cursor_of_page, note_start

log = logger(__name__)

uid_connected = blinker.signal("flask_chsk.uid_connected")
uid_disconnected = blinker.signal("flask_chsk.uid_disconnected")

_telling_absent: ContextVar[bool] = ContextVar("chsk_telling_absent", default=False)

ALIVE_POLL = 0.1  # seconds between looks at gunicorn's worker.alive: --max-requests has no signal


class State:
    """One application's channel sockets; ``app.extensions["chsk"]``."""

    def __init__(self, app: Flask, config: Config, hooks: Hooks, router: Router) -> None:
        self._app = weakref.ref(app)
        self.config = config
        self.hooks = hooks
        self.router = router
        self._composers: dict[tuple[str, str], Composer] = {}
        self._worker: Worker | None = None
        self._pid = 0
        self._counted: Counter[str] = Counter()  # what no worker counts
        self._recv: RecvQueue | None = None
        self.watchers: list[Callable[[ConnectedUids, ConnectedUids], object]] = []
        self.followers: list[Callable[[], object]] = []  # of the figures; see the worker's
        self.cookieless = Cookieless(app)
        self.neighbours = Neighbours(app)
        self._random_key = secrets.token_bytes(32)
        self._serves = False  # requests come to this process
        self._warned_unserved = False
        self._offered: dict[str, Config] = {}  # packers, with an endpoint that speaks them
        self._unpackable: set[tuple[str, str]] = set()  # packers and ids that were warned of
        self._addresses: dict[Any, Any] = {}  # to which requests come, by port
        self._parent_serves = False  # requests came to the process that forked this one
        self._shares_listener = False  # with that process
        forks.register(self)
        request_started.connect(self._request_started, app)

    def forked(self) -> None:
        """This is a child process: the worker and its clients are its parent's."""
        worker, self._worker = self._worker, None
        self._counted.clear()
        if self._serves and worker is not None:
            self._parent_serves = True
            # A native thread that accepts connections is not copied; gevent's loop is.
            self._shares_listener = not worker.hub.native_threads
            if self._shares_listener and forks.by_greenlet():
                for address in self._addresses.values():
                    forks.silence_address(address)
        self._serves = False

    def _request_started(self, sender: Flask, **_: Any) -> None:
        worker = self.running()
        if worker is not None:
            note_start(worker.broker)

    def serve(self, environ: Mapping[str, Any]) -> None:
        """Note that requests come to this process.

        :raises Refused: 503, where the request came through the listener of a parent.
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
        """The application; it owns this state, so the reference back is weak."""
        app = self._app()
        assert app is not None
        return app

    @property
    def is_alive(self) -> bool:
        """Whether the application still exists."""
        return self._app() is not None

    # the worker of this process ----------------------------------------------------------

    def worker(self) -> Worker:
        """The worker of this process; started now, if it is not yet."""
        worker = self._worker
        if worker is None or self._pid != os.getpid():
            with starting():
                if self._worker is None or self._pid != os.getpid():
                    self._worker = self._start()
                    self._pid = os.getpid()
                worker = self._worker
        return worker

    def running(self) -> Worker | None:
        """The worker of this process, if it has started."""
        return self._worker if self._pid == os.getpid() else None

    def sending(self) -> Worker | None:
        """The worker to send by; None where no client can be there.

        With a shared broker the clients may be other processes', so it is started.
        """
        if not self.config.broker_url.startswith("memory:"):
            return self.worker()
        if not self._serves:
            self._warn_unserved()
        return self.running()

    def acting(self) -> Worker:
        """The worker to ask, join or look up members by; started now, if it is not yet."""
        if not self._serves and self.config.broker_url.startswith("memory:"):
            self._warn_unserved()
        return self.worker()

    def _warn_unserved(self) -> None:
        """Warn once where a process that serves no requests sends: nobody gets it."""
        self._warn_child()
        worker = self.running()
        if self._warned_unserved or has_request_context() or (worker and len(worker.registry)):
            return
        self._warned_unserved = True
        log.warning(
            "this process serves nobody yet, and CHSK_BROKER_URL=memory:// does not reach the"
            " clients of another one: to send from a task, a cron job or a shell, set"
            " CHSK_BROKER_URL=redis://… here and in the workers, or use flask_chsk.publisher"
        )

    def _warn_child(self) -> None:
        """Warn once where a forked child sends: no client of its parent gets it."""
        if self._parent_serves and not self._serves:
            self._parent_serves, self._warned_unserved = False, True
            log.warning(
                "this process serves nobody: it was forked by a worker, and CHSK_BROKER_URL=memory://"
                " does not reach that worker's clients; set CHSK_BROKER_URL=redis://…, or send in"
                " the worker"
            )

    def _start(self) -> Worker:
        if self.config.broker_url.startswith("memory:"):
            self._warn_child()
        hub = Hub.of_process()
        worker = Worker(self.config, make_broker(self.config), self.router, self, hub)
        worker.sending.canonical = self.canonical
        worker.sending.check_receivers = self.check_receivers
        worker.sending.on_absent = self.tell_absent
        worker.presence.signals.append(self._tell_signals)
        worker.presence.watchers = self.watchers
        worker.followers = self.followers
        worker.inspection.stats = self.stats
        if self._recv is not None:
            worker.dispatcher.recv_put = self._recv.offer
        worker.start()
        hub.run(self._watch_gunicorn, worker)
        atexit.register(_end, weakref.ref(worker), os.getpid())
        # Applications come and go in tests; their channel sockets go with them.
        weakref.finalize(self.app, hub.call_soon, worker.retire).atexit = False
        return worker

    def _watch_gunicorn(self, worker: Worker) -> None:
        """Drain when gunicorn ends this process: it closes no socket that was taken over."""
        gunicorn = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
        if self._shares_listener or gunicorn is None or not hasattr(gunicorn, "alive"):
            return
        timer = worker.hub.loop.timer(ALIVE_POLL, repeat=ALIVE_POLL, ref=False)

        def look() -> None:
            if worker.hub.over:
                timer.stop()
            elif not gunicorn.alive:
                timer.stop()
                worker.drain()

        timer.start(look)

    # what the worker asks (server.dispatch.Host) -------------------------------------------

    def run(self, handler: Handler, ev: EventMessage, request: KeptRequest | None) -> Any:
        """Run a handler in the contexts of one event.

        It sees no context variable that a request or another event has set: the greenlet or thread
        serves all clients.
        """
        return Context().run(self._run, handler, ev, request)

    def _run(self, handler: Handler, ev: EventMessage, request: KeptRequest | None) -> Any:
        app = self.app
        if request is None:
            with app.app_context():
                return response_value(self.router.run(handler, ev))
        context: EventContext = request.context(app)
        ev.request = context.request
        with context:
            if self._sessions_change and self.hooks.uid() != ev.uid:
                raise SignedOut
            return context.value(self.router.run(handler, ev), ev.id)

    @property
    def _sessions_change(self) -> bool:
        """Whether a session can change behind a request: it is kept on the server."""
        from flask.sessions import SecureCookieSessionInterface

        return not isinstance(self.app.session_interface, SecureCookieSessionInterface)

    def run_plain(self, fn: Callable[..., object], *args: Any) -> None:
        """Call a hook in an application context, as :meth:`run` does; its error is logged."""
        app = self._app()
        if app is not None:  # else it was collected while the event waited
            Context().run(_call_in, app, fn, args)

    def explain(self, error: BaseException) -> tuple[int, str]:
        """Status and message for the client: HTTP errors are meant for it, others are not."""
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
            composer.on_unpackable = partial(self._note_unpackable, packer)
            self._composers[packer, config.wire] = composer
        return composer

    def _note_unpackable(self, packer: str, id: str, error: PackError) -> None:
        """Count an event that clients of a packer cannot get, and log that once for each id."""
        self._counted["unpackable"] += 1
        if (packer, id) not in self._unpackable and len(self._unpackable) < 1000:
            self._unpackable.add((packer, id))
            words = "clients whose packer is %s hear chsk/unpackable in place of %s: %s"
            log.warning(words, packer, id, str(error).replace("data[1]", "its data"))

    def offer(self, config: Config) -> None:
        """Make the packers of an endpoint, so that one that cannot be made is an error now."""
        for packer in config.packers:
            self.composer(packer, config)
            self._offered[packer] = config

    def check_event(self, event: Any, exclude: EventMessage | None = None) -> Event:
        """Check an event that is sent to nobody as if it were sent.

        :raises BadEvent, PackError, UsageError: as a send does.
        """
        limit = self.config.max_outbox_bytes
        return packed(event, exclude, self.canonical, self.check_receivers, limit)[0]

    def tell_absent(self, uid: str, event: Event) -> None:
        """Call ``@chsk.absent`` here and now, but not for what that function itself sends."""
        fn = self.hooks.absent
        if fn is None or _telling_absent.get():
            return
        telling = _telling_absent.set(True)
        try:
            with self.app.app_context():
                fn(uid, event)
        except OF_CODE as error:
            if from_signal(error) or (isinstance(error, SystemExit) and forks.is_caller()):
                raise
            log.exception("error in @chsk.absent, of %s to uid %r", event.id, uid)
        finally:
            _telling_absent.reset(telling)

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
        """Drop the packers, because ``pack_default`` changed: they are made again when needed."""
        self._composers.clear()
        worker = self.running()
        if worker is not None:
            worker.sending.canonical = self.canonical

    def page_cursor(self) -> str:
        """The cursor of the page that the current view renders, and a grace for its user.

        :raises UsageError: where no view runs.
        """
        assert_in_view()
        uid = self.hooks.uid()
        broker = self.worker().broker  # if only this starts it, where events were is not known
        return cursor_of_page(broker, uid, self.config.page_grace, self.resume_keys[0])

    def count_refusal(self, status: int) -> None:
        """Count an HTTP refusal."""
        self._counted[f"refused_{status}"] += 1

    # what users ask --------------------------------------------------------------------------

    @property
    def recv(self) -> RecvQueue:
        """The queue of events that no handler took; from now on they go there."""
        if self._recv is None:
            self._recv = RecvQueue(self.config.recv_buf)
            worker = self.running()
            if worker is not None:
                worker.dispatcher.recv_put = self._recv.offer
        return self._recv

    def stats(self) -> dict[str, int]:
        """Counters and gauges; see figures.py."""
        worker = self.running()
        return {**AT_START, **self._counted, **({} if worker is None else worker.stats())}


def _call_in(app: Flask, fn: Callable[..., object], args: tuple[Any, ...]) -> None:
    with app.app_context():
        try:
            fn(*args)
        except BaseException as error:
            if from_signal(error) or (isinstance(error, SystemExit) and forks.is_caller()):
                raise
            log.exception("error in %r", fn)


def _refuse_async(receiver: Callable[..., Any]) -> Callable[..., Any]:
    raise UsageError(f"{receiver!r}, which a signal calls, is async and would never run: {REMEDY}")


def _end(worker: weakref.ref[Worker], pid: int) -> None:
    """Close the clients as the process ends, where nothing did before."""
    ending = worker()
    if ending is not None and pid == os.getpid():
        with suppress(KeyboardInterrupt):  # a second Ctrl-C ends at once
            ending.hub.run_at_exit(ending.end)

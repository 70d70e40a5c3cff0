"""``chsk.run`` and ``flask chsk serve``: gevent's WSGI server, with a graceful end.

The channel sockets open their WebSockets themselves, as under every server: they check a request
before they answer 101, and choose its subprotocol. gevent-websocket's handler opens those of the
application's other routes, which find theirs in ``request.environ["wsgi.websocket"]``.

It refuses to run in a process that gevent has not patched. Several workers are gunicorn's business.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
from _socket import socket as NativeSocket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Any

import gevent
from flask import Flask
from flask.logging import has_level_handler
from gevent.event import Event
from gevent.monkey import is_module_patched
from gevent.pool import Pool
from gevent.pywsgi import WSGIServer
from geventwebsocket.handler import WebSocketHandler
from werkzeug.debug import DebuggedApplication
from werkzeug.exceptions import HTTPException
from werkzeug.serving import is_running_from_reloader

from .errors import ConfigError, UsageError
from .logs import logger
from .web.internals import wait_for_change

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = logger(__name__)
access = logger("flask_chsk.access")
trace = logger("flask_chsk.server.trace")

HANDSHAKE = 10.0  # seconds that TLS has to begin in
KEEP_ALIVE = 75.0  # seconds that a connection may wait for its next request: nginx's default
GRACEFUL_TIMEOUT = 30.0  # seconds that requests have to end: gunicorn's default
RELOAD_TIMEOUT = 1.0  # the same, where a file has changed and somebody waits to see it
CLOSING = 3.0  # seconds until the last socket is closed: above transports.websocket.CLOSING
LOOK = 0.02  # seconds between looks at what has still to end
CHANGED = 3  # the exit status by which a process asks the reloader for another one

UNPATCHED = """\
this process is not patched by gevent, so a handler that waits would stop all clients. Start it with

    flask --app {script} chsk serve

or let these be the first lines of the script, above all other imports:

    from gevent import monkey
    monkey.patch_all()"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What ``chsk.run`` and ``flask chsk serve`` can be told; docs/servers.rst explains it."""

    host: str = "127.0.0.1"
    port: int = 5000
    certfile: str | None = None
    keyfile: str | None = None
    use_reloader: bool = False
    use_debugger: bool = False
    access_log: bool = True
    trace: bool = False
    graceful_timeout: float = GRACEFUL_TIMEOUT


def is_patched() -> bool:
    """Whether gevent has patched this process, so that a call that waits stops one greenlet."""
    return bool(is_module_patched("socket"))


def patched_again() -> list[str]:
    """The command that starts this process once more, patched before it imports anything."""
    module = _module_of_script()
    program = [sys.argv[0]] if module is None else ["--module", module]
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return [sys.executable, *flags, "-m", "gevent.monkey", *program, *sys.argv[1:]]


def _module_of_script() -> str | None:
    """The module that ``python -m`` was told to run; None: a script, such as ``flask``."""
    spec = sys.modules["__main__"].__spec__
    return None if spec is None else spec.name.removesuffix(".__main__")


def is_ignored() -> bool:
    """Whether ``chsk.run()`` was called because a command of Flask imported the script.

    It would block the command: ``app.run()`` does nothing there, either.
    """
    if os.environ.get("FLASK_RUN_FROM_CLI") != "true":
        return False
    log.warning(
        "chsk.run() does nothing while a flask command imports the application: put it under"
        " if __name__ == '__main__'"
    )
    return True


def serve(load: Callable[[], Flask], options: Options) -> None:
    """Serve what *load* returns until a signal ends it, or a file has changed.

    :raises UsageError: in a process that is not patched, and where it cannot listen.
    :raises SystemExit: by the reloader, with the status of the last process.
    """
    if not is_patched():
        script = _module_of_script() or Path(sys.argv[0]).stem
        raise UsageError(UNPATCHED.format(script=script))
    if options.use_reloader and not is_running_from_reloader():
        sys.exit(_restart_on_change())
    stop, changed = Event(), Event()
    if options.use_reloader:
        gevent.spawn(_watch_files, stop, changed)
        gevent.sleep(0)  # its first look comes before anything is imported
    app, application = _loaded(load, options)
    server = Server((options.host, options.port), app, application, **_tls(options))
    _listen(server, options)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise SystemExit(128 + number)  # a second Ctrl-C waits for nothing
        stop.set()

    for number in before:
        signal.signal(number, on_signal)
    try:
        stop.wait()
        server.end(RELOAD_TIMEOUT if changed.is_set() else options.graceful_timeout)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if changed.is_set():
        sys.exit(CHANGED)


class Handler(WebSocketHandler):  # type: ignore[misc]
    """One connection and its requests, one after another."""

    server: Server

    def read_requestline(self) -> str:
        """The first line of the next request; nothing where the connection ends instead."""
        server = self.server
        if server.ending:
            return ""
        server.idle.add(self)
        try:
            line: str = gevent.with_timeout(KEEP_ALIVE, super().read_requestline, timeout_value="")
            return line
        finally:
            server.idle.discard(self)

    def upgrade_websocket(self) -> list[bytes] | None:
        """Open a WebSocket of the application's, or refuse it: then the body of the answer.

        gevent-websocket has that as text, which gevent cannot send, and takes a key for base64.
        """
        try:
            said: list[str] | None = super().upgrade_websocket()
        except ValueError:
            self.start_response("400 Bad Request", [])
            return [b"Sec-WebSocket-Key is no base64"]
        return None if said is None else [text.encode("latin-1") for text in said]

    def finalize_headers(self) -> None:
        """Say that the connection ends with this response, where the server ends."""
        super().finalize_headers()
        if self.server.ending and self.code != 101:
            self.close_connection = True
            self.response_headers.append((b"Connection", b"close"))

    def log_request(self) -> None:
        """Write a line of the access log, for a WebSocket, too."""
        access.info("%s", self.format_request())


class Server(WSGIServer):
    """gevent's server for one application, which can end gracefully.

    :ivar ending: no connection gets another request.
    :ivar idle: the connections between two requests.
    :ivar clients: the WebSockets that gevent-websocket opened, by the client's address.
    """

    handler_class = Handler
    logger = log  # gevent-websocket would make its own

    def __init__(
        self,
        address: tuple[str, int],
        app: Flask | None,
        application: WSGIApplication,
        **tls: Any,
    ) -> None:
        """
        :param app: None where it could not be loaded.
        :param application: *app*, or what wraps it.
        """
        environ = {"SERVER_NAME": address[0]}  # gevent would ask DNS for it
        super().__init__(address, application, spawn=Pool(), environ=environ, **tls)
        self._app = app
        self.ending = False
        self.idle: set[Handler] = set()
        self.clients: dict[Any, Any] = {}

    def pre_start_hook(self, handler: Handler) -> bool:
        """Tell gevent-websocket whether the application answers a request by itself.

        It does, unless the request is for a WebSocket of a route that is not ours.
        """
        environ, app = handler.environ, self._app
        if app is None or environ.get("HTTP_UPGRADE", "").lower() != "websocket":
            return True
        try:
            adapter = app.create_url_adapter(app.request_class(environ))
            assert adapter is not None  # it has a request
            endpoint, _ = adapter.match()
        except HTTPException:  # no route: the application says so, with a status
            return True
        return endpoint.rpartition(".")[0] in app.extensions["chsk"].cookieless.blueprints

    def wrap_socket_and_handle(self, client_socket: socket.socket, address: Any) -> None:
        """Serve a connection over TLS. One that does not speak TLS is no error of ours."""
        late = TimeoutError(f"no handshake in {HANDSHAKE:g} seconds")
        try:
            with gevent.Timeout(HANDSHAKE, late):
                secure = self.wrap_socket(client_socket, server_side=True)  # type: ignore
        except OSError as error:
            log.debug("no TLS with %s: %s", address, error)
            return
        with secure:
            self.handle(secure, address)

    def end(self, timeout: float) -> None:
        """Take nothing more, send the clients away, and wait for the requests that run.

        :param timeout: seconds after which they are cut off.
        """
        self.ending = True
        self.close()
        state = None if self._app is None else self._app.extensions["chsk"]
        worker = None if state is None else state.running()
        if worker is not None:
            worker.hub.run(worker.drain)
        for handler in [*self.idle, *(client.ws.handler for client in self.clients.values())]:
            _end_reading(handler.socket)
        self.stop(timeout)
        until = monotonic() + CLOSING
        while worker and not worker.hub.run(worker.is_drained) and monotonic() < until:
            gevent.sleep(LOOK)


def _end_reading(sock: socket.socket) -> None:
    """Let whoever reads from *sock* find its end, behind what has arrived."""
    native = NativeSocket(sock.family, sock.type, sock.proto, sock.fileno())
    try:
        with suppress(OSError):  # the peer may be gone
            native.shutdown(socket.SHUT_RD)
    finally:
        native.detach()


def _loaded(load: Callable[[], Flask], options: Options) -> tuple[Flask | None, WSGIApplication]:
    """The application, and what the server calls: perhaps the debugger around it."""
    try:
        app = load()
    except Exception as error:
        if not is_running_from_reloader():
            raise
        # Somebody is writing it: show the error, and wait for the next change.
        sys.excepthook(type(error), error, error.__traceback__)
        return None, _failing(error, options)
    if "chsk" not in app.extensions:
        raise UsageError("this application has no chsk: call chsk.init_app(app) first")
    if options.use_debugger:
        return app, DebuggedApplication(app, evalex=True)
    return app, app


def _failing(error: Exception, options: Options) -> WSGIApplication:
    """An application that raises *error*."""

    def application(environ: Any, start_response: Any) -> Any:
        raise error from None

    return DebuggedApplication(application, evalex=True) if options.use_debugger else application


def _tls(options: Options) -> dict[str, Any]:
    """What the server needs to know for TLS.

    :raises ConfigError: for files that cannot be used.
    """
    certfile, keyfile = options.certfile, options.keyfile
    if certfile is None:
        if keyfile is not None:
            raise ConfigError("keyfile needs a certfile (flask chsk serve --cert … --key …)")
        return {}
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certfile, keyfile)
    except OSError as error:
        files = certfile if keyfile is None else f"{certfile} with {keyfile}"
        raise ConfigError(f"no certificate in {files}: {error}") from error
    return {"ssl_context": context}


def _listen(server: Server, options: Options) -> None:
    """Begin to serve, and say where.

    :raises UsageError: where the address cannot be had.
    """
    host, port = options.host, options.port
    if not isinstance(port, int) or not 0 <= port <= 65535:
        raise UsageError(f"a port is an int from 0 to 65535, not {port!r}")
    try:
        server.start()
    except socket.gaierror as error:
        raise UsageError(f"cannot listen on {host}: {error.strerror}") from error
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        why = "another program uses it" if taken else os.strerror(error.errno or 0)
        raise UsageError(
            f"cannot listen on port {port} of {host}: {why}. Choose another port"
            " (port=…, or flask chsk serve --port …)"
        ) from error
    if options.access_log:
        _show(access, logging.INFO)
    if options.trace:
        _show(trace, logging.DEBUG)
    everywhere = host in ("", "0.0.0.0", "::")
    shown = "127.0.0.1" if everywhere else f"[{host}]" if ":" in host else host
    scheme = "https" if server.ssl_enabled else "http"
    also = ", and on every other address of this machine" if everywhere else ""
    url = f"{scheme}://{shown}:{server.server_port}"
    print(f" * Serving on {url}{also} (Ctrl-C ends it)", file=sys.stderr, flush=True)


def _show(log: logging.Logger, level: int) -> None:
    """Print *log*, unless the application has its own idea of it, as Werkzeug does."""
    if log.level == logging.NOTSET:
        log.setLevel(level)
    if not has_level_handler(log):
        log.addHandler(logging.StreamHandler())


def _watch_files(stop: Event, changed: Event) -> None:
    wait_for_change()
    changed.set()
    stop.set()


def _restart_on_change() -> int:
    """Run this process's command as a child, again for each change; the status of the last one.

    A Ctrl-C in a terminal reaches the child, too; what comes to this process alone is passed on.
    """
    ending = False
    child: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, frame: FrameType | None) -> None:
        nonlocal ending
        ending = True
        if child is not None:
            child.send_signal(signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    environ = {**os.environ, "WERKZEUG_RUN_MAIN": "true"}
    while True:
        child = subprocess.Popen([sys.executable, *sys.orig_argv[1:]], env=environ)
        if ending:
            child.send_signal(signal.SIGTERM)
        status = child.wait()
        if ending or status != CHANGED:
            return status

"""What the package uses of others that their documentation does not promise.

    python internals.py

Run by the Python of an environment of ``make matrix``, so without pytest and checkout; in the tests
by tests/integration/test_internals.py. Each check returns what it looked at.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

PATIENCE = 10.0


# redis-py -------------------------------------------------------------------------------------

ANSWERS = {
    b"LIST": b"*4\r\n$1\r\na\r\n:5\r\n$-1\r\n*1\r\n$0\r\n\r\n",
    b"NOSCRIPT": b"-NOSCRIPT No matching script.\r\n",
    b"FULL": b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
}


def _answer(server: socket.socket) -> None:
    """Be a Redis to one client: to each command what ANSWERS has, or OK."""
    sock, _ = server.accept()
    with sock, sock.makefile("rb") as commands:
        while head := commands.readline():
            words = []
            for _ in range(int(head[1:])):
                size = int(commands.readline()[1:])
                words.append(commands.read(size + 2)[:-2])
            sock.sendall(ANSWERS.get(words[0], b"+OK\r\n"))


@contextlib.contextmanager
def _redis() -> Iterator[int]:
    """The port of something that answers as Redis does, to one client."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        thread = threading.Thread(target=_answer, args=(server,), daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(PATIENCE)
        assert not thread.is_alive()


def redis_parser_and_socket() -> str:
    """Answers are read by the parser in Python, and the socket of a connection is found."""
    import redis.connection
    from redis.exceptions import NoScriptError, ResponseError

    from flask_chsk.brokers.redis.internals import plain_parser, socket_of

    parser = plain_parser()
    assert "hiredis" not in parser.__name__.lower(), parser
    with _redis() as port:
        wire = redis.connection.Connection(
            host="127.0.0.1", port=port, protocol=2, parser_class=parser, socket_timeout=PATIENCE
        )
        assert socket_of(wire) is None
        wire.connect()
        sock = socket_of(wire)
        assert sock is not None and sock.getpeername() == ("127.0.0.1", port)
        wire.send_packed_command([b"*1\r\n$4\r\nLIST\r\n"])
        assert wire.read_response() == [b"a", 5, None, [b""]]
        assert not wire.can_read(0)
        for word, kind in (("NOSCRIPT", NoScriptError), ("FULL", ResponseError)):
            wire.send_command(word)
            assert wire.can_read(PATIENCE)
            try:
                wire.read_response(disconnect_on_error=False)
            except kind:
                pass
            else:
                raise AssertionError(f"{word} is no {kind.__name__}")
        wire.send_command("LIST")  # the connection goes on after an error
        assert wire.read_response()[1] == 5
        wire.disconnect()
        assert socket_of(wire) is None
    return f"redis {version('redis')}: {parser.__name__}"


# gevent ---------------------------------------------------------------------------------------


def gevents_hub() -> str:
    """The hub of a thread is found, and not made; its loop has what links need."""
    import gevent
    from gevent.monkey import get_original

    from flask_chsk.internals import hub_of_thread

    found: list[object] = []

    def look() -> None:
        found.append(hub_of_thread())
        hub = gevent.get_hub()
        found.extend([hub, hub_of_thread()])
        for name in ("io", "timer", "async_", "run_callback", "run_callback_threadsafe"):
            assert callable(getattr(hub.loop, name)), name
        found.append("done")
        hub.destroy(destroy_loop=True)

    done = get_original("_thread", "allocate_lock")()
    done.acquire()

    def main() -> None:
        try:
            look()
        finally:
            done.release()

    get_original("_thread", "start_new_thread")(main, ())
    assert done.acquire(True, PATIENCE)
    none, made, again, end = found
    assert (none, end) == (None, "done") and again is made
    return f"gevent {version('gevent')}: {type(made).__name__}"


def gevents_server_shows_its_socket() -> str:
    """pywsgi: the socket of a request, and what was read behind the request's head."""
    import gevent
    import gevent.socket
    from gevent.pywsgi import WSGIServer

    from flask_chsk.transports import upgrade

    seen: list[Any] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        sock = upgrade.socket_of(environ)
        seen.append(sock)
        if sock is not None:
            seen.extend([sock.getpeername(), upgrade._leftover(environ, sock)])
            sock.settimeout(PATIENCE)
        start_response("200 OK", [("Connection", "close")])
        return [b"ok"]

    server = WSGIServer(("127.0.0.1", 0), app, log=None)
    server.start()
    with gevent.Timeout(PATIENCE), gevent.socket.create_connection(server.address) as client:
        head = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        client.sendall(head + b"first frame")
        while client.recv(1024):
            pass
        peer = client.getsockname()
    server.stop()
    sock, *rest = seen
    assert isinstance(sock, gevent.socket.socket) and rest == [peer, b"first frame"], seen
    return f"gevent {version('gevent')}: pywsgi"


def gevents_server_can_be_told_to_end() -> str:
    """The methods of handlers that flask_chsk.serving extends are called, and the server joins."""
    import gevent.socket

    from flask_chsk.serving import Server

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        server.ending = True  # in the middle of a request
        start_response("200 OK", [])
        return [b"ok"]

    server = Server(("127.0.0.1", 0), None, app)
    server.start()
    with gevent.Timeout(PATIENCE), gevent.socket.create_connection(server.address) as one:
        gevent.sleep(0.01)
        with gevent.socket.create_connection(server.address) as other:
            other.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            answer = b"".join(iter(lambda: other.recv(1024), b""))
        assert b"Connection: close" in answer and answer.endswith(b"ok"), answer
        assert len(server.idle) == 1
        server.end(PATIENCE)
        assert one.recv(1024) == b""
    return f"gevent {version('gevent')}, gevent-websocket {version('gevent-websocket')}: its end"


def werkzeugs_reloader() -> str:
    """It looks at files once when it is entered, and ends by SystemExit when one has changed."""
    import logging

    from flask_chsk.web import internals

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would say that it reloads

    class Changed(internals.StatReloaderLoop):
        interval = 0.01

        def run_step(self) -> None:
            super().run_step()
            if self.looked:
                self.trigger_reload("a file")
            self.looked = True

        looked = False

    internals.StatReloaderLoop = Changed  # type: ignore[misc]
    internals.wait_for_change()
    return f"Werkzeug {version('werkzeug')}: reloader"


# gunicorn -------------------------------------------------------------------------------------


def gunicorns_unread_bytes() -> str:
    """What gunicorn has read behind a request's head can be had, once."""
    from gunicorn.config import Config
    from gunicorn.http.parser import RequestParser

    from flask_chsk.transports import upgrade

    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nfirst frame")
        parser = RequestParser(Config(), ours, ("127.0.0.1", 1))
        environ = {"wsgi.input": next(parser).body}
        assert [upgrade._leftover(environ, ours) for _ in "12"] == [b"first frame", b""]
    return f"gunicorn {version('gunicorn')}: unreader"


def gunicorns_worker_can_be_watched() -> str:
    """The handler of SIGTERM is a method of the worker, which says whether it goes on."""
    from gunicorn.app.base import BaseApplication
    from gunicorn.workers.ggevent import GeventWorker

    class Application(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            """Nothing."""

    app = Application()
    worker = GeventWorker(0, 0, [], app, 30, app.cfg, None)
    try:
        before = signal.getsignal(signal.SIGTERM)
        assert worker.alive is True
        assert worker.handle_exit.__self__ is worker
        assert signal.getsignal(signal.SIGTERM) is before
    finally:
        worker.tmp.close()
    return f"gunicorn {version('gunicorn')}: worker"


# websockets -----------------------------------------------------------------------------------


def websockets_mask() -> str:
    """The mask written in C is taken, and does what ours does."""
    from websockets.speedups import apply_mask

    from flask_chsk.protocol import frames

    assert frames.apply_mask is apply_mask
    data = bytes(range(256)) + b"!"
    assert apply_mask(data, b"\1\2\3\4") == frames._xor(data, b"\1\2\3\4")
    return f"websockets {version('websockets')}: mask"


# prometheus_client --------------------------------------------------------------------------------


def prometheus_shows_figures() -> str:
    """Figures are shown in one process, before its worker has started."""
    from flask import Flask
    from prometheus_client import CollectorRegistry, generate_latest

    from flask_chsk import Chsk
    from flask_chsk.metrics import ChskCollector

    app, registry = Flask("app"), CollectorRegistry()
    app.secret_key = "secret"
    Chsk(app)
    registry.register(ChskCollector(app))
    assert b'\nchsk_refusals_total{status="503"} 0.0\n' in generate_latest(registry)
    return f"prometheus-client {version('prometheus-client')}: figures"


CHECKS: dict[str, list[Callable[[], str]]] = {
    "redis": [redis_parser_and_socket],
    "gevent": [gevents_hub, gevents_server_shows_its_socket, gevents_server_can_be_told_to_end],
    "werkzeug": [werkzeugs_reloader],
    "gunicorn": [gunicorns_unread_bytes, gunicorns_worker_can_be_watched],
    "websockets": [websockets_mask],
    "prometheus-client": [prometheus_shows_figures],
}


def main() -> None:
    for checks in CHECKS.values():
        for check in checks:
            print("  ", check())


if __name__ == "__main__":
    main()

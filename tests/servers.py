"""Every kind of WSGI server that the extension runs under, started as a real process.

    with running("gunicorn-gevent", "tests.echo:app", log) as server:
        server.port, server.pid, server.log, server.descriptors()

`python -m tests.servers KIND APP` serves APP with the kinds that have no command of their own.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.process import Process, eventually


@dataclass(frozen=True)
class Kind:
    """How to start one kind of server."""

    command: Sequence[str]  # with APP, CERT and KEY in place of what they stand for
    tls: bool = False


def _gunicorn(worker: str, *more: str, tls: bool = False) -> Kind:
    secure = ["--certfile", "CERT", "--keyfile", "KEY"] if tls else []
    gunicorn = [sys.executable, "-m", "gunicorn", "-w", "1", "-b", "127.0.0.1:0"]
    # The access log is on: it must survive whatever is done to its request.
    return Kind([*gunicorn, "-k", worker, *more, *secure, "--access-logfile", "-", "APP"], tls=tls)


def _flask(*more: str, tls: bool = False, run: str = "--with-threads") -> Kind:
    flask = [sys.executable, "-m", "flask", "--app", "APP", *more]
    secure = ["--cert", "CERT", "--key", "KEY"] if tls else []
    return Kind([*flask, "run", run, "--port", "0", "--no-reload", *secure], tls=tls)


def _flask_chsk(tls: bool = False) -> Kind:
    flask = [sys.executable, "-m", "flask", "--app", "APP"]
    secure = ["--cert", "CERT", "--key", "KEY"] if tls else []
    return Kind([*flask, "chsk", "serve", "--port", "0", *secure], tls=tls)


def _here(kind: str, tls: bool = False) -> Kind:
    return Kind([sys.executable, "-m", "tests.servers", kind, "APP", "CERT", "KEY"], tls=tls)


KINDS = {
    "flask-chsk-serve": _flask_chsk(),
    "chsk-run": _here("chsk-run"),
    "gunicorn-gevent": _gunicorn("gevent"),
    "gunicorn-gevent-pywsgi": _gunicorn("gevent_pywsgi"),
    "gunicorn-gevent-websocket": _gunicorn(
        "geventwebsocket.gunicorn.workers.GeventWebSocketWorker"
    ),
    "gunicorn-gthread": _gunicorn("gthread", "--threads", "4"),
    "gunicorn-sync": _gunicorn("sync"),
    "pywsgi": _here("pywsgi"),
    "pywsgi-unpatched": _here("pywsgi-unpatched"),
    "pywsgi-websocket": _here("pywsgi-websocket"),
    "flask-run": _flask(),
    "flask-debug": _flask("--debug"),
    "flask-run-one": _flask(run="--without-threads"),
    "werkzeug-patched": _here("werkzeug-patched"),
}

SECURE_KINDS = {
    "flask-chsk-serve-tls": _flask_chsk(tls=True),
    "gunicorn-gevent-tls": _gunicorn("gevent", tls=True),
    "gunicorn-gthread-tls": _gunicorn("gthread", "--threads", "4", tls=True),
    "pywsgi-tls": _here("pywsgi-tls", tls=True),
    "flask-run-tls": _flask(tls=True),
}


class WsgiServer(Process):
    """A started server; ready to answer when it has been made."""

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str | None]) -> None:
        super().__init__(command, log, env)
        try:
            self.port = int(self.wait_for_log(r"https?://127\.0\.0\.1:(\d+)")[1])
            eventually(self.workers, timeout=30)
        except BaseException:
            self.stop(timeout=0)
            raise

    def workers(self) -> list[int]:
        """The processes that serve: a master's children, where there is a master."""
        if "gunicorn" not in self.command:
            return [self.pid]
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [int(pid) for pid in children]

    def descriptors(self) -> int:
        """Descriptors that the serving processes have open."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.workers())


@contextlib.contextmanager
def running(
    kind: str, app: str, log: Path, env: Mapping[str, str | None] | None = None
) -> Iterator[WsgiServer]:
    """A server of *kind* that serves ``"module:name"`` *app*; stopped at the end of the block."""
    recipe = {**KINDS, **SECURE_KINDS}[kind]
    stand_in = {"APP": app}
    if recipe.tls:
        cert, key = certificate(log.parent)
        stand_in |= {"CERT": str(cert), "KEY": str(key)}
    command = [stand_in.get(word, word) for word in recipe.command]
    server = WsgiServer(command, log, env or {})
    try:
        yield server
    finally:
        server.stop(signal.SIGTERM)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that only a test would trust, and its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    if not cert.exists():
        wanted = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
        named = "-subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
        files = ["-keyout", str(key), "-out", str(cert)]
        command = ["openssl", *wanted.split(), *named.split(), *files]
        subprocess.run(command, check=True, capture_output=True)
    return cert, key


def trusting(folder: Path) -> ssl.SSLContext:
    """A client's context that trusts :func:`certificate`."""
    return ssl.create_default_context(cafile=str(certificate(folder)[0]))


def _serve(kind: str, name: str, cert: str, key: str) -> None:
    if kind != "pywsgi-unpatched":
        from gevent import monkey

        monkey.patch_all()
    module, _, attribute = name.partition(":")
    app: Any = getattr(importlib.import_module(module), attribute)
    if kind == "chsk-run":
        from flask_chsk import Chsk

        Chsk().run(app, port=0)
        return
    if kind == "werkzeug-patched":
        app.run(port=0)
        return
    from gevent.pywsgi import WSGIServer

    options: dict[str, Any] = {}
    if kind == "pywsgi-websocket":
        from geventwebsocket.handler import WebSocketHandler

        options["handler_class"] = WebSocketHandler
    if kind == "pywsgi-tls":
        options |= {"certfile": cert, "keyfile": key}
    server = WSGIServer(("127.0.0.1", 0), app, **options)
    server.start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    _serve(*sys.argv[1:])

"""Servers as processes: installed apart, started, pinned, measured.

CPU time comes from the process's own clock (``clock_getcpuclockid``), to the nanosecond, user and
system together: what ``utime`` and ``stime`` of ``/proc`` say in steps of 10 ms. Memory is PSS,
which counts a page that n processes share as a n-th of it for each.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import dialects as d

HERE = Path(__file__).parent
ROOT = HERE.parent
PEERS = HERE / "peers"
ENVIRONMENTS = Path(sys.prefix) / "bench"  # goes with the virtualenv, is ignored with it

CPUS = sorted(os.sched_getaffinity(0))
SERVER_CPU, LOAD_CPU = (CPUS[0], CPUS[-1]) if len(CPUS) > 1 else (None, None)


class NotHere(Exception):
    """A server that cannot be measured on this machine, and why."""


@dataclass(frozen=True)
class Peer:
    """One server program: how it is installed, started and spoken to.

    ``speaks``: for each kind of work its dialect; what is missing it cannot do.
    """

    name: str
    label: str
    argv: Callable[[Path, int], list[str]]
    speaks: dict[str, d.Dialect]
    requirements: tuple[str, ...] = ()
    npm: tuple[str, ...] = ()

    @property
    def environment(self) -> Path:
        """Where its packages are; ours are in this virtualenv."""
        if not self.requirements and not self.npm:
            return Path(sys.prefix)
        return ENVIRONMENTS / self.name.replace(" ", "-")

    def install(self) -> None:
        """See that its packages are there.

        :raises NotHere: where they cannot be had.
        """
        wanted = "\n".join((*self.requirements, *self.npm))
        stamp = self.environment / "installed.txt"
        if not wanted or (stamp.exists() and stamp.read_text() == wanted):
            return
        print(f"installing {self.label}", file=sys.stderr)
        shutil.rmtree(self.environment, ignore_errors=True)
        self.environment.mkdir(parents=True)
        if self.npm:
            if shutil.which("node") is None or shutil.which("npm") is None:
                raise NotHere("node is not installed")
            options = ("--silent", "--no-audit", "--no-fund")
            _run("npm", "install", *options, *self.npm, cwd=self.environment)
        else:
            _run(sys.executable, "-m", "venv", str(self.environment))
            pip = str(self.environment / "bin" / "pip")
            options = ("-qq", "--disable-pip-version-check", "--no-input")
            _run(pip, "install", *options, *self.requirements)
        stamp.write_text(wanted)


def _run(*argv: str, cwd: Path | None = None) -> None:
    done = subprocess.run(argv, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise NotHere(" ".join(last) or f"{argv[0]} failed")


def python(environment: Path) -> list[str]:
    """The interpreter of an environment."""
    return [str(environment / "bin" / "python")]


def gunicorn(app: str, worker: str, slots: int) -> Callable[[Path, int], list[str]]:
    """How a WSGI application is served; *slots*: ``--worker-connections``."""

    def argv(environment: Path, port: int) -> list[str]:
        return [
            *python(environment),
            *f"-m gunicorn -w 1 -k {worker} --worker-connections {slots}".split(),
            *f"--bind 127.0.0.1:{port} --backlog 4096 --keep-alive 120 --log-level error".split(),
            *("--chdir", str(PEERS), app),
        ]

    return argv


CHSK = {
    "edn": d.CHSK_EDN,
    "json": d.CHSK_JSON,
    "push": d.CHSK_EDN,
    "large": d.CHSK_LARGE,
    "ajax edn": d.CHSK_AJAX_EDN,
    "ajax json": d.CHSK_AJAX_JSON,
    "poll": d.CHSK_POLL,
}
SOCKETIO = {"json": d.SOCKETIO, "push": d.SOCKETIO, "large": d.SOCKETIO_LARGE}
POLLING = {"ajax json": d.SOCKETIO_POLLING, "poll": d.SOCKETIO_PARKED}
FLASK_SOCKETIO = ("flask-socketio==5.7.0", "gunicorn[gevent]==27.0.1")
GEVENT_WEBSOCKET = (*FLASK_SOCKETIO, "gevent-websocket==0.10.1")  # taken where it is installed
FLASK_SOCK = ("flask-sock==0.7.0", "gunicorn[gevent]==27.0.1")
UVICORN = ("python-socketio==5.18.1", "uvicorn[standard]==0.54.0")

OURS = Peer(
    "flask_chsk",
    "flask_chsk",
    gunicorn("flask_chsk_app:app", "gevent", 1000),  # the default: sockets taken over need none
    CHSK,
)
OURS_POLLED = Peer(
    "flask_chsk polled",
    "flask_chsk",
    gunicorn("flask_chsk_app:app", "gevent", 12_000),
    CHSK,
)
FLASK = Peer(
    "flask",
    "a plain Flask view",
    gunicorn("flask_chsk_app:app", "gevent", 1000),
    {"ajax json": d.PLAIN_FLASK},
)
PEERS_ALL = [
    OURS,
    Peer(
        "flask-socketio",
        "Flask-SocketIO, gevent-websocket",
        gunicorn(
            "flask_socketio_app:app",
            "geventwebsocket.gunicorn.workers.GeventWebSocketWorker",
            12_000,
        ),
        {**SOCKETIO, **POLLING},
        GEVENT_WEBSOCKET,
    ),
    Peer(
        "flask-socketio simple",
        "Flask-SocketIO, simple-websocket",
        gunicorn("flask_socketio_app:app", "gevent", 12_000),
        SOCKETIO,
        FLASK_SOCKETIO,
    ),
    Peer(
        "flask-sock",
        "flask-sock (no protocol)",
        gunicorn("flask_sock_app:app", "gevent", 12_000),
        {"json": d.BARE, "push": d.BARE, "large": d.BARE_LARGE},
        FLASK_SOCK,
    ),
    Peer(
        "python-socketio",
        "python-socketio, uvicorn",
        lambda environment, port: [
            str(environment / "bin" / "python"),
            "-m",
            "uvicorn",
            "asgi_socketio_app:app",
            "--port",
            str(port),
            "--app-dir",
            str(PEERS),
            "--log-level",
            "error",
            "--no-access-log",
            "--backlog",
            "4096",
            "--ws-ping-interval",
            "300",
        ],
        {**SOCKETIO, **POLLING},
        UVICORN,
    ),
    Peer(
        "socket.io",
        "socket.io, Node",
        lambda environment, port: ["node", str(PEERS / "socketio_node.js"), str(port)],
        {**SOCKETIO, **POLLING},
        npm=("socket.io@4.8.4",),
    ),
    Peer(
        "raw",
        "raw gevent loop (the floor)",
        lambda environment, port: [
            str(environment / "bin" / "python"),
            str(PEERS / "raw_gevent.py"),
            str(port),
        ],
        {"json": d.BARE, "push": d.BARE},
    ),
    FLASK,
]


class Server:
    """A running server and its meters."""

    def __init__(self, peer: Peer) -> None:
        """:raises NotHere: where it does not start; its log is in the message."""
        peer.install()
        self.peer = peer
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
        environ.pop("VIRTUAL_ENV", None)
        if peer.npm:
            environ["NODE_PATH"] = str(peer.environment / "node_modules")
        elif peer.requirements:
            del environ["PYTHONPATH"]
        log = peer.environment / "server.log"
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                peer.argv(peer.environment, self.port),
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if SERVER_CPU is not None:
            os.sched_setaffinity(self._process.pid, {SERVER_CPU})
        try:
            self.pid = self._first_answer()
        except TimeoutError:
            self.stop()
            last = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise NotHere(" ".join(last) or "it does not start") from None
        self._clock = (~self.pid << 3) | 2  # clock_getcpuclockid(3)

    def _first_answer(self) -> int:
        for _ in range(200):
            if self._process.poll() is not None:
                break
            try:
                return int(self.get("/pid"))
            except OSError:
                time.sleep(0.1)
        raise TimeoutError

    def get(self, path: str) -> str:
        """What a GET of *path* says; blocks."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as answer:
            text: str = answer.read().decode()
        return text

    def cpu(self) -> float:
        """Seconds of CPU that the process that serves has used."""
        return time.clock_gettime(self._clock)

    def pss(self) -> int:
        """Bytes of memory that are its own share."""
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
        raise NotHere("no PSS in smaps_rollup")

    def stop(self) -> None:
        """End it, and all that it started."""
        for how in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, how)
            except ProcessLookupError:
                break
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                continue
        self._process.wait()

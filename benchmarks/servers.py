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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import dialects as d
from .load import Lost

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
    broker: str = ""  # the environment variable that names its Redis
    requirements: tuple[str, ...] = ()
    npm: tuple[str, ...] = ()
    tree: Path = ROOT  # the checkout whose package and server programs it runs

    @property
    def ours(self) -> bool:
        """Whether it is flask_chsk, of this checkout or of an earlier commit."""
        return self.name == "flask_chsk" or self.tree != ROOT

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
            options = ("-qq", "--disable-pip-version-check", "--no-input", "--retries=1")
            _run(pip, "install", *options, *self.requirements)
        stamp.write_text(wanted)


def _run(*argv: str, cwd: Path | None = None) -> None:
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    try:
        done = subprocess.run(argv, cwd=cwd, timeout=300, **options)
    except subprocess.TimeoutExpired:
        raise NotHere(f"{argv[0]} takes longer than five minutes") from None
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
            app,
        ]

    return argv


CHSK = {
    "edn": d.CHSK_EDN,
    "json": d.CHSK_JSON,
    "push": d.CHSK_EDN,
    "relay": d.CHSK_RELAY,
    "large": d.CHSK_LARGE,
    "ajax edn": d.CHSK_AJAX_EDN,
    "ajax json": d.CHSK_AJAX_JSON,
    "poll": d.CHSK_POLL,
}
SOCKETIO = {"json": d.SOCKETIO, "push": d.SOCKETIO, "large": d.SOCKETIO_LARGE}
POLLING = {"ajax json": d.SOCKETIO_POLLING, "poll": d.SOCKETIO_PARKED}
FLASK_SOCKETIO = ("flask-socketio==5.7.0", "gunicorn[gevent]==27.0.1")
GEVENT_WEBSOCKET = (  # taken where it is installed
    *FLASK_SOCKETIO,
    "gevent-websocket==0.10.1",
    "redis==8.1.0",
)
FLASK_SOCK = ("flask-sock==0.7.0", "gunicorn[gevent]==27.0.1")
UVICORN = ("python-socketio==5.18.1", "uvicorn[standard]==0.54.0")

OURS = Peer(
    "flask_chsk",
    "flask_chsk",
    gunicorn("flask_chsk_app:app", "gevent", 1000),  # the default: sockets taken over need none
    CHSK,
    "CHSK_BROKER_URL",
)


def polled(ours: Peer) -> Peer:
    """*ours* with a slot of its server for each of thousands of parked polls."""
    return replace(ours, argv=gunicorn("flask_chsk_app:app", "gevent", 12_000))


def before(revision: str) -> Peer:
    """flask_chsk as it was at *revision*, checked out beside this run's environments.

    It runs with today's packages, and with the server program of its own time.

    :raises NotHere: where git does not know the revision.
    """
    found = subprocess.run(
        ["git", "rev-parse", "--verify", "--short", f"{revision}^{{commit}}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode:
        raise NotHere(f"git knows no commit {revision!r}")
    commit = found.stdout.strip()
    tree = ENVIRONMENTS / f"flask_chsk-{commit}"
    if not tree.exists():
        packed = subprocess.run(
            ["git", "archive", commit], cwd=ROOT, capture_output=True, check=True
        )
        tree.mkdir(parents=True)
        subprocess.run(["tar", "-x"], cwd=tree, input=packed.stdout, check=True)
    return replace(OURS, name="before", label=f"flask_chsk at {commit}", tree=tree)


FLASK = Peer(
    "flask",
    "a plain Flask view",
    gunicorn("flask_chsk_app:app", "gevent", 1000),
    {"ajax json": d.PLAIN_FLASK},
)
PARKED = Peer(
    "flask parked",
    "a Flask view that waits (the floor)",
    gunicorn("flask_parked_app:app", "gevent", 12_000),
    {"poll": d.PARKED},
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
        {**SOCKETIO, **POLLING, "relay": d.SOCKETIO_RELAY},
        "MESSAGE_QUEUE",
        GEVENT_WEBSOCKET,
    ),
    Peer(
        "flask-socketio simple",
        "Flask-SocketIO, simple-websocket",
        gunicorn("flask_socketio_app:app", "gevent", 12_000),
        SOCKETIO,
        requirements=FLASK_SOCKETIO,
    ),
    Peer(
        "flask-sock",
        "flask-sock (no protocol)",
        gunicorn("flask_sock_app:app", "gevent", 12_000),
        {"json": d.BARE, "push": d.BARE, "large": d.BARE_LARGE},
        requirements=FLASK_SOCK,
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
            "--log-level",
            "error",
            "--no-access-log",
            "--backlog",
            "4096",
            "--ws-ping-interval",
            "300",
        ],
        {**SOCKETIO, **POLLING},
        requirements=UVICORN,
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
    PARKED,
]


def free_port() -> int:
    """A port of this host that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def clock_of(pid: int) -> int:
    """The clock that counts what a process uses: clock_getcpuclockid(3)."""
    return (~pid << 3) | 2


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads a group, and the group."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
        except ProcessLookupError:
            break
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


class Redis:
    """A Redis of this run's own: nothing is kept on disk.

    Beside the servers: the load spins while a request is about to be due, and would hold it up.
    """

    def __init__(self) -> None:
        """:raises Lost: where there is none."""
        if shutil.which("redis-server") is None:
            raise Lost("redis-server is not installed")
        port = free_port()
        self.url = f"redis://127.0.0.1:{port}/0"
        self._process = subprocess.Popen(
            ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        if SERVER_CPU is not None:
            os.sched_setaffinity(self._process.pid, {SERVER_CPU})
        self._clock = clock_of(self._process.pid)
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return
            except OSError:
                time.sleep(0.05)
        end(self._process)
        raise Lost("redis-server does not start")

    def cpu(self) -> float:
        """Seconds of CPU that it has used."""
        return time.clock_gettime(self._clock)

    def __enter__(self) -> Redis:
        return self

    def __exit__(self, *args: object) -> None:
        end(self._process)


class Server:
    """A running server and its meters."""

    def __init__(self, peer: Peer, redis: Redis | None = None) -> None:
        """
        :param redis: by which it reaches its twins.
        :raises NotHere: where it does not start; the last line of its log is the message.
        """
        self.peer = peer
        self.port = free_port()
        programs = peer.tree / "benchmarks" / "peers"
        environ = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(programs), str(peer.tree))),
            "PYTHONHASHSEED": "0",
        }
        for foreign in ("VIRTUAL_ENV", "CHSK_BROKER_URL"):
            environ.pop(foreign, None)
        if redis is not None:
            environ[peer.broker] = redis.url
        if peer.npm:
            environ["NODE_PATH"] = str(peer.environment / "node_modules")
        elif peer.requirements:
            environ["PYTHONPATH"] = str(programs)
        log = peer.environment / "server.log"
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                peer.argv(peer.environment, self.port),
                env=environ,
                cwd=programs,  # the first place where Python looks for a module
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
        self._clock = clock_of(self.pid)

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
        end(self._process)

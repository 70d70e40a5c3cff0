"""A client of each generation lives a whole life against our server, by each transport."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.proxy import Proxy
from tests.e2e.sente.generations import (
    GENERATIONS,
    PATIENCE,
    AjaxClient,
    Client,
    Generation,
    WebSocketClient,
)
from tests.process import Server, eventually

APP = "tests.e2e.sente.app:app"
GUNICORN = [sys.executable, "-m", "gunicorn", "-k", "gevent", "--graceful-timeout", "5"]
TRANSPORTS = {"ws": WebSocketClient, "ajax": AjaxClient}
SERVERS = ["one", "four", "flask-run"]
Lives = dict[str, BaseException | None]


class Restartable:
    """A server, or four behind a proxy that gives each request to the next, and their restart."""

    def __init__(self, kind: str, folder: Path, env: dict[str, str | None]) -> None:
        self.kind = kind
        self._folder = folder
        self._env = env
        self.servers: list[Server] = []
        self._proxy: Proxy | None = None
        if kind == "four":
            with ThreadPoolExecutor() as pool:
                list(pool.map(self._start, range(4)))
            self._proxy = Proxy(*(server.port for server in self.servers), one_request=True)
        else:
            self._start(0)
        self.port = self.servers[0].port if self._proxy is None else self._proxy.port

    def _start(self, number: int, port: int = 0) -> None:
        if self.kind == "flask-run":
            command = [sys.executable, "-m", "flask", "--app", APP, "run", "--no-reload"]
            command += ["--port", str(port)]
        else:
            command = [*GUNICORN, "-b", f"127.0.0.1:{port}", APP]
        self.servers.append(Server(command, self._folder / f"log-{number}", self._env))

    def restart(self) -> None:
        """Gracefully: connections end before the process does."""
        if self.kind == "flask-run":
            self.servers[0].stop(signal.SIGINT)
            self._start(1, self.port)
            return
        old = self._workers()
        for server in self.servers:
            server.kill(signal.SIGHUP)
        eventually(lambda: not old & self._workers(), PATIENCE)

    def _workers(self) -> set[str]:
        pids = [server.pid for server in self.servers]
        children = [Path(f"/proc/{pid}/task/{pid}/children").read_text() for pid in pids]
        return set("".join(children).split())

    def stop(self) -> None:
        if self._proxy is not None:
            self._proxy.close()
        with ThreadPoolExecutor() as pool:
            list(pool.map(Server.stop, self.servers))


def live(client: Client, ready: threading.Semaphore, restarted: threading.Event) -> None:
    """Open, send, reply, push, idle, restart, reopen, close."""
    try:
        client.open()
        client.send("[:test/push {:n 3}]")
        client.wait_for_items(3)
        client.ask("[:test/echo {:a 1}]", "{:a 1}")
        client.send("[:test/push {:n 40}]")
        client.wait_for_items(43)
        client.idle()
        client.send("[:test/push {:n 1}]")
        client.wait_for_items(44)
    finally:
        ready.release()
    client.come_back(restarted)
    client.ask('[:test/echo "again"]', '"again"')
    client.send("[:test/push {:n 2}]")
    client.wait_for_items(46)
    client.close()
    assert client.items == [*range(3), *range(40), 0, 0, 1]


@pytest.fixture(scope="module", params=SERVERS)
def lives(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, redis_url: str
) -> Iterator[Lives]:
    """All lives beside each other on one server: how each ended."""
    broker = f"{redis_url}?prefix=sente-lives" if request.param == "four" else None
    server = Restartable(
        request.param, tmp_path_factory.mktemp("lives"), {"CHSK_BROKER_URL": broker}
    )
    names = {f"{t} {g.name}": (kind, g) for g in GENERATIONS for t, kind in TRANSPORTS.items()}
    ready, restarted = threading.Semaphore(0), threading.Event()

    port = server.port

    def one(name: str) -> BaseException | None:
        kind, generation = names[name]
        client = kind(generation, port, name.replace(" ", "-"))
        try:
            live(client, ready, restarted)
        except BaseException as error:
            return error
        finally:
            client.cut()
        return None

    with ThreadPoolExecutor(len(names)) as pool:
        ended = {name: pool.submit(one, name) for name in names}
        for _ in names:
            ready.acquire(timeout=3 * PATIENCE)
        server.restart()
        restarted.set()
    yield {name: future.result() for name, future in ended.items()}
    server.stop()
    log = "".join(one.log for one in server.servers)
    assert "/flask_chsk/" not in log  # in a traceback
    if request.param != "flask-run":  # whose own code may fail at Ctrl-C: accepted, closed, read
        assert [one.tracebacks for one in server.servers] == [0] * len(server.servers), log


@pytest.mark.parametrize("generation", GENERATIONS, ids=lambda one: one.name)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_client_lives_from_opening_to_close(
    lives: Lives, transport: str, generation: Generation
) -> None:
    error = lives[f"{transport} {generation.name}"]
    if error is not None:
        raise error

"""A server under attack, and somebody beside it who must not notice.

Whatever a test of this folder does, afterwards: the bystander had every answer within `PATIENCE`,
no answer was a 500, the log has no traceback, and no kind of line twice within a minute.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.hostile.wire import Wire
from tests.process import eventually
from tests.servers import WsgiServer, running

PATIENCE = 30.0  # seconds for one echo: far above a stall
MiB = 1024 * 1024


class Target:
    """The server, its figures, and the ways to it."""

    def __init__(self, server: WsgiServer) -> None:
        self.server = server
        self.port = server.port
        self.pid = server.workers()[0]
        self.wires: list[Wire] = []

    def get(self, path: str) -> Any:
        """An ordinary GET, as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def stats(self) -> dict[str, int]:
        """Counters and gauges."""
        return Counter(self.get("/stats"))

    @contextlib.contextmanager
    def counts(self, name: str) -> Iterator[None]:
        """The counter *name* goes up within the block, or soon after."""
        before = self.stats()[name]
        yield
        eventually(lambda: self.stats()[name] > before)

    def wire(self) -> Wire:
        """A new connection, closed after the test at the latest."""
        self.wires.append(Wire(self.port))
        return self.wires[-1]

    def cut(self) -> None:
        """Reset every connection."""
        while self.wires:
            self.wires.pop().reset()

    def opened(self, client_id: str = "attacker", query: str = "") -> Wire:
        """A new WebSocket, greeted."""
        wire = self.wire()
        wire.open(f"/chsk?client-id={client_id}{query}")
        return wire

    def request(self, data: bytes) -> tuple[int, str]:
        """Status and body of what answers *data* on a connection of its own."""
        with Wire(self.port) as wire:
            return wire.request(data)

    def pss(self) -> int:
        """Bytes of memory that the worker has for itself."""
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text(encoding="ascii")
        found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024

    def grown(self, before: int) -> float:
        """MiB of memory above *before*, once rubbish is collected."""
        self.get("/stats?collect=1")
        return (self.pss() - before) / MiB

    @contextlib.contextmanager
    def within(self, mebibytes: float) -> Iterator[None]:
        """The worker's memory never grows by more than this within the block."""
        before = highest = self.pss()
        over = threading.Event()

        def watch() -> None:
            nonlocal highest
            while not over.wait(0.02):
                highest = max(highest, self.pss())

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        assert (highest - before) / MiB < mebibytes

    def lines(self) -> Counter[str]:
        """What the application logged, by the first words of its lines."""
        return Counter(
            " ".join(re.sub(r"\d+|'.*?'|\".*?\"", "#", line).split()[1:8])
            for line in self.server.log.splitlines()
            if line.startswith("LOG ")
        )


class Bystander(threading.Thread):
    """An honest client that says one thing after another and wants its answers."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.wire = Wire(port)
        self.wire.socket.settimeout(PATIENCE)
        self.wire.open("/chsk?client-id=bystander&uid=bystander")
        self.over = threading.Event()
        self.answers = 0
        self.slowest = 0.0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.over.is_set():
                start = time.monotonic()
                assert self.wire.ask(f"[:test/echo {self.answers}]") == self.answers
                self.slowest = max(self.slowest, time.monotonic() - start)
                self.answers += 1
                self.over.wait(0.01)
        except BaseException as error:
            self.error = error

    def stop(self) -> None:
        self.over.set()
        self.join(PATIENCE + 1)
        self.wire.socket.close()
        if self.error is not None:
            raise AssertionError("a bystander suffered") from self.error


@pytest.fixture(scope="module")
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings of this module's server: its ``CONFIG``, over those that make tests short."""
    return {
        "CHSK_CSRF": False,
        "CHSK_CLOSE_GRACE_WS": 0.3,
        "CHSK_CLOSE_GRACE_AJAX": 0.5,
        "CHSK_LP_TIMEOUT": 2.0,
        **getattr(request.module, "CONFIG", {}),
    }


@contextlib.contextmanager
def attacked(config: dict[str, Any], folder: Path) -> Iterator[Target]:
    """A server with these settings, judged at its end."""
    env = {"HOSTILE_CONFIG": json.dumps(config)}
    with running("gunicorn-gevent", "tests.e2e.hostile.app:app", folder / "log", env) as server:
        target = Target(server)
        yield target
        target.cut()
    assert server.tracebacks == 0, server.log[-20_000:]
    assert re.findall(r'.* HTTP/1\..+" 500 .*', server.log) == []


@pytest.fixture(scope="module")
def module_target(
    config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Target]:
    with attacked(config, tmp_path_factory.mktemp("hostile")) as target:
        yield target


@pytest.fixture
def target(module_target: Target) -> Iterator[Target]:
    """This module's server, with a bystander who must have all their answers."""
    bystander = Bystander(module_target.port)
    bystander.start()
    module_target.get("/stats?collect=1")
    lines = module_target.lines()
    yield module_target
    module_target.cut()
    bystander.stop()
    assert bystander.answers > 0
    new = module_target.lines() - lines
    assert {line: count for line, count in new.items() if count > 1} == {}


@pytest.fixture
def target_with(config: dict[str, Any], tmp_path: Path) -> Iterator[Callable[..., Target]]:
    """``target_with(CHSK_RATE=(5, 10))``: a server of this test's own."""
    with contextlib.ExitStack() as stack:
        yield lambda **more: stack.enter_context(attacked({**config, **more}, tmp_path))

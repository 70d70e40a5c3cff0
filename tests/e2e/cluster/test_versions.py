"""Workers of two versions of the package at one Redis, as in a rolling deploy."""

from __future__ import annotations

import itertools
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from redis import Redis as RedisClient

from flask_chsk.brokers.redis.schema import SCHEMA
from tests.e2e.cluster.storm import PATIENCE, Stranger, User, comings, presence, storm
from tests.e2e.cluster.test_cluster import APP, found
from tests.e2e.proxy import Proxy
from tests.peer import Peer
from tests.process import ROOT, WAIT, Redis, Server, eventually
from tests.versions import in_version, version

WORKERS = 3
GUNICORN = ["-m", "gunicorn", "-k", "gevent", "-b", "127.0.0.1:0", "--graceful-timeout", "5", APP]


class Deploy:
    """Workers behind a proxy, which are replaced by those of another version."""

    def __init__(self, folder: Path, redis: Redis) -> None:
        self.folder = folder
        self.redis = redis
        self.numbers = itertools.count()
        self.servers: list[Server] = []
        self.past: list[Server] = []
        self.proxy = Proxy(one_request=True)

    def start(self, ahead: int) -> Server:
        """A worker of the version that is *ahead* of this one."""
        there = version(self.folder, ahead) if ahead else ROOT
        log = self.folder / f"worker-{next(self.numbers)}.log"
        command = in_version(there, [sys.executable, *GUNICORN])
        return Server(command, log, {"CHSK_BROKER_URL": self.redis.url})

    def run(self, aheads: list[int]) -> None:
        """Workers of these versions."""
        with ThreadPoolExecutor() as pool:
            self.servers = list(pool.map(self.start, aheads))
        self._shift()

    def replace(self, ahead: int) -> None:
        """The oldest worker ends, and one of another version has taken its place."""
        new = self.start(ahead)
        old, *rest = self.servers
        self.servers = [*rest, new]
        self._shift()
        self.past.append(old)
        old.stop()

    def _shift(self) -> None:
        self.proxy.backends = [server.port for server in self.servers]

    @property
    def log(self) -> str:
        return "".join(server.log for server in (*self.past, *self.servers))

    def schemas(self) -> list[int]:
        """Of the workers that live."""
        with RedisClient.from_url(self.redis.url) as client:
            return sorted(map(int, client.hkeys("chsk:0:schemas")))

    def stop(self) -> None:
        self.proxy.close()
        for server in self.servers:
            server.stop()
        self.redis.stop()


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Deploy]:
    deploy = Deploy(tmp_path, Redis(tmp_path / "redis.log"))
    yield deploy
    deploy.stop()


def test_a_rolling_deploy_of_the_next_version_and_back_loses_nothing(deploy: Deploy) -> None:
    deploy.run([0] * WORKERS)
    users = [User(deploy, f"u{n}", ("ws", "ajax")[n % 2]) for n in range(6)]  # type: ignore[arg-type]
    strangers = [Stranger(deploy, user.uid, user.type) for user in users[:2]]  # type: ignore[arg-type]
    steps = [1] * WORKERS + [0]
    seen = set()

    def step(calls: int) -> None:
        seen.add(tuple(deploy.schemas()))
        if calls % 3 == 0 and steps:
            deploy.replace(steps.pop(0))

    came = storm(
        deploy,  # type: ignore[arg-type]
        users,
        step,
        strangers=strangers,
        seconds=18.0,
        done=lambda: not steps,
    )
    for one in strangers:
        one.stop()
    came += presence(deploy, users, PATIENCE)  # type: ignore[arg-type]
    came += comings(deploy)  # type: ignore[arg-type]
    assert found(came, "not_alternating", but=["refused"]) == {}
    assert {(SCHEMA,), (SCHEMA, SCHEMA + 1)} <= seen
    for server in deploy.servers:
        with urllib.request.urlopen(f"{server.url}/stats", timeout=WAIT) as answer:
            stats = json.load(answer)
        assert (stats["broker_malformed"], stats["broker_foreign"]) == (0, 0)
    assert "malformed" not in deploy.log
    assert [server.tracebacks for server in (*deploy.past, *deploy.servers)] == [0] * (WORKERS + 4)
    for user in users:
        user.chsk.destroy()


def test_a_version_two_ahead_refuses_until_the_others_have_made_room(deploy: Deploy) -> None:
    deploy.run([0])
    [old] = deploy.servers
    tab = Peer(old.port, uid="ann", v="1")
    tab.open()
    new = deploy.start(2)
    status, text = Peer(new.port, uid="bob", v="1").get(**{"handshake?": "1"})
    assert status == 503
    assert f"workers with schema {SCHEMA} serve" in text
    with pytest.raises(urllib.error.HTTPError) as health:
        urllib.request.urlopen(f"{new.url}/chsk/health", timeout=WAIT)
    assert (health.value.code, b"end those workers first" in health.value.read()) == (503, True)
    assert tab.ask("[:test/echo 1]") == 1
    with urllib.request.urlopen(f"{old.url}/chsk/health", timeout=WAIT) as answer:
        assert answer.read() == b"ok\n"
    # The version between comes, the old one ends: after its lease the new one is let in.
    between = deploy.start(1)
    Peer(between.port, uid="bob", v="1").hello()
    tab.cut()
    old.stop()

    def healthy() -> bool:
        try:
            with urllib.request.urlopen(f"{new.url}/chsk/health", timeout=WAIT) as answer:
                return bool(answer.read() == b"ok\n")
        except urllib.error.HTTPError as error:
            error.close()
            return False

    eventually(healthy, PATIENCE)
    Peer(new.port, uid="bob", v="1").hello()
    assert "malformed" not in new.log + old.log + between.log
    for server in (new, between):
        server.stop()

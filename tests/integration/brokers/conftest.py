"""Brokers on a real hub, with ears that note what they hear."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask

from flask_chsk.brokers.contract import Broker
from flask_chsk.brokers.redis import lease
from flask_chsk.brokers.redis.broker import RedisBroker
from flask_chsk.brokers.urls import make
from flask_chsk.config import Config
from flask_chsk.hub import Hub
from flask_chsk.protocol.push import Push
from tests.process import eventually
from tests.redis_model import Model, address

prefixes = itertools.count()
Pair = tuple[Flask, Flask]
"""One worker, twice, or two that share a Redis."""
MODEL = "the model of Redis"  # in place of a URL


class Ears:
    """The server of a process, as far as a broker sees it."""

    def __init__(self, broker: Broker, hub: Hub) -> None:
        self.broker = broker
        self.hub = hub
        self.heard: list[Push] = []
        self.happened: list[tuple[Any, ...]] = []
        self.needed: set[str] = set()
        self.told_of: list[tuple[int, bool]] = []  # comings and goings, by their generation

    def deliver(self, push: Push) -> None:
        self.heard.append(push)

    def client_taken_over(self, uid: str | None, client_id: str, token: str) -> None:
        self.happened.append(("released", uid, client_id, token))

    def user_presence_changed(self, uid: str, online: bool, generation: int) -> None:
        self.happened.append(("presence", uid, online))
        self.told_of.append((generation, online))

    def reset(self, since: int) -> None:
        self.happened.append(("reset", self.broker.epoch))

    def resync_required(self) -> None:
        self.happened.append(("lapsed",))

    def reattach(self, silent: bool) -> None:
        self.happened.append(("reattach", silent))

    def needs(self, name: str) -> bool:
        return name in self.needed

    def on_worker_message(self, text: str) -> None:
        self.happened.append(("told", text))

    def changed(self) -> None:
        self.happened.append(("changed",))

    # what tests ask --------------------------------------------------------------------------

    def texts(self, count: int) -> list[str]:
        """Wait for *count* events; the texts of all."""
        eventually(lambda: len(self.heard) >= count)
        return [push.text for push in self.heard]

    def wait(self, *what: Any) -> None:
        """Wait until something has happened."""
        eventually(lambda: what in self.happened)

    def watermark(self) -> int:
        return self.hub.run(self.broker.watermark)


@pytest.fixture(scope="session")
def hub() -> Hub:
    return Hub()


@pytest.fixture
def prefix() -> str:
    """Keys of this test alone."""
    return f"test{next(prefixes)}"


@pytest.fixture
def start(hub: Hub, prefix: str) -> Iterator[Callable[..., Ears]]:
    """``start(url, **config)``: a broker of one more process; the same keys for all of a test."""
    started: list[Ears] = []
    model = Model()

    def start(url: str, **config: Any) -> Ears:
        broker: Broker
        if url == MODEL:
            broker = RedisBroker(Config(**config), address(model, prefix))
        else:
            if url.startswith("redis"):
                url += f"?prefix={prefix}"
            broker = make(Config(broker_url=url, **config))
        ears = Ears(broker, hub)
        hub.run(broker.start, hub, ears)
        started.append(ears)
        return ears

    yield start
    for ears in started:
        ears.broker.stop()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of a moment; the sweeps that renew them are a quarter of a second apart."""
    monkeypatch.setattr(lease, "LEASE", 1.5)
    monkeypatch.setattr(lease, "RENEW", 0.2)


@pytest.fixture(params=["memory", "redis"])
def pair(
    request: pytest.FixtureRequest, prefix: str
) -> Iterator[Callable[[Callable[[str], Flask]], Pair]]:
    """``pair(make_app)``: one worker on the memory broker, twice; and two that share a Redis.

    ``make_app(broker_url)`` makes the application of one.
    """
    apps: list[Flask] = []

    def pair(make_app: Callable[[str], Flask]) -> Pair:
        if request.param == "memory":
            apps.append(make_app("memory://"))
        else:
            url = f"{request.getfixturevalue('redis_url')}?prefix={prefix}"
            apps.extend((make_app(url), make_app(url)))
        return apps[0], apps[-1]

    yield pair
    for app in apps:
        server = app.extensions["chsk"].worker()
        server.hub.run(server.retire)

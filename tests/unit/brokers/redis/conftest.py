"""Brokers of several workers, on a simulated hub over a model of Redis."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.sim.redis import RedisNetwork
from tests.sim.runtime import SimHub
from tests.unit.brokers.redis.workers import Worker


@pytest.fixture
def network() -> RedisNetwork:
    hub = SimHub(random.Random(1))
    return RedisNetwork(hub, lambda: 0.0001)


@pytest.fixture
def start(network: RedisNetwork) -> Iterator[Callable[..., Worker]]:
    """``start(**config)``: a worker that knows the epoch."""
    started: list[Worker] = []

    def start(**config: Any) -> Worker:
        worker = Worker(network, **config)
        started.append(worker)
        worker.ready()
        worker.heard()
        return worker

    yield start
    for worker in started:
        worker.broker.stop()
    network.cut()
    network.hub.loop.run(5.0)  # the subscribers end


@pytest.fixture
def worker(start: Callable[..., Worker]) -> Worker:
    return start()


@pytest.fixture
def other(worker: Worker, start: Callable[..., Worker]) -> Worker:
    return start()

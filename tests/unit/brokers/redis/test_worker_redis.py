"""Calls of Redis from threads that have nothing to do with the hub."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flask_chsk.brokers.redis.calls import Redis
from flask_chsk.brokers.redis.scripts import Script
from flask_chsk.brokers.redis.worker_redis import WorkerRedis
from flask_chsk.errors import BrokerUnavailable
from tests.redis_model import Model, address
from tests.unit.server.fakes import FakeHub

SCRIPT = Script("return 7")


class Hub(FakeHub):
    """A hub that hands over what comes from elsewhere, and notes it."""

    def __init__(self) -> None:
        super().__init__()
        self.is_here = True
        self.answers = True
        self.handed: list[Callable[..., object]] = []

    def here(self) -> bool:
        return self.is_here

    def spawn(self, fn: Callable[..., object], *args: Any) -> None:
        self.handed.append(fn)
        if self.answers:
            fn(*args)


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def redis(hub: Hub) -> Redis:
    runtime: Any = hub
    redis = WorkerRedis(address(Model()), runtime, (1, 1, 1), worker="w1")
    redis.call(SCRIPT)
    hub.handed.clear()
    return redis


@pytest.mark.parametrize("method", ["call", "publish"])
def test_on_the_hub_a_call_is_made_there(redis: Redis, hub: Hub, method: str) -> None:
    assert getattr(redis, method)(SCRIPT) == 7
    assert hub.handed == []


@pytest.mark.parametrize("method", ["call", "publish"])
def test_a_foreign_thread_hands_its_call_to_the_hub(redis: Redis, hub: Hub, method: str) -> None:
    hub.is_here = False
    assert getattr(redis, method)(SCRIPT) == 7
    assert len(hub.handed) == 1


def test_an_error_is_raised_where_the_call_was_made(redis: Redis, hub: Hub) -> None:
    hub.is_here = False
    with pytest.raises(BrokerUnavailable, match="refuses"):
        redis.call(Script("return redis.error_reply('no')"))


def test_where_sockets_block_their_thread_a_call_is_made_in_it(redis: Redis, hub: Hub) -> None:
    hub.is_here = hub.cooperative = False
    assert redis.call(SCRIPT) == 7
    assert hub.handed == []


def test_a_hub_that_does_not_answer_is_an_error(redis: Redis, hub: Hub) -> None:
    hub.is_here = hub.answers = False
    with pytest.raises(BrokerUnavailable, match="does not answer"):
        redis.call(SCRIPT)

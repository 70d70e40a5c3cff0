"""Which broker a URL names."""

from __future__ import annotations

import pytest

from flask_chsk.brokers.memory.broker import MemoryBroker
from flask_chsk.brokers.redis.broker import RedisBroker
from flask_chsk.brokers.urls import make
from flask_chsk.config import Config
from flask_chsk.errors import ConfigError


def test_the_url_chooses_the_broker() -> None:
    assert isinstance(make(Config()), MemoryBroker)
    with pytest.raises(ConfigError, match=r"CHSK_BROKER_URL amqp:…"):
        make(Config(broker_url="amqp://secret@host"))


@pytest.mark.parametrize("scheme", ["redis", "rediss", "unix"])
def test_redis_has_three_schemes(scheme: str) -> None:
    where = "/run/redis.sock" if scheme == "unix" else "127.0.0.1:1/0"
    assert isinstance(make(Config(broker_url=f"{scheme}://{where}")), RedisBroker)  # not connected


def test_what_is_no_url_is_not_shown() -> None:
    """It may be a password."""
    with pytest.raises(ConfigError) as refusal:
        make(Config(broker_url="hunter2"))
    assert "hunter2" not in str(refusal.value)

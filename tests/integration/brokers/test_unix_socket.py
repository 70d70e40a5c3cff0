"""Redis behind a Unix socket: ``CHSK_BROKER_URL = "unix:///path"``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_chsk.brokers.contract import user_channel
from flask_chsk.publisher import Publisher
from tests.process import Redis

ANN = user_channel("ann")


@pytest.fixture
def socket_path(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "redis.sock"
    redis = Redis(tmp_path / "log", 0, "--unixsocket", str(path))
    yield path
    redis.stop()


@pytest.mark.parametrize("more", ["", "?db=1", "?prefix=mine", "?db=1&prefix=mine"])
def test_workers_and_publishers_meet_at_a_socket(
    socket_path: Path, start: Callable[..., Any], more: str
) -> None:
    url = f"unix://{socket_path}{more}"
    one, two = start(url), start(url)
    for ears in (one, two):
        ears.broker.ready()
    assert one.broker.clients.attach("ann", "tab", "ws", True) is not None
    two.broker.publish(ANN, "[:a/b 1]")
    with Publisher(url) as publisher:
        publisher.send("ann", ["a/b", 2])
    assert one.texts(2) == ["[:a/b 1]", "[:a/b 2]"]

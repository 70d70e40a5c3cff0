"""What every test run has in common."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.process import Redis

# No deadlines: two busy cores are not a property of the code.
settings.register_profile("default", deadline=None)
# The same examples in every run, so that a failure is the change's and not the day's.
settings.register_profile("ci", deadline=None, derandomize=True, database=None, print_blob=True)
settings.register_profile(
    "fuzz", deadline=None, max_examples=5000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci" if os.environ.get("CI") else "default")

# Servers of one machine would share it, under the home directory.
os.environ.setdefault("GUNICORN_CMD_ARGS", "--no-control-socket")

# A shell that starts `make test &` has it ignored, and the servers would inherit that: they have
# to hear Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["pytester"]

HERE = Path(__file__).parent
# What a test may start says its folder: nothing, one process or Redis, servers and browsers.
KINDS = {"unit": "unit", "sim": "unit", "integration": "integration", "e2e": "e2e"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        inside = HERE in item.path.parents
        folder = item.path.relative_to(HERE).parts[0] if inside else "integration"
        item.add_marker(KINDS[folder])


@pytest.fixture(autouse=True)
def _levels_of_loggers() -> Iterator[None]:
    """Give the package's loggers the levels back that they had: tests set them, as users do."""
    loggers = logging.getLogger("flask_chsk"), logging.getLogger("flask_chsk.trace")
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis for the whole run: tests share it, so they keep to keys of their own."""
    redis = Redis(tmp_path_factory.mktemp("redis") / "log")
    yield redis.url
    redis.stop()


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[Callable[..., Redis]]:
    """``start_redis(port=0)``: a Redis for one test alone, which may stop it and start another."""
    started: list[Redis] = []

    def start_redis(port: int = 0) -> Redis:
        started.append(Redis(tmp_path / f"redis-{len(started)}.log", port))
        return started[-1]

    yield start_redis
    for redis in started:
        redis.stop()

"""Unit tests start no process and open no port: one that does belongs into another folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REFUSED = {"os.fork", "os.posix_spawn", "os.system", "subprocess.Popen", "socket.bind"}

HERE = Path(__file__).parent

running: list[str] = []


def refuse(event: str, args: tuple[Any, ...]) -> None:
    if running and event in REFUSED:
        raise AssertionError(f"{event} in a unit test: move {running[0]} to tests/integration")


sys.addaudithook(refuse)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    if HERE in item.path.parents:
        running.append(item.nodeid)
    try:
        return (yield)
    finally:
        running.clear()

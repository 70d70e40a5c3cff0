"""Bursts reach clients that poll without a cursor whole, whichever process each poll reaches."""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.sente.generations import GENERATIONS, AjaxClient
from tests.peer import EDN, Peer
from tests.process import WAIT, Server, eventually

APP = "tests.e2e.apps.cluster:app"
BURST, BURSTS = 20, 10


@pytest.fixture(scope="module")
def start(
    redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Server]]:
    """``start(app)``: four processes with one listener; each connection reaches one of them."""
    command = [sys.executable, "-m", "gunicorn", "-k", "gevent", "-w", "4", "-b", "127.0.0.1:0"]
    started: list[Server] = []

    def start(app: str) -> Server:
        # On busy cores a poll may come seconds after the last.
        env = {"CHSK_BROKER_URL": f"{redis_url}?prefix={app}", "CLOSE_GRACE": "20"}
        started.append(Server([*command, app], tmp_path_factory.mktemp("polls") / "log", env))
        return started[-1]

    yield start
    for server in started:
        server.stop()
    assert [server.tracebacks for server in started] == [0] * len(started)


@pytest.fixture(scope="module")
def four_workers(start: Callable[[str], Server]) -> Server:
    return start(APP)


def numbers_of(text: str) -> list[int]:
    """The numbers of the events that an answer carries."""
    value = EDN.unpack(text)[0]
    return [event[1] for event in value] if isinstance(value, list) else []


def push(server: Server, uid: str, first: int, last: int) -> None:
    url = f"{server.url}/send/{uid}?first={first}&last={last}"
    with urllib.request.urlopen(urllib.request.Request(url, b""), timeout=WAIT) as answer:
        assert None not in json.load(answer)["offsets"]


def parked(server: Server) -> int:
    """The polls that are parked in one of the processes, whichever answers."""
    with urllib.request.urlopen(f"{server.url}/stats", timeout=WAIT) as answer:
        return int(json.load(answer).get("parked", 0))  # it may have served nobody yet


@pytest.mark.parametrize("pause", [0.0, 0.15])  # within a window, and with a poll between
def test_bursts_reach_polls_on_new_connections(four_workers: Server, pause: float) -> None:
    uid = f"ann{pause}"
    client = Peer(four_workers.port, uid=uid)
    client.hello()

    def push_bursts() -> None:
        for burst in range(BURSTS):
            push(four_workers, uid, burst * BURST, burst * BURST + BURST - 1)
            time.sleep(pause)

    pushing = threading.Thread(target=push_bursts)
    pushing.start()
    got: list[int] = []
    until = time.monotonic() + 2 * WAIT
    while len(got) < BURST * BURSTS and time.monotonic() < until:
        got += numbers_of(client.get()[1])
    pushing.join()
    assert got == list(range(BURST * BURSTS))


def test_what_a_poll_that_hung_up_was_to_get_is_for_the_next_one(four_workers: Server) -> None:
    client = Peer(four_workers.port, uid="bob")
    client.hello()
    lost: list[Any] = []
    for round_ in range(5):
        with pytest.raises(TimeoutError):
            client.get(timeout=0.2)  # parked, and gone
        push(four_workers, "bob", round_, round_)
        got: list[int] = []
        until = time.monotonic() + WAIT
        while not got and time.monotonic() < until:
            got = numbers_of(client.get()[1])
        lost += [] if got == [round_] else [(round_, got)]
    assert lost == []


def test_what_was_sent_before_a_close_is_given_before_it(start: Callable[[str], Server]) -> None:
    server = start("tests.e2e.sente.app:app")
    for number in range(6):
        client = AjaxClient(GENERATIONS[-1], server.port, f"closed-{number}")
        client.open()
        with ThreadPoolExecutor(1) as pool:
            polled = pool.submit(client.poll)
            eventually(lambda: parked(server))
            client.send("[:test/push-and-close]")
            assert polled.result()
        assert client.items == [7]

"""Workers whose handlers fork: the parent goes on, the child lets go of what is the parent's.

Children of gunicorn's gevent worker that let their loop run are ended by gunicorn itself within
about a second ("Parent changed"), so a test forks one after another.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flask_chsk.client import ChannelSocket
from tests.peer import Closed, Peer
from tests.process import WAIT, Server, eventually, free_port
from tests.servers import WsgiServer, running

APP = "tests.e2e.apps.forking:app"
EACH = 12  # events of one client, at least
FORKS = 5  # while they are handled, at least
Tab = Callable[..., Peer]
KINDS = ["gunicorn-gevent", "gunicorn-gthread", "pywsgi", "flask-run"]


@pytest.fixture
def broker_url(redis_url: str) -> str:
    return f"{redis_url}?prefix={free_port()}"


@contextlib.contextmanager
def serving(kind: str, folder: Path, broker_url: str) -> Iterator[WsgiServer]:
    with running(kind, APP, folder / "log", {"CHSK_BROKER_URL": broker_url}) as server:
        yield server
        assert server.tracebacks == 0, server.log


@pytest.fixture
def tab() -> Iterator[Callable[..., Peer]]:
    """``tab(server, uid)``: an open WebSocket of a user."""
    tabs: list[Peer] = []

    def tab(server: Server | WsgiServer, uid: str) -> Peer:
        tabs.append(Peer(server.port, uid=uid, v="1"))
        tabs[-1].open()
        return tabs[-1]

    yield tab
    for peer in tabs:
        peer.cut()


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("shared", [False, True], ids=["memory", "redis"])
def test_the_parent_answers_its_clients_and_handles_each_event_once(
    shared: bool,
    broker_url: str,
    gunicorn: Callable[..., Server],
    tab: Tab,
) -> None:
    url = broker_url if shared else "memory://"
    server = gunicorn(APP, env={"CHSK_BROKER_URL": url, "LP_TIMEOUT": "0.5"})
    forker = tab(server, "forker")
    parent = forker.ask("[:test/pid 0]")[0]
    users = [
        ChannelSocket(f"{server.url}/chsk", ("ws", "ajax")[n % 2], params={"uid": f"u{n}"})
        for n in range(4)
    ]
    heard: list[list[int]] = [[] for _ in users]
    answers: list[list[object]] = [[] for _ in users]

    def ask(number: int) -> None:
        for n in itertools.count():
            if n >= EACH and len(children) >= FORKS:
                break
            answers[number].append(users[number].request(["test/slow", n], WAIT, key=f"{n}"))

    for number, user in enumerate(users):
        user.on("test/item", lambda ev, number=number: heard[number].append(ev.data))
        user.wait_open()
    children: list[int] = []
    asking = [threading.Thread(target=ask, args=(n,), daemon=True) for n in range(len(users))]
    for thread in asking:
        thread.start()
    while any(thread.is_alive() for thread in asking):
        children.append(forker.ask("[:test/fork 2.0]"))
        for _ in range(4):
            with urllib.request.urlopen(f"{server.url}/pid") as answer:  # not ours
                assert json.load(answer) == {"pid": parent}
            time.sleep(0.05)
    for thread in asking:
        thread.join()
    eventually(lambda: [*map(len, heard)] == [*map(len, answers)])
    eventually(lambda: all(map(ended, children)))
    assert len(children) >= FORKS
    assert answers == [[[parent, n] for n in range(len(one))] for one in answers]
    assert heard == [[*range(len(one))] for one in answers]
    for user in users:
        user.destroy()


@pytest.mark.parametrize("kind", KINDS)
def test_a_child_has_no_connection_of_its_parents(
    kind: str, tmp_path: Path, broker_url: str, tab: Tab
) -> None:
    with serving(kind, tmp_path, broker_url) as server:
        ann, bob = tab(server, "ann"), tab(server, "bob")
        ports = {peer.socket.sock.getsockname()[1] for peer in (ann, bob)}
        redis = int(broker_url.rpartition(":")[2].partition("/")[0])
        held = ann.ask("[:test/peers-of-a-child nil]")
        assert not {*ports, redis} & set(held)
        assert bob.ask("[:test/pid 1]")[1] == 1
        assert ann.ask('[:test/subprocess "x"]') == "x\n"


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_child_sends_through_redis_arrives_once(
    kind: str, tmp_path: Path, broker_url: str, tab: Tab
) -> None:
    with serving(kind, tmp_path, broker_url) as server:
        ann, victim = tab(server, "ann"), tab(server, "victim")
        ann.ask("[:test/pid 0]")
        ann.say('[:test/child-sends "victim"]', '"cb"')
        values = [ann.read()[0] for _ in range(2)]
        while sum(len(value) for value in values if isinstance(value, list)) < 4:
            values.append(ann.read()[0])
        items = [event[1] for value in values if isinstance(value, list) for event in value]
        assert items == [1, 2, 3, 4]
        with pytest.raises(Closed):
            while True:
                victim.read()
        assert ann.ask("[:test/pid 1]")[1] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_child_with_the_broker_in_memory_says_once_that_it_reaches_nobody(
    kind: str, tmp_path: Path, tab: Tab
) -> None:
    with serving(kind, tmp_path, "memory://") as server:
        ann = tab(server, "ann")
        child = ann.ask('[:test/child-sends "bob"]')
        eventually(lambda: ended(child))
        assert ann.ask("[:test/pid 1]")[1] == 1  # and nothing was pushed before
        assert server.log.count("this process serves nobody") == 1


def test_a_request_that_comes_to_a_forked_server_is_refused(tmp_path: Path, tab: Tab) -> None:
    env = {"FORKS_ON_SIGNAL": "1"}
    with running("pywsgi", APP, tmp_path / "log", env) as server:
        ann, bob = tab(server, "ann"), Peer(server.port, uid="bob", v="1")
        server.kill(signal.SIGUSR2)
        child = int(server.wait_for_log(r"forked ([1-9]\d*)")[1])
        server.kill(signal.SIGSTOP)  # so that the child takes the connection
        status, text = bob.post_raw('[[:test/pid 1] "cb"]')
        server.kill(signal.SIGCONT)
        os.kill(child, signal.SIGKILL)
        assert (status, "forked by a worker" in text) == (503, True)
        assert bob.post("[:test/pid 1]", '"cb"') == [server.pid, 1]
        assert ann.ask("[:test/pid 1]") == [server.pid, 1]


def test_workers_of_a_master_that_sent_an_event_serve(
    gunicorn: Callable[..., Server], broker_url: str, tab: Tab
) -> None:
    server = gunicorn(
        APP, "--preload", workers=2, env={"CHSK_BROKER_URL": broker_url, "SAYS_AT_IMPORT": "1"}
    )
    pids = set()

    def two() -> bool:
        pids.add(tab(server, "ann").ask("[:test/pid 1]")[0])
        return len(pids) == 2

    eventually(two)
    with urllib.request.urlopen(f"{server.url}/pid") as answer:
        assert json.load(answer)["pid"] in pids
    assert server.pid not in pids

"""Four workers behind a proxy that gives every request to the next one, and a Redis.

No session is sticky: a poll, a POST and the next poll of one client reach three workers.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from redis import Redis as RedisClient

from flask_chsk.client import ChannelSocket
from tests.e2e.cluster.storm import FAULTS, PATIENCE, Stranger, User, comings, presence, storm
from tests.e2e.proxy import Proxy
from tests.peer import EDN, Closed, Peer
from tests.process import ROOT, START, WAIT, Process, Redis, Server, eventually

APP = "tests.e2e.apps.cluster:app"
WORKERS = 4
numbers = itertools.count()


class Cluster:
    """Workers in pairs under two masters, so that one proxy port can be had per request."""

    def __init__(self, servers: list[Server], proxy: Proxy, redis: Redis) -> None:
        self.servers = servers
        self.proxy = proxy
        self.redis = redis
        self.peers: list[Peer] = []

    def peer(self, uid: str, **params: str) -> Peer:
        peer = Peer(self.proxy.port, uid=uid, **{"v": "1", **params})
        self.peers.append(peer)
        return peer

    def sente(self, uid: str) -> Peer:
        """A client of Sente's kind."""
        peer = Peer(self.proxy.port, uid=uid)
        self.peers.append(peer)
        return peer

    def post(self, path: str, at: Server | None = None) -> Any:
        """What a worker answers, or this one."""
        url = self.proxy.url if at is None else at.url
        return self._json(urllib.request.Request(url + path, b""))

    def get(self, path: str) -> Any:
        return self._json(urllib.request.Request(self.proxy.url + path))

    def _json(self, wanted: urllib.request.Request) -> Any:
        try:
            with urllib.request.urlopen(wanted, timeout=WAIT) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return json.load(error)

    def stats(self, number: int) -> dict[str, int]:
        """The counters of one worker."""
        with urllib.request.urlopen(f"{self.servers[number].url}/stats", timeout=WAIT) as answer:
            return json.load(answer)  # type: ignore[no-any-return]

    def who(self, uid: str) -> str:
        """How a user is connected, as any worker says: ``"ws"``, ``"ajax"``, both or ``""``."""
        said = self.get("/who")
        return " ".join(kind for kind in ("ws", "ajax") if uid in said[kind])

    def seen(self, uid: str) -> list[str]:
        """A user's comings and goings as handlers heard of them, all workers together."""
        found = re.findall(rf"(came|went) {uid} (\d+)$", self.log, re.M)
        return [what for what, _ in sorted(found, key=lambda one: int(one[1]))]

    def stop(self) -> None:
        for peer in self.peers:
            peer.cut()
        self.proxy.close()
        with ThreadPoolExecutor() as pool:
            list(pool.map(Server.stop, self.servers))

    @property
    def log(self) -> str:
        return "".join(server.log for server in self.servers)

    def polled(self, peer: Peer, count: int) -> list[Any]:
        """What *peer* gets until it has *count* events."""
        got: list[Any] = []
        eventually(lambda: got.extend(peer.poll()) or len(got) >= count)
        return got


def start_cluster(
    folder: Path, redis: Redis, first: Mapping[str, str] | None = None, **env: str
) -> Cluster:
    """One worker a server: the proxy takes turns among them, the kernel would not.

    :param first: what the first one's environment has besides *env*.
    """
    command = [sys.executable, "-m", "gunicorn", "-k", "gevent", "-b", "127.0.0.1:0"]
    command += ["--graceful-timeout", "5", APP]
    env = {"CHSK_BROKER_URL": redis.url, **env}
    with ThreadPoolExecutor() as pool:
        starting = [
            pool.submit(
                Server,
                command,
                folder / f"worker-{number}.log",
                {**env, **(first or {})} if number == 0 else env,
            )
            for number in range(WORKERS)
        ]
    servers = [one.result() for one in starting]
    proxy = Proxy(*(server.port for server in servers), one_request=True)
    return Cluster(servers, proxy, redis)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    redis = Redis(folder / "redis.log")
    # Long enough for what a test does between two requests of one client.
    cluster = start_cluster(folder, redis, CLOSE_GRACE="3")
    yield cluster
    cluster.stop()
    redis.stop()
    assert [server.tracebacks for server in cluster.servers] == [0] * WORKERS, cluster.log


@pytest.fixture
def cluster(shared: Cluster) -> Iterator[Cluster]:
    """A cluster that tests share: each has users of its own."""
    yield shared
    for peer in shared.peers:
        peer.cut()
    shared.peers.clear()


@pytest.fixture
def ann() -> str:
    return f"ann-{next(numbers)}"


@pytest.fixture
def bob() -> str:
    return f"bob-{next(numbers)}"


def items(*numbers: int) -> list[Any]:
    return [["test/item", number] for number in numbers]


def offset_of(cursor: str) -> int:
    return sum(int(offset) for offset in cursor.partition(":")[2].split(","))


def test_an_event_reaches_a_websocket_wherever_it_was_sent(cluster: Cluster, ann: str) -> None:
    tab = cluster.peer(ann)
    tab.open()
    for number in range(8):
        assert cluster.post(f"/send/{ann}?first={number}&last={number}")["offsets"] != [None]
    assert tab.events(8) == items(*range(8))


def test_each_poll_may_reach_another_worker(cluster: Cluster, ann: str) -> None:
    tab = cluster.peer(ann)
    tab.hello()
    got: list[Any] = []
    for number in range(12):
        cluster.post(f"/send/{ann}?first={number}&last={number}")
        got += tab.poll()
    while len(got) < 12:
        got += tab.poll()
    assert got == items(*range(12))


def test_a_parked_poll_on_one_worker_is_answered_from_another(cluster: Cluster, ann: str) -> None:
    tab = cluster.peer(ann)
    tab.hello()
    assert tab.poll() == []  # parked until its end somewhere
    cluster.post(f"/send/{ann}?last=2")
    assert cluster.polled(tab, 3) == items(0, 1, 2)


def test_sentes_pollers_shake_hands_once(cluster: Cluster, ann: str) -> None:
    tab = cluster.sente(ann)
    tab.hello()
    got: list[Any] = []
    for number in range(12):
        cluster.post(f"/send/{ann}?first={number}&last={number}")
        status, text = tab.get()
        value = EDN.unpack(text)[0]
        assert status == 200
        assert "chsk/handshake" not in text
        got += value if isinstance(value, list) else []
    while len(got) < 12:
        value = EDN.unpack(tab.get()[1])[0]
        got += value if isinstance(value, list) else []
    assert got == items(*range(12))


def test_a_reconnect_to_another_worker_misses_nothing(cluster: Cluster, ann: str) -> None:
    tab = cluster.peer(ann)
    tab.open()
    cluster.post(f"/send/{ann}?last=4")
    assert tab.events(5) == items(*range(5))
    tab.cut()
    cluster.post(f"/send/{ann}?first=5&last=9")
    handshake = tab.open()
    assert handshake[3]["recovered"] is True
    cluster.post(f"/send/{ann}?first=10&last=11")
    assert tab.events(7) == items(*range(5, 12))


def test_a_client_moves_from_ajax_to_websocket(cluster: Cluster, ann: str) -> None:
    tab = cluster.peer(ann)
    tab.hello()
    cluster.post(f"/send/{ann}?last=2")
    assert cluster.polled(tab, 3) == items(0, 1, 2)
    tab.open()
    cluster.post(f"/send/{ann}?first=3&last=3")
    assert cluster.polled(tab, 1) == items(3)  # not proven yet: its polls go on
    had = offset_of(tab.cursor)
    tab.say("[:test/echo 1]", '"cb"')
    message = tab.read()
    while message[1] != "cb":  # what history has after the handshake's cursor is given again,
        assert offset_of(message[2]) <= had  # and its offset says that the client has it
        message = tab.read()
    assert message[0] == 1
    cluster.post(f"/send/{ann}?first=4&last=5")
    assert tab.events(2) == items(4, 5)
    eventually(lambda: cluster.who(ann) == "ws")  # the other workers know of it
    status, text = tab.get(n="99")  # a poll that was on its way
    assert (status, EDN.unpack(text)[0]) == (200, "chsk/timeout")
    assert tab.ask("[:test/echo 2]") == 2


def test_a_question_finds_its_client_and_the_answer_its_asker(cluster: Cluster, ann: str) -> None:
    tab = cluster.peer(ann)
    tab.open()
    with ThreadPoolExecutor() as pool:
        for _ in range(4):
            asked = pool.submit(cluster.post, f"/ask/{ann}")
            [[_, [ask_id, event]]] = tab.events(1)
            assert event == ["test/question", 42]
            tab.say(f'[:chsk/answer ["{ask_id}" 43]]')
            assert asked.result() == {"answer": 43}


def test_an_answer_by_post_finds_its_asker(cluster: Cluster, ann: str) -> None:
    tab = cluster.peer(ann)
    tab.hello()
    with ThreadPoolExecutor() as pool:
        for _ in range(4):
            asked = pool.submit(cluster.post, f"/ask/{ann}")
            [[_, [ask_id, _]]] = cluster.polled(tab, 1)
            tab.post(f'[:chsk/answer ["{ask_id}" 43]]')
            assert asked.result() == {"answer": 43}


def test_nobody_to_ask_is_said_at_once(cluster: Cluster) -> None:
    assert cluster.post("/ask/nobody") == {"error": "NoClient"}


def test_whom_asked_and_who_went_is_gone(cluster: Cluster, ann: str) -> None:
    tab = cluster.peer(ann)
    tab.open()
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(cluster.post, f"/ask/{ann}")
        tab.events(1)
        tab.cut()
        assert asked.result() == {"error": "ClientGone"}


def test_close_reaches_every_worker(cluster: Cluster, ann: str) -> None:
    tabs = [cluster.peer(ann) for _ in range(4)]
    for tab in tabs:
        tab.open()
    cluster.post(f"/close/{ann}")
    for tab in tabs:
        with pytest.raises(Closed) as closed:
            tab.read()
        assert closed.value.code == 4005


def test_a_poller_between_two_polls_hears_that_it_was_closed(cluster: Cluster, ann: str) -> None:
    tab = cluster.peer(ann)
    tab.hello()
    assert tab.poll() == []
    cluster.post(f"/close/{ann}")
    eventually(lambda: cluster.who(ann) == "")
    assert tab.poll() == [["chsk/close", {"code": 4005, "reason": "signed out"}]]


def test_opens_and_closes_alternate_however_a_client_hops(cluster: Cluster, ann: str) -> None:
    tab = cluster.peer(ann)
    tab.hello()
    for _ in range(6):
        cluster.post(f"/send/{ann}?last=0")
        cluster.polled(tab, 1)
    eventually(lambda: tab.poll() == [] and cluster.who(ann) == "ajax")
    assert cluster.seen(ann) == ["came"]
    eventually(lambda: cluster.seen(ann) == ["came", "went"])
    tab.hello()
    eventually(lambda: cluster.seen(ann) == ["came", "went"] * 2)
    eventually(lambda: cluster.who(ann) == "")


def test_a_topic_reaches_the_members_tabs_everywhere(cluster: Cluster, ann: str, bob: str) -> None:
    tabs = [cluster.peer(ann) for _ in range(3)]
    for tab in tabs:
        tab.open()
    other = cluster.peer(bob)
    other.open()
    cluster.post("/publish/news/0")
    assert cluster.post(f"/join/{ann}/news") == {"joined": True}
    assert cluster.post(f"/join/{ann}/news") == {"joined": False}
    cluster.post("/publish/news/1")
    cluster.post(f"/send/{bob}?last=0")
    for tab in tabs:
        assert tab.events(1) == items(1)
    assert other.events(1) == items(0)
    late = cluster.peer(ann)
    late.open()
    cluster.post("/publish/news/2")
    assert late.events(1) == items(2)
    assert cluster.get("/members/news") == {"members": [ann]}
    assert cluster.post(f"/leave/{ann}/news") == {"left": True}
    cluster.post("/publish/news/3")
    cluster.post(f"/send/{ann}?first=4&last=4")
    assert late.events(1) == items(4)


def test_a_topic_is_heard_after_a_move_to_a_websocket_on_another_worker(
    cluster: Cluster, ann: str
) -> None:
    tab = cluster.peer(ann)
    tab.hello()
    cluster.post(f"/join/{ann}/{ann}")
    for number in range(3):
        cluster.post(f"/publish/{ann}/{number}")
        assert cluster.polled(tab, 1) == items(number)
    tab.open()
    tab.say("[:test/echo 1]", '"cb"')  # from now on it is trusted
    cluster.post(f"/publish/{ann}/3")
    heard: list[Any] = []
    while items(3)[0] not in heard:
        said = tab.read()[0]
        heard += said if isinstance(said, list) else []


def test_whoever_is_joined_while_their_tabs_come_hears_the_topic(cluster: Cluster) -> None:
    tabs = [cluster.peer(f"lobby-{n // 2}") for n in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(Peer.open, tabs))
    eventually(lambda: len(cluster.get("/members/lobby")["members"]) == 20)
    cluster.post("/publish/lobby/1")
    for tab in tabs:
        assert tab.events(1) == items(1)


def test_who_watches_hears_of_everybody_in_whatever_worker(cluster: Cluster) -> None:
    watching = cluster.servers[0]
    with urllib.request.urlopen(f"{watching.url}/who", timeout=WAIT):
        pass  # its channel sockets have begun
    cluster.post("/watch", at=watching)
    time.sleep(1.5)  # it is seen to within a second
    tabs = [cluster.peer(f"crowd-{n}") for n in range(30)]
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(Peer.open, tabs))
    crowd = {f"crowd-{n}" for n in range(30)}

    def told() -> Any:
        with urllib.request.urlopen(f"{watching.url}/watched", timeout=WAIT) as answer:
            return json.load(answer)["told"]

    eventually(lambda: told() and crowd <= set(told()[-1][1]))
    changes = told()
    assert not crowd & set(changes[0][0])
    assert [after for _, after in changes[:-1]] == [before for before, _ in changes[1:]]
    assert len(changes) <= time.monotonic() - began + 2  # asked for once a second, at most


@pytest.fixture
def over_ajax(cluster: Cluster, ann: str) -> Iterator[User]:
    user = User(cluster, ann, "ajax")
    user.chsk.wait_open(WAIT)
    yield user
    user.chsk.destroy()


def test_events_by_posts_to_any_worker_are_handled_in_order(over_ajax: User) -> None:
    for number in range(1, 21):  # odd ones are quick, even ones slow
        assert over_ajax.chsk.send(["test/turn", number])
        time.sleep(0.01)  # so that they do not leave in one batch
    eventually(lambda: len(over_ajax.heard) == 20)
    assert over_ajax.heard == list(range(1, 21))


def test_what_asks_for_a_reply_keeps_its_place_among_what_does_not(over_ajax: User) -> None:
    replies: list[Any] = []
    for number in range(1, 21):
        cb = replies.append if number % 3 else None
        assert over_ajax.chsk.send(["test/turn", number], WAIT, cb)
    eventually(lambda: len(over_ajax.heard) == 20)
    assert over_ajax.heard == list(range(1, 21))
    eventually(lambda: len(replies) == 14)
    # Each reply answers a POST of its own: two that are ready at once may come in either order.
    assert sorted(replies) == [number for number in range(1, 21) if number % 3]


def test_a_send_with_a_key_is_handled_once_whatever_worker_it_comes_to_again(
    cluster: Cluster, ann: str
) -> None:
    tab = cluster.peer(ann)
    tab.open()
    replies = []
    for _ in range(WORKERS):
        tab.socket.send('[[:test/once] "cb" {:key "k"}]')
        replies.append(tab.read()[:2])
        tab.cut()
        tab.open()
    assert replies == [replies[0]] * WORKERS


def test_who_repeats_a_send_while_it_is_handled_elsewhere_gets_its_reply(
    cluster: Cluster, ann: str
) -> None:
    tab = cluster.peer(ann)
    tab.hello()

    def post(_: int) -> tuple[int, str]:
        return tab.post_raw('[[:test/once 0.5] "cb" {:key "k"}]')

    with ThreadPoolExecutor(WORKERS) as pool:
        replies = list(pool.map(post, range(WORKERS)))
    assert replies[0][0] == 200
    assert replies == [replies[0]] * WORKERS


def test_a_post_that_a_browser_repeats_is_handled_once(cluster: Cluster, ann: str) -> None:
    tab = cluster.peer(ann)
    tab.hello()
    batch = "[[:chsk/batch [[:test/note 1] [:test/note 2]]] nil]"
    answers = [tab.post_raw(batch, n="1") for _ in range(WORKERS)]
    assert answers == [(200, "[:chsk/dummy-cb-200 nil]")] * WORKERS
    tab.post_raw("[[:test/note 3] nil]", n="2")
    assert cluster.polled(tab, 3) == items(1, 2, 3)


def test_a_burst_by_posts_is_refused_nowhere(cluster: Cluster, over_ajax: User) -> None:
    for number in range(500):
        assert over_ajax.chsk.send(["test/note", number])
    eventually(lambda: len(over_ajax.heard) == 500)
    assert over_ajax.heard == list(range(500))
    assert [cluster.stats(n).get("refused_429", 0) for n in range(WORKERS)] == [0] * WORKERS


# from outside --------------------------------------------------------------------------------


def from_a_shell(*words: str, command: str = "send", **env: str) -> tuple[int, str]:
    """What ``flask chsk send …`` ends with and says."""
    flask = [sys.executable, "-m", "flask", "--app", APP, "chsk"]
    ran = subprocess.run(
        [*flask, command, *words],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return ran.returncode, ran.stdout + ran.stderr


def test_an_event_is_sent_from_a_shell(cluster: Cluster, ann: str) -> None:
    broker = {"CHSK_BROKER_URL": cluster.redis.url}
    tab = cluster.peer(ann)
    tab.open()
    status, said = from_a_shell(ann, "[:test/item {:n 7}]", **broker)
    assert tab.events(1) == [["test/item", {"n": 7}]]
    assert (status, int(said)) == (0, offset_of(tab.cursor))
    status, said = from_a_shell(f"not-{ann}", "[:test/item 7]", **broker)
    assert (status, said) == (1, f"Error: not-{ann} is not connected: nothing was sent\n")


def test_what_happens_at_all_workers_is_shown_in_a_shell(
    cluster: Cluster, ann: str, tmp_path: Path
) -> None:
    env = {"CHSK_BROKER_URL": cluster.redis.url}
    tabs = [cluster.peer(ann) for _ in range(4)]
    for tab in tabs:
        tab.open()
    command = [sys.executable, "-m", "flask", "--app", APP, "chsk", "tail"]
    tail = Process([*command, "--uid", ann, "--payload"], tmp_path / "log", env)
    try:
        for number, tab in enumerate(tabs):
            client = f"uid '{ann}' client {tab.params['client-id']}"

            def is_shown(number: int = number, tab: Peer = tab, client: str = client) -> bool:
                assert tab.ask(f"[:test/echo {number}]") == number
                return f" reply   {client} test/echo  {number}\n" in tail.log

            eventually(is_shown, START)
            assert f" in      {client} test/echo wants a reply  {number}\n" in tail.log
        _, said = from_a_shell(ann, command="clients", **env)
        clients = {line.split()[1] for line in said.splitlines()}
        assert clients == {tab.params["client-id"] for tab in tabs}
        status, said = from_a_shell(command="doctor", **env)
        assert status == 0
        assert re.search(
            r"^ok    Redis \d\S* answers\nok    \d workers with \d+ clients$", said, re.M
        )
        assert from_a_shell(ann, command="close", **env) == (0, "")
        tail.wait_for_log(" close   .* 4003 ")
    finally:
        assert tail.stop(signal.SIGINT) == 0


@pytest.mark.parametrize(
    ("words", "url", "status", "said"),
    [
        (["ann", "[:test/item 7"], "redis://127.0.0.1:1/0", 2, "not EDN"),
        (["ann", "[:item 7]"], "redis://127.0.0.1:1/0", 1, "namespace"),
        (["ann", "[:test/item 7]"], "redis://127.0.0.1:1/0", 1, "Redis at 127.0.0.1 is away"),
        (["ann", '["test/item", 7]'], "memory://", 1, "CHSK_BROKER_URL"),
        (["ann"], "memory://", 2, "Missing argument 'EVENT'"),
    ],
)
def test_a_shell_is_told_what_is_wrong(words: list[str], url: str, status: int, said: str) -> None:
    ended, text = from_a_shell(*words, CHSK_BROKER_URL=url)
    assert ended == status
    assert said in text
    assert "Traceback" not in text


def test_a_plain_script_publishes_from_threads_and_from_what_it_forked(
    cluster: Cluster, ann: str
) -> None:
    script = """
import os, sys, threading
from flask_chsk.publisher import Publisher

url, uid = sys.argv[1:]
publisher = Publisher(url)
publisher.send(uid, ["test/item", 0])
threads = [
    threading.Thread(target=publisher.send, args=(uid, ["test/item", n])) for n in range(1, 9)
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
child = os.fork()
publisher.send(uid, ["test/item", 9 if child else 10])
if child:
    os.waitpid(child, 0)
"""
    tab = cluster.peer(ann)
    tab.open()
    command = [sys.executable, "-W", "error", "-c", script, cluster.redis.url, ann]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
    assert sorted(tab.events(11)) == items(*range(11))


# faults --------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster of one test alone, to be ill-treated."""
    redis = Redis(tmp_path / "redis.log")
    cluster = start_cluster(tmp_path, redis)
    yield cluster
    cluster.stop()
    cluster.redis.stop()


@pytest.fixture
def users(own: Cluster) -> Iterator[list[User]]:
    users = [User(own, f"user-{n}", ("ws", "ajax")[n % 2]) for n in range(12)]
    yield users
    for user in users:
        user.chsk.destroy()


def found(came: Counter[str], *more: str, but: Sequence[str] = ()) -> dict[str, int]:
    """The faults that there were, of those that are looked for."""
    return {what: came[what] for what in (*FAULTS, *more) if came[what] and what not in but}


def workers_of(server: Server) -> list[int]:
    """The processes under its master, the oldest first."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    return [int(child) for child in children]


def worker_of(server: Server) -> int:
    return workers_of(server)[0]


def test_workers_that_are_killed_lose_nothing(own: Cluster, users: list[User]) -> None:
    ill = itertools.cycle(own.servers)
    strangers = [Stranger(own, user.uid, user.type) for user in users[:4]]

    def kill(calls: int) -> None:
        if calls % 7 == 0:
            os.kill(worker_of(next(ill)), signal.SIGKILL)

    came = storm(own, users, kill, strangers=strangers, seconds=8.0)
    for one in strangers:
        one.stop()
    came += presence(own, users, PATIENCE)
    for user in users:
        user.chsk.destroy()
    came += presence(own, [], PATIENCE)
    came += comings(own)
    assert found(came) == {}


def test_a_rolling_restart_loses_nothing(own: Cluster, users: list[User]) -> None:
    restarting = [*own.servers]

    def restart(calls: int) -> None:
        if calls % 5 == 0 and restarting:
            restarting.pop().kill(signal.SIGHUP)

    came = storm(own, users, restart, seconds=8.0, done=lambda: not restarting)
    came += presence(own, users, PATIENCE)
    came += comings(own)
    assert found(came, "not_alternating", but=["refused"]) == {}
    assert [server.tracebacks for server in own.servers] == [0] * WORKERS, own.log


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Cluster]:
    """Four workers under one master; which of them takes a connection the kernel decides."""
    redis = Redis(tmp_path / "redis.log")
    command = [sys.executable, "-m", "gunicorn", "-k", "gevent", "-w", str(WORKERS)]
    command += ["-b", "127.0.0.1:0", "--graceful-timeout", "5", APP]
    server = Server(command, tmp_path / "master.log", {"CHSK_BROKER_URL": redis.url})
    cluster = Cluster([server], Proxy(server.port, one_request=True), redis)
    yield cluster
    cluster.stop()
    redis.stop()


def test_workers_of_other_kinds_are_of_the_cluster(tmp_path: Path) -> None:
    redis = Redis(tmp_path / "redis.log")
    gunicorn = [sys.executable, "-m", "gunicorn", "-b", "127.0.0.1:0", "--graceful-timeout", "5"]
    commands = {
        "gthread": [*gunicorn, "-k", "gthread", "--threads", "16", APP],
        "preload": [*gunicorn, "-k", "gevent", "-w", "2", "--preload", APP],
        "flask": [sys.executable, "-m", "flask", "--app", APP, "run", "--port", "0"],
    }
    servers = [
        Server(command, tmp_path / f"{kind}.log", {"CHSK_BROKER_URL": redis.url})
        for kind, command in commands.items()
    ]
    proxy = Proxy(*(server.port for server in servers), one_request=True)
    cluster = Cluster(servers, proxy, redis)
    try:
        socket, polling = cluster.peer("socket"), cluster.peer("polling")
        socket.open()
        polling.hello()
        polled: list[Any] = []
        for number in range(9):  # thrice from each, to either
            for uid in ("socket", "polling"):
                said = cluster.post(f"/send/{uid}?first={number}&last={number}")
                assert None not in said["offsets"]
            polled += polling.poll()
        while len(polled) < 9:
            polled += polling.poll()
        assert (socket.events(9), polled) == (items(*range(9)), items(*range(9)))
        eventually(lambda: cluster.who("socket") == "ws")
    finally:
        cluster.stop()
        redis.stop()
    assert [server.tracebacks for server in servers] == [0] * 3, cluster.log


@pytest.mark.parametrize("how", ["a HUP", "a TERM of each worker"])
def test_one_master_that_replaces_its_workers_loses_nothing(master: Cluster, how: str) -> None:
    users = [User(master, f"user-{n}", ("ws", "ajax")[n % 2]) for n in range(12)]
    server = master.servers[0]
    before = workers_of(server)

    blows = [6] if how == "a HUP" else [4 * n for n in range(1, WORKERS + 1)]

    def replace(calls: int) -> None:
        if calls in blows:
            blows.remove(calls)
            if how == "a HUP":
                server.kill(signal.SIGHUP)
            else:
                os.kill(before[calls // 4 - 1], signal.SIGTERM)

    came = storm(master, users, replace, seconds=9.0, done=lambda: not blows)
    came += presence(master, users, PATIENCE)
    came += comings(master)
    for user in users:
        user.chsk.destroy()
    assert found(came, "not_alternating", but=["refused"]) == {}
    eventually(lambda: not set(before) & set(workers_of(server)))
    assert server.tracebacks == 0, server.log


def test_clients_of_a_worker_that_restarts_come_back_spread_out_and_elsewhere(
    own: Cluster,
) -> None:
    home = own.servers[0]
    back: list[str] = []
    planned: dict[str, int] = {}  # when each wanted to come back, in milliseconds
    clients = []

    def came_back(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        if new["open"] and not old["open"]:
            back.append(new["uid"])
        if new["udt_next_reconnect"]:
            planned.setdefault(new["uid"], new["udt_next_reconnect"])

    own.proxy.backends = [home.port]
    for n in range(40):
        chsk = ChannelSocket(f"{own.proxy.url}/chsk", "ws", params={"uid": f"spread-{n}"})
        chsk.wait_open(WAIT)
        clients.append(chsk)
    own.proxy.backends = [server.port for server in own.servers[1:]]
    for chsk in clients:
        chsk.watch(came_back)
    home.kill(signal.SIGHUP)
    eventually(lambda: len(back) == len(clients))
    whens = sorted(planned.values())
    assert len(whens) == len(clients)
    crowds = Counter(when // 250 for when in whens)
    assert whens[-1] - whens[0] > 1000  # of the two seconds that the 1012 named
    assert max(crowds.values()) < 20, whens  # uniform: five a quarter of a second
    with urllib.request.urlopen(f"{home.url}/stats", timeout=WAIT) as answer:
        assert json.load(answer).get("clients", 0) == 0
    for chsk in clients:
        chsk.destroy()


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster whose grace is longer than a master takes to tell its worker of a restart."""
    redis = Redis(tmp_path / "redis.log")
    cluster = start_cluster(tmp_path, redis, CLOSE_GRACE="3")
    yield cluster
    cluster.stop()
    redis.stop()


def test_who_takes_the_time_that_a_restart_names_has_not_gone(patient: Cluster) -> None:
    own = patient
    grace, both = 3.0, 5.0  # the restart names two seconds
    other = own.peer("bob")
    other.open()
    for ann in (f"ann-{attempt}" for attempt in range(9)):
        tab = own.peer(ann)
        tab.hello()
        eventually(lambda ann=ann: own.seen(ann) == ["came"])
        [home] = [server for server in own.servers if f"came {ann} " in server.log]
        with ThreadPoolExecutor() as pool:
            request = urllib.request.Request(f"{home.url}/ask/bob?timeout={both}", b"")
            pool.submit(urllib.request.urlopen, request)  # keeps the worker
            other.events(1)
            began = time.monotonic()
            home.kill(signal.SIGHUP)
            time.sleep(grace + 0.5)
            tab.port = next(server.port for server in own.servers if server is not home)
            tab.hello()
            if time.monotonic() - began < both:
                break  # else the machine stood still, and the time was over
    assert own.seen(ann) == ["came"]


def test_who_misses_events_by_a_redis_restarted_empty_is_told(
    own: Cluster, users: list[User], tmp_path: Path
) -> None:
    outages: list[float] = []

    def restart(calls: int) -> None:
        if calls == 6:
            outages.append(time.monotonic())
            own.redis.stop(signal.SIGKILL)
            time.sleep(1.0)
            own.redis = Redis(tmp_path / "redis-2.log", own.redis.port)

    came = storm(own, users, restart, seconds=6.0, outages=outages)
    came += presence(own, users, PATIENCE)
    assert found(came, but=["gaps", "absent", "refused"]) == {}
    assert all(user.gaps for user in users)


def test_members_who_are_there_are_members_of_an_emptied_redis(
    own: Cluster, users: list[User]
) -> None:
    everybody = sorted(user.uid for user in users)
    for uid in everybody:
        assert own.post(f"/join/{uid}/all") == {"joined": True}
    own.post("/publish/all/1")
    eventually(lambda: all(user.heard == [1] for user in users))
    RedisClient.from_url(own.redis.url).flushall()
    eventually(lambda: own.get("/members/all")["members"] == everybody)
    own.post("/publish/all/2")
    eventually(lambda: all(user.heard == [1, 2] for user in users))
    ws, ajax = ([user.uid for user in users if user.type == type] for type in ("ws", "ajax"))
    eventually(lambda: all(own.who(uid) == "ws" for uid in ws))
    eventually(lambda: all(own.who(uid) == "ajax" for uid in ajax))


def test_a_user_of_a_killed_worker_who_stays_away_is_signed_off(own: Cluster) -> None:
    tab, other = own.peer("ann"), own.peer("bob")
    tab.open()
    other.open()
    eventually(lambda: own.seen("ann") == ["came"])
    [home] = [server for server in own.servers if "came ann " in server.log]
    os.kill(worker_of(home), signal.SIGKILL)
    eventually(lambda: own.seen("ann") == ["came", "went"], PATIENCE)
    assert own.who("ann") == ""


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[tuple[Cluster, Proxy]]:
    """A cluster whose first worker has a wire of its own to Redis."""
    redis = Redis(tmp_path / "redis.log")
    with Proxy(redis.port, http=False) as wire:
        url = f"redis://127.0.0.1:{wire.port}/0"
        cluster = start_cluster(tmp_path, redis, {"CHSK_BROKER_URL": url})
        yield cluster, wire
        wire.restore()
        cluster.stop()
        redis.stop()


def test_a_worker_that_is_cut_off_from_redis_comes_back_and_its_clients_miss_nothing(
    apart: tuple[Cluster, Proxy],
) -> None:
    own, wire = apart
    cut_off, other = own.servers[:2]
    ann = Peer(cut_off.port, uid="ann", v="1")
    own.peers.append(ann)
    ann.open()
    eventually(lambda: own.who("ann") == "ws")
    own.post("/send/ann?last=0", at=other)
    assert ann.events(1) == items(0)
    wire.hang()
    assert ann.ask("[:test/echo 1]") == 1
    assert own.post("/send/bob?last=0", at=cut_off) == {"error": "PublishUnknown"}
    assert own.post("/send/bob?last=0", at=cut_off) == {"error": "BrokerUnavailable"}
    assert ann.ask("[:test/echo 2]") == 2
    own.post("/send/ann?first=1&last=2", at=other)
    eventually(lambda: own.seen("ann") == ["came", "went"], PATIENCE)
    own.post("/send/ann?first=3&last=4", at=other)
    wire.restore()
    eventually(lambda: own.seen("ann") == ["came", "went", "came"], PATIENCE)
    assert ann.events(4) == items(1, 2, 3, 4)
    assert own.who("ann") == "ws"
    own.post("/send/ann?first=5&last=5", at=cut_off)
    assert ann.events(1) == items(5)


def test_what_was_decided_while_a_worker_heard_nothing_holds_there_too(
    apart: tuple[Cluster, Proxy],
) -> None:
    own, wire = apart
    cut_off, other = own.servers[:2]
    ann, bob = (Peer(cut_off.port, uid=uid, v="1") for uid in ("ann", "bob"))
    own.peers += [ann, bob]
    for tab, uid in ((ann, "ann"), (bob, "bob")):
        tab.open()
        eventually(lambda uid=uid: own.who(uid) == "ws")
    own.post("/join/ann/old", at=cut_off)
    wire.cut()
    own.post("/close/bob", at=other)
    own.post("/join/ann/new", at=other)
    own.post("/leave/ann/old", at=other)
    own.post("/publish/new/1", at=other)
    own.post("/publish/old/2", at=other)
    wire.restore()
    with pytest.raises(Closed) as closed:
        bob.read()
    assert closed.value.code == 4005
    assert ann.events(1) == items(1)
    own.post("/publish/old/3", at=other)
    own.post("/publish/new/4", at=other)
    assert ann.events(1) == items(4)
    bob.cut()
    assert bob.open()[3]["recovered"]  # what was done is not done again
    own.post("/send/bob?last=5&first=5", at=other)
    assert bob.events(1) == items(5)


def test_nobody_is_refused_because_redis_began_anew(own: Cluster) -> None:
    for uid in ("", "ann"):
        tab = own.peer(uid)
        tab.hello()
        assert tab.poll() == []
        RedisClient.from_url(own.redis.url).flushall()
        eventually(lambda tab=tab: tab.get(n=str(time.monotonic_ns() // 1_000_000))[0] == 200)


@pytest.fixture
def forgetful(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster that keeps events for some seconds only."""
    redis = Redis(tmp_path / "redis.log")
    cluster = start_cluster(tmp_path, redis, RECOVERY_SECONDS="4", LP_TIMEOUT="1")
    yield cluster
    cluster.stop()
    redis.stop()


def test_a_client_of_sentes_misses_nothing_though_nothing_came_for_longer_than_the_window(
    forgetful: Cluster,
) -> None:
    polling, open_ = forgetful.sente("polling"), forgetful.sente("open")
    polling.hello()
    open_.open()
    until = time.monotonic() + 6.0
    while time.monotonic() < until:
        assert EDN.unpack(polling.get()[1])[0] == "chsk/timeout"
    for uid in ("polling", "open"):
        forgetful.post(f"/join/{uid}/all")
    forgetful.post("/publish/all/1")
    heard: list[Any] = []
    while not heard:
        said = EDN.unpack(polling.get()[1])[0]
        heard = said if isinstance(said, list) else []
    while not isinstance(said := open_.read()[0], list):
        pass
    assert (heard, said) == (items(1), items(1))


def test_without_redis_sockets_and_handlers_go_on(own: Cluster) -> None:
    tab = own.peer("ann")
    tab.open()
    with urllib.request.urlopen(f"{own.proxy.url}/chsk/health", timeout=WAIT) as answer:
        assert answer.read() == b"ok\n"
    own.redis.stop()
    assert tab.ask("[:test/echo 1]") == 1
    tab.say("[:test/note 1]", '"cb"')
    assert tab.read()[:2] == ["chsk/error", "cb"]
    eventually(lambda: "handler of test/note, uid 'ann': Redis at" in own.log)
    assert own.post("/send/ann?last=0") == {"error": "BrokerUnavailable"}
    with pytest.raises(urllib.error.HTTPError, match="503"):
        urllib.request.urlopen(f"{own.proxy.url}/chsk/health", timeout=WAIT)
    status, text = own.peer("bob").get(**{"handshake?": "1"})
    assert status == 503
    assert text.startswith("try again: ")

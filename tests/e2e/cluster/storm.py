"""Clients, senders and ill luck for a cluster, and what has to hold when they are over.

``test_cluster.py`` has it small, ``python -m tests.e2e.cluster.cluster_soak`` large.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import random
import re
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import websocket

from flask_chsk.client import ChannelSocket, upgrade
from flask_chsk.client.http_client import Answer, HttpClient
from flask_chsk.errors import BrokerError
from flask_chsk.publisher import Publisher
from flask_chsk.values import Keyword
from tests.e2e.proxy import Proxy
from tests.peer import EDN, Closed, Peer
from tests.process import WAIT, Redis, Server, eventually

SENDER = 1_000_000  # numbers of one sender begin at a multiple of it
AT_ONCE = 4  # events of one request to a worker
ON_ITS_WAY = 5.0  # seconds that an event may take to a client that hops
PATIENCE = 60.0  # seconds for what takes some: a lease, and the client that comes back after it
FAULTS = (  # what there must be none of
    *("lost", "repeated", "reordered", "gaps", "absent", "errors", "refused"),
    *("repeated_to_strangers", "reordered_to_strangers", "deaf_strangers", "greeted_again"),
    *("wrongly_present", "wrongly_absent", "told_twice"),
)


class Cluster(Protocol):
    """What a storm breaks loose over."""

    servers: list[Server]
    proxy: Proxy
    redis: Redis

    @property
    def log(self) -> str:
        """What all workers said."""


@contextlib.contextmanager
def answers() -> Iterator[Counter[str]]:
    """HTTP answers that our clients get meanwhile, over either transport."""
    seen: Counter[str] = Counter()
    request, read = HttpClient.request, upgrade.read_answer

    def note(answer: Answer) -> Answer:
        later = " with Retry-After" if "retry-after" in answer.headers else ""
        seen[f"{answer.status}{later}"] += 1
        return answer

    def counted(*args: Any, **more: Any) -> Answer:
        return note(request(*args, **more))

    def counted_upgrade(sock: Any) -> tuple[Answer, bytes]:
        answer, rest = read(sock)
        return note(answer), rest

    HttpClient.request = counted  # type: ignore[method-assign]
    upgrade.read_answer = counted_upgrade
    try:
        yield seen
    finally:
        HttpClient.request = request  # type: ignore[method-assign]
        upgrade.read_answer = read


class User:
    """A client of ours that reconnects, and what it heard."""

    def __init__(self, cluster: Cluster, uid: str, type: str) -> None:
        self.uid = uid
        self.type = type
        self.heard: list[int] = []
        self.gaps: list[float] = []  # when it was told of one
        self.chsk = ChannelSocket(
            f"{cluster.proxy.url}/chsk",
            type,
            params={"uid": uid},
            backoff=lambda attempt: random.uniform(0, 0.3),
            connect=False,
        )
        self.chsk.on("test/item", lambda ev: self.heard.append(ev.data))
        self.chsk.on("chsk/gap", lambda ev: self.gaps.append(time.monotonic()))
        self.chsk.connect()


class Stranger:
    """A client of Sente's kind that reconnects; it keeps no cursor, so cuts may cost it events."""

    def __init__(self, cluster: Cluster, uid: str, type: str) -> None:
        self.uid = uid
        self.type = type
        self.heard: list[int] = []
        self.statuses: Counter[str] = Counter()
        self.greeted_again = 0  # handshakes in answer to the poll after a handshake
        self._peer = Peer(cluster.proxy.port, uid=uid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"sente {uid}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(
                OSError, http.client.HTTPException, websocket.WebSocketException, Closed
            ):
                if self.type == "ws":
                    self._peer.open()
                    while not self._over.is_set():
                        self._hear(self._peer.read()[0])
                else:
                    self._poll()
            with contextlib.suppress(OSError):
                self._peer.cut()
            self._over.wait(random.uniform(0.0, 0.3))

    def _poll(self) -> None:
        shake = {"handshake?": "1"}
        greeted = False
        while not self._over.is_set():
            status, text = self._peer.get(**shake)
            self.statuses[str(status)] += 1
            if status != 200:
                return
            greeting = "chsk/handshake" in text
            self.greeted_again += greeted and greeting
            self._hear(EDN.unpack(text)[0])
            shake, greeted = {}, greeting

    def _hear(self, said: Any) -> None:
        if isinstance(said, Keyword) or not isinstance(said, list):
            if said == "chsk/ws-ping" and self.type == "ws":
                self._peer.say("[:chsk/ws-pong]")
            return
        events = said if isinstance(said[0], list) else [said]
        self.heard += [data[0] for id, *data in events if id == "test/item"]

    def stop(self) -> None:
        self._over.set()
        with contextlib.suppress(OSError):
            self._peer.cut()
        self._thread.join(30.0)


class Sent(NamedTuple):
    """An event that was sent for certain."""

    number: int
    began: float
    ended: float


class Sender(threading.Thread):
    """Sends rising numbers, each to some user; notes those that were sent for certain.

    Where a request failed, its worker may be at it still, so what follows counts as another's.
    """

    lives = itertools.count(1)

    def __init__(self, users: Sequence[User], send: Callable[[str, int, int], list[Any]]) -> None:
        super().__init__(daemon=True)
        self.next = next(self.lives) * SENDER
        self.users = users
        self.send = send
        self.certain: dict[str, list[Sent]] = {user.uid: [] for user in users}
        self.sent = 0
        self.absent = 0  # events whose user was said not to be there, though all are
        self.statuses: Counter[str] = Counter()  # of requests that were refused
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            user = random.choice(self.users)
            first, self.next = self.next, self.next + AT_ONCE
            self.sent += AT_ONCE
            began = time.monotonic()
            try:
                offsets = self.send(user.uid, first, first + AT_ONCE - 1)
            except (OSError, http.client.HTTPException, BrokerError) as error:
                if isinstance(error, urllib.error.HTTPError):
                    self.statuses[str(error.code)] += 1
                self.next = next(self.lives) * SENDER
                continue  # it was on its way to a worker, or to a Redis, that died
            ended = time.monotonic()
            numbers = range(first, first + AT_ONCE)
            self.absent += offsets.count(None)
            self.certain[user.uid] += [
                Sent(number, began, ended)
                for number, offset in zip(numbers, offsets, strict=True)
                if offset is not None
            ]


def storm(
    cluster: Cluster,
    users: Sequence[User],
    blow: Callable[[int], Any],
    *,
    strangers: Sequence[Stranger] = (),
    senders: int = 3,
    seconds: float = 0.0,
    events: int = 0,
    done: Callable[[], bool] = lambda: True,
    calm: float = PATIENCE,
    outages: Sequence[float] = (),
) -> Counter[str]:
    """Send from workers and from outside while *blow* does its worst; then compare.

    *blow* is called with the number of calls so far, three times a second, for *seconds* and until
    as many *events* were sent for certain, and it is *done*. Then each user has all of theirs
    within *calm* seconds; nobody hears anything twice, nor one sender's events out of order.

    :param outages: when Redis was stopped, as *blow* notes it. Who was told of a gap since may
        miss what was sent from the first of them on until they were told.
    """

    def through_a_worker(uid: str, first: int, last: int) -> list[Any]:
        url = f"{cluster.proxy.url}/send/{uid}?first={first}&last={last}"
        with urllib.request.urlopen(urllib.request.Request(url, b""), timeout=WAIT) as answer:
            return list(json.load(answer)["offsets"])

    def from_outside(uid: str, first: int, last: int) -> list[Any]:
        time.sleep(0.02)
        return [publisher.send(uid, ["test/item", n]) for n in range(first, last + 1)]

    for user in users:
        user.chsk.wait_open(30)
    with Publisher(cluster.redis.url) as publisher, answers() as answered:
        ways = [from_outside, *[through_a_worker] * (senders - 1)]
        sending = [Sender(users, way) for way in ways]
        for sender in sending:
            sender.start()
        until = time.monotonic() + seconds
        for calls in itertools.count(1):
            time.sleep(0.3)
            random.choice(users).chsk.break_connection()
            cluster.proxy.cut_one()
            blow(calls)
            certain = sum(len(sent) for sender in sending for sent in sender.certain.values())
            if certain >= events and time.monotonic() > until and done():
                break
        for sender in sending:
            sender.over.set()
            sender.join()
        wanted = {
            user.uid: [sent for sender in sending for sent in sender.certain[user.uid]]
            for user in users
        }

        def excused(user: User, sent: Sent) -> bool:
            if not outages or not user.gaps:
                return False
            return sent.ended > outages[0] - ON_ITS_WAY and sent.began < user.gaps[-1]

        def missing() -> int:
            return sum(
                sent.number not in heard and not excused(user, sent)
                for user in users
                for heard in (set(user.heard),)
                for sent in wanted[user.uid]
            )

        with contextlib.suppress(TimeoutError):
            eventually(lambda: not missing(), calm)
    lost = {
        one.uid: {sent.number for sent in wanted[one.uid]} - set(one.heard) for one in strangers
    }
    fine = ("101", "200", "503 with Retry-After")
    errors = sum(count for said, count in answered.items() if said not in fine)
    for other in (*sending, *strangers):  # of these we do not know whether it was there
        answered.update(other.statuses)
        errors += sum(n for said, n in other.statuses.items() if said not in ("200", "503"))
    result = Counter(
        sent=sum(sender.sent for sender in sending),
        certain=sum(map(len, wanted.values())),
        lost=missing(),
        repeated=sum(repeated(one.heard) for one in users),
        reordered=sum(reordered(one.heard) for one in users),
        gaps=sum(len(user.gaps) for user in users),
        absent=sum(sender.absent for sender in sending),
        refused=sum(count for said, count in answered.items() if said.startswith("503")),
        errors=errors,
        lost_by_strangers=sum(map(len, lost.values())),
        deaf_strangers=sum(len(lost[one.uid]) * 2 > len(wanted[one.uid]) for one in strangers),
        greeted_again=sum(one.greeted_again for one in strangers),
        repeated_to_strangers=sum(repeated(one.heard) for one in strangers),
        reordered_to_strangers=sum(reordered(one.heard) for one in strangers),
    )
    assert result["certain"] >= max(events, 100)
    return result


def presence(cluster: Cluster, there: Iterable[User | Stranger], patience: float) -> Counter[str]:
    """What is wrong in who is said to be there, by any worker, once it has settled."""
    wanted: dict[str, set[str]] = {"ws": set(), "ajax": set()}
    for one in there:
        wanted[one.type].add(one.uid)
    wrong: Counter[str] = Counter()

    def settled() -> bool:
        wrong.clear()
        for server in cluster.servers:
            with urllib.request.urlopen(f"{server.url}/who", timeout=WAIT) as answer:
                who = json.load(answer)
            for kind, uids in wanted.items():
                said = set(who[kind])
                wrong["wrongly_present"] += len(said - uids)
                wrong["wrongly_absent"] += len(uids - said)
        return not +wrong

    with contextlib.suppress(TimeoutError):
        eventually(settled, patience)
    return wrong


def comings(cluster: Cluster) -> Counter[str]:
    """What is wrong in the comings and goings that handlers heard of, all workers together.

    Once all have: one may hear of a later one first.
    """
    wrong: Counter[str] = Counter()

    def settled() -> bool:
        wrong.clear()
        told = re.findall(r"(came|went) (\S+) (\d+)$", cluster.log, re.M)
        wrong["told_twice"] = len(told) - len(set(told))
        latest: dict[str, str] = {}
        for what, uid, _ in sorted(told, key=lambda one: int(one[2])):
            wrong["not_alternating"] += latest.get(uid, "went") == what
            latest[uid] = what
        return not +wrong

    with contextlib.suppress(TimeoutError):
        eventually(settled)
    return wrong


def repeated(heard: list[int]) -> int:
    """How many came again."""
    return len(heard) - len(set(heard))


def reordered(heard: list[int]) -> int:
    """How many came after a later one of the same sender."""
    latest: dict[int, int] = {}
    late = 0
    for number in heard:
        sender = number // SENDER
        late += number < latest.get(sender, 0)
        latest[sender] = max(number, latest.get(sender, 0))
    return late

"""Clients, senders and ill luck for a cluster, and what has to hold when they are over.

``test_cluster.py`` has it small, ``python -m tests.e2e.cluster_soak`` large.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import websocket

from flask_chsk.client import ChannelSocket
from flask_chsk.errors import BrokerError
from flask_chsk.publisher import Publisher
from flask_chsk.values import Keyword
from tests.e2e.proxy import Proxy
from tests.peer import EDN, Closed, Peer
from tests.process import Redis, eventually

SENDER = 1_000_000  # numbers of one sender begin at a multiple of it
AT_ONCE = 4  # events of one request to a worker


class Cluster(Protocol):
    """What a storm breaks loose over."""

    proxy: Proxy
    redis: Redis

    def post(self, path: str) -> Any:
        """Have some worker do something."""


class User:
    """A client of ours that reconnects, and what it heard."""

    def __init__(self, cluster: Cluster, uid: str, type: str) -> None:
        self.uid = uid
        self.type = type
        self.heard: list[int] = []
        self.gaps = 0
        self.chsk = ChannelSocket(
            f"{cluster.proxy.url}/chsk",
            type,
            params={"uid": uid},
            backoff=lambda attempt: random.uniform(0, 0.3),
            connect=False,
        )
        self.chsk.on("test/item", lambda ev: self.heard.append(ev.data))
        self.chsk.on("chsk/gap", self._gap)
        self.chsk.connect()

    def _gap(self, ev: Any) -> None:
        self.gaps += 1


class Stranger:
    """A client of Sente's kind that reconnects; it keeps no cursor, so cuts may cost it events."""

    def __init__(self, cluster: Cluster, uid: str, type: str) -> None:
        self.uid = uid
        self.type = type
        self.heard: list[int] = []
        self.statuses: Counter[int] = Counter()
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
            self._over.wait(random.uniform(0.0, 0.3))

    def _poll(self) -> None:
        shake = {"handshake?": "1"}
        while not self._over.is_set():
            status, text = self._peer.get(**shake)
            self.statuses[status] += 1
            if status != 200:
                return
            self._hear(EDN.unpack(text)[0])
            shake = {}

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
        self.certain: dict[str, list[int]] = {user.uid: [] for user in users}
        self.sent = 0
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            user = random.choice(self.users)
            first, self.next = self.next, self.next + AT_ONCE
            self.sent += AT_ONCE
            try:
                offsets = self.send(user.uid, first, first + AT_ONCE - 1)
            except (OSError, ValueError, KeyError, http.client.HTTPException, BrokerError):
                self.next = next(self.lives) * SENDER
                continue  # it was on its way to a worker, or to a Redis, that died
            numbers = range(first, first + AT_ONCE)
            sent = [n for n, offset in zip(numbers, offsets, strict=True) if offset is not None]
            self.certain[user.uid] += sent


def storm(
    cluster: Cluster,
    users: Sequence[User],
    blow: Callable[[int], Any],
    *,
    strangers: Sequence[Stranger] = (),
    senders: int = 3,
    seconds: float = 0.0,
    events: int = 0,
    calm: float = 20.0,
) -> Counter[str]:
    """Send from workers and from outside while *blow* does its worst; then compare.

    *blow* is called with the number of calls so far, three times a second, for *seconds* and until
    as many *events* were sent. Whoever was not told of a gap has all that was certainly sent within
    *calm* seconds; nobody hears anything twice, nor one sender's events out of order.
    """

    def through_a_worker(uid: str, first: int, last: int) -> list[Any]:
        return list(cluster.post(f"/send/{uid}?first={first}&last={last}")["offsets"])

    def from_outside(uid: str, first: int, last: int) -> list[Any]:
        time.sleep(0.02)
        return [publisher.send(uid, ["test/item", n]) for n in range(first, last + 1)]

    for user in users:
        user.chsk.wait_open(30)
    with Publisher(cluster.redis.url) as publisher:
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
            sent = sum(sender.sent for sender in sending)
            if sent >= events and time.monotonic() > until:
                break
        for sender in sending:
            sender.over.set()
            sender.join()
        wanted = {
            user.uid: {number for sender in sending for number in sender.certain[user.uid]}
            for user in users
        }

        def missing() -> dict[str, int]:
            lost = {u.uid: len(wanted[u.uid].difference(u.heard)) for u in users if not u.gaps}
            return {uid: count for uid, count in lost.items() if count}

        with contextlib.suppress(TimeoutError):
            eventually(lambda: not missing(), calm)
    certain = sum(map(len, wanted.values()))
    lost = {s.uid: len(wanted[s.uid].difference(s.heard)) for s in strangers}
    result = Counter(
        sent=sum(sender.sent for sender in sending),
        certain=certain,
        lost=sum(missing().values()),
        repeated=sum(repeated(one.heard) for one in users),
        reordered=sum(reordered(one.heard) for one in users),
        gaps=sum(user.gaps for user in users),
        lost_by_strangers=sum(lost.values()),
        repeated_to_strangers=sum(repeated(one.heard) for one in strangers),
        reordered_to_strangers=sum(reordered(one.heard) for one in strangers),
    )
    assert certain > 100
    return result


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

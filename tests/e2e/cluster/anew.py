"""A Redis that begins anew again and again under traffic, and what each client was told.

    python -m tests.e2e.cluster.anew --users 40 --seconds 120

Four workers behind a proxy that gives each request to the next one; half of the users are held to
long-polling; all are members of a topic and always have a client at some worker. Events go to
single users, to the topic and to everybody, from workers and from outside. Meanwhile Redis is
emptied, restarted without and with what it had on its disk, and replaced by a replica that missed
writes.

A client's log, events by their numbers and gaps, is compared with the offsets that senders got:
each event once, in the order of offsets, and none missing but where a gap stands at its place, or
follows at once: a process may learn a moment late that its client is a member.
"""

from __future__ import annotations

if __name__ == "__main__":
    from gevent import monkey

    monkey.patch_all()

import argparse
import contextlib
import http.client
import itertools
import json
import random
import signal
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from redis import Redis as RedisClient

from flask_chsk.client import ChannelSocket
from flask_chsk.errors import BrokerError
from flask_chsk.publisher import Publisher
from tests.e2e.proxy import Proxy
from tests.process import WAIT, Redis, eventually

GAP = -1
TOPIC = "all"
FAULTS = ("lost", "repeated", "reordered", "absent", "deaf")
ON_DISK = ("--appendonly", "yes", "--appendfsync", "always")
AT_ONCE = 25  # events after a missing one within which a gap has to be told: a third of a second
CALM = 60.0  # seconds to hear everything again
BETWEEN = 3.0  # seconds from one beginning to the next


class Fickle:
    """A Redis at one address that begins anew in each of the ways there are."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lives = itertools.count(1)
        self.redis = self._start(*ON_DISK)
        self.proxy = Proxy(self.redis.port, http=False)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.proxy.port}/0"

    def _start(self, *options: str, folder: Path | None = None) -> Redis:
        if folder is None:
            folder = self._folder / f"redis-{next(self._lives)}"
            folder.mkdir()
        return Redis(folder / "log", 0, *options)

    def _turn_to(self, redis: Redis) -> None:
        before, self.redis = self.redis, redis
        self.proxy.backends = [redis.port]
        before.stop(signal.SIGKILL)

    def empty(self) -> None:
        """All keys are deleted, and Redis goes on."""
        RedisClient.from_url(self.redis.url).flushall()

    def restart(self) -> None:
        """It ends, and comes back with nothing."""
        self.redis.stop(signal.SIGKILL)
        time.sleep(0.5)
        self._turn_to(self._start(*ON_DISK))

    def restore(self) -> None:
        """It ends, and comes back with all that it had."""
        folder = self.redis.log_path.parent
        self.redis.stop(signal.SIGKILL)
        self._turn_to(self._start(*ON_DISK, folder=folder))

    def fail_over(self) -> None:
        """A replica takes over that missed the writes of a moment."""
        replica = self._start(*ON_DISK)
        RedisClient.from_url(self.redis.url).config_set("repl-diskless-sync-delay", 0)
        admin = RedisClient.from_url(replica.url)
        admin.replicaof("127.0.0.1", self.redis.port)
        eventually(lambda: admin.info("replication")["master_link_status"] == "up")
        admin.replicaof("no", "one")
        time.sleep(0.2)
        self._turn_to(replica)

    def stop(self) -> None:
        self.proxy.close()
        self.redis.stop()


WAYS: dict[str, Callable[[Fickle], None]] = {
    "emptied": Fickle.empty,
    "restarted": Fickle.restart,
    "restored": Fickle.restore,
    "failed over": Fickle.fail_over,
}


class Listener:
    """A client of ours and its log."""

    def __init__(self, url: str, uid: str, type: str) -> None:
        self.uid = uid
        self.type = type
        self.log: list[int] = []
        self.chsk = ChannelSocket(
            f"{url}/chsk",
            type,
            params={"uid": uid},
            backoff=lambda attempt: random.uniform(0, 0.3),
            connect=False,
        )
        self.chsk.on("test/item", lambda ev: self.log.append(ev.data))
        self.chsk.on("chsk/gap", lambda ev: self.log.append(GAP))
        self.chsk.connect()


class Sender(threading.Thread):
    """Sends numbers to one user, the topic or everybody, until it is over."""

    numbers = itertools.count(1)

    def __init__(self, uids: Sequence[str], send: Callable[[str, int], int | None]) -> None:
        super().__init__(daemon=True)
        self.uids = uids
        self.send = send
        self.sent: dict[int, tuple[str, int]] = {}  # number -> to whom, at which offset
        self.absent = 0
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            time.sleep(0.005)
            to = random.choice((*self.uids[:: len(self.uids) // 2], f"#{TOPIC}", "*"))
            number = next(self.numbers)
            try:
                offset = self.send(to, number)
            except (OSError, http.client.HTTPException, BrokerError):
                continue  # perhaps it was sent
            if offset is None:
                self.absent += 1
            else:
                self.sent[number] = (to, offset)


def faults(log: Sequence[int], wanted: dict[int, int]) -> Counter[str]:
    """What is wrong in the log of a client to which *wanted* was sent: numbers with offsets."""
    found: Counter[str] = Counter()
    heard = [number for number in log if number != GAP]
    found["repeated"] = len(heard) - len(set(heard))
    places, offsets = [], []  # of events in the log
    for place, number in enumerate(log):
        if number in wanted:
            places.append(place)
            offsets.append(wanted[number])
    found["reordered"] = sum(a > b for a, b in itertools.pairwise(offsets))
    if found["reordered"]:
        return found
    for number in set(wanted) - set(heard):
        after = bisect_left(offsets, wanted[number])
        first = places[after - 1] if after else -1
        last = places[after] if after < len(places) else len(log)
        found["lost"] += GAP not in log[first + 1 : last + AT_ONCE]
    return found


def storm(
    url: str, redis: Fickle, listeners: Sequence[Listener], ways: Sequence[str], seconds: float
) -> Counter[str]:
    """What came of it, faults among it.

    :param ways: in which Redis begins anew, one after another, for *seconds*.
    """
    uids = [one.uid for one in listeners]

    def through_a_worker(to: str, number: int) -> int | None:
        path = {"#": f"publish/{to[1:]}/{number}", "*": f"broadcast/{number}"}.get(
            to[0], f"send/{to}?first={number}&last={number}"
        )
        with urllib.request.urlopen(
            urllib.request.Request(f"{url}/{path}", b""), timeout=WAIT
        ) as answer:
            said = json.load(answer)
        offset: int | None = said["offsets"][0] if "offsets" in said else said["offset"]
        return offset

    def from_outside(to: str, number: int) -> int | None:
        event = ["test/item", number]
        if to == "*":
            return publisher.broadcast(event)
        return publisher.publish(to[1:], event) if to[0] == "#" else publisher.send(to, event)

    for one in listeners:
        one.chsk.wait_open(30)
    with Publisher(redis.url) as publisher:
        senders = [Sender(uids, send) for send in (from_outside, through_a_worker)]
        for sender in senders:
            sender.start()
        until = time.monotonic() + seconds
        epochs = 0
        for way in itertools.cycle(ways):
            WAYS[way](redis)
            epochs += 1
            time.sleep(BETWEEN)
            if time.monotonic() > until and epochs >= len(ways):
                break
        for sender in senders:
            sender.over.set()
            sender.join()
        sent = dict(itertools.chain(*(sender.sent.items() for sender in senders)))

        def deaf() -> int:
            """How many do not hear three events in a row, when it has settled."""
            last = [next(Sender.numbers) for _ in range(3)]
            for to, number in zip(("*", f"#{TOPIC}", "*"), last, strict=True):
                offset = from_outside(to, number)
                assert offset is not None
                sent[number] = (to, offset)
            with contextlib.suppress(TimeoutError):
                eventually(lambda: all(one.log[-3:] == last for one in listeners), 10.0)
            return sum(one.log[-3:] != last for one in listeners)

        came: Counter[str] = Counter(epochs=epochs, absent=sum(s.absent for s in senders))
        with contextlib.suppress(TimeoutError):
            eventually(lambda: not deaf(), CALM)
        came.update(deaf=deaf(), sent=len(sent))
    for one in listeners:
        to_all = ("*", f"#{TOPIC}", one.uid)
        wanted = {number: offset for number, (to, offset) in sent.items() if to in to_all}
        found = faults(one.log, wanted)
        came += found
        came["gaps"] += one.log.count(GAP)
        came["heard"] += len(one.log) - one.log.count(GAP)
        came["wanted"] += len(wanted)
        if +found:
            print(one.uid, one.type, dict(+found), file=sys.stderr)
    return came


def main() -> int:
    from tests.e2e.cluster.storm import comings
    from tests.e2e.cluster.test_cluster import start_cluster

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--users", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=120.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        redis = Fickle(Path(name))
        cluster = start_cluster(Path(name), redis, LP_TIMEOUT="5", CLOSE_GRACE="10")
        listeners: list[Any] = []
        try:
            for n in range(args.users):
                listeners.append(Listener(cluster.proxy.url, f"user-{n}", ("ws", "ajax")[n % 2]))
                cluster.post(f"/join/user-{n}/{TOPIC}")
            came = storm(cluster.proxy.url, redis, listeners, tuple(WAYS), args.seconds)
            came["not_alternating"] = comings(cluster)["not_alternating"]
        finally:
            for one in listeners:
                one.chsk.destroy()
            cluster.stop()
            redis.stop()
    for what, count in sorted(came.items()):
        print(f"{what:24}{count:>8}")
    found = {what: came[what] for what in (*FAULTS, "not_alternating") if came[what]}
    print("FAULTS", found) if found else print("nothing missing without a gap")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

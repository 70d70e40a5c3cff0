"""Many clients whose connections are cut at random, and nothing lost, doubled or reordered.

    python -m tests.e2e.soak --clients 200 --seconds 600
    python -m tests.e2e.soak --clients 1000 --rude 300 --seconds 600

One gunicorn worker with gevent, and one patched process of clients, some of which may be rude:
slow readers, and senders of rubbish. Prints a line now and then; ends with status 1, and what was
wrong, where an event was lost, came twice or out of order, or where memory, descriptors or
greenlets leak, here or in the server.
"""

# ruff: noqa: E402 (patching comes first)

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import argparse
import gc
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import mean
from typing import Any

import gevent
from greenlet import greenlet

from flask_chsk.client import ChannelSocket
from flask_chsk.client.http_client import HttpClient
from flask_chsk.hub import IDLE_WORKERS
from flask_chsk.packers import make
from tests.e2e.hostile.conftest import Target
from tests.e2e.soak.rude import Rude
from tests.servers import running

APP = "tests.e2e.soak.app:app"
JSON = make("json")
CUTS = ("break", "hard", "reconnect", "disconnect")
SAMPLES = 40  # of memory, at most
SENDERS = 4
SLACK = {  # at the end above the start
    "greenlets here": 5,
    "descriptors here": 5,
    "greenlets there": IDLE_WORKERS + 5,
    "descriptors there": 5,
}
GROWTH = 8.0  # MiB between the second quarter and the last
SETTLED = 120.0  # seconds of a run whose memory is judged: four times the recovery window

Figures = dict[str, float]


class User:
    """One client: how far it has heard the numbers of its user."""

    def __init__(self, url: str, number: int) -> None:
        self.uid = f"user-{number}"
        self.said = 0
        self.heard = 0
        self.cuts = 0
        self.wrong: list[str] = []
        self.chsk = ChannelSocket(
            url,
            ("ws", "ajax", "auto")[number % 3],
            ("edn", "json")[number % 2],
            params={"uid": self.uid},
            backoff=lambda attempt: random.random(),
            recv_buf=16,
            connect=False,
        )
        self.chsk.on("test/pushed", self._pushed)
        self.chsk.on("chsk/gap", lambda ev: self.wrong.append(f"{self.uid}: a gap"))
        self.chsk.connect()

    def _pushed(self, ev: Any) -> None:
        number = ev.data[0]
        if number != self.heard:
            self.wrong.append(f"{self.uid}: {number} came in place of {self.heard}")
        self.heard = number + 1

    def cut(self) -> None:
        """End its connection in one of several ways."""
        chsk, how = self.chsk, random.choice(CUTS)
        self.cuts += 1
        if how == "break":
            chsk.break_connection()
        elif how == "hard":
            link = chsk._engine.session.link
            if link is not None:
                link.transport.cut()
                if link.kind == "ajax":
                    chsk.break_connection()
        elif how == "reconnect":
            chsk.reconnect()
        else:
            chsk.disconnect()
            gevent.sleep(random.random())
            chsk.connect()


def measure(target: Target) -> Figures:
    """What may leak, here and in the server."""
    gc.collect()
    here = sum(isinstance(one, greenlet) and not one.dead for one in gc.get_objects())
    there = Counter(target.get("/stats"))
    return {
        "greenlets here": here,
        "descriptors here": len(os.listdir("/proc/self/fd")),
        "MiB here": resident(os.getpid()),
        "greenlets there": there["greenlets"],
        "descriptors there": target.server.descriptors(),
        "MiB there": resident(target.pid),
        "clients": there["clients"],
    }


def resident(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return round(int(text.partition("VmRSS:")[2].split()[0]) / 1024, 1)


def left(start: Figures, end: Figures) -> list[str]:
    """What was not there before."""
    return [
        f"{name}: {start[name]:.0f} before, {end[name]:.0f} after"
        for name, slack in SLACK.items()
        if end[name] > start[name] + slack
    ]


def growth(samples: list[Figures]) -> list[str]:
    """What went on growing."""
    found = []
    quarter = len(samples) // 4
    for name in ("MiB here", "MiB there"):
        early = mean(one[name] for one in samples[quarter : 2 * quarter])
        late = mean(one[name] for one in samples[-quarter:])
        if late > early + GROWTH:
            found.append(f"{name}: {early:.0f} in the second quarter, {late:.0f} in the last")
    return found


def soak(target: Target, clients: int, rude: int, seconds: float) -> list[str]:
    """What went wrong."""
    base = f"http://127.0.0.1:{target.port}"
    target.get("/stats")
    start = measure(target)
    users = [User(f"{base}/chsk", number) for number in range(clients - rude)]
    for user in users:
        user.chsk.wait_open(60)
    others = Rude(target.port)
    end = time.monotonic() + seconds

    def send(mine: list[User]) -> None:
        http = HttpClient()
        while time.monotonic() < end:
            user = random.choice(mine)
            answer = http.request("POST", f"{base}/say/{user.uid}/{random.randint(1, 5)}", body=b"")
            user.said += len(JSON.unpack(answer.body))
            gevent.sleep(0.01)
        http.close()

    def cut() -> None:
        while time.monotonic() < end:
            gevent.spawn(random.choice(users).cut)
            gevent.sleep(random.random() * 0.1)

    jobs = [gevent.spawn(send, users[number::SENDERS]) for number in range(SENDERS)]
    jobs += [gevent.spawn(cut), *(gevent.spawn(others.go) for _ in range(rude))]
    samples = []
    while time.monotonic() < end:
        gevent.sleep(seconds / SAMPLES)
        samples.append(measure(target))
        sums = [sum(getattr(u, name) for u in users) for name in ("said", "heard", "cuts")]
        print("{} said, {} heard, {} cuts,".format(*sums), samples[-1], flush=True)
    others.end()
    gevent.joinall(jobs, raise_error=True)
    patience = time.monotonic() + 60
    while any(u.heard != u.said for u in users) and time.monotonic() < patience:
        gevent.sleep(0.1)
    wrong = [line for u in users for line in u.wrong[:3]]
    wrong += [
        f"{u.uid}: heard {u.heard} of {u.said}, {dict(u.chsk.state)}"
        for u in users
        if u.heard != u.said
    ]
    if rude:
        print(dict(others.did))
    print({name: value for name, value in target.stats().items() if value})
    gevent.joinall([gevent.spawn(u.chsk.destroy) for u in users])
    users.clear()
    patience = time.monotonic() + 60
    while left(start, after := measure(target)) and time.monotonic() < patience:
        gevent.sleep(1)
    print("before", start, "\nafter ", after)
    return wrong + left(start, after) + (growth(samples) if seconds >= SETTLED else [])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=200, help="in all")
    parser.add_argument("--rude", type=int, default=0, help="of them")
    parser.add_argument("--seconds", type=float, default=600)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        with running("gunicorn-gevent", APP, Path(folder) / "log") as server:
            target = Target(server)
            wrong = soak(target, args.clients, args.rude, args.seconds)
            lines = target.lines()
        wrong += [
            f"{count} times in the log: {line}"
            for line, count in lines.items()
            if count > args.seconds / 60 + 2
        ]
        if server.tracebacks:
            wrong.append(server.log[server.log.index("Traceback") :][:4000])
    for line in wrong:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""Many clients whose connections are cut at random, and nothing lost, doubled or reordered.

    python -m tests.client.soak --clients 200 --seconds 600

One gunicorn worker, one patched client process. Prints a line every ten seconds; ends with
status 1 where an event was lost, came twice or out of order, or where something leaks.
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
from collections import deque
from pathlib import Path
from typing import Any

import gevent

from flask_chsk.client import ChannelSocket
from flask_chsk.client.web import Web
from flask_chsk.packers import make
from tests.client.conftest import APP
from tests.servers import WsgiServer, running

JSON = make("json")
CUTS = ("break", "hard", "reconnect", "disconnect")


class User:
    """One client, what was sent to its user, and what it got."""

    def __init__(self, url: str, number: int) -> None:
        self.uid = f"user-{number}"
        self.said: deque[int] = deque()  # and not heard yet
        self.heard: deque[int] = deque()  # and not known to be said yet
        self.counts = [0, 0]
        self.wrong: list[str] = []
        self.cuts = 0
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
        self.chsk.on("chsk/gap", self._gap)
        self.chsk.connect()

    def told(self, said: list[int]) -> None:
        """The server was asked to push these."""
        self.said += said
        self.counts[0] += len(said)
        self._compare()

    def _pushed(self, ev: Any) -> None:
        self.heard.append(ev.data)
        self.counts[1] += 1
        self._compare()

    def _compare(self) -> None:
        while self.said and self.heard:
            said, heard = self.said.popleft(), self.heard.popleft()
            if said != heard:
                self.wrong.append(f"{self.uid}: {said} was sent, {heard} came")

    def _gap(self, ev: Any) -> None:
        self.wrong.append(f"{self.uid}: a gap")

    def cut(self) -> None:
        """End its connection in one of several ways."""
        chsk, how = self.chsk, random.choice(CUTS)
        self.cuts += 1
        if how == "break":
            chsk.break_connection()
        elif how == "hard":
            link = chsk._session.link
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


def measure(server: WsgiServer) -> dict[str, int]:
    """What may leak, here and there."""
    gc.collect()
    greenlets = sum(isinstance(x, gevent.Greenlet) and not x.dead for x in gc.get_objects())
    return {
        "greenlets": greenlets,
        "fds": len(os.listdir("/proc/self/fd")),
        "rss_kb": rss(os.getpid()),
        "server_fds": server.descriptors(),
        "server_rss_kb": sum(map(rss, server.workers())),
    }


def rss(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0])


def soak(server: WsgiServer, clients: int, seconds: float) -> list[str]:
    """What went wrong."""
    base = f"http://127.0.0.1:{server.port}"
    web = Web()
    empty = measure(server)
    users = [User(f"{base}/chsk", number) for number in range(clients)]
    for user in users:
        user.chsk.wait_open(30)
    until = time.monotonic() + seconds
    early: dict[str, int] = {}

    def send() -> None:
        while time.monotonic() < until:
            user = random.choice(users)
            answer = web.request("POST", f"{base}/say/{user.uid}/{random.randint(1, 5)}", body=b"")
            user.told(JSON.unpack(answer.body))
            gevent.sleep(0.005)

    def cut() -> None:
        while time.monotonic() < until:
            gevent.spawn(random.choice(users).cut)
            gevent.sleep(random.random() * 0.1)

    jobs = [gevent.spawn(send), gevent.spawn(cut)]
    while time.monotonic() < until:
        gevent.sleep(min(10, seconds / 4))
        now = measure(server)
        early = early or now
        said, heard = (sum(u.counts[i] for u in users) for i in (0, 1))
        print(f"{said} sent, {heard} heard, {sum(u.cuts for u in users)} cuts, {now}", flush=True)
    gevent.joinall(jobs, raise_error=True)
    end = time.monotonic() + 30
    while any(u.said or u.heard for u in users) and time.monotonic() < end:
        gevent.sleep(0.1)
    wrong = [line for u in users for line in u.wrong[:3]]
    wrong += [f"{u.uid}: {len(u.said)} events never came" for u in users if u.said]
    wrong += [f"{u.uid}: {len(u.heard)} events too many" for u in users if u.heard]
    late = measure(server)
    gevent.joinall([gevent.spawn(u.chsk.destroy) for u in users])
    users.clear()
    gevent.sleep(6)
    after = measure(server)
    print("empty", empty, "\nearly", early, "\nlate ", late, "\nafter", after)
    for name in ("greenlets", "fds", "server_fds"):
        if after[name] > empty[name] + 5:
            wrong.append(f"{name} left: {empty[name]} before, {after[name]} after")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=600)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with running("gunicorn-gevent", APP, log) as server:
            wrong = soak(server, args.clients, args.seconds)
        tracebacks = log.read_text().count("Traceback")
    if tracebacks:
        wrong.append(f"{tracebacks} tracebacks in the server's log")
    for line in wrong:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""What Redis pays for what the broker asks of it: the table of docs/broker.rst.

    python -m benchmarks.broker

CPU is of Redis, user and system, from its own ``INFO cpu``; the script's part of it from
``INFO commandstats``; bytes from ``INFO stats``; memory from ``INFO memory``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import redis

from flask_chsk.brokers.contract import EVERYONE, Broker, user_channel
from flask_chsk.brokers.urls import make
from flask_chsk.config import Config
from flask_chsk.hub import Hub

from .servers import Redis

COUNT = 5000  # of each thing that is measured
REST = 12.0  # seconds of doing nothing: four leases of each process


class Nobody:
    """The server of a process without clients, as far as a broker sees it."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args: None


class Meter:
    """What Redis has used."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url)

    def read(self) -> dict[str, float]:
        """Seconds of CPU, of them in scripts, commands, bytes in, bytes out."""
        info = self._client.info("everything")
        script = info.get("cmdstat_evalsha", {"usec": 0, "calls": 0})
        subscribes = info.get("cmdstat_subscribe", {"calls": 0})
        return {
            "cpu": info["used_cpu_user"] + info["used_cpu_sys"],
            "script": script["usec"] / 1e6,
            "commands": script["calls"] + subscribes["calls"],
            "in": info["total_net_input_bytes"],
            "out": info["total_net_output_bytes"],
        }

    def memory(self) -> int:
        """Bytes of data and what holds it."""
        return int(self._client.info("memory")["used_memory_dataset"])

    def row(self, what: str, do: Callable[[int], Any], count: int = COUNT) -> None:
        """Print what *do* costs, called with 0, 1, … *count*."""
        do(count)  # Redis knows its scripts then
        before = self.read()
        for number in range(count):
            do(number)
        time.sleep(0.2)  # what was published has been heard
        after = self.read()
        used = {name: (after[name] - before[name]) / count for name in after}
        print(
            f"{what:52} {used['commands']:5.2f} commands"
            f" {used['cpu'] * 1e6:7.1f} µs, in scripts {used['script'] * 1e6:6.1f}"
            f" {used['in']:7.0f} B in {used['out']:7.0f} B out"
        )


def event(size: int) -> str:
    """Canonical EDN of *size* characters."""
    return f'[:bench/event "{"x" * (size - 16)}"]'


def main() -> int:
    with Redis() as server:
        hub = Hub()
        meter = Meter(server.url)

        def process() -> Broker:
            broker = make(Config(broker_url=server.url))
            hub.run(broker.start, hub, Nobody())
            broker.ready()
            return broker

        one, two = process(), process()
        tokens = {}

        def come(number: int) -> None:
            arrival = one.clients.attach(f"user{number}", "tab", "ws", True)
            assert arrival is not None
            tokens[number] = arrival.token

        empty = meter.memory()
        meter.row("a client comes", come)
        print(f"{'a connected user':52} {(meter.memory() - empty) / COUNT / 1024:.2f} KB")
        empty = meter.memory()
        for number in range(COUNT):
            one.publish(user_channel(f"user{number}"), event(128))
        print(f"{'their first event':52} {(meter.memory() - empty) / COUNT / 1024:.2f} KB")
        ann = user_channel("user0")
        empty = meter.memory()
        for _ in range(300):
            one.publish(ann, event(128))
        print(f"{'a full window of 128 B':52} {(meter.memory() - empty) / 1024:.1f} KB")
        meter.row("a send, 128 B", lambda number: one.publish(ann, event(128)))
        meter.row("a send, 4 KiB", lambda number: one.publish(ann, event(4096)))
        meter.row("a send to who is not there", lambda number: one.publish("u:no", event(128)))
        meter.row("a broadcast, 2 processes", lambda number: one.publish(EVERYONE, event(128)))
        more = [process() for _ in range(4)]
        meter.row("a broadcast, 6 processes", lambda number: one.publish(EVERYONE, event(128)))
        last = one.publish(ann, event(128)) or 0
        meter.row("a client reads what it missed, one event", lambda n: two.since(
            {ann: 0, EVERYONE: 0, "c:tab:user0": 0}, last - 1, 1 << 18
        ))  # fmt: skip

        def poll_elsewhere(number: int) -> None:
            broker = (one, two)[number % 2]
            broker.clients.attach("user1", "tab", "ajax", True)
            broker.since({user_channel("user1"): 0, EVERYONE: 0, "c:tab:user1": 0}, last, 1 << 18)

        meter.row("a poll of ours that comes to another process", poll_elsewhere)
        meter.row(
            "events to a poll of Sente's", lambda n: one.clients.ack("user2", "tab", tokens[2], n)
        )
        meter.row(
            "a POST of ours, or a send with a key",
            lambda n: one.sends.claim("tab:user3", f"send {n}", "t"),
        )
        meter.row(
            "a client goes", lambda n: one.clients.detach(f"user{n}", "tab", tokens[n]), COUNT - 1
        )
        before = meter.read()
        time.sleep(REST)
        busy = meter.read()
        for broker in (one, two, *more):
            broker.stop()
        time.sleep(2.0)
        still = meter.read()
        time.sleep(REST)
        idle = meter.read()["cpu"] - still["cpu"]
        used = (busy["cpu"] - before["cpu"] - idle) / REST / 6
        print(f"{'a process at rest, a second':52} {used * 1e3:.2f} ms")
        print(f"{'Redis itself at rest, a second':52} {idle / REST * 1e3:.2f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What surrounds a part of the Redis broker in its tests: a Redis and a listener, both fakes."""

from __future__ import annotations

from collections import Counter
from typing import Any

from flask_chsk.brokers.redis.calls import Greeting
from flask_chsk.brokers.redis.epoch import Epoch
from tests.unit.server.fakes import FakeHub


class FakeRedis:
    """Answers calls with what a test has laid ready, or raises it."""

    base = "chsk:0:"
    where = "there"

    def __init__(self) -> None:
        self.epoch = ""
        self.past: set[str] = set()
        self.answers: list[Any] = []
        self.calls: list[tuple[Any, ...]] = []
        self.closed = 0

    def turn_to(self, epoch: str) -> None:
        if self.epoch not in ("", epoch):
            self.past.add(self.epoch)
        self.epoch = epoch

    def call(self, script: Any, *args: Any) -> Any:
        self.calls.append((script, *args))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    publish = call

    def close(self) -> None:
        self.closed += 1


class Ears:
    """A listener that notes what it is told, and needs the channels that a test says."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.needed: set[str] = set()

    def needs(self, name: str) -> bool:
        return name in self.needed

    def deliver(self, push: Any) -> None:
        self.told.append((push.channel, push.text, push.offset))

    def reattach(self, silent: bool) -> None:
        self.told.append(("reattach", silent))

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self.told.append((name, *args))

    def heard(self) -> list[Any]:
        """What it was told since the last time."""
        told, self.told = self.told, []
        return told


class Scene:
    """A hub turned by hand, and an epoch on it."""

    def __init__(self) -> None:
        self.hub: Any = FakeHub()
        self.redis: Any = FakeRedis()
        self.ears: Any = Ears()
        self.counters: Counter[str] = Counter()
        self.asked: list[int] = []
        self.epoch = Epoch(
            self.hub, self.redis, self.ears, self.counters, lambda: self.asked.append(1)
        )

    def enter(self, epoch: str, offset: int, began: int = 0, **more: Any) -> list[Any]:
        """What the listener is told when Redis says that it is there."""
        self.epoch.enter(epoch, offset, began, **more)
        return self.ears.heard()


def greeting(policy: str = "noeviction", clock: int = 0) -> Greeting:
    """Of a Redis in its first epoch."""
    return Greeting("e1", 100, policy, "run", 0, clock)

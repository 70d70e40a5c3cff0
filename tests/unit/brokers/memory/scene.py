"""A memory broker with its clock and its listener at hand; the clock is turned by hand."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from flask_chsk.brokers.contract import Page, user_channel
from flask_chsk.brokers.memory.broker import MemoryBroker
from flask_chsk.config import Config
from flask_chsk.protocol.push import Push

ANN = user_channel("ann")
WINDOW = 120.0
START = 1_700_000_000.0


class Here:
    """A hub that the caller is on."""

    wall: Callable[[], float]

    def here(self) -> bool:
        return True

    def token(self, size: int) -> str:
        return secrets.token_hex(size)

    def call(self, fn: Callable[..., object], *args: Any) -> None:
        fn(*args)

    def native_lock(self) -> Any:
        return threading.Lock()


class Later(Here):
    """A hub that is busy until :meth:`turn`."""

    def __init__(self) -> None:
        self.calls: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    def call(self, fn: Callable[..., object], *args: Any) -> None:
        self.calls.append((fn, args))

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for fn, args in calls:
            fn(*args)


@dataclass
class Told:
    """Whom the broker tells."""

    pushes: list[Push] = field(default_factory=list)
    on_push: Callable[[Push], object] = lambda push: None

    def deliver(self, push: Push) -> None:
        self.pushes.append(push)
        self.on_push(push)

    # Nothing else is ever told by the broker of one process.

    def client_taken_over(self, uid: str | None, client_id: str, token: str) -> None:
        raise AssertionError("released")

    def user_presence_changed(self, uid: str, online: bool, generation: int) -> None:
        raise AssertionError("presence")

    def reset(self, since: int) -> None:
        raise AssertionError("reset")

    def resync_required(self) -> None:
        raise AssertionError("lapsed")

    def reattach(self, silent: bool) -> None:
        raise AssertionError("reattach")

    def needs(self, name: str) -> bool:
        raise AssertionError("needs")

    def on_worker_message(self, text: str) -> None:
        raise AssertionError("told")

    def changed(self) -> None:
        raise AssertionError("changed")

    @property
    def offsets(self) -> list[int]:
        return [push.offset for push in self.pushes]


class Broker(MemoryBroker):
    """A memory broker with its clock and its listener at hand."""

    def __init__(self, hub: Any = None, **config: Any) -> None:
        self.time = START
        super().__init__(Config.of({}, **config))
        self.told = Told()
        hub = hub or Here()
        hub.wall = lambda: self.time
        self.start(hub, self.told)


def read(broker: Broker, *channels: str, cursor: int, page_bytes: int = 10**6) -> Page:
    return broker.since(dict.fromkeys(channels, 0), cursor, page_bytes)


def offsets(page: Page) -> list[int]:
    return [push.offset for push in page.pushes]

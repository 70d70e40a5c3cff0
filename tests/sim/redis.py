"""Redis in a simulation: the real broker over a model, with a network between that can fail."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from redis.exceptions import ConnectionError as Cut
from redis.exceptions import TimeoutError as AnswerTimeout

from flask_chsk.brokers.redis.calls import ANSWER, Address
from flask_chsk.hub import Waiter
from tests.redis_model import Model, Reply, packed_words, words_of

from .runtime import SimHub


class RedisNetwork:
    """What lies between the workers and one Redis.

    :param latency: seconds that bytes take one way, asked anew for each command and each reply.
    """

    def __init__(self, hub: SimHub, latency: Callable[[], float] = lambda: 0.0) -> None:
        self.hub = hub
        self.latency = latency
        self.model = Model(hub.time_of_day)
        self.away = False  # nobody can connect
        self.life = 1
        self.wires: list[Wire] = []

    def address(self, prefix: str = "chsk", hub: SimHub | None = None) -> Address:
        """For one worker: from other prefixes it sees nothing.

        :param hub: of its process, where there are several.
        """
        return Address(f"{prefix}:0:", "the model", lambda: Wire(self, hub or self.hub))

    def cut(self) -> None:
        """End all connections. What was sent is done; what is on its way back is lost."""
        for wire in self.wires:
            wire.cut()
        self.wires.clear()

    def end_of(self, owner: SimHub) -> None:
        """A process is gone, and its connections with it."""
        for wire in [one for one in self.wires if one.owner is owner]:
            wire.disconnect()

    def restart(self, empty: bool = True) -> None:
        """End this life of Redis and begin the next; what was on its way is lost."""
        self.cut()
        self.life += 1
        if empty:
            self.model.do("FLUSHALL")
        self.model.run_id += "x"  # a word, as Redis has it


class Wire:
    """A connection of redis-py, whose greenlets wait on the simulated hub."""

    def __init__(self, network: RedisNetwork, owner: SimHub) -> None:
        self.owner = owner
        self._network = network
        self._hub = network.hub
        self._open = False
        self._there = 0.0  # when what was sent last arrives
        self._here = 0.0  # when what was answered last arrives
        self._inbox: deque[Reply] = deque()
        self._waiter: Waiter | None = None

    def connect(self) -> None:
        if self._network.away:
            raise Cut("refused")
        self._open = True
        self._network.wires.append(self)

    def disconnect(self) -> None:
        self.cut()
        if self in self._network.wires:
            self._network.wires.remove(self)

    def cut(self) -> None:
        """Neither end hears from the other any more."""
        self._open = False
        self._inbox.clear()
        self._network.model.forget(self)
        self._wake()

    def send_packed_command(self, parts: Iterable[bytes]) -> None:
        self._send(packed_words(b"".join(parts)))

    def send_command(self, *words: Any) -> None:
        self._send(words_of(words))

    def _send(self, words: list[bytes]) -> None:
        if not self._open:
            raise Cut("not connected")
        self._there = self._after(self._there)
        life = self._network.life
        self._hub.later(self._there - self._hub.now(), self._execute, words, life)

    def _after(self, before: float) -> float:
        """When bytes arrive that leave now, behind others."""
        return max(before, self._hub.now() + self._network.latency())

    def _execute(self, words: list[bytes], life: int) -> None:
        if life != self._network.life:
            return
        for reply in self._network.model.execute(self, words):
            self.receive(reply)

    def receive(self, reply: Reply) -> None:
        """Redis has a reply or a message for this connection."""
        self._here = self._after(self._here)
        self._hub.later(self._here - self._hub.now(), self._arrive, reply)

    def _arrive(self, reply: Reply) -> None:
        if self._open:
            self._inbox.append(reply)
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None:
            self._waiter.set(True)

    def can_read(self, timeout: float) -> bool:
        if self._open and not self._inbox and timeout:
            self._waiter = self.owner.waiter()
            self._waiter.wait(timeout)
            self._waiter = None
        return not self._open or bool(self._inbox)

    def read_response(self, disconnect_on_error: bool = True) -> Reply:
        if not self.can_read(ANSWER):
            raise AnswerTimeout("no answer")
        if not self._open:
            raise Cut("cut")
        reply = self._inbox.popleft()
        if isinstance(reply, Exception):
            raise reply
        return reply

"""Workers on a simulated hub, over a model of Redis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask_chsk.brokers.contract import EVERYONE, user_channel
from flask_chsk.brokers.redis.broker import RedisBroker
from flask_chsk.config import Config
from tests.sim.redis import RedisNetwork
from tests.unit.brokers.redis.scene import Ears

ANN = user_channel("ann")
PAGE = 1 << 18


class Worker:
    """A broker as its worker sees it: each call is a greenlet's, and runs until it ends."""

    def __init__(self, network: RedisNetwork, **config: Any) -> None:
        self.hub = network.hub
        self.ears: Any = Ears()
        self.broker = RedisBroker(Config(**config), network.address())
        self.broker.start(self.hub, self.ears)  # type: ignore[arg-type]

    def begin(self, method: str, *args: Any, **more: Any) -> Callable[[], Any]:
        """Begin a call; the function gives its result, or raises what it raised."""
        ended: list[tuple[Any, BaseException | None]] = []

        def call() -> None:
            try:
                ended.append((self._method(method)(*args, **more), None))
            except Exception as error:
                ended.append((None, error))

        self.hub.spawn(call)

        def result() -> Any:
            for _ in range(100):
                if ended:
                    break
                self.hub.loop.run(0.1)
            [(value, error)] = ended
            if error is not None:
                raise error
            return value

        return result

    def _method(self, name: str) -> Any:
        """A method of the broker, or of one of its parts."""
        broker = self.broker
        parts = (broker.clients, broker.topics, broker.sends, broker)
        return getattr(next(part for part in parts if hasattr(part, name)), name)

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return lambda *args, **more: self.begin(method, *args, **more)()

    def heard(self) -> list[Any]:
        """What the listener was told since the last time."""
        self.hub.loop.run(0.1)
        told: list[Any] = self.ears.heard()
        return told

    def die(self) -> None:
        """End without a word to Redis."""
        self.broker.stop()


def events(told: list[Any]) -> list[str]:
    """The texts of the events among what a listener was told."""
    return [one[1] for one in told if one[0] in (ANN, EVERYONE)]

"""Calls of Redis from any thread of a worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ...errors import BrokerUnavailable
from ...hub import Hub
from .calls import Redis
from .scripts import Script

T = TypeVar("T")

PATIENCE = 30.0  # seconds: above the sum of all waits in one call


class WorkerRedis(Redis):
    """A Redis whose runtime is a hub.

    A native thread of a patched process hands its call to the hub, so that no connection is used
    by two event loops.
    """

    runtime: Hub

    def call(self, script: Script, *args: Any) -> Any:
        return self._here_or_there(super().call, script, *args)

    def publish(self, script: Script, *args: Any) -> Any:
        return self._here_or_there(super().publish, script, *args)

    def _here_or_there(self, fn: Callable[..., T], *args: Any) -> T:
        hub = self.runtime
        if not hub.cooperative or hub.here():
            return fn(*args)
        waiter = hub.waiter_here()

        def there() -> None:
            try:
                result = (fn(*args), None)
            except BaseException as error:
                waiter.set((None, error))
            else:
                waiter.set(result)

        hub.call(hub.spawn, there)
        done = waiter.wait(PATIENCE)
        if done is None:
            raise BrokerUnavailable("the hub of this process does not answer")
        if done[1] is not None:
            raise done[1]
        return done[0]  # type: ignore[no-any-return]

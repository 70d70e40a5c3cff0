"""A cache that peers cannot make grow, though they choose its keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

K = TypeVar("K", bound=str | bytes)
V = TypeVar("V")


class Cache(dict[K, V]):
    """A dict that forgets everything when it is full."""

    SIZE = 2048
    LONGEST = 64  # characters of a key worth keeping; with SIZE, what it can hold of memory

    def put(self, key: K, value: V) -> None:
        """Keep *value*, unless *key* is too long."""
        if len(key) <= self.LONGEST:
            if len(self) >= self.SIZE:
                self.clear()
            self[key] = value


class Memo(Cache[K, V]):
    """What *make* makes of a key, kept unless it is None."""

    def __init__(self, make: Callable[[K], V]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: K) -> V:
        value = self._make(key)
        if value is not None:
            self.put(key, value)
        return value

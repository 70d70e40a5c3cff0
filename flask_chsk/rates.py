"""Rate limits: token buckets, for a client's events and an address's requests. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

MOST = 65_536  # buckets that are kept; then the one that was used longest ago goes


class RateLimit(Generic[K]):
    """One bucket for each key, which is a client or an address; whatever else it has here."""

    def __init__(self, limit: tuple[float, int] | None) -> None:
        """:param limit: tokens a second, and how many a full bucket holds; None: no limit."""
        self._limit = limit
        self._buckets: dict[K, tuple[float, float]] = {}  # tokens, and when they were counted

    @property
    def wait(self) -> int:
        """Whole seconds after which whoever was too fast may try again."""
        rate, burst = self._limit or (1.0, 1)
        return max(1, min(60, round(burst / rate)))

    def too_fast(self, key: K, now: float, count: int = 1) -> bool:
        """Whether *count* more are too many now."""
        if self._limit is None:
            return False
        rate, burst = self._limit
        buckets = self._buckets
        tokens, counted = buckets.pop(key, (float(burst), now))
        left = min(float(burst), max(tokens, 0.0) + (now - counted) * rate) - count
        if len(buckets) >= MOST:
            del buckets[next(iter(buckets))]
        buckets[key] = (left, now)
        return left < 0

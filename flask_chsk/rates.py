"""Rate limits: token buckets, for a client's events and an address's requests. Pure."""

from __future__ import annotations

Bucket = tuple[float, float]
"""Tokens, and when they were counted."""

ADDRESSES = 65_536  # whose requests are counted


def drawn(
    bucket: Bucket | None, limit: tuple[float, int] | None, now: float, count: int = 1
) -> Bucket:
    """What is left of *bucket* with *count* tokens taken; below 0: too fast.

    :param limit: tokens a second, and how many a full bucket holds.
    """
    rate, burst = limit or (0.0, 0)
    tokens, counted = bucket or (float(burst), now)
    return min(float(burst), max(tokens, 0.0) + (now - counted) * rate) - count, now


class Addresses:
    """Counts the requests of each address."""

    def __init__(self, limit: tuple[float, int] | None) -> None:
        self._limit = limit
        self._buckets: dict[str, Bucket] = {}

    def too_fast(self, address: str | None, now: float) -> bool:
        """Whether *address* makes more requests than it may; from any thread."""
        buckets = self._buckets
        if len(buckets) >= ADDRESSES:
            buckets.clear()  # rather a burst for everybody than memory for every address
        key = address or ""
        bucket = buckets[key] = drawn(buckets.get(key), self._limit, now)
        return bucket[0] < 0

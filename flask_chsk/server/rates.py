"""Rate limits: token buckets, for a client's events and an address's requests. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from ipaddress import IPv6Address, ip_address
from math import ceil
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

MOST = 65_536  # buckets that are kept; then the one that was used longest ago goes
WAIT = 60  # seconds: nobody is told to wait longer


class RateLimit(Generic[K]):
    """One bucket for each key, which is a client or an address; whatever else it has here."""

    def __init__(self, limit: tuple[float, int] | None) -> None:
        """:param limit: tokens a second, and how many a full bucket holds; None: no limit."""
        self._limit = limit
        self._buckets: dict[K, tuple[float, float]] = {}  # tokens, and when they were counted

    def take_tokens(self, key: K, now: float, count: int = 1) -> int:
        """Take *count* tokens: 0; where there are fewer none: whole seconds until there are.

        A refusal costs nothing, so whoever tries again gets through when the rate allows it. More
        than a full bucket holds are never there.
        """
        if self._limit is None:
            return 0
        rate, burst = self._limit
        buckets = self._buckets
        tokens, counted = buckets.pop(key, (float(burst), now))
        tokens = min(float(burst), tokens + (now - counted) * rate)
        missing = count - tokens
        if missing <= 0:
            tokens -= count
        if len(buckets) >= MOST:
            del buckets[next(iter(buckets))]
        buckets[key] = (tokens, now)
        return 0 if missing <= 0 else max(1, ceil(min(missing / rate, WAIT)))


def network_of(address: str | None) -> str | None:
    """Whose address this is: of IPv6 the first 64 bits, of which one host has all addresses."""
    try:
        ip = ip_address(address or "")
    except ValueError:  # a Unix socket
        return address
    if not isinstance(ip, IPv6Address):
        return address
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(IPv6Address(int(ip) >> 64 << 64))

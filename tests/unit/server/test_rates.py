"""Token buckets, by a clock turned by hand."""

from __future__ import annotations

import pytest

from flask_chsk.server import rates
from flask_chsk.server.rates import RateLimit, network_of


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::"),
        ("2001:db8:1:3::", "2001:db8:1:3::"),
        ("fe80::1%eth0", "fe80::"),
        ("", ""),
        ("unix:", "unix:"),
        (None, None),
    ],
)
def test_one_host_has_all_addresses_of_its_64_bits(
    address: str | None, network: str | None
) -> None:
    assert network_of(address) == network


def test_a_burst_passes_then_what_the_rate_gives() -> None:
    limit: RateLimit[str] = RateLimit((5.0, 10))
    assert [limit.take_tokens("a", 0.0) for _ in range(12)] == [0] * 10 + [1] * 2
    assert limit.take_tokens("b", 0.0) == 0  # has its own
    assert limit.take_tokens("a", 0.1) == 1
    assert limit.take_tokens("a", 0.5) == 0


def test_several_count_at_once_and_more_than_a_burst_never_passes() -> None:
    limit: RateLimit[str] = RateLimit((5.0, 10))
    assert limit.take_tokens("a", 0.0, 11) == 1
    assert limit.take_tokens("a", 2.0, 10) == 0
    assert limit.take_tokens("a", 2.0) == 1


@pytest.mark.parametrize("limit", [(1.0, 1), (1.0, 100), (0.01, 1), (0.001, 50), (100.0, 7)])
def test_who_waits_as_told_gets_through(limit: tuple[float, int]) -> None:
    """At most a minute at a time: what came too early before takes nothing away."""
    bucket: RateLimit[str] = RateLimit(limit)
    rate, burst = limit
    now = 0.0
    for count in (burst, 1, burst // 2 or 1, burst):
        until = now + count / rate + rates.WAIT
        while wait := bucket.take_tokens("a", now, count):
            assert 1 <= wait <= rates.WAIT
            now += wait
        assert now <= until


def test_without_a_limit_nobody_is_too_fast_and_nothing_is_kept() -> None:
    limit: RateLimit[str] = RateLimit(None)
    assert limit.take_tokens("a", 0.0, 10**9) == 0
    assert limit._buckets == {}


def test_the_bucket_that_was_used_longest_ago_goes_where_there_are_too_many() -> None:
    limit: RateLimit[int] = RateLimit((1.0, 1))
    for key in range(rates.MOST):
        limit.take_tokens(key, 0.0)
    assert limit.take_tokens(0, 0.0) == 1
    limit.take_tokens(-1, 0.0)
    assert limit.take_tokens(0, 0.0) == 1  # was used just now
    assert limit.take_tokens(1, 0.0) == 0  # forgotten

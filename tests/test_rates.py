"""Token buckets, by a clock turned by hand."""

from __future__ import annotations

from flask_chsk import rates
from flask_chsk.rates import RateLimit


def test_a_burst_passes_then_what_the_rate_gives() -> None:
    limit: RateLimit[str] = RateLimit((5.0, 10))
    assert [limit.too_fast("a", 0.0) for _ in range(12)] == [False] * 10 + [True] * 2
    assert limit.too_fast("b", 0.0) is False  # has its own
    assert limit.too_fast("a", 0.1) is True
    assert limit.too_fast("a", 0.5) is False


def test_several_count_at_once_and_more_than_a_burst_never_passes() -> None:
    limit: RateLimit[str] = RateLimit((5.0, 10))
    assert limit.too_fast("a", 0.0, 11) is True
    assert limit.too_fast("a", 2.0, 10) is False
    assert limit.too_fast("a", 2.0) is True


def test_without_a_limit_nobody_is_too_fast_and_nothing_is_kept() -> None:
    limit: RateLimit[str] = RateLimit(None)
    assert limit.too_fast("a", 0.0, 10**9) is False
    assert limit._buckets == {}


def test_the_bucket_that_was_used_longest_ago_goes_where_there_are_too_many() -> None:
    limit: RateLimit[int] = RateLimit((1.0, 1))
    for key in range(rates.MOST):
        limit.too_fast(key, 0.0)
    assert limit.too_fast(0, 0.0) is True
    limit.too_fast(-1, 0.0)
    assert limit.too_fast(0, 0.0) is True  # was used just now
    assert limit.too_fast(1, 0.0) is False  # forgotten


def test_the_wait_is_the_time_of_a_burst_within_a_minute() -> None:
    waits = [RateLimit(limit).wait for limit in ((5.0, 10), (100.0, 1), (0.001, 50))]
    assert waits == [2, 1, 60]

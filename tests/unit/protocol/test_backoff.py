"""How long a client waits before it tries again."""

from __future__ import annotations

import pytest

from flask_chsk.protocol.backoff import CAP, LATER, LATER_CAP, exp_backoff


def longest(attempt: int, **options: float) -> float:
    return exp_backoff(attempt, random=lambda: 1.0, **options)


def test_the_first_wait_is_at_most_half_a_second_and_each_may_be_twice_as_long() -> None:
    assert [longest(attempt) for attempt in range(4)] == [0.5, 1.0, 2.0, 4.0]


def test_no_wait_is_over_the_cap() -> None:
    assert {longest(attempt) for attempt in range(4, LATER)} == {CAP}
    assert {longest(attempt) for attempt in range(40)} <= {0.5, 1.0, 2.0, 4.0, CAP}


def test_after_a_hundred_tries_the_waits_are_longer() -> None:
    assert [longest(LATER - 1), longest(LATER)] == [CAP, LATER_CAP]


def test_a_cap_that_is_given_holds_for_every_try() -> None:
    assert [longest(attempt, cap=2.0) for attempt in (1, 9, LATER)] == [1.0, 2.0, 2.0]


def test_a_base_that_is_given_is_the_first_wait() -> None:
    assert [longest(attempt, base=0.2) for attempt in (0, 1)] == [0.2, 0.4]


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5])
def test_any_share_of_the_longest_wait_may_be_drawn(share: float) -> None:
    assert exp_backoff(3, random=lambda: share) == share * longest(3)


def test_waits_are_drawn_at_random() -> None:
    waits = {exp_backoff(3) for _ in range(50)}
    assert len(waits) > 1
    assert all(0.0 <= wait <= 4.0 for wait in waits)


def test_any_number_of_tries_is_fine() -> None:
    assert longest(10**6) == LATER_CAP

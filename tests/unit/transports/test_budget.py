"""Bytes that arrive or wait, over a whole process."""

from __future__ import annotations

from collections import Counter

from flask_chsk.transports.budget import MemoryBudget


class Part:
    """Something that arrives."""

    given_up = False

    def give_up(self) -> None:
        self.given_up = True


def test_what_arrives_and_what_waits_count_together() -> None:
    budget = MemoryBudget(100, Counter())
    one, two = Part(), Part()
    budget.arriving(one, 10)
    budget.arriving(two, 20)
    budget.arriving(one, 30)
    budget.waiting += 49
    assert (budget.bytes, budget.full) == (99, False)
    budget.waiting += 1
    assert (budget.bytes, budget.full) == (100, True)
    budget.arriving(one, 0)
    assert (budget.bytes, budget.full) == (70, False)


def test_over_the_limit_the_largest_go_first_and_the_small_stay() -> None:
    counters: Counter[str] = Counter()
    budget = MemoryBudget(100, counters)
    small, large, larger = Part(), Part(), Part()
    budget.arriving(small, 10)
    budget.arriving(larger, 50)
    budget.arriving(large, 40)
    assert (small.given_up, large.given_up, larger.given_up) == (False, False, False)
    budget.arriving(small, 11)
    assert (small.given_up, large.given_up, larger.given_up) == (False, False, True)
    assert (budget.bytes, counters) == (51, {"arrivals_given_up": 1})


def test_what_waits_sends_away_all_that_arrives_but_counts_on() -> None:
    budget = MemoryBudget(100, Counter())
    budget.waiting = 200
    part = Part()
    budget.arriving(part, 1)
    assert (part.given_up, budget.bytes, budget.full) == (True, 200, True)


def test_what_was_given_up_already_may_say_so_again() -> None:
    budget = MemoryBudget(100, Counter())
    part = Part()
    budget.arriving(part, 101)
    budget.arriving(part, 0)
    assert budget.bytes == 0

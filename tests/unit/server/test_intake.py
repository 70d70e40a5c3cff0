"""Bytes that arrive or wait, over a whole process."""

from __future__ import annotations

from collections import Counter

from flask_chsk.server.intake import Intake


class Part:
    """Something that arrives."""

    given_up = False

    def give_up(self) -> None:
        self.given_up = True


def test_what_arrives_and_what_waits_count_together() -> None:
    intake = Intake(100, Counter())
    one, two = Part(), Part()
    intake.arriving(one, 10)
    intake.arriving(two, 20)
    intake.arriving(one, 30)
    intake.waiting += 49
    assert (intake.bytes, intake.full) == (99, False)
    intake.waiting += 1
    assert (intake.bytes, intake.full) == (100, True)
    intake.arriving(one, 0)
    assert (intake.bytes, intake.full) == (70, False)


def test_over_the_limit_the_largest_go_first_and_the_small_stay() -> None:
    counters: Counter[str] = Counter()
    intake = Intake(100, counters)
    small, large, larger = Part(), Part(), Part()
    intake.arriving(small, 10)
    intake.arriving(larger, 50)
    intake.arriving(large, 40)
    assert (small.given_up, large.given_up, larger.given_up) == (False, False, False)
    intake.arriving(small, 11)
    assert (small.given_up, large.given_up, larger.given_up) == (False, False, True)
    assert (intake.bytes, counters) == (51, {"arrivals_given_up": 1})


def test_what_waits_sends_away_all_that_arrives_but_counts_on() -> None:
    intake = Intake(100, Counter())
    intake.waiting = 200
    part = Part()
    intake.arriving(part, 1)
    assert (part.given_up, intake.bytes, intake.full) == (True, 200, True)


def test_what_was_given_up_already_may_say_so_again() -> None:
    intake = Intake(100, Counter())
    part = Part()
    intake.arriving(part, 101)
    intake.arriving(part, 0)
    assert intake.bytes == 0

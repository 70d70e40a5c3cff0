"""A history that breaks a promise is told in as few steps as break it."""

from __future__ import annotations

import pytest

from . import __main__ as program
from .mutants import MUTANTS
from .shrink import as_ranges, gist, of_ranges, shrink, violation_of
from .world import Violated, World

[MUTANT] = [one for one in MUTANTS if one.name == "an event that is for others is delivered"]


def test_steps_that_do_not_matter_are_left_out() -> None:
    with MUTANT.lives():
        seed = next(seed for seed in range(50) if violation_of(seed, range(80), World))
        steps = shrink(seed, list(range(80)), World, most=60)
        found = violation_of(seed, steps, World)
    assert found is not None
    assert "which is not for it" in found.args[0]
    assert len(steps) < 20


def test_a_history_that_keeps_every_promise_stays_as_it_is() -> None:
    assert shrink(3, [0, 1, 2], World) == [0, 1, 2]


def test_the_program_tells_the_history_and_how_to_play_it_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with MUTANT.lives():
        seed = next(seed for seed in range(50) if violation_of(seed, range(80), World))
        assert program.show("alone", seed, list(range(80)))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("which is not for it")
    assert any("!!" in line for line in lines)
    *_, again = lines
    command = f"again: python -m tests.sim --kind alone --seed {seed} --steps "
    assert again.startswith(command)
    with MUTANT.lives():
        assert violation_of(seed, of_ranges(again.removeprefix(command)), World)


def test_the_program_plays_many_histories(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.play_all(["alone"], 10, [0, 1, 2], 1) == 0
    assert capsys.readouterr().out.startswith("10 histories of 3 steps in ")


def test_steps_are_written_in_ranges() -> None:
    assert as_ranges([1, 2, 3, 7, 9, 10]) == "1-3,7,9-10"
    assert of_ranges("1-3,7,9-10") == [1, 2, 3, 7, 9, 10]
    assert of_ranges("3") == [0, 1, 2]
    assert of_ranges(as_ranges([5])) == [5]


def test_one_promise_has_one_name_whoever_it_was_given_to() -> None:
    texts = [
        "ann's page 3 missed event 7 (*), event 8 (*), and went on to cursor 12",
        "nobody's page 12 missed event 9 (u:ann), and went on to event 10",
    ]
    assert {gist(Violated(text)) for text in texts} == {"somebody missed event"}

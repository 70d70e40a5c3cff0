"""Histories of a simulated worker, one for each seed (see ``tests/sim/__init__.py``)."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from .mutants import MUTANTS, Mutant
from .world import Violated, World, play

COUNT = int(os.environ.get("COUNT", "100"))
STEPS = int(os.environ.get("STEPS", "200"))
SEED = os.environ.get("SEED")
BLOCK = 20  # histories of one test
MOST_SEEDS = 300  # for a mutant: most are found by one of the first ten
SHOWN = 400  # lines of a history: the last ones

SEEDS = range(COUNT) if SEED is None else range(int(SEED), int(SEED) + 1)


def told(seed: int, violated: Violated) -> str:
    """What happened, in plain words, and how to see it again."""
    violation, world = violated.args
    lines = world.lines[-SHOWN:]
    left_out = len(world.lines) - len(lines)
    return "\n".join(
        [
            f"seed {seed}: {violation}",
            *([f"({left_out} lines left out)"] if left_out else []),
            *lines,
            f"again: SEED={seed} STEPS={STEPS} python -m pytest tests/sim/test_histories.py",
        ]
    )


@pytest.mark.parametrize("first", SEEDS[::BLOCK])
def test_every_history_keeps_the_promises(first: int) -> None:
    for seed in SEEDS[first - SEEDS[0] :][:BLOCK]:
        try:
            play(seed, STEPS)
        except Violated as violated:
            pytest.fail(told(seed, violated), pytrace=False)


def test_one_seed_makes_one_history() -> None:
    assert play(3, 100).lines == play(3, 100).lines


def test_histories_do_not_hang_on_the_order_of_sets() -> None:
    program = "from tests.sim.world import play; print('\\n'.join(play(3, 100).lines))"
    printed = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert printed[0] == printed[1] == "\n".join(play(3, 100).lines) + "\n"


def test_histories_have_what_they_are_for() -> None:
    """Most kinds of what can happen do happen, in a few seeds."""
    lines = [line for seed in range(20) for line in play(seed, 200).lines]
    for words in (
        "got event",
        "is told of a gap",
        "recovered: True",
        "recovered: False",
        "ws-ping-timeout 4000",
        "downgrading-ws-to-ajax",
        "as the reply to send",
        "got chsk/timeout as the reply",
        "got chsk/closed as the reply",
        "clean 4003",
        "signed-out 4005",
        "went",
    ):
        assert any(words in line for line in lines), words


def test_a_violation_is_told_with_its_history() -> None:
    world = World(1)
    world.say("a page is loaded")
    text = told(1, Violated("somebody came, and came again", world))
    assert text.splitlines() == [
        "seed 1: somebody came, and came again",
        "    0.000 s  a page is loaded",
        f"again: SEED=1 STEPS={STEPS} python -m pytest tests/sim/test_histories.py",
    ]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_checker_finds_each_mutant(mutant: Mutant) -> None:
    with mutant.lives():
        assert any(violates(seed) for seed in range(MOST_SEEDS)), "this mutant lives"


def violates(seed: int) -> bool:
    try:
        play(seed, 200)
    except Violated:
        return True
    return False

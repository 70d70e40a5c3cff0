"""Histories of a simulated worker, one for each seed (see ``tests/sim/__init__.py``)."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.process import ROOT

from .cluster import KINDS
from .mutants import MUTANTS, Mutant
from .seeds import Seeds
from .shrink import violation_of
from .world import HEALING, PROMPT, Violated, World, play

MOST_SEEDS = 300  # for a mutant: most are found by one of the first ten
SEEDS = Seeds("histories", count=100, steps=200, block=20)


@pytest.mark.parametrize("first", SEEDS.firsts())
def test_every_history_keeps_the_promises(first: int) -> None:
    SEEDS.play(first, World)


def test_one_seed_makes_one_history() -> None:
    assert play(3, range(100)).lines == play(3, range(100)).lines


def test_histories_do_not_hang_on_the_order_of_sets() -> None:
    program = "from tests.sim.world import play; print('\\n'.join(play(3, range(100)).lines))"
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
    assert printed[0] == printed[1] == "\n".join(play(3, range(100)).lines) + "\n"


def test_histories_have_what_they_are_for() -> None:
    """Most kinds of what can happen do happen, in a few seeds."""
    lines = [line for seed in range(20) for line in play(seed, range(200)).lines]
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
    text = SEEDS.told(1, Violated("somebody came, and came again", world))
    assert text.splitlines() == [
        "seed 1: somebody came, and came again",
        "    0.000 s  a page is loaded",
        f"again: SEED=1 STEPS={SEEDS.steps} python -m pytest tests/sim/test_histories.py",
    ]


def test_the_page_on_reliability_has_the_numbers() -> None:
    text = " ".join((ROOT / "docs/reliability.rst").read_text(encoding="utf-8").split())
    assert f"There are {len(MUTANTS)} of these faults" in text
    assert f"{HEALING + PROMPT:.0f} simulated seconds later" in text
    assert "plays 100 histories of ``alone`` and 40 of ``cluster``" in text


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_checker_finds_each_mutant(mutant: Mutant) -> None:
    with mutant.lives():
        kind = KINDS[mutant.kind]
        seeds = [mutant.seed, *range(MOST_SEEDS)]
        found = (violation_of(seed, range(200), kind) for seed in seeds)
        assert any(found), "this mutant lives"

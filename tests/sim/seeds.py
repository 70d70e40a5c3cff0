"""Which histories a run of the tests plays, and how it tells of one that breaks a promise."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from .world import Violated, World, play

SEED = os.environ.get("SEED")
SHOWN = 400  # lines of a history: the last ones


class Seeds:
    """The histories of one kind of world that a run plays, some of them in one test.

    :param kind: of the world, as the command that plays one again names it.
    :param count: how many, unless ``COUNT`` says so.
    :param steps: how long each is, unless ``STEPS`` says so.
    """

    def __init__(self, kind: str, count: int, steps: int, block: int) -> None:
        self.kind = kind
        self.steps = int(os.environ.get("STEPS", steps))
        count = int(os.environ.get("COUNT", count))
        first = 0 if SEED is None else int(SEED)
        self._seeds = range(first, first + (count if SEED is None else 1))
        self._block = block

    def firsts(self) -> range:
        """The first seed of each test."""
        return self._seeds[:: self._block]

    def play(self, first: int, kind: Callable[[int], World]) -> None:
        """Play the histories of one test."""
        for seed in self._seeds[first - self._seeds[0] :][: self._block]:
            try:
                play(seed, range(self.steps), kind)
            except Violated as violated:
                pytest.fail(self.told(seed, violated), pytrace=False)

    def told(self, seed: int, violated: Violated) -> str:
        """What happened, in plain words, and how to see it again."""
        violation, world = violated.args
        lines = world.lines[-SHOWN:]
        left_out = len(world.lines) - len(lines)
        again = f"SEED={seed} STEPS={self.steps} python -m pytest tests/sim/test_{self.kind}.py"
        return "\n".join(
            [
                f"seed {seed}: {violation}",
                *([f"({left_out} lines left out)"] if left_out else []),
                *lines,
                f"again: {again}",
            ]
        )

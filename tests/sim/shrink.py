"""The shortest history that still breaks a promise, found by leaving steps out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from .world import Violated, World, play

MOST_PLAYS = 200  # then the shortest that was found is good enough

Kind = Callable[[int], World]


def violation_of(seed: int, steps: Iterable[int], kind: Kind) -> Violated | None:
    """What a history violates; None: nothing."""
    try:
        play(seed, steps, kind)
    except Violated as violated:
        return violated
    return None


def gist(violated: Violated) -> str:
    """The promise that was broken, whoever it was given to."""
    text = re.sub(r"(ann|ben|nobody)('s page \d+)?", "somebody", str(violated.args[0]))
    return re.split(r"[:(,[]| \d", text)[0].strip()


def shrink(seed: int, steps: list[int], kind: Kind, most: int = MOST_PLAYS) -> list[int]:
    """As few of *steps* as break the same promise."""
    found = violation_of(seed, steps, kind)
    if found is None:
        return steps
    promise = gist(found)
    steps = [number for number in steps if number <= found.args[1].last_step]
    plays, size = 1, max(1, len(steps) // 2)
    while size and plays < most:
        at = 0
        while at < len(steps) and plays < most:
            rest = steps[:at] + steps[at + size :]
            plays += 1
            other = violation_of(seed, rest, kind)
            if other is not None and gist(other) == promise:
                steps = rest
            else:
                at += size
        size = size // 2 if size > 1 else 0
    return steps


def as_ranges(steps: list[int]) -> str:
    """``[1, 2, 3, 7]`` as ``1-3,7``, and ``[7]`` as ``7-7``: a number alone is a count."""
    spans: list[list[int]] = []
    for number in steps:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    alone = len(spans) == 1
    return ",".join(f"{a}" if a == b and not alone else f"{a}-{b}" for a, b in spans)


def of_ranges(text: str) -> list[int]:
    """The steps that a text names: ``1-3,7``; ``200`` is ``0-199``."""
    if text.isdigit():
        return list(range(int(text)))
    spans = [span.partition("-") for span in text.split(",")]
    return [n for a, _, b in spans for n in range(int(a), int(b or a) + 1)]

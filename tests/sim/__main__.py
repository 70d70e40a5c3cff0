"""``python -m tests.sim`` plays histories on all cores until one breaks a promise.

``--seed 7`` plays one again, and shows the shortest part of it that still breaks the promise.
``--mutants`` puts each fault of ``mutants.py`` into the package, and says how soon it is found.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed

from .cluster import KINDS
from .mutants import MUTANTS, Mutant
from .shrink import as_ranges, gist, of_ranges, shrink, violation_of

COUNTS = {"alone": 600, "cluster": 400}  # that two cores play within five minutes
BLOCK = 10  # histories of one job
MUTANT_SECONDS = 60.0


def broken(kind: str, first: int, count: int, steps: list[int]) -> list[int]:
    """The seeds whose histories break a promise."""
    seeds = range(first, first + count)
    return [seed for seed in seeds if violation_of(seed, steps, KINDS[kind]) is not None]


def play_all(kinds: list[str], count: int | None, steps: list[int], jobs: int) -> int:
    """Whether a history broke a promise, as the status of a program."""
    began, done, failed = time.monotonic(), 0, False
    with ProcessPoolExecutor(jobs) as pool:
        calls = {
            pool.submit(broken, kind, first, BLOCK, steps): kind
            for kind in kinds
            for first in range(0, count or COUNTS[kind], BLOCK)
        }
        for call in as_completed(calls):
            done += BLOCK
            for seed in call.result():
                failed = True
                show(calls[call], seed, steps)
    seconds = time.monotonic() - began
    print(f"{done} histories of {len(steps)} steps in {seconds:.0f} s ({', '.join(kinds)})")
    return int(failed)


def show(kind: str, seed: int, steps: list[int]) -> bool:
    """Tell the shortest part of a history that breaks a promise; False: it breaks none."""
    found = violation_of(seed, steps, KINDS[kind])
    if found is None:
        print(f"{kind}, seed {seed}: every promise was kept")
        return False
    print(f"{kind}, seed {seed}: {found.args[0]}", flush=True)
    steps = shrink(seed, steps, KINDS[kind])
    found = violation_of(seed, steps, KINDS[kind])
    assert found is not None
    print("\n".join(found.args[1].lines))
    print(f"again: python -m tests.sim --kind {kind} --seed {seed} --steps {as_ranges(steps)}")
    return True


def try_mutant(mutant: Mutant) -> tuple[str, str]:
    """What finds a mutant: after how many seeds of which kind, and the broken promise."""
    until = time.monotonic() + MUTANT_SECONDS
    with mutant.lives():
        for kind, seed in seeds_of(mutant):
            found = violation_of(seed, list(range(200)), KINDS[kind])
            if found is not None:
                return f"{kind}, seed {seed}", gist(found)
            if time.monotonic() > until:
                break
    return "-", "IT LIVES"


def seeds_of(mutant: Mutant) -> Iterator[tuple[str, int]]:
    """Those of the kind of world that runs the code of *mutant*."""
    for seed in range(10_000):
        yield mutant.kind, seed


def try_mutants(jobs: int) -> int:
    """Print the table; whether a mutant lives, as the status of a program."""
    width = max(len(mutant.name) for mutant in MUTANTS)
    lives = False
    with ProcessPoolExecutor(jobs) as pool:
        for mutant, (where, promise) in zip(MUTANTS, pool.map(try_mutant, MUTANTS), strict=True):
            lives = lives or where == "-"
            print(f"{mutant.name:{width}}  {where:18}  {promise}", flush=True)
    return int(lives)


def main() -> int:
    """The status of the program."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--kind", choices=[*KINDS], help="of world; else both")
    parser.add_argument("--count", type=int, help="histories of each kind")
    parser.add_argument("--seed", type=int, help="one history alone")
    parser.add_argument("--steps", type=of_ranges, default="200", help="such as 200, or 3,7-20")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--mutants", action="store_true")
    args = parser.parse_args()
    kinds = [args.kind] if args.kind else [*KINDS]
    if args.mutants:
        return try_mutants(args.jobs)
    if args.seed is not None:
        failed = [show(kind, args.seed, args.steps) for kind in kinds]
        return int(any(failed))
    return play_all(kinds, args.count, args.steps, args.jobs)


if __name__ == "__main__":
    sys.exit(main())

"""What a fuzzer's inputs may cost: none of them hangs, and all together leave nothing behind."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NoReturn, TypeVar

T = TypeVar("T")

HANG = 20.0  # seconds for one input, of a few milliseconds on a busy machine
ROOM = 1 << 30  # bytes of address space for the process: no input may ask for that much
GROWTH = 16  # MiB between the settled process, after a tenth of its inputs, and the end


def watched(inputs: Iterable[T], count: int, growth: int = GROWTH) -> Iterator[T]:
    """The first *count* of *inputs*, each of which has `HANG` seconds.

    :raises Hangs: where the input is read, if it takes longer.
    :raises AssertionError: after the last one, if memory has grown by more than
        *growth* MiB.
    """
    settled = 0.0
    before = signal.signal(signal.SIGALRM, _hangs)
    try:
        for number, item in enumerate(islice(inputs, count)):
            if number == count // 10:
                settled = memory()
            signal.setitimer(signal.ITIMER_REAL, HANG)
            yield item
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    grown = memory() - settled
    assert grown < growth, f"{grown:.0f} MiB more than after a tenth of the inputs"


def confine() -> None:
    """For a program of its own: who asks for more than `ROOM` gets a MemoryError."""
    resource.setrlimit(resource.RLIMIT_AS, (ROOM, resource.getrlimit(resource.RLIMIT_AS)[1]))


def memory() -> float:
    """MiB of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Hangs(BaseException):
    """An input takes too long. No Exception: packers would take it for what the input caused."""


def _hangs(*_: object) -> NoReturn:
    raise Hangs(f"an input takes more than {HANG} s")

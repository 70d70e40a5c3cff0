"""What the frame codec costs: CPU per message, bytes per idle connection.

python -m benchmarks.frames
"""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from time import process_time_ns

from flask_chsk.protocol import frames
from flask_chsk.protocol.frames import FrameReader, text_frame

LIMIT = 1 << 20


def microseconds(call: Callable[[], object], seconds: float = 0.1, rounds: int = 7) -> float:
    """CPU per call, the best of *rounds*: the others measure the machine's other work."""
    call()
    times, best = 1, float("inf")
    while rounds:
        started = process_time_ns()
        for _ in range(times):
            call()
        spent = process_time_ns() - started
        if spent < seconds * 1e9 / 2:
            times *= 2
            continue
        best = min(best, spent / times / 1000)
        rounds -= 1
    return best


def reading(size: int, at_once: int = 1) -> Callable[[], object]:
    """A server's reader takes *at_once* text messages of *size* bytes in one read."""
    reader = FrameReader("server", LIMIT)
    data = text_frame("x" * size, masked=True) * at_once
    return lambda: reader.feed(data)


def reading_in_pieces(size: int, piece: int) -> Callable[[], object]:
    reader = FrameReader("server", LIMIT)
    data = text_frame("x" * size, masked=True)
    pieces = [data[i : i + piece] for i in range(0, len(data), piece)]

    def read() -> None:
        for part in pieces:
            reader.feed(part)

    return read


def building(size: int, masked: bool = False) -> Callable[[], object]:
    text = "x" * size
    return lambda: text_frame(text, masked=masked)


def idle_reader_bytes(count: int = 10_000) -> float:
    tracemalloc.start()
    readers: list[FrameReader] = [FrameReader("server", LIMIT)]
    before = tracemalloc.get_traced_memory()[0]
    readers = [FrameReader("server", LIMIT) for _ in range(count)]
    held = tracemalloc.get_traced_memory()[0] - before - sys.getsizeof(readers)
    tracemalloc.stop()
    return held / count


def main() -> None:
    ways = {"pure": frames._xor, "speedups": frames.apply_mask}
    if frames.apply_mask is frames._xor:
        del ways["speedups"]
    rows: list[tuple[str, Callable[[], object], int]] = [
        ("read 128 B text", reading(128), 1),
        ("read 128 B text, 16 in one read", reading(128, at_once=16), 16),
        ("read 1 KiB text", reading(1024), 1),
        ("read 64 KiB text", reading(1 << 16), 1),
        ("read 64 KiB text in reads of 4 KiB", reading_in_pieces(1 << 16, 4096), 1),
        ("build 128 B text, server", building(128), 1),
        ("build 128 B text, client", building(128, masked=True), 1),
        ("build 64 KiB text, server", building(1 << 16), 1),
        ("build 64 KiB text, client", building(1 << 16, masked=True), 1),
    ]
    print(f"{'CPU, µs per message':38}" + "".join(f"{way:>10}" for way in ways))
    for name, call, messages in rows:
        figures = []
        for mask in ways.values():
            frames.apply_mask = mask
            figures.append(microseconds(call) / messages)
        print(f"{name:38}" + "".join(f"{figure:10.2f}" for figure in figures))
    print(f"\n{'idle reader, bytes':38}{idle_reader_bytes():10.0f}")


if __name__ == "__main__":
    main()

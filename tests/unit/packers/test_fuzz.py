"""A short run of the fuzzer; ``tests/fuzz/packers.py`` is the long one."""

from __future__ import annotations

from tests.fuzz.packers import run


def test_damaged_messages_are_read_well_or_refused() -> None:
    for read, refused, _ in run(5_000).values():
        assert read > 100  # the damage is not such that nothing survives it
        assert refused > 100

"""Short runs of the fuzzers of the wire and of HTTP; tests/fuzz has the long ones."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.fuzz import watch, wire
from tests.process import ROOT


def test_damaged_messages_mean_something_or_are_bad() -> None:
    results = wire.run(4000)
    for name in ("edn", "json"):
        read, bad = results[name]
        assert read > 300  # the damage is not such that nothing survives it
        assert bad > 300
    assert results["cursors"][0] > 0


def test_requests_of_every_shape_get_an_answer() -> None:
    """In a process of its own: its hub is gevent's, as in a worker."""
    command = [sys.executable, "-W", "error", "-m", "tests.fuzz.http", "--count", "3000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-5000:]
    statuses = {int(part.partition(":")[0]) for part in done.stdout.split(",")}
    assert statuses >= {200, 204, 400, 403, 404, 405, 413, 501}


def test_an_input_that_hangs_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "HANG", 0.01)
    with pytest.raises(watch.Hangs):
        for _ in watch.watched("ab", 2):
            while True:
                pass


def test_memory_that_grows_ends_the_run() -> None:
    kept: list[bytes] = []
    with pytest.raises(AssertionError, match="MiB more"):
        for _ in watch.watched(range(20), 20):
            kept.append(b"x" * 2**23)  # more than what others have freed in this process

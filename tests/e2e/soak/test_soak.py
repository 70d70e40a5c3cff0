"""Short runs of the soak; `make soak` has the long ones."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.process import ROOT


@pytest.mark.parametrize("rude", [0, 30])
def test_clients_that_are_cut_lose_nothing_and_leave_nothing(rude: int) -> None:
    command = [sys.executable, "-W", "error", "-m", "tests.e2e.soak"]
    command += ["--clients", str(30 + rude), "--rude", str(rude), "--seconds", "8"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]

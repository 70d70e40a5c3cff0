"""A client in greenlets, of a process that is patched or is not; in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.client.conftest import TestServer
from tests.process import ROOT

SCRIPT = """
import sys
if "patched" in sys.argv:
    from gevent import monkey
    monkey.patch_all()
import gc
import os
import threading
import gevent
from greenlet import greenlet
from flask_chsk.client import ChannelSocket

url, kind = sys.argv[1:3]

def alive():
    return sum(isinstance(x, gevent.Greenlet) and not x.dead for x in gc.get_objects())

def main():
    ticks = []
    def tick():
        while True:
            ticks.append(1)
            gevent.sleep(0.01)
    ticking = gevent.spawn(tick)
    before = alive(), threading.active_count()
    hubs, pushed = set(), []
    with ChannelSocket(url, kind, params={"uid": sys.argv[3]}, connect=False) as chsk:
        @chsk.on("test/pushed")
        def got(ev):
            hubs.add(gevent.get_hub())
            gevent.sleep(0.001)
            pushed.append(ev.data)
        waits = [gevent.spawn(chsk.request, ["test/late", 0.3], 30) for _ in range(10)]
        gevent.joinall(waits)
        assert {job.get() for job in waits} == {"late"}, waits
        assert len(ticks) > 10, len(ticks)
        assert chsk.request(["test/push", 5]) is True
        with gevent.Timeout(30):
            while len(pushed) < 5:
                gevent.sleep(0.01)
        assert hubs == {gevent.get_hub()}, hubs
        assert pushed == sorted(pushed)
        assert chsk.ch_recv.get(timeout=30).id == "chsk/state"
    after = alive(), threading.active_count()
    assert after == before, (before, after, threading.enumerate())
    ticking.kill()
    print("fine")

gevent.spawn(main).get()
"""


@pytest.mark.parametrize("patched", ["patched", "unpatched"])
@pytest.mark.parametrize("kind", ["ws", "ajax"])
def test_in_greenlets_calls_block_their_greenlet_only(
    server: TestServer, tmp_path: Path, kind: str, patched: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    ran = subprocess.run(
        [sys.executable, "-W", "error", script, server.url, kind, f"{kind}-{patched}", patched],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ran.stdout, ran.returncode) == ("fine\n", 0), ran.stderr

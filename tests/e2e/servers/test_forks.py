"""Forks of processes that publish, and of programs that are clients; real ones, patched or not."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.process import ROOT, free_port
from tests.servers import running

PATCHED = "from gevent import monkey; monkey.patch_all()\n"

PUBLISHER = """
    import os, sys, threading, time
    from flask_chsk.publisher import Publisher

    publisher = Publisher(sys.argv[1])
    offsets, over = [], False

    def publish():
        while not over:
            offsets.append(publisher.broadcast(["test/item", os.getpid()]))
            time.sleep(0)  # a greenlet that forks while this one waits for Redis

    threads = [threading.Thread(target=publish) for _ in range(3)]
    for thread in threads:
        thread.start()
    children = []
    for _ in range(5):
        time.sleep(0.05)
        child = os.fork()
        if not child:
            sent = [publisher.broadcast(["test/item", os.getpid()]) for _ in range(20)]
            time.sleep(0.05)
            os._exit(0 if sorted(set(sent)) == sent else 1)
        children.append(child)
    codes = [os.waitpid(child, 0)[1] for child in children]
    over = True
    for thread in threads:
        thread.join()
    assert codes == [0] * 5, codes
    assert len(set(offsets)) == len(offsets) > 20
"""

CLIENT = """
    import os, sys, time
    from flask_chsk.client import ChannelSocket
    from flask_chsk.errors import ChannelClosed, UsageError

    chsk = ChannelSocket(sys.argv[1], sys.argv[2])
    chsk.wait_open()
    for n in range(5):
        child = os.fork()
        if not child:
            assert not chsk.state["open"]
            for call in (lambda: chsk.request(["test/echo", 1]), chsk.reconnect):
                try:
                    call()
                except UsageError as error:
                    assert "make another" in str(error), error
                else:
                    os._exit(2)
            chsk.destroy()
            with ChannelSocket(sys.argv[1], sys.argv[2]) as own:
                assert own.request(["test/echo", "own"]) == "own"
                time.sleep(0.2)
            os._exit(0)
        for number in range(20):
            assert chsk.request(["test/echo", number]) == number
        assert os.waitpid(child, 0)[1] == 0
    assert chsk.state["open"]
    chsk.destroy()
"""


def run(program: str, *args: str) -> None:
    # Python 3.12 warns of forks in processes with threads: that is what is tested.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, *args]
    done = subprocess.run(command, cwd=ROOT, timeout=120, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("patch", ["", PATCHED], ids=["threads", "greenlets"])
def test_parent_and_children_share_a_publisher(patch: str, redis_url: str) -> None:
    run(patch + textwrap.dedent(PUBLISHER), f"{redis_url}?prefix={free_port()}")


@pytest.mark.parametrize("type", ["ws", "ajax"])
@pytest.mark.parametrize("patch", ["", PATCHED], ids=["threads", "greenlets"])
def test_a_channel_socket_stays_with_the_process_that_made_it(
    patch: str, type: str, tmp_path: Path
) -> None:
    with running("gunicorn-gevent", "tests.e2e.apps.cluster:app", tmp_path / "log") as server:
        url = f"http://127.0.0.1:{server.port}/chsk?uid=ann"
        run(patch + textwrap.dedent(CLIENT), url, type)
        assert server.tracebacks == 0, server.log

"""The hub in a process of its own."""

from __future__ import annotations

import subprocess
import sys


def test_the_main_greenlet_of_a_patched_process_is_its_servers() -> None:
    script = """
from gevent import monkey
monkey.patch_all()
import gevent
from flask_chsk.hub import Hub

first = Hub.of_process()  # as where an application sends while it is loaded
assert not first.native_threads
assert gevent.spawn(Hub.of_process).get() is first
"""
    command = [sys.executable, "-W", "error", "-c", script]
    subprocess.run(command, check=True, timeout=120)

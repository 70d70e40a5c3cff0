"""The testing module in a process of its own."""

from __future__ import annotations

import subprocess
import sys


def test_without_pytest_there_is_no_fixture_and_all_else() -> None:
    program = """
import sys
sys.modules["pytest"] = None
from flask import Flask
from flask_chsk import Chsk
app = Flask(__name__)
app.secret_key = "secret"
chsk = Chsk(app)
with chsk.test_client(uid="ann") as ann:
    ann.on("page/who", lambda ev: "ann")
    print(chsk.ask("ann", ["page/who"]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("ann\n", 0), done.stderr

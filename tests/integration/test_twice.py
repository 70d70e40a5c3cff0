"""``python app.py`` beside ``from app import chsk``: the log says that the script runs twice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flask_chsk.server.twice import imported_again
from tests.process import ROOT

APP = """
from flask import Flask
from flask_chsk import Chsk, ReplyError

app = Flask(__name__)
app.secret_key = "for tests"
chsk = Chsk(app)

import handlers

if __name__ == "__main__":
    try:
        print("reply", chsk.test_client(uid="ann").request(["chat/say"]))
    except ReplyError as error:
        print(error.status)
"""

HANDLERS = """
from app import chsk

@chsk.on("chat/say")
def say(ev):
    return "said"
"""


def run(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    (folder / "app.py").write_text(APP)
    (folder / "handlers.py").write_text(HANDLERS)
    command = [sys.executable, *args]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("args", [["app.py"], ["-m", "app"]], ids=" ".join)
def test_a_script_that_is_imported_again_is_named(tmp_path: Path, args: list[str]) -> None:
    ran = run(tmp_path, *args)
    assert ran.stdout == "404\n", ran.stderr
    said = (
        "no handler for chat/say (from uid 'ann'): add @chsk.on('chat/say'); there are no handlers."
        " This script runs twice, as __main__ and as app, and each has a Chsk of its own: start it"
        " with flask --app app run, or make chsk in another module"
    )
    assert said in ran.stderr


def test_an_application_that_is_imported_once_is_not_named(tmp_path: Path) -> None:
    ran = run(tmp_path, "-c", "from app import *; print(chsk.test_client().request(['chat/say']))")
    assert ran.stdout == "said\n", ran.stderr
    assert imported_again() is None

"""The README's application, served, and two clients of it: what must work wherever it installs.

    python smoke.py FOLDER

FOLDER has the application. Run by the Python of an environment in which the package is installed,
with nothing but what comes with it: no pytest, and no checkout. Prints what was installed and what
was done; a failure is a traceback.
"""

from __future__ import annotations

import contextlib
import http.cookiejar
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flask_chsk.client import ChannelSocket

PATIENCE = 30.0
SHOWN = "flask werkzeug gevent greenlet gunicorn urllib3 redis msgpack websockets".split()


def eventually(condition: Callable[[], Any], failure: Callable[[], str]) -> Any:
    end = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < end, failure()
        time.sleep(0.05)
    return value


@contextlib.contextmanager
def started(command: list[str], pattern: str, folder: Path, **env: str) -> Iterator[re.Match[str]]:
    """A program, as soon as *pattern* stands in its log; ended with the block."""
    log = folder / f"{Path(command[-1]).name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=folder, env=os.environ | env, stdout=out, stderr=subprocess.STDOUT
        )

    def found() -> re.Match[str] | None:
        assert process.poll() is None, log.read_text()
        return re.search(pattern, log.read_text())

    try:
        yield eventually(found, log.read_text)
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        process.terminate()
        process.wait(PATIENCE)


class Person:
    """Somebody who signs in as the page has it, and talks over one transport."""

    def __init__(self, site: str, name: str, transport: str) -> None:
        self.site = site
        jar = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
        page = self.post("login", name=name)
        token = re.search(r'data-csrf-token="([^"]+)"', page)
        assert token is not None, page
        self.heard: list[Any] = []
        self.chsk = ChannelSocket(
            f"{site}/chsk",
            transport,
            cookies=jar,
            csrf_token=token[1],
            backoff=lambda attempt: 0.5,
            connect=False,
        )
        for event in ("chat/said", "order/created", "chsk/gap"):
            self.chsk.on(event, lambda ev: self.heard.append([ev.id, ev.data]))

    def post(self, path: str, **form: str) -> str:
        data = urllib.parse.urlencode(form).encode()
        with self._opener.open(f"{self.site}/{path}", data, timeout=PATIENCE) as answer:
            return str(answer.read().decode())

    def hears(self, *events: Any) -> None:
        """Wait until these are what was heard, no more and no less."""
        wanted = list(events)
        eventually(lambda: self.heard == wanted, lambda: f"{wanted} expected, {self.heard} heard")


def scenario(site: str) -> None:
    """A reply, a push, and what was pushed while somebody was cut off; over both transports."""
    ann, bob = Person(site, "ann", "ws"), Person(site, "bob", "ajax")
    ann_says, bob_says = (["chat/said", {"who": name, "text": "hi"}] for name in ("ann", "bob"))
    order = ["order/created", {"id": 7}]
    with ann.chsk, bob.chsk:
        assert ann.chsk.request(["chat/say", {"text": "hi"}]) == {"ok": True}
        ann.hears(ann_says)
        bob.hears(ann_says)
        assert bob.chsk.request(["chat/say", {"text": "hi"}]) == {"ok": True}
        ann.hears(ann_says, bob_says)
        bob.hears(ann_says, bob_says)
        for person in (ann, bob):
            person.post("orders")
            person.hears(ann_says, bob_says, order)
            person.chsk.break_connection()
            person.post("orders")
            person.hears(ann_says, bob_says, order, order)
        time.sleep(0.3)
        ann.hears(ann_says, bob_says, order, order)  # still: nothing comes twice


def served(folder: Path, workers: int, **env: str) -> contextlib.AbstractContextManager[Any]:
    gunicorn = [sys.executable, "-m", "gunicorn", "-k", "gevent", "-w", str(workers)]
    # HOME: newer versions have a control socket in it.
    return started(
        [*gunicorn, "-b", "127.0.0.1:0", "app:app"],
        r"Listening at: (http://127\.0\.0\.1:\d+)",
        folder,
        HOME=str(folder),
        SECRET_KEY="for tests",
        **env,
    )


# What is run in place of the application once PyInstaller has made a program of both.
PROGRAM = """
from app import app
from flask_chsk.packers import make

for packer in ("edn", "json", "transit", "msgpack", "gzip"):
    make(packer)
app.run(port=0)
"""


def program(folder: Path) -> contextlib.AbstractContextManager[Any]:
    """The application as a program that PyInstaller made, started."""
    (folder / "program.py").write_text(PROGRAM)
    data = [f"--add-data={name}:{name}" for name in ("templates", "static")]
    command = [sys.executable, "-m", "PyInstaller", "--log-level", "ERROR", *data, "program.py"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr
    built = str(folder / "dist/program/program")
    return started([built], r"Running on (http://127\.0\.0\.1:\d+)", folder)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main(folder: Path) -> None:
    versions = {d.metadata["Name"].lower(): d.version for d in distributions()}
    print("  ", *(f"{name} {versions[name]}" for name in SHOWN if name in versions))
    with served(folder, 1) as listening:
        scenario(listening[1])
    print("   one worker: replies, pushes, recovery")
    if find_spec("PyInstaller") and sysconfig.get_config_var("Py_ENABLE_SHARED"):
        with program(folder) as listening:
            scenario(listening[1])
        print("   a program of PyInstaller: replies, pushes, recovery")
    if find_spec("redis") is None or shutil.which("redis-server") is None:
        print("   no Redis: two workers were not tried")
        return
    port = str(free_port())
    redis = ["redis-server", "--bind", "127.0.0.1", "--save", "", "--port", port]
    with started(redis, "Ready to accept", folder):
        url = f"redis://127.0.0.1:{port}/0"
        with served(folder, 2, CHSK_BROKER_URL=url) as listening:
            scenario(listening[1])
    print("   two workers over Redis: replies, pushes, recovery")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "app"
        shutil.copytree(sys.argv[1], copy)
        main(copy)

"""Drives a Firefox, over WebDriver BiDi: Playwright drives only a build of its own.

It knows as much of the protocol as the tests need: one page, and scripts in it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

NAMES = ("firefox-esr", "firefox")
LISTENS = re.compile(r"WebDriver BiDi listening on (ws://\S+)")
SECONDS = 60.0  # for anything


def find_firefox() -> str | None:
    """The path of an installed Firefox; ``FIREFOX`` in the environment goes before all."""
    if chosen := os.environ.get("FIREFOX"):
        return shutil.which(chosen)
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Firefox:
    """A headless Firefox with one page, and a profile of its own that is gone with it."""

    def __init__(self, path: str) -> None:
        self._profile = tempfile.TemporaryDirectory(prefix="firefox-", ignore_cleanup_errors=True)
        log = Path(self._profile.name) / "log"
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [path, "--headless", "--no-remote", "--remote-debugging-port=0"]
                + ["--profile", self._profile.name, "about:blank"],
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, "HOME": self._profile.name, "MOZ_DISABLE_CONTENT_SANDBOX": "1"},
            )
        try:
            until = time.monotonic() + SECONDS
            while (found := LISTENS.search(log.read_text("utf-8", "replace"))) is None:
                assert time.monotonic() < until, log.read_text("utf-8", "replace")
                time.sleep(0.05)
            self._open = ExitStack()
            self._socket = self._open.enter_context(connect(f"{found[1]}/session", max_size=None))
            self._numbers = count(1)
            self._do("session.new", {"capabilities": {}})
            self._page = self._do("browsingContext.getTree", {})["contexts"][0]["context"]
        except BaseException:
            self._stop()
            raise

    def close(self) -> None:
        """End it."""
        self._open.close()
        self._stop()

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._profile.cleanup()

    def goto(self, url: str) -> None:
        """Open *url*, and wait until it is loaded."""
        params = {"context": self._page, "url": url, "wait": "complete"}
        self._do("browsingContext.navigate", params)

    def back(self) -> None:
        """Go back in the history."""
        self._do("browsingContext.traverseHistory", {"context": self._page, "delta": -1})

    def evaluate(self, expression: str) -> Any:
        """What *expression*, or its promise, gives in the page, as JSON carries it."""
        result = self._do(
            "script.evaluate",
            {
                "expression": f"(async () => JSON.stringify((await ({expression})) ?? null))()",
                "target": {"context": self._page},
                "awaitPromise": True,
            },
        )
        assert result["type"] == "success", result
        return json.loads(result["result"]["value"])

    def wait_for(self, expression: str) -> None:
        """Wait until *expression* is true in the page."""
        until = time.monotonic() + SECONDS
        while not self._holds(expression):
            assert time.monotonic() < until, expression
            time.sleep(0.05)

    def _holds(self, expression: str) -> bool:
        try:
            return bool(self.evaluate(expression))
        except AssertionError:  # of a page that is just being left
            return False

    def _do(self, method: str, params: dict[str, Any]) -> Any:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            answer = json.loads(self._socket.recv(timeout=SECONDS))
            if answer.get("id") == number:
                assert answer["type"] == "success", answer
                return answer["result"]

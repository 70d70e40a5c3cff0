"""Signing in and out in a browser, while other tabs poll: nothing undoes it."""

from __future__ import annotations

import os
import sys
import urllib.request
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.e2e.chromium import PATIENCE_MS
from tests.process import WAIT, Server

APP = "tests.e2e.apps.sessions:site"
TIMES = int(os.environ.get("SIGN_INS", "5"))  # more by `make soak`


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    command = [sys.executable, "-m", "gunicorn", "-k", "gevent", "-b", "127.0.0.1:0", APP]
    server = Server(command, tmp_path_factory.mktemp("sessions") / "log")
    yield server
    server.stop()
    assert server.tracebacks == 0, server.log


class Visitor:
    """A browser with two tabs: the second polls, and leaves the first to sign in and out."""

    def __init__(self, context: BrowserContext, url: str, type: str) -> None:
        self.url = url
        self.context = context
        context.set_default_timeout(PATIENCE_MS)
        self.first, self.second = self._tab(type), self._tab("ajax")

    def _tab(self, type: str) -> Page:
        page = self.context.new_page()
        page.add_init_script(f"sessionStorage.setItem('type', '{type}')")
        page.goto(f"{self.url}/")
        return page

    def wait(self, page: Page, uid: str | None) -> None:
        """Wait for a page that is open, as *uid*."""
        page.wait_for_function(
            "uid => document.title === (uid ?? 'nobody') && window.chsk?.state.open"
            " && window.chsk.state.uid === uid",
            arg=uid,
        )

    def uid(self) -> str | None:
        """Who the browser's cookies say that this is."""
        found: str | None = self.context.request.get(f"{self.url}/whoami").json()["uid"]
        return found

    def tick(self) -> None:
        """Have all parked polls answered."""
        urllib.request.urlopen(f"{self.url}/tick", b"", timeout=WAIT).close()

    def sign_in(self) -> str | None:
        """Who one is after it."""
        self.wait(self.first, None)
        self.wait(self.second, None)
        self.first.evaluate("document.forms.login.submit()")
        self.wait(self.first, "ann")
        self.tick()  # what the second tab's poll is answered with was made before
        self.second.wait_for_function("() => window.chsk.state.uid === 'ann'")
        return self.uid()

    def sign_out(self) -> str | None:
        """Who one is after it."""
        self.second.reload()
        self.wait(self.second, "ann")
        self.first.evaluate("document.forms.logout.submit()")
        self.wait(self.first, None)
        self.wait(self.second, None)
        self.tick()
        return self.uid()


@pytest.mark.parametrize("type", ["ws", "ajax"])
@pytest.mark.parametrize("kind", ["cookie", "permanent", "server", "login"])
def test_no_sign_in_or_out_is_undone(
    server: Server, chromium: Browser, kind: str, type: str
) -> None:
    context = chromium.new_context()
    visitor = Visitor(context, f"{server.url}/{kind}", type)
    done = [[visitor.sign_in(), visitor.sign_out()] for _ in range(TIMES)]
    assert done == [["ann", None]] * TIMES
    context.close()

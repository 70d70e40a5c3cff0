"""A browser's tab at ``apps/tabs.py``, and the server behind it."""

from __future__ import annotations

import json
import urllib.request
from typing import Any
from urllib.parse import quote

from playwright.sync_api import Page

from tests.process import Server

APP = "tests.e2e.apps.tabs:app"
HASTE = 6  # how much faster the timers of a hurried page run
# A page may wait half a minute before it tries WebSockets again, a test need not. Only timers:
# by its clock, the machine did not sleep.
HURRY = f"""{{
  const later = window.setTimeout;
  window.setTimeout = (fn, ms, ...rest) => later(fn, ms / {HASTE}, ...rest);
}}"""


class Tab:
    """One page; *url* is where its server, or a proxy before it, is."""

    def __init__(self, page: Page, url: str, *, hurried: bool = False) -> None:
        self.page = page
        self.url = url
        if hurried:
            page.add_init_script(HURRY)

    def enter(self, user: str, type: str, **options: object) -> Tab:
        """Sign in, and wait for an open connection over *type*, which is the only one allowed.

        :param options: of the page's ``ChannelSocket``; ``type="auto"`` is one of them.
        """
        self.visit(user, **{"type": type, **options})
        return self.wait_open(type)

    def visit(self, user: str, **options: object) -> Tab:
        self.page.goto(f"{self.url}/login/{user}?options={quote(json.dumps(options))}")
        self.page.wait_for_function("() => window.chsk")
        return self

    def wait_open(self, type: str) -> Tab:
        self.page.wait_for_function(
            "type => window.chsk?.state.open && window.chsk.state.type === type", arg=type
        )
        return self

    def wait_status(self, status: str) -> dict[str, Any]:
        """Wait for a status; the whole state then."""
        self.page.wait_for_function("status => window.chsk.state.status === status", arg=status)
        state: dict[str, Any] = self.page.evaluate("window.chsk.state")
        return state

    def heard(self, count: int) -> list[object]:
        """Wait until it has heard *count* things; all it has heard."""
        self.page.wait_for_function("count => window.heard.length >= count", arg=count)
        heard: list[object] = self.page.evaluate("window.heard")
        return heard

    def request(self, id: str, data: object = None, timeout_ms: int = 30_000) -> object:
        """The reply, or the error's name."""
        return self.page.evaluate(
            """([event, timeoutMs]) =>
                window.chsk.request(event, { timeoutMs }).catch((error) => error.name)""",
            [[id, data], timeout_ms],
        )

    def send(self, id: str, *data: object) -> list[bool]:
        """Send one event for each of *data* in a row; whether they left."""
        sent: list[bool] = self.page.evaluate(
            "([id, all]) => all.map((data) => window.chsk.send([id, data]))", [id, data]
        )
        return sent


def push(server: Server, user: str, count: int = 1) -> list[object]:
    """The server pushes the next *count* numbers to a user; these."""
    said: list[object] = _ask(f"{server.url}/push/{user}?count={count}", b"")
    return said


def ask(server: Server, user: str, name: str, timeout: float = 10.0) -> Any:
    """What a view gets that asks a user."""
    return _ask(f"{server.url}/ask/{user}/{name}?timeout={timeout}", b"")


def seen(server: Server, what: str) -> Any:
    """``presence``, ``handled``, ``stats`` or ``pid`` of the worker."""
    return _ask(f"{server.url}/seen")[what]


def _ask(url: str, body: bytes | None = None) -> Any:
    with urllib.request.urlopen(url, data=body, timeout=30) as answer:
        return json.load(answer)

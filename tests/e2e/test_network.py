"""A browser whose network fails, and what it hears all the same."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from tests.e2e.proxy import Proxy, Upgrades
from tests.process import Server

APP = "tests.e2e.apps.chat:app"


class Room:
    """The chat's page behind a proxy, and the server without it."""

    def __init__(self, server: Server, proxy: Proxy, page: Page) -> None:
        self.server = server
        self.proxy = proxy
        self.page = page

    def enter(self, type: str) -> None:
        """Open the page, and wait until it is connected over *type*, ``"ws"`` or ``"ajax"``."""
        self.page.goto(f"{self.proxy.url}/login/ann")
        self.wait_open(type)

    def wait_open(self, type: str) -> None:
        self.page.wait_for_function(
            "type => window.chsk?.state.open && window.chsk.state.type === type", arg=type
        )

    def say(self, count: int) -> list[int]:
        """The server pushes *count* numbers; these."""
        url = f"{self.server.url}/say?count={count}"
        with urllib.request.urlopen(url, data=b"", timeout=10) as answer:
            said: list[int] = json.load(answer)
        return said

    def heard(self, count: int) -> list[object]:
        """Wait until the page has heard *count* events; all it has heard."""
        self.page.wait_for_function("count => window.heard.length >= count", arg=count)
        heard: list[object] = self.page.evaluate("window.heard")
        return heard

    def request(self) -> object:
        return self.page.evaluate("window.chsk.request(['chat/say', 'hello'], {timeoutMs: 5000})")


@pytest.fixture
def room(gunicorn: Callable[..., Server], proxy_to: Callable[..., Proxy], page: Page) -> Room:
    server = gunicorn(APP)
    return Room(server, proxy_to(server), page)


def test_events_pass_both_ways(room: Room) -> None:
    room.enter("ws")
    assert room.request() == {"ok": True}
    assert room.heard(1) == ["hello"]


@pytest.mark.parametrize(
    ("upgrades", "type"), [("pass", "ws"), ("refuse", "ajax")], ids=["ws", "ajax"]
)
def test_a_cut_of_a_second_loses_nothing(room: Room, upgrades: Upgrades, type: str) -> None:
    room.proxy.upgrades = upgrades
    room.enter(type)
    before = room.say(3)
    room.heard(3)
    room.proxy.cut()
    during = room.say(20)
    room.page.wait_for_timeout(1000)
    room.proxy.restore()
    after = room.say(3)
    assert room.heard(26) == before + during + after
    assert room.page.evaluate("window.gaps") == 0


@pytest.mark.parametrize("upgrades", ["refuse", "hang", "strip", "mute"])
def test_without_websockets_it_falls_back(room: Room, upgrades: Upgrades) -> None:
    room.proxy.upgrades = upgrades
    room.enter("ajax")
    said = room.say(3)
    assert room.heard(3) == said
    assert room.request() == {"ok": True}

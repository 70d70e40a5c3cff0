"""A browser whose network fails, and what it hears all the same."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from itertools import pairwise

import pytest
from playwright.sync_api import Browser, Page, Playwright

from tests.e2e.chromium import launch
from tests.e2e.proxy import Proxy, Upgrades
from tests.process import WAIT, Server, eventually

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
        with urllib.request.urlopen(url, data=b"", timeout=WAIT) as answer:
            said: list[int] = json.load(answer)
        return said

    def heard(self, count: int) -> list[object]:
        """Wait until the page has heard *count* events; all it has heard."""
        self.page.wait_for_function("count => window.heard.length >= count", arg=count)
        heard: list[object] = self.page.evaluate("window.heard")
        return heard

    def request(self) -> object:
        return self.page.evaluate("window.chsk.request(['chat/say', 'hello'], {timeoutMs: 30000})")

    def states(self, field: str) -> list[object]:
        """What *field* of the state was, change by change."""
        states: list[object] = self.page.evaluate(
            "field => window.states.map((state) => state[field])", field
        )
        return [now for before, now in pairwise([None, *states]) if now != before]


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


def test_behind_an_upgrade_that_hangs_ajax_does_not_wait_for_its_end(room: Room) -> None:
    room.proxy.upgrades = "hang"
    room.enter("ajax")
    assert room.states("lastWsClose") == []  # it was still being tried
    assert room.heard(0) == [] and room.request() == {"ok": True}
    eventually(lambda: room.proxy.upgraded == 2)  # once more, when Ajax has a cursor
    room.enter("ajax")  # the tab remembers
    assert room.proxy.upgraded == 2


def test_a_websocket_that_is_slow_is_not_evicted_by_a_poll(room: Room) -> None:
    room.proxy.ws_delay = 1.5
    room.enter("ws")
    assert room.request() == {"ok": True}
    assert (room.states("type"), room.proxy.upgraded) == (["ws"], 1)


def test_behind_a_proxy_that_cuts_websockets_ajax_takes_over(room: Room) -> None:
    room.proxy.ws_life = 0.3
    room.enter("ajax")
    said = []
    for _ in range(10):
        said += room.say(2)
        room.page.wait_for_timeout(100)
    assert room.heard(20)[-20:] == said
    assert room.request() == {"ok": True}
    assert room.proxy.upgraded <= 2  # one, where it ended before the page had it open
    assert room.page.evaluate("window.gaps") == 0


def test_requests_are_answered_whenever_they_were_made(
    room: Room, gunicorn: Callable[..., Server]
) -> None:
    room.enter("ws")
    room.page.evaluate(
        """() => {
          window.results = [];
          window.asking = setInterval(async () => {
            const { open } = window.chsk.state;
            const reply = window.chsk.request(["chat/say", 1], { timeoutMs: 60000 });
            window.results.push(reply.then(() => "ok", (error) => [open, error.message]));
          }, 50);
        }"""
    )
    port = room.server.port
    room.server.stop()
    room.page.wait_for_timeout(500)
    gunicorn(APP, port=port)
    room.wait_open("ws")
    room.page.wait_for_timeout(200)
    results = room.page.evaluate(
        "() => { clearInterval(window.asking); return Promise.all(window.results); }"
    )
    rejected = [result for result in results if result != "ok"]
    assert all(open for open, _ in rejected), rejected  # what had left may be
    assert len(rejected) <= len(results) // 4, rejected  # those under way when it ended
    assert len(results) > 15


def test_a_page_without_a_network_says_so(room: Room) -> None:
    room.enter("ws")
    room.page.context.set_offline(True)
    room.page.wait_for_function("!window.chsk.state.open")
    assert "offline" in [close and close["reason"] for close in room.states("lastClose")]
    assert room.page.evaluate("window.chsk.send(['chat/say', 1])") is False
    said = room.say(3)
    room.page.context.set_offline(False)
    room.wait_open("ws")
    assert room.heard(3) == said
    assert room.page.evaluate("window.gaps") == 0


@pytest.mark.parametrize("upgrades", ["drop", "mute"])
def test_an_anonymous_page_whose_first_handshake_was_lost_gets_in(
    room: Room, upgrades: Upgrades
) -> None:
    room.page.goto(f"{room.proxy.url}/")
    room.wait_open("ws")
    room.page.evaluate("window.chsk.destroy()")
    room.proxy.upgrades = upgrades
    room.page.evaluate(
        """clientId => {
          window.chsk = new ChannelSocket(undefined, { type: "ws", clientId, backoff: () => 300 });
          window.states.length = 0;
          window.chsk.watch((_, now) => window.states.push(now));
        }""",
        f"fixed-{upgrades}",
    )
    room.page.wait_for_function("window.chsk.state.lastWsClose")
    room.proxy.upgrades = "pass"
    room.wait_open("ws")
    assert room.request() == {"ok": True}
    assert room.page.evaluate("window.chsk.clientId") == f"fixed-{upgrades}"
    assert "refused" not in room.states("status")


def test_a_new_page_may_reconnect_at_once(room: Room) -> None:
    room.page.goto(f"{room.proxy.url}/")
    for wait in (0, 1, 3, 10, 30):
        room.page.evaluate(
            """async (wait) => {
              window.chsk.destroy();
              window.chsk = new ChannelSocket();
              window.chsk.watch((_, now) => window.states.push(now));
              await new Promise((wake) => setTimeout(wake, wait));
              window.chsk.reconnect();
            }""",
            wait,
        )
        room.wait_open("ws")
        assert room.request() == {"ok": True}
    assert "refused" not in room.states("status")


@pytest.mark.parametrize("type", ["ws", "ajax"])
def test_a_page_that_was_left_is_kept_and_goes_on(
    playwright: Playwright, chromium: Browser, gunicorn: Callable[..., Server], type: str
) -> None:
    server = gunicorn(APP)
    browser = launch(playwright, keeps_pages=True)  # *chromium* skips where there is none
    try:
        page = browser.new_page()
        page.goto(f"{server.url}/login/ann?type={type}")
        page.wait_for_function("window.chsk?.state.open")
        page.evaluate("window.addEventListener('pageshow', (ev) => (window.kept = ev.persisted))")
        page.goto(f"{server.url}/presence")
        page.go_back(wait_until="commit")
        page.wait_for_function("window.kept")
        page.wait_for_function("window.chsk.state.open")
        reasons = page.evaluate("window.states.map((state) => state.lastClose?.reason ?? null)")
        assert "pagehide" in reasons
        reply = page.evaluate("window.chsk.request(['chat/say', 'hello'])")
        assert reply == {"ok": True}
        with urllib.request.urlopen(f"{server.url}/presence", timeout=WAIT) as answer:
            assert json.load(answer) == ["ann came"]
    finally:
        browser.close()

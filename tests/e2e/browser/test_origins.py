"""Pages of other origins, clients without cookies, and sessions that change, in Chromium.

``localhost`` and ``127.0.0.1`` are two sites to a browser, and two ports of one are one site.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.process import WAIT, Server, eventually

APP = "tests.e2e.apps.origins:app"
Gunicorn = Callable[..., Server]
NewPage = Callable[..., Page]

over_both = pytest.mark.parametrize("type", ["ws", "ajax"])


def get(server: Server, path: str) -> Any:
    with urllib.request.urlopen(f"{server.url}{path}", timeout=WAIT) as answer:
        return json.load(answer)


def wait_for(page: Page, status: str) -> None:
    page.wait_for_function("status => window.chsk.state.status === status", arg=status)


def whoami(page: Page) -> Any:
    """Who the server takes this page for, and whether it sent a session's cookie."""
    return page.evaluate("window.chsk.request(['test/whoami'], {timeoutMs: 30000})")


class Two:
    """An API, and a page of another site that uses it."""

    def __init__(self, gunicorn: Gunicorn, page: Page, listed: bool = True) -> None:
        self.site = gunicorn(APP)
        self.origin = f"http://localhost:{self.site.port}"
        others = "http://localhost:1" if not listed else self.origin
        self.api = gunicorn(APP, env={"ORIGINS": f"https://app.example.org,{others}"})
        self.page = page

    def open(self, tokens: list[str] | None, page: str = "/page", **options: object) -> None:
        self.page.goto(self.origin + page)
        self.page.wait_for_function("window.ready")
        self.page.evaluate(
            "([path, options, tokens]) => window.open(path, options, tokens)",
            [f"{self.api.url}/chsk", options, tokens],
        )


# Listed origins, and tokens ---------------------------------------------------------------


@over_both
def test_a_listed_page_comes_with_its_token_and_without_a_cookie(
    chsk_serve: Gunicorn, page: Page, type: str
) -> None:
    two = Two(chsk_serve, page)
    page.goto(f"{two.api.url}/login/eve")  # signed in there, which is not for that page to use
    two.open(["token-of-ann"], type=type)
    wait_for(page, "open")
    assert page.evaluate("[window.chsk.state.type, window.chsk.state.uid]") == [type, "ann"]
    assert whoami(page) == ["ann", False]
    get(two.api, "/push/ann/7")
    page.wait_for_function("window.heard.length === 1")
    assert page.evaluate("window.heard") == [7]
    assert get(two.api, "/stats")["uids"] == 1


@over_both
def test_a_token_that_is_refused_is_asked_for_once_more(
    gunicorn: Gunicorn, page: Page, type: str
) -> None:
    two = Two(gunicorn, page)
    two.open(["stale", "token-of-bob"], type="auto" if type == "ws" else "ajax")
    wait_for(page, "open")
    assert whoami(page) == ["bob", False]
    assert page.evaluate("window.asked")[-1] == "token-of-bob"


def test_a_token_that_is_always_refused_ends_as_refused(gunicorn: Gunicorn, page: Page) -> None:
    two = Two(gunicorn, page)
    two.open(["stale"])
    wait_for(page, "refused")
    last = page.evaluate("window.chsk.state.lastClose")
    assert (last["reason"], last["status"]) == ("refused", 401)
    assert last["message"].startswith("not authorized")
    seen = get(two.api, "/stats")["refused_401"]
    page.wait_for_timeout(1000)
    assert get(two.api, "/stats")["refused_401"] == seen


@over_both
def test_a_listed_page_without_a_token_is_told_what_is_missing(
    gunicorn: Gunicorn, page: Page, type: str
) -> None:
    two = Two(gunicorn, page)
    two.open(None, type="auto" if type == "ws" else "ajax")
    wait_for(page, "refused")
    last = page.evaluate("window.chsk.state.lastClose")
    assert last["status"] == 403
    assert "CSRF" in last["message"]


# Others ------------------------------------------------------------------------------------


@over_both
def test_a_page_that_is_not_listed_never_opens(gunicorn: Gunicorn, page: Page, type: str) -> None:
    two = Two(gunicorn, page, listed=False)
    two.open(["token-of-ann"], type="auto" if type == "ws" else "ajax")
    eventually(lambda: get(two.api, "/stats").get("refused_403", 0) >= 3)
    state = page.evaluate("window.chsk.state")
    assert (state["open"], state["everOpened"]) == (False, False)
    assert get(two.api, "/stats").get("opened", 0) == 0


def test_a_page_at_another_port_has_the_cookie_but_not_the_way_in(
    gunicorn: Gunicorn, page: Page
) -> None:
    """Cookies know no ports: only Origin tells this page from the API's own."""
    api, other = gunicorn(APP), gunicorn(APP)
    page.goto(f"{api.url}/login/ann")
    page.goto(f"{other.url}/page")
    page.wait_for_function("window.ready")
    page.evaluate(
        "path => window.open(path, { ajaxOpts: { withCredentials: true } })", f"{api.url}/chsk"
    )
    eventually(lambda: get(api, "/stats").get("refused_403", 0) >= 3)
    assert page.evaluate("window.chsk.state.everOpened") is False
    # Nor what a page can do without our client: a form, an image, a plain fetch.
    page.evaluate(
        """async (url) => {
          const opts = { mode: "no-cors", credentials: "include" };
          await fetch(`${url}?client-id=a`, opts);
          await fetch(url, { ...opts, method: "POST",
            body: new URLSearchParams({ "client-id": "a", ppstr: "[[:test/whoami] nil]" }) });
          const image = new Image();
          image.src = `${url}?client-id=a`;
          await new Promise((done) => { image.onerror = image.onload = done; });
        }""",
        f"{api.url}/chsk",
    )
    assert get(api, "/stats").get("opened", 0) == 0
    assert get(api, "/stats").get("events_in", 0) == 0


# Sessions that change ------------------------------------------------------------------------


def open_own(server: Server, page: Page, type: str) -> None:
    page.goto(f"{server.url}/login/ann")
    page.goto(f"{server.url}/own")
    page.wait_for_function("window.ready")
    page.evaluate("type => window.open(null, { type })", type)
    wait_for(page, "open")
    assert whoami(page) == ["ann", True]


@over_both
def test_a_logout_closes_all_tabs_and_they_stay_closed(
    gunicorn: Gunicorn, new_page: NewPage, type: str
) -> None:
    server = gunicorn(APP)
    page = new_page()
    other = new_page(page.context)
    for tab in (page, other):
        open_own(server, tab, type)
    third = new_page(page.context)
    third.goto(f"{server.url}/logout")
    for tab in (page, other):
        wait_for(tab, "closed")
        last = tab.evaluate("window.chsk.state.lastClose")
        assert (last["reason"], last["code"]) == ("signed-out", 4005)
    page.wait_for_timeout(500)
    assert page.evaluate("window.chsk.state.status") == "closed"
    assert get(server, "/stats")["uids"] == 0


@over_both
def test_a_server_side_session_that_has_another_user_by_now_closes_at_the_next_event(
    gunicorn: Gunicorn, new_page: NewPage, type: str
) -> None:
    server = gunicorn(APP, env={"SESSIONS": "server"})
    page = new_page()
    open_own(server, page, type)
    other = new_page(page.context)
    other.goto(f"{server.url}/logout?quietly=1")
    other.goto(f"{server.url}/login/bob")
    reply = page.evaluate(
        """window.chsk.request(["test/whoami"], { timeoutMs: 30000 })
             .then((who) => who, (error) => [error.name, error.status ?? null])"""
    )
    if type == "ws":
        assert reply in (["ReplyError", 401], ["ChannelClosed", None])
        wait_for(page, "closed")
        last = page.evaluate("window.chsk.state.lastClose")
        assert (last["reason"], last["code"]) == ("signed-out", 4005)
    else:
        # Each POST says anew who it is from: by now bob, who is another client.
        assert reply == ["bob", True]

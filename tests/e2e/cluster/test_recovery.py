"""Cuts, restarts, sleep and stubborn proxies: what a tab hears all the same, and what it is told.

Each over both transports. Cuts of a second are in ``test_network.py``.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from tests.e2e.browser.tab import APP, Tab, push, seen
from tests.e2e.proxy import Proxy, Upgrades
from tests.process import Server, eventually

NewPage = Callable[..., Page]
ProxyTo = Callable[..., Proxy]
Gunicorn = Callable[..., Server]

over_both = pytest.mark.parametrize("type", ["ws", "ajax"])
SMALL = {
    "TEST_CHSK_RECOVERY_EVENTS": "10",
    # Within the grace a connection keeps its outbox, however small the window is.
    "TEST_CHSK_CLOSE_GRACE_WS": "0.1",
    "TEST_CHSK_CLOSE_GRACE_AJAX": "0.1",
}


def numbers(count: int, first: int = 1) -> list[object]:
    return list(range(first, first + count))


def push_until(server: Server, user: str, condition: Callable[[], object]) -> None:
    """Push one after another until *condition* holds, and one more."""

    def pushed() -> object:
        held = condition()
        push(server, user)
        return held

    eventually(pushed, 30)


def wait_gone(server: Server) -> None:
    eventually(lambda: seen(server, "stats")["clients"] == 0)


# The network ----------------------------------------------------------------------------


def test_cuts_of_10_and_60_seconds_lose_nothing(
    gunicorn: Gunicorn, proxy_to: ProxyTo, new_page: NewPage
) -> None:
    server = gunicorn(APP)
    proxies = {seconds: proxy_to(server) for seconds in (10, 60)}
    tabs = {
        (seconds, type): Tab(new_page(), proxies[seconds].url).enter(f"{type}{seconds}", type)
        for seconds in proxies
        for type in ("ws", "ajax")
    }
    for seconds, type in tabs:
        push(server, f"{type}{seconds}", 20)
    for tab in tabs.values():
        tab.heard(20)
    # 160 more are spread over the cut, the last 20 come live while the tabs come back.
    begin = time.monotonic()
    said = dict.fromkeys(tabs, 20)
    for proxy in proxies.values():
        proxy.cut()
    while proxies:
        time.sleep(0.25)
        passed = time.monotonic() - begin
        for (seconds, type), before in said.items():
            due = 20 + int(160 * min(1.0, passed / seconds))
            if due > before:
                push(server, f"{type}{seconds}", due - before)
                said[seconds, type] = due
        for seconds in [seconds for seconds in proxies if passed >= seconds]:
            proxies.pop(seconds).restore()
            for type in ("ws", "ajax"):
                push(server, f"{type}{seconds}", 20)
    assert {key: tab.heard(200) for key, tab in tabs.items()} == dict.fromkeys(tabs, numbers(200))


@over_both
def test_a_tab_whose_server_does_not_know_of_the_cut_loses_nothing(
    gunicorn: Gunicorn, proxy_to: ProxyTo, page: Page, type: str
) -> None:
    server = gunicorn(APP)
    proxy = proxy_to(server)
    tab = Tab(page, proxy.url).enter("ann", type)
    push(server, "ann", 5)
    tab.heard(5)
    proxy.vanish()
    push(server, "ann", 100)
    tab.wait_open(type)
    push(server, "ann", 5)
    assert tab.heard(110) == numbers(110)


@over_both
def test_a_cut_longer_than_the_window_is_told_and_nothing_partial_comes(
    gunicorn: Gunicorn, proxy_to: ProxyTo, page: Page, type: str
) -> None:
    server = gunicorn(APP, env=SMALL)
    proxy = proxy_to(server)
    tab = Tab(page, proxy.url).enter("ann", type)
    push(server, "ann", 3)
    tab.heard(3)
    proxy.cut()
    wait_gone(server)
    push(server, "ann", 30)
    proxy.restore()
    assert tab.heard(4) == [1, 2, 3, "gap"]
    push(server, "ann", 3)
    assert tab.heard(7) == [1, 2, 3, "gap", 34, 35, 36]


@over_both
def test_a_cut_as_long_as_the_window_loses_nothing(
    gunicorn: Gunicorn, proxy_to: ProxyTo, page: Page, type: str
) -> None:
    server = gunicorn(APP, env=SMALL)
    proxy = proxy_to(server)
    tab = Tab(page, proxy.url).enter("ann", type)
    proxy.cut()
    wait_gone(server)
    push(server, "ann", 10)
    proxy.restore()
    assert tab.heard(10) == numbers(10)


def test_a_post_that_the_browser_repeats_is_handled_once(
    gunicorn: Gunicorn, proxy_to: ProxyTo, page: Page
) -> None:
    """Chromium does, on a used connection that breaks before any answer."""
    server = gunicorn(APP)
    proxy = proxy_to(server)
    tab = Tab(page, proxy.url).enter("ann", "ajax")
    tab.request("test/echo")
    page.evaluate("() => { window.reply = window.chsk.request(['test/step', 2]); }")
    eventually(lambda: seen(server, "stats")["inboxes"] == 1)
    proxy.vanish()
    assert page.evaluate("() => window.reply") == 1
    assert tab.request("test/step", 3) == 2
    assert seen(server, "handled") == [2, 3]


# The server -----------------------------------------------------------------------------


@over_both
@pytest.mark.parametrize("end", ["hup", "kill"])
def test_a_restarted_worker_is_told(gunicorn: Gunicorn, page: Page, type: str, end: str) -> None:
    server = gunicorn(APP)
    tab = Tab(page, server.url).enter("ann", type)
    assert push(server, "ann", 3) == tab.heard(3)
    page.evaluate(
        "() => { window.reply = window.chsk.request(['test/slow']).catch((error) => error.name); }"
    )
    worker = seen(server, "pid")
    if end == "hup":
        server.kill(signal.SIGHUP)
    else:
        os.kill(worker, signal.SIGKILL)
    assert tab.heard(4) == [1, 2, 3, "gap"]
    assert page.evaluate("window.reply") == "ChannelClosed"
    tab.wait_open(type)
    assert seen(server, "pid") != worker
    push(server, "ann", 3)  # by the new worker, which counts anew
    assert tab.heard(7) == [1, 2, 3, "gap", 1, 2, 3]


def stop_and_continue(server: Server, seconds: float) -> None:
    """As a machine sleeps: connections stay, and nobody answers."""
    os.killpg(server.pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.killpg(server.pid, signal.SIGCONT)


@over_both
def test_a_server_that_slept_longer_than_the_ping_timeout_has_lost_nothing(
    gunicorn: Gunicorn, page: Page, type: str
) -> None:
    server = gunicorn(
        APP,
        env={"TEST_CHSK_WS_KALIVE": "0.5", "TEST_CHSK_WS_PING_TIMEOUT": "0.5"},
    )
    tab = Tab(page, server.url, hurried=True).enter("ann", type, wsKaliveMs=3000)
    push(server, "ann", 20)
    stop_and_continue(server, 4)
    push(server, "ann", 20)
    tab.wait_open(type)
    push(server, "ann", 20)
    assert tab.heard(60) == numbers(60)


@over_both
def test_a_page_that_was_frozen_has_lost_nothing(gunicorn: Gunicorn, page: Page, type: str) -> None:
    server = gunicorn(APP, env={"TEST_CHSK_WS_KALIVE": "0.5", "TEST_CHSK_WS_PING_TIMEOUT": "0.5"})
    tab = Tab(page, server.url).enter("ann", type)
    push(server, "ann", 5)
    tab.heard(5)
    devtools = page.context.new_cdp_session(page)
    devtools.send("Page.setWebLifecycleState", {"state": "frozen"})
    push(server, "ann", 50)
    time.sleep(3)  # its pings go unanswered, its grace is over
    push(server, "ann", 50)
    devtools.send("Page.setWebLifecycleState", {"state": "active"})
    assert tab.heard(105) == numbers(105)


# WebSockets that do not work ------------------------------------------------------------


@pytest.mark.parametrize("upgrades", ["refuse", "hang", "strip", "mute"])
def test_it_falls_back_and_returns_without_losing_an_event(
    gunicorn: Gunicorn, proxy_to: ProxyTo, page: Page, upgrades: Upgrades
) -> None:
    server = gunicorn(APP)
    proxy = proxy_to(server, upgrades=upgrades)
    tab = Tab(page, proxy.url, hurried=True).visit("ann", type="auto").wait_open("ajax")
    push(server, "ann", 10)
    tab.heard(10)
    proxy.upgrades = "pass"
    push_until(server, "ann", lambda: page.evaluate("window.chsk.state.type") == "ws")
    last = push(server, "ann")[-1]
    assert isinstance(last, int)
    assert tab.heard(last) == numbers(last)
    assert tab.request("test/echo", 7) == ["ann", 7]
    eventually(lambda: seen(server, "stats")["parked"] == 0)
    assert seen(server, "stats")["clients"] == 1


@over_both
def test_a_proxy_that_cuts_idle_connections_costs_no_event(
    gunicorn: Gunicorn, proxy_to: ProxyTo, page: Page, type: str
) -> None:
    server = gunicorn(APP)
    proxy = proxy_to(server, idle=0.4)
    tab = Tab(page, proxy.url).enter("ann", type)
    for _ in range(10):
        time.sleep(0.35)  # now and then just before, now and then just after a cut
        push(server, "ann", 3)
    assert tab.heard(30) == numbers(30)

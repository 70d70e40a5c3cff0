"""A page's whole life: security, signing in and out, asks, order, the offline queue, presence.

Each over both transports.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from playwright.sync_api import Page

from tests.e2e.browser.tab import APP, Tab, ask, push, seen
from tests.e2e.proxy import Proxy
from tests.process import Server, eventually

NewPage = Callable[..., Page]
ProxyTo = Callable[..., Proxy]

over_both = pytest.mark.parametrize("type", ["ws", "ajax"])
# Longer than a browser takes to load a page again.
RELOADED = {"TEST_CHSK_CLOSE_GRACE_WS": "6", "TEST_CHSK_CLOSE_GRACE_AJAX": "6"}


@pytest.fixture
def server(gunicorn: Callable[..., Server]) -> Server:
    return gunicorn(APP)


# Who may come in ------------------------------------------------------------------------


@over_both
def test_a_strict_content_security_policy_holds(server: Server, page: Page, type: str) -> None:
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    tab = Tab(page, server.url).enter("ann", type)
    assert tab.request("test/echo", "hello") == ["ann", "hello"]
    assert [text for text in complaints if "Content Security Policy" in text] == []


# A browser does not tell why an upgrade was refused: held to "ws", a page tries for ever.
@pytest.mark.parametrize("type", ["auto", "ajax"])
def test_a_wrong_token_is_refused_without_a_storm(server: Server, page: Page, type: str) -> None:
    asked: list[str] = []
    page.on("websocket", lambda websocket: asked.append(websocket.url))
    page.on("request", lambda request: asked.append(request.url))
    tab = Tab(page, server.url).visit("ann", type=type, csrfToken="wrong")
    state = tab.wait_status("refused")
    assert state["lastClose"]["status"] == 403
    page.wait_for_timeout(1000)
    assert len([url for url in asked if "/chsk?" in url]) <= 4  # two tries, two transports
    assert page.evaluate("window.chsk.state.status") == "refused"


@over_both
def test_who_signs_out_stays_out(server: Server, page: Page, type: str) -> None:
    tab = Tab(page, server.url).enter("ann", type)
    page.evaluate("fetch('/logout', { method: 'POST' })")
    state = tab.wait_status("closed")
    assert state["lastClose"]["reason"] == "signed-out"
    page.wait_for_timeout(1000)  # several backoffs
    assert page.evaluate("window.chsk.state.status") == "closed"
    assert seen(server, "stats")["clients"] == 0


@over_both
def test_a_login_and_a_reconnect_make_another_user(server: Server, page: Page, type: str) -> None:
    tab = Tab(page, server.url).enter("ann", type)
    page.evaluate("fetch('/login/bob').then(() => window.chsk.reconnect())")
    page.wait_for_function("() => window.chsk.state.open && window.chsk.state.uid === 'bob'")
    assert tab.request("test/echo", 1) == ["bob", 1]
    push(server, "ann", 3)
    # What bob was sent before is not known to this page: it is told so.
    assert ["gap", *push(server, "bob", 3)] == tab.heard(4)


# Asks -----------------------------------------------------------------------------------


@over_both
def test_asks_end_as_their_handlers_do(server: Server, page: Page, type: str) -> None:
    Tab(page, server.url).enter("ann", type)
    assert ask(server, "ann", "double") == {"answer": 42}
    assert ask(server, "ann", "raise") == {"error": "AskFailed"}
    assert ask(server, "ann", "unknown") == {"error": "AskFailed"}
    assert ask(server, "ann", "never", timeout=0.3) == {"error": "AskTimeout"}
    assert ask(server, "bob", "double") == {"error": "NoClient"}


@over_both
def test_an_ask_ends_with_the_tab(server: Server, page: Page, type: str) -> None:
    Tab(page, server.url).enter("ann", type)
    with ThreadPoolExecutor() as pool:
        asking = pool.submit(ask, server, "ann", "never", 25.0)
        eventually(lambda: seen(server, "stats")["asks"] == 1)
        page.close()
        assert asking.result() == {"error": "ClientGone"}


# Order ----------------------------------------------------------------------------------


@over_both
def test_20_events_are_handled_in_order_while_pings_are_answered(
    server: Server, page: Page, type: str
) -> None:
    tab = Tab(page, server.url).enter("ann", type)
    assert tab.send("test/step", *range(1, 21)) == [True] * 20
    assert tab.request("chsk/ws-ping") == "pong"
    assert len(seen(server, "handled")) < 20
    eventually(lambda: len(seen(server, "handled")) >= 20)
    assert seen(server, "handled") == list(range(1, 21))


@over_both
def test_what_is_said_offline_leaves_in_order_as_far_as_it_was_taken(
    server: Server, proxy_to: ProxyTo, page: Page, type: str
) -> None:
    proxy = proxy_to(server)
    tab = Tab(page, proxy.url).enter("ann", type, offlineQueue=4)
    proxy.cut()
    page.wait_for_function("() => !window.chsk.state.open")
    assert tab.send("test/step", 1, 3, 5, 7) == [True] * 4
    page.evaluate("() => { window.reply = window.chsk.request(['test/step', 9]); }")
    assert tab.send("test/step", 11) == [False]
    proxy.restore()
    assert page.evaluate("window.reply") == 5
    assert seen(server, "handled") == [1, 3, 5, 7, 9]


# Presence -------------------------------------------------------------------------------


def test_two_tabs_of_a_user_one_on_each_transport_hear_each_event_once(
    server: Server, new_page: NewPage
) -> None:
    first = Tab(new_page(), server.url).enter("ann", "ws")
    second = Tab(new_page(context=first.page.context), server.url).enter("ann", "ajax")
    said = push(server, "ann", 50)
    assert [first.heard(50), second.heard(50)] == [said, said]
    assert first.request("test/echo", 1) == second.request("test/echo", 1) == ["ann", 1]
    assert [first.heard(50), second.heard(50)] == [said, said]
    assert seen(server, "presence") == [["came", "ann"]]


@over_both
def test_a_user_comes_once_and_goes_with_the_last_tab(
    gunicorn: Callable[..., Server], new_page: NewPage, type: str
) -> None:
    server = gunicorn(APP, env=RELOADED)
    first = Tab(new_page(), server.url).enter("ann", type)
    second = Tab(new_page(context=first.page.context), server.url).enter("ann", type)
    first.page.reload()
    first.wait_open(type)
    second.page.close()
    first.page.reload()
    first.wait_open(type)
    eventually(lambda: seen(server, "stats")["clients"] == 1)
    assert seen(server, "presence") == [["came", "ann"]]
    first.page.close()
    eventually(lambda: seen(server, "stats")["clients"] == 0)
    assert seen(server, "presence") == [["came", "ann"], ["went", "ann"]]

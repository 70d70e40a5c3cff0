"""The network's trouble in another browser than Chromium."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.browser.firefox import Firefox, find_firefox
from tests.e2e.proxy import Proxy, Upgrades
from tests.process import WAIT, Server, eventually

APP = "tests.e2e.apps.chat:app"


@pytest.fixture(scope="module")
def firefox() -> Iterator[Firefox]:
    path = find_firefox()
    if path is None:
        pytest.skip("no Firefox")
    browser = Firefox(path)
    yield browser
    browser.close()


@pytest.fixture
def proxy(gunicorn: Callable[..., Server], proxy_to: Callable[..., Proxy]) -> Proxy:
    return proxy_to(gunicorn(APP))


def enter(firefox: Firefox, proxy: Proxy, type: str, options: str = "") -> None:
    firefox.goto(f"{proxy.url}/login/ann{options}")
    firefox.wait_for(f"window.chsk?.state.open && window.chsk.state.type === '{type}'")


def say(proxy: Proxy, count: int) -> list[int]:
    url = f"http://127.0.0.1:{proxy.backends[0]}/say?count={count}"
    with urllib.request.urlopen(url, data=b"", timeout=WAIT) as answer:
        said: list[int] = json.load(answer)
    return said


def hears(firefox: Firefox, said: list[int]) -> None:
    firefox.wait_for(f"window.heard.length >= {len(said)}")
    assert firefox.evaluate("window.heard") == said
    assert firefox.evaluate("window.gaps") == 0


@pytest.mark.parametrize("upgrades", ["hang", "refuse", "mute"])
def test_without_websockets_ajax_is_used(
    firefox: Firefox, proxy: Proxy, upgrades: Upgrades
) -> None:
    proxy.upgrades = upgrades
    enter(firefox, proxy, "ajax")
    hears(firefox, say(proxy, 3))
    tries = 1 if upgrades == "refuse" else 2  # once more, when Ajax has a cursor
    eventually(lambda: proxy.upgraded == tries)
    enter(firefox, proxy, "ajax")
    assert proxy.upgraded == tries  # the tab remembers


def test_behind_a_proxy_that_cuts_websockets_ajax_takes_over(
    firefox: Firefox, proxy: Proxy
) -> None:
    proxy.ws_life = 0.3
    enter(firefox, proxy, "ajax")
    hears(firefox, say(proxy, 3))
    assert proxy.upgraded <= 2


@pytest.mark.parametrize("type", ["ws", "ajax"])
def test_a_cut_loses_nothing(firefox: Firefox, proxy: Proxy, type: str) -> None:
    enter(firefox, proxy, type, f"?type={type}")
    before = say(proxy, 3)
    proxy.cut()
    during = say(proxy, 20)
    proxy.restore()
    hears(firefox, before + during + say(proxy, 3))


@pytest.mark.parametrize("type", ["ws", "ajax"])
def test_offline_is_told_and_ends(firefox: Firefox, proxy: Proxy, type: str) -> None:
    enter(firefox, proxy, type, f"?type={type}")
    firefox.evaluate("window.dispatchEvent(new Event('offline'))")
    assert firefox.evaluate("[chsk.state.status, chsk.state.lastClose.reason]") == [
        "waiting",
        "offline",
    ]
    said = say(proxy, 3)
    firefox.evaluate("window.dispatchEvent(new Event('online'))")
    firefox.wait_for("window.chsk.state.open")
    hears(firefox, said)


@pytest.mark.parametrize("type", ["ws", "ajax"])
def test_a_page_that_was_left_is_there_again(firefox: Firefox, proxy: Proxy, type: str) -> None:
    enter(firefox, proxy, type, f"?type={type}")
    firefox.goto(f"{proxy.url}/presence")
    firefox.back()  # to a page that is loaded afresh: this browser keeps none with a connection
    firefox.wait_for("window.chsk?.state.open")
    hears(firefox, say(proxy, 3))
    with urllib.request.urlopen(f"{proxy.url}/presence", timeout=WAIT) as answer:
        assert json.load(answer) == ["ann came"]

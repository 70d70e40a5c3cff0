"""Every packer that browsers have, in Chromium, over both transports."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from tests.process import Server

PACKERS = ["edn", "json", "transit", "msgpack"]

over_both = pytest.mark.parametrize("type", ["ws", "ajax"])
each = pytest.mark.parametrize("packer", PACKERS)


@pytest.fixture
def enter(gunicorn: Callable[..., Server], page: Page) -> Callable[[str, str], Page]:
    server = gunicorn("tests.e2e.apps.packers:app")

    def enter(packer: str, type: str) -> Page:
        page.goto(f"{server.url}/?packer={packer}&type={type}")
        page.wait_for_function(
            "type => window.chsk?.state.open && window.chsk.state.type === type", arg=type
        )
        return page

    return enter


@over_both
@each
def test_values_go_there_and_back(
    enter: Callable[[str, str], Page], packer: str, type: str
) -> None:
    page = enter(packer, type)
    value = {"text": "é😀" * 3000, "n": [0, -1, 300, 2**40, 1.5, None, True], "a": {"b c": [{}]}}
    reply = page.evaluate("data => window.chsk.request(['test/echo', data])", value)
    assert reply == value
    page.wait_for_function("() => window.heard.length")
    assert page.evaluate("window.heard") == [{"again": value}]


@over_both
@each
def test_events_in_a_row_arrive_in_a_row(
    enter: Callable[[str, str], Page], packer: str, type: str
) -> None:
    page = enter(packer, type)
    page.evaluate("for (let n = 0; n < 100; n++) window.chsk.send(['test/echo', n])")
    page.wait_for_function("() => window.heard.length === 100")
    assert page.evaluate("window.heard") == [{"again": n} for n in range(100)]


@each
def test_types_are_what_the_packer_has(enter: Callable[[str, str], Page], packer: str) -> None:
    page = enter(packer, "ws")
    answer = page.evaluate(
        """async () => {
            const data = { at: new Date(0), set: new Set([1]), big: 2n ** 60n, half: 0.5 };
            const { names, at } = await window.chsk.request(["test/types", data]);
            return { names, at: at instanceof Date ? at.toISOString() : at };
        }"""
    )
    plain = packer == "json"
    assert answer == {
        "names": {
            "at": "str" if plain else "datetime",
            "set": "list" if plain else "set",
            "big": "int",
            "half": "float",
        },
        "at": "2024-02-29T12:00:00+00:00" if plain else "2024-02-29T12:00:00.000Z",
    }


def test_a_module_is_loaded_by_those_who_use_it(enter: Callable[[str, str], Page]) -> None:
    for packer in PACKERS:
        page = enter(packer, "ws")
        loaded = page.evaluate("performance.getEntriesByType('resource').map((e) => e.name)")
        modules = {url.rpartition("/")[2].partition("?")[0] for url in loaded}
        expected = set() if packer in ("edn", "json") else {f"{packer}.js"}
        assert modules & {"transit.js", "msgpack.js"} == expected

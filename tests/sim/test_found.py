"""What seeds have found, each as the shortest history that shows it: nothing here is by chance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from flask_chsk.brokers.contract import user_channel
from flask_chsk.server.connection import Connection

from .client import Page
from .world import Violated, World, errors_are_violations


class Quiet(World):
    """A world in which nothing happens by itself; each way takes :attr:`way` seconds."""

    way = 0.01

    def __init__(self, **config: Any) -> None:
        self.settings = config
        self.slow_requests: list[float] = []  # seconds that the application takes for the next ones
        self.upgrades = ["works"]  # what becomes of the next ones; the last holds for all after
        super().__init__(seed=0)
        self.hub._slow = 0.0
        self.capacity = 1_000

    def _draw_config(self) -> Any:
        return replace(super()._draw_config(), **{**DEFAULTS, **self.settings})

    def latency(self) -> float:
        return self.way

    def _dawdle(self) -> float:
        return self.slow_requests.pop(0) if self.slow_requests else 0.0

    def fate_of_upgrade(self, page: Page) -> str:
        return self.upgrades.pop(0) if len(self.upgrades) > 1 else self.upgrades[0]

    def open(self, kind: str, seconds: float = 1.0) -> Page:
        """A page of Ann's, some seconds after it was loaded."""
        self._load("ann", kind)
        self.run(seconds)
        return self.pages[-1]

    def go_offline_for(self, page: Page, seconds: float) -> None:
        self.offline[page] = None
        for one, wire in self.wires:
            if one is page:
                wire.break_off(0.0, server_hears=True, client_hears=True)
        self.hub.later(seconds, self._go_online, page)

    def run_until(self, holds: Callable[[], bool]) -> None:
        for _ in range(1000):
            if holds():
                return
            self.run(0.01)
        raise AssertionError("this never happens")

    def publish_to_ann(self, count: int = 1, size: int = 10) -> None:
        for _ in range(count):
            self._publish(user_channel("ann"), size)


DEFAULTS = {
    "recovery_seconds": 120.0,
    "recovery_events": 256,
    "recovery_bytes": 1024 * 1024,
    "send_buf_ajax": 0.1,
    "send_buf_ws": 0.03,
    "lp_timeout": 20.0,
    "close_grace_ajax": 5.0,
    "max_outbox_bytes": 4 * 1024 * 1024,
}


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Any:
    made = Quiet(**getattr(request, "param", {}))
    with errors_are_violations(made.checker):
        yield made
        made.heal()
        made.end()


@pytest.mark.parametrize("world", [{"send_buf_ajax": 3.0}], indirect=True)
def test_a_websocket_that_began_before_polls_does_not_reset_their_session(world: Quiet) -> None:
    world.slow_requests = [2.5]  # the WebSocket's; polls are tried beside it after a second
    world.upgrades = ["works", "lost"]
    page = world.open("auto", 2.0)
    assert page.session.link is not None
    assert page.session.link.kind == "ajax"
    world.publish_to_ann()  # answers the poll
    world.run(0.2)
    world.publish_to_ann()  # waits for the window's end, when the WebSocket's request is let in
    world.run(25.0)


@pytest.mark.parametrize("world", [{"send_buf_ajax": 3.0}], indirect=True)
def test_the_checker_finds_that_such_a_session_is_reset(
    world: Quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connection, "is_overtaken", lambda *args: False)
    with pytest.raises(Violated, match="missed event 2"):
        test_a_websocket_that_began_before_polls_does_not_reset_their_session(world)
    world.checker.violations.clear()
    world.pages[0].unload()


SMALL = {"recovery_events": 5, "max_outbox_bytes": 4_000, "close_grace_ajax": 30.0}


@pytest.mark.parametrize("world", [SMALL], indirect=True)
def test_a_websocket_on_trial_ends_where_polls_tell_of_a_gap(world: Quiet) -> None:
    """Seed 1245: its handshake had said that nothing was missed, and the page took it."""
    world.upgrades = ["lost"]
    page = world.open("auto", 10.0)
    world.offline[page] = None
    world.cut_requests_of(page, server_hears=True)
    world.publish_to_ann(10, size=1_500)  # its outbox and its history do not hold them
    world.run_until(lambda: page.status == "connecting")
    world.cut_requests_of(page)  # polls fail, too, so a WebSocket is tried again
    world.run_until(lambda: page.status == "waiting")
    del world.offline[page]
    world.upgrades = ["works"]
    world.way = 1.2  # polls are tried beside it before it has proved to work
    page.lost_answers = 1  # theirs, which tells of the gap
    world.run_until(lambda: page.status == "open")


@pytest.mark.parametrize("world", [SMALL], indirect=True)
def test_the_checker_finds_a_trial_that_goes_on_after_a_gap(
    world: Quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Connection,
        "start_at",
        lambda connection, offset, **more: connection.session.start_at(offset),
    )
    with pytest.raises(Violated, match="ann's page 1 missed event 1 "):
        test_a_websocket_on_trial_ends_where_polls_tell_of_a_gap(world)
        world.run(30.0)
    world.checker.violations.clear()
    world.pages[0].unload()


def test_a_page_with_much_to_read_opens_on_a_slow_network(world: Quiet) -> None:
    """Seed 628: the answer to its ping came behind what it had missed, and too late each time."""
    page = world.open("ws")
    world.go_offline_for(page, 20.0)
    world.publish_to_ann(30, size=1_500)
    world.way = 0.25  # for 1,000 bytes
    world.run(60.0)
    assert page.status == "open"

"""What seeds have found, each as the shortest history that shows it: nothing here is by chance."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flask_chsk.brokers.contract import user_channel
from flask_chsk.server.connection import Connection

from .client import Page
from .world import Violated, World, errors_are_violations


class Quiet(World):
    """A world in which nothing happens by itself; each way takes 10 ms."""

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
        return 0.01

    def _dawdle(self) -> float:
        return self.slow_requests.pop(0) if self.slow_requests else 0.0

    def fate_of_upgrade(self, page: Page) -> str:
        return self.upgrades.pop(0) if len(self.upgrades) > 1 else self.upgrades[0]

    def open(self, kind: str, seconds: float = 1.0) -> Page:
        """A page of Ann's, some seconds after it was loaded."""
        self._load("ann", kind)
        self.run(seconds)
        return self.pages[-1]

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

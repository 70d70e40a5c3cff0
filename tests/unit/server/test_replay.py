"""What connections missed, read from the broker's history page by page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from flask_chsk.brokers.contract import Page
from flask_chsk.errors import BrokerUnavailable
from flask_chsk.protocol.push import Push
from flask_chsk.server.connection import Connection
from flask_chsk.server.delivery import Delivery
from flask_chsk.server.replay import RETRY, History
from flask_chsk.server.topics import Topics
from flask_chsk.server.trace import Trace

from .fakes import Site, texts, told


class Scene(Site):
    """A client that is behind, and a broker that is asked for what it missed."""

    disconnected = False

    def __init__(self) -> None:
        super().__init__()
        self.broker = self
        self.pages: list[Page] = []
        self.asked: list[tuple[dict[str, int], int]] = []
        self.on_since: Callable[[], object] = lambda: None
        self.controls: list[tuple[str, Connection]] = []
        self.topics = Topics(60.0)
        delivery = Delivery(
            self.hub, self.config, self.registry, self.topics, self.counters, Trace()
        )
        self.history = History(
            self.hub, self.broker, self.topics, delivery, self.counters, control=self._control
        )
        self.one = self.connect(offset=10)
        self.one.session.fall_behind()

    def _control(self, push: Push, connection: Connection) -> None:
        self.controls.append((push.text, connection))

    def since(self, channels: Mapping[str, int], cursor: int, page_bytes: int) -> Page:
        self.asked.append((dict(channels), cursor))
        self.on_since()
        return self.pages.pop(0)

    def watermark(self) -> int:
        return 90

    def page(self, *offsets: int, end: int, more: bool = False) -> None:
        pushes = tuple(Push("u:ann", f"[:a/b {offset}]", offset) for offset in offsets)
        self.pages.append(Page(pushes, end, more, True))

    def catch_up(self) -> Any:
        self.history.catch_up(self.one)
        self.hub.work()
        return self.one.session


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_client_gets_what_it_missed_of_all_its_channels(scene: Scene) -> None:
    scene.topics.joined("ann", "news", 7)
    scene.page(11, 12, end=20)
    session = scene.catch_up()
    assert scene.asked == [({"*": 0, "c:c1:ann": 0, "u:ann": 0, "t:news": 7}, 10)]
    assert texts(scene.one) == ["[:a/b 11]", "[:a/b 12]"]
    assert (session.needs_replay, session.queued) == (False, 20)
    assert scene.counters["recovered"] == 2
    assert told(scene.one) == ["wake"]


def test_the_anonymous_have_a_channel_of_their_own(scene: Scene) -> None:
    nobody = scene.connect(None, "c9", offset=10)
    nobody.session.fall_behind()
    scene.page(end=20)
    scene.history.catch_up(nobody)
    scene.hub.work()
    assert scene.asked == [({"*": 0, "c:c9": 0, "-": 0}, 10)]


def test_a_long_history_comes_in_pages(scene: Scene) -> None:
    scene.page(11, end=11, more=True)
    assert scene.catch_up().needs_replay
    scene.page(12, end=20)
    assert not scene.catch_up().needs_replay
    assert texts(scene.one) == ["[:a/b 11]", "[:a/b 12]"]


def test_one_page_is_read_at_a_time(scene: Scene) -> None:
    scene.page(11, end=20)
    scene.history.catch_up(scene.one)
    scene.history.catch_up(scene.one)
    scene.hub.work()
    assert len(scene.asked) == 1


def test_what_is_not_complete_is_a_gap(scene: Scene) -> None:
    scene.pages.append(Page((), 95, False, False))
    session = scene.catch_up()
    assert texts(scene.one) == ["[:chsk/gap nil]"]
    assert (session.needs_replay, session.start) == (False, 96)  # above all that it may have had
    assert scene.counters["gaps"] == 1


def test_a_gap_that_is_owed_is_told_whatever_history_has(scene: Scene) -> None:
    scene.one.owe_gap()
    scene.page(11, end=20)
    scene.catch_up()
    assert texts(scene.one) == ["[:chsk/gap nil]"]
    assert not scene.one.gap_due


def test_a_page_that_the_client_has_outrun_is_asked_for_again(scene: Scene) -> None:
    scene.page(11, end=20)
    scene.on_since = lambda: scene.one.session.resume(15)
    session = scene.catch_up()
    assert texts(scene.one) == []
    assert session.needs_replay


def test_controls_of_history_are_done_and_not_delivered(scene: Scene) -> None:
    scene.one.since = 11
    pushes = tuple(Push("u:ann", f'[:chsk/joined "t{offset}"]', offset) for offset in (11, 12))
    scene.pages.append(Page(pushes, 20, False, True))
    scene.catch_up()
    assert texts(scene.one) == []
    # The first was before its opening, which knew of it.
    assert scene.controls == [('[:chsk/joined "t12"]', scene.one)]


def test_a_broker_that_is_away_is_asked_again(scene: Scene) -> None:
    def fail() -> None:
        raise BrokerUnavailable("away")

    scene.on_since = fail
    scene.catch_up()
    assert told(scene.one) == []
    scene.hub.sleep(RETRY)
    assert told(scene.one) == ["wake"]


def test_a_page_is_taken_in_later(scene: Scene) -> None:
    scene.page(11, end=20)
    scene.history.catch_up(scene.one)
    assert texts(scene.one) == []
    assert scene.history.is_reading(scene.one)
    scene.hub.work()
    assert texts(scene.one) == ["[:a/b 11]"]
    assert not scene.history.is_reading(scene.one)

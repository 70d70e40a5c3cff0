"""In which epoch a worker is, and what it believes of others."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from flask_chsk.brokers.redis.epoch import AHEAD
from flask_chsk.errors import BrokerUnavailable, ConfigError
from tests.unit.brokers.redis.scene import Scene

MICRO = 1_000_000
TOO_FAR = int(AHEAD * MICRO) + 1


@pytest.fixture
def scene() -> Scene:
    return Scene()


# Waiting -----------------------------------------------------------------------------------


def test_who_waits_before_redis_was_reached_is_told_so(scene: Scene) -> None:
    with pytest.raises(BrokerUnavailable, match="not reached yet"):
        scene.epoch.wait()


def test_who_waits_is_told_why_there_is_no_subscription(scene: Scene) -> None:
    scene.epoch.lost("Redis at there is away")
    with pytest.raises(BrokerUnavailable, match="there is away"):
        scene.epoch.wait()


def test_nobody_waits_once_the_epoch_is_known(scene: Scene) -> None:
    scene.enter("e1", 5)
    scene.epoch.wait()
    scene.epoch.lost("cut")  # the epoch is known nevertheless
    scene.epoch.wait()


def test_a_redis_that_cannot_be_used_is_an_error_of_the_configuration(scene: Scene) -> None:
    scene.enter("e1", 5)
    scene.epoch.refusal = "it may forget"
    with pytest.raises(ConfigError, match="it may forget"):
        scene.epoch.wait()


@pytest.mark.parametrize("end", ["entered", "lost"])
def test_all_who_wait_are_woken(scene: Scene, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waiters: list[Any] = []
    make = scene.hub.waiter_here

    def waiter_here() -> Any:
        waiters.append(make())
        return waiters[-1]

    monkeypatch.setattr(scene.hub, "waiter_here", waiter_here)
    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            scene.epoch.wait()
    assert [one.value for one in waiters] == [None, None]
    if end == "entered":
        scene.enter("e1", 5)
    else:
        scene.epoch.lost("cut")
    assert [one.value for one in waiters] == [True, True]


# Entering ----------------------------------------------------------------------------------


def test_the_first_epoch_begins_where_redis_is(scene: Scene) -> None:
    assert scene.enter("e1", 500, began=10) == [("reset", 10)]
    assert (scene.epoch.name, scene.epoch.offset) == ("e1", 500)
    assert scene.counters["epochs"] == 0


def test_the_same_epoch_again_changes_nothing(scene: Scene) -> None:
    scene.enter("e1", 500)
    assert scene.enter("e1", 900) == []
    assert scene.epoch.offset == 500  # up to there events were heard


def test_a_new_epoch_lets_clients_in_again_and_has_them_read_history(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.enter("e1", 500)
    told = scene.enter("e2", 900, began=700)
    assert told == [("reset", 700), ("reattach", True), ("resync_required",)]
    assert (scene.epoch.name, scene.epoch.offset) == ("e2", 700)
    assert scene.counters["epochs"] == 1
    assert [one.levelno for one in caplog.records] == [logging.WARNING]


def test_a_new_epoch_that_the_subscription_heard_of_has_no_history_to_read(scene: Scene) -> None:
    scene.enter("e1", 500)
    assert scene.enter("e2", 700, began=700, heard=True) == [("reset", 700), ("reattach", True)]


def test_an_epoch_that_is_over_does_not_come_back(scene: Scene) -> None:
    scene.enter("e1", 500)
    scene.enter("e2", 700)
    assert scene.enter("e1", 900) == []
    assert scene.epoch.name == "e2"


# What is said of an epoch ------------------------------------------------------------------


def test_what_is_said_of_this_epoch_is_current(scene: Scene) -> None:
    scene.enter("e1", 500)
    assert scene.epoch.is_current("e1")
    assert scene.asked == []


def test_what_is_said_of_an_unknown_epoch_has_redis_asked(scene: Scene) -> None:
    scene.enter("e1", 500)
    assert not scene.epoch.is_current("e2")
    assert scene.asked == [1]


def test_what_is_said_of_an_epoch_that_is_over_is_let_go(scene: Scene) -> None:
    scene.enter("e1", 500)
    scene.enter("e2", 700)
    assert not scene.epoch.is_current("e1")
    assert scene.asked == []


def test_an_offset_near_what_redis_said_is_believed(scene: Scene) -> None:
    scene.enter("e1", 500)
    assert scene.epoch.is_believable(500 + TOO_FAR - 1)
    assert scene.asked == []


def test_an_offset_far_ahead_is_not_believed_and_history_is_read_after_the_answer(
    scene: Scene,
) -> None:
    scene.enter("e1", 500)
    assert not scene.epoch.is_believable(500 + TOO_FAR)
    assert scene.asked == [1]
    assert scene.enter("e1", 500) == [("resync_required",)]
    assert scene.enter("e1", 500) == []  # once


def test_time_that_passes_makes_later_offsets_believable(scene: Scene) -> None:
    scene.enter("e1", 500)
    scene.hub.time += 10.0
    assert scene.epoch.is_believable(500 + TOO_FAR + 9 * MICRO)
    assert not scene.epoch.is_believable(500 + TOO_FAR + 10 * MICRO)


def test_what_redis_answers_makes_later_offsets_believable(scene: Scene) -> None:
    scene.enter("e1", 500)
    scene.enter("e1", 500 + TOO_FAR)
    assert scene.epoch.is_believable(500 + TOO_FAR + 1)


def test_what_redis_says_of_an_epoch_that_is_over_makes_nothing_believable(scene: Scene) -> None:
    scene.enter("e1", 500)
    scene.enter("e2", 700)
    scene.enter("e1", 700 + TOO_FAR)
    assert not scene.epoch.is_believable(700 + TOO_FAR)

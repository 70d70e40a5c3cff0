"""That this worker lives, said to Redis; and what Redis says back."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from flask_chsk.brokers.redis import scripts
from flask_chsk.brokers.redis.lease import CLOCKS, LEASE, REAPED, RENEW, Lease
from flask_chsk.errors import BrokerUnavailable
from tests.unit.brokers.redis.scene import Scene, greeting

LIMITS = (1000, 1_000_000, 60_000)


class Leased(Scene):
    """A lease of the worker ``w1``."""

    def __init__(self) -> None:
        super().__init__()
        self.lease = Lease(self.hub, self.redis, self.epoch, self.ears, "w1", LIMITS)

    def answer(
        self,
        *,
        known: int = 1,
        late: int = 0,
        dead: int = 0,
        behind: float = 0.0,
        limits: tuple[int, int, int] = LIMITS,
    ) -> None:
        """Have Redis answer the next renewal."""
        clock = int((self.hub.time_of_day() - behind) * 1e6)
        self.redis.answers.append([b"e1", 500, known, late, dead, 0, clock, *limits])

    def renewed(self, **answer: Any) -> list[Any]:
        """What the listener is told by a renewal."""
        self.answer(**answer)
        self.lease.renew()
        return self.ears.heard()


@pytest.fixture
def scene() -> Leased:
    return Leased()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]


# When --------------------------------------------------------------------------------------


def test_the_lease_is_renewed_every_few_seconds(scene: Leased) -> None:
    scene.answer()
    assert scene.lease.due(1000.0) == 1000.0 + RENEW
    scene.hub.work()
    assert scene.redis.calls == [(scripts.LEASE, "w1", int(LEASE * 1000), *LIMITS)]


def test_without_a_subscription_it_is_not_renewed(scene: Leased) -> None:
    scene.epoch.error = "cut"
    assert scene.lease.due(1000.0) == 1001.0
    scene.hub.work()
    assert scene.redis.calls == []


def test_a_lease_that_has_ended_is_not_due(scene: Leased) -> None:
    scene.lease.end()
    assert scene.lease.due(1000.0) is None


def test_one_renewal_at_a_time_is_under_way(scene: Leased) -> None:
    scene.answer()
    scene.lease.renew_soon()
    scene.lease.renew_soon()
    scene.hub.work()
    assert len(scene.redis.calls) == 1


def test_a_renewal_that_fails_says_why_and_the_next_is_made(scene: Leased) -> None:
    scene.redis.answers.append(BrokerUnavailable("away"))
    scene.lease.renew_soon()
    scene.hub.work()
    assert scene.lease.error == "away"
    scene.answer()
    scene.lease.renew_soon()
    scene.hub.work()
    assert scene.lease.error == ""


# What Redis says ---------------------------------------------------------------------------


def test_a_renewal_says_in_which_epoch_redis_is(scene: Leased) -> None:
    scene.renewed()
    assert (scene.epoch.name, scene.epoch.offset) == ("e1", 500)


def test_the_first_lease_lets_nobody_in_again(scene: Leased) -> None:
    assert scene.renewed(known=0) == [("reset", 0)]


def test_a_worker_that_redis_has_forgotten_lets_its_clients_in_again(scene: Leased) -> None:
    scene.renewed()
    assert scene.renewed(known=0) == [("reattach", False)]
    assert scene.renewed(known=1) == []


def test_a_worker_that_others_signed_off_lets_its_clients_in_again(scene: Leased) -> None:
    assert ("reattach", False) in scene.renewed(known=-1)


def test_users_of_dead_workers_are_gone(scene: Leased) -> None:
    scene.redis.answers = []
    scene.answer(dead=1)
    scene.redis.answers += [[1, b"ann", 3, b"bob", 4], [0, "zoë".encode(), 5]]
    scene.lease.renew()
    assert scene.redis.calls[1:] == [(scripts.REAP, REAPED)] * 2
    assert scene.ears.heard()[1:] == [
        ("user_presence_changed", "ann", False, 3),
        ("user_presence_changed", "bob", False, 4),
        ("user_presence_changed", "zoë", False, 5),
    ]


def test_a_worker_whose_own_lease_lapsed_signs_off_nobody_for_a_lease(scene: Leased) -> None:
    scene.renewed(late=1, dead=1)
    scene.hub.time += LEASE - 1
    scene.renewed(dead=1)
    assert [call[0] for call in scene.redis.calls] == [scripts.LEASE] * 2
    scene.hub.time += 1
    scene.answer(dead=1)
    scene.redis.answers.append([0])
    scene.lease.renew()
    assert scene.redis.calls[-1] == (scripts.REAP, REAPED)


# Greetings ---------------------------------------------------------------------------------


def test_a_redis_that_may_forget_is_refused_and_logged_once(
    scene: Leased, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        scene.lease.greeted(greeting("allkeys-lru"))
    assert "maxmemory-policy allkeys-lru" in scene.epoch.refusal
    assert [one.levelno for one in caplog.records].count(logging.ERROR) == 1


@pytest.mark.parametrize("policy", ["", "noeviction"])
def test_a_redis_that_was_set_right_is_used_again(scene: Leased, policy: str) -> None:
    scene.lease.greeted(greeting("allkeys-lru"))
    scene.renewed()
    assert scene.redis.closed == 1  # a new connection is told whether the policy is another
    scene.lease.greeted(greeting(policy))
    assert scene.epoch.refusal == ""
    scene.renewed()
    assert scene.redis.closed == 1


def test_a_greeting_says_in_which_epoch_redis_is(scene: Leased) -> None:
    scene.lease.greeted(greeting())
    assert (scene.epoch.name, scene.epoch.offset) == ("e1", 100)


# Clocks and limits -------------------------------------------------------------------------


@pytest.mark.parametrize(("behind", "way"), [(2 * CLOCKS, "ahead of"), (-2 * CLOCKS, "behind")])
def test_clocks_that_differ_are_noted_and_logged_once(
    scene: Leased, behind: float, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        scene.renewed(behind=behind)
    assert way in scene.lease.note()
    assert len(warnings(caplog)) == 1
    scene.renewed()
    assert scene.lease.note() == ""


def test_clocks_that_hardly_differ_are_not_noted(
    scene: Leased, caplog: pytest.LogCaptureFixture
) -> None:
    scene.renewed(behind=CLOCKS / 2)
    assert (scene.lease.note(), warnings(caplog)) == ("", [])


def test_limits_that_differ_are_noted_and_logged_once(
    scene: Leased, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        scene.renewed(limits=(500, 1_000_000, 30_000))
    note = scene.lease.note()
    assert "CHSK_RECOVERY_EVENTS is 1000 here and 500 in another process" in note
    assert "CHSK_RECOVERY_SECONDS is 60 here and 30 in another process" in note
    assert "CHSK_RECOVERY_BYTES" not in note
    assert len(warnings(caplog)) == 1
    scene.renewed()
    assert scene.lease.note() == ""

"""Memberships of users in topics, as Redis keeps them."""

from __future__ import annotations

import pytest

from flask_chsk.brokers.contract import topic_channel
from flask_chsk.errors import UsageError
from tests.sim.redis import RedisNetwork
from tests.unit.brokers.redis.workers import Worker, events


def test_a_membership_is_told_and_ends(worker: Worker, other: Worker) -> None:
    worker.attach("ann", "c1")
    worker.heard()
    assert [other.join("ann", "news") for _ in range(2)] == [True, False]
    assert events(worker.heard()) == ['[:chsk/joined "news"]']
    assert other.members("news") == {"ann"}
    assert list(worker.attach("ann", "c2").topics) == ["news"]
    assert [other.leave("ann", "news") for _ in range(2)] == [True, False]
    assert events(worker.heard()) == ['[:chsk/left "news"]']


def test_members_hear_what_is_published_to_a_topic(worker: Worker, other: Worker) -> None:
    other.join("ann", "news")
    worker.attach("ann", "c1")
    worker.heard()
    offset = other.publish(topic_channel("news"), "[:a/b 1]")
    assert worker.heard() == [("t:news", "[:a/b 1]", offset)]


def test_a_user_is_in_so_many_topics(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_chsk.brokers.redis.commands.MAX_TOPICS", 1)
    worker.join("ann", "news")
    with pytest.raises(UsageError, match="1 topics already"):
        worker.join("ann", "chat")


def test_a_membership_from_before_an_epoch_is_one_again(
    worker: Worker, network: RedisNetwork
) -> None:
    network.restart()
    network.hub.loop.run(5.0)
    assert worker.rejoin("ann", "news")
    assert worker.members("news") == {"ann"}
    worker.leave("ann", "news")
    assert worker.rejoin("ann", "news")  # it was told already
    assert worker.members("news") == set()

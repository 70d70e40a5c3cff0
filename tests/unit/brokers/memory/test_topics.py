"""Memberships of users in topics."""

from __future__ import annotations

import pytest

from flask_chsk.brokers.contract import MAX_TOPICS, topic_channel
from flask_chsk.errors import UsageError
from tests.unit.brokers.memory.scene import ANN, Broker, offsets


def test_a_membership_begins_when_it_was_told_and_ends() -> None:
    broker = Broker()
    broker.clients.attach("ann", "c")
    assert [broker.topics.join("ann", "t"), broker.topics.join("ann", "t")] == [True, False]
    assert broker.topics.members("t") == {"ann"}
    (told,) = broker.told.pushes
    assert (told.channel, told.text) == (ANN, '[:chsk/joined "t"]')
    assert broker.clients.attach("ann", "c2").topics == {"t": told.offset}
    assert [broker.topics.leave("ann", "t"), broker.topics.leave("ann", "t")] == [True, False]
    assert broker.told.pushes[1].text == '[:chsk/left "t"]'
    assert (broker.topics.members("t"), broker.clients.attach("ann", "c3").topics) == (
        frozenset(),
        {},
    )


def test_members_get_what_was_published_after_they_joined() -> None:
    broker = Broker()
    broker.clients.attach("ann", "c")
    cursor = broker.watermark()
    broker.publish(topic_channel("t"), "[:a/b 1]")
    broker.topics.join("ann", "t")
    after = broker.publish(topic_channel("t"), "[:a/b 2]")
    joined = broker.clients.attach("ann", "c").topics["t"]
    assert offsets(broker.since({topic_channel("t"): joined}, cursor, 10**6)) == [after]


def test_an_absent_user_may_join() -> None:
    broker = Broker()
    assert broker.topics.join("ann", "t")
    assert broker.told.pushes == []
    offset = broker.publish(topic_channel("t"), "[:a/b]")
    joined = broker.clients.attach("ann", "c").topics["t"]
    assert offset is not None and joined < offset


def test_a_user_is_in_so_many_topics_at_most() -> None:
    broker = Broker()
    for number in range(MAX_TOPICS):
        broker.topics.join("ann", f"t{number}")
    with pytest.raises(UsageError, match="100 topics"):
        broker.topics.join("ann", "one more")
    assert "one more" not in broker.topics._members
    broker.topics.leave("ann", "t0")
    assert broker.topics.join("ann", "one more")

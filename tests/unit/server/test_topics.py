"""Memberships of the users of one process."""

from __future__ import annotations

from flask_chsk.server.topics import Topics

SECOND = 1_000_000  # an offset counts microseconds


def test_a_member_is_one_from_when_they_joined_until_they_left() -> None:
    topics = Topics(window=120)
    assert topics.joined("ann", "news", 10)
    assert (dict(topics.of("ann")), list(topics.members("news"))) == ({"news": 10}, ["ann"])
    assert topics.left("ann", "news", 20)
    assert (dict(topics.of("ann")), "news" in topics) == ({}, False)


def test_only_the_last_member_takes_the_topic_along() -> None:
    topics = Topics(window=120)
    topics.joined("ann", "news", 10)
    topics.joined("bob", "news", 11)
    assert not topics.left("ann", "news", 20)
    assert topics.gone("bob") == ["news"]


def test_what_history_tells_again_is_no_news() -> None:
    topics = Topics(window=120)
    topics.joined("ann", "news", 10)
    assert not topics.joined("ann", "news", 10)
    topics.left("ann", "news", 20)
    assert not topics.joined("ann", "news", 10)
    assert "news" not in topics
    assert topics.joined("ann", "news", 30)
    assert not topics.left("ann", "news", 20)
    assert "news" in topics


def test_what_is_past_the_window_need_not_be_remembered() -> None:
    topics = Topics(window=1)
    for second in range(100):
        topics.joined("ann", f"room {second}", second * SECOND)
        topics.left("ann", f"room {second}", second * SECOND + 1)
    assert len(topics._left["ann"]) == 2
    topics.gone("ann")
    assert topics._left == {}


def test_where_offsets_begin_anew_members_stay() -> None:
    topics = Topics(window=120)
    topics.joined("ann", "news", 1000)
    topics.left("ann", "sports", 1000)
    topics.restart(3)
    assert (dict(topics.of("ann")), topics.snapshot()) == ({"news": 3}, {"ann": ["news"]})
    assert topics.joined("ann", "sports", 10)

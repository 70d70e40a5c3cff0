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


def test_a_membership_that_has_ended_is_still_to_be_read() -> None:
    topics = Topics(window=120)
    topics.joined("ann", "news", 10)
    topics.left("ann", "news", 20)
    assert topics.to_read("ann", 15) == {"news": 10}
    assert topics.to_read("ann", 20) == {}
    owed = [offset for offset in (9, 10, 11, 20, 21) if topics.was_member("ann", "news", offset)]
    assert owed == [11, 20]


def test_two_memberships_are_read_from_the_first_on_and_nothing_between_is_owed() -> None:
    topics = Topics(window=120)
    topics.joined("ann", "news", 10)
    topics.left("ann", "news", 20)
    topics.joined("ann", "news", 30)
    assert topics.to_read("ann", 5) == {"news": 10}
    assert topics.to_read("ann", 25) == {"news": 30}
    assert [topics.was_member("ann", "news", offset) for offset in (15, 25, 35)] == [
        True,
        False,
        True,
    ]


def test_memberships_that_ended_are_forgotten_with_the_window_and_the_user() -> None:
    topics = Topics(window=1)
    topics.joined("ann", "news", 1)
    topics.left("ann", "news", 2)
    topics.joined("ann", "sports", 3)
    topics.left("ann", "sports", 3 * SECOND)
    assert topics.to_read("ann", 0) == {"sports": 3}
    topics.gone("ann")
    assert topics.to_read("ann", 0) == {}

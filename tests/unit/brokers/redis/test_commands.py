"""What is asked of Redis, by workers and publishers alike."""

from __future__ import annotations

from typing import Any

import pytest

from flask_chsk.brokers.redis import commands, scripts
from flask_chsk.errors import UsageError

from .scene import FakeRedis


@pytest.fixture
def redis() -> Any:
    return FakeRedis()


def test_an_event_is_published_to_those_who_hear_its_channel(redis: Any) -> None:
    redis.answers = [b"7", b"8", b"9"]
    assert commands.publish(redis, "c:c1:ann", "[:a/b]") == 7
    assert commands.publish(redis, "t:news", "[:a/b]", exclude=("ann", "c1"), flush=True) == 8
    assert commands.publish(redis, "u:ann", "[:chsk/close nil]") == 9
    assert redis.calls == [
        (scripts.PUBLISH, b"c:c1:ann", b"u:ann", b"[:a/b]", b"", b"0"),
        (scripts.PUBLISH, b"t:news", b"t:news", b"[:a/b]", b"c1:ann", b"1"),
        (scripts.PUBLISH, b"u:ann", b"*", b"[:chsk/close nil]", b"", b"0"),
    ]


def test_an_event_for_nobody_has_no_offset(redis: Any) -> None:
    redis.answers = [None]
    assert commands.publish(redis, "u:ann", "[:a/b]") is None


@pytest.mark.parametrize(("answer", "joined"), [(1, True), (0, False)])
def test_a_user_joins(redis: Any, answer: int, joined: bool) -> None:
    redis.answers = [answer]
    assert commands.join(redis, "ann", "news") is joined
    [(script, *args)] = redis.calls
    assert (script, args) == (
        scripts.JOIN,
        [b"ann", b"news", b'[:chsk/joined "news"]', commands.MAX_TOPICS, 0],
    )


@pytest.mark.parametrize(("answer", "member"), [(1, True), (0, True), (-2, False)])
def test_a_membership_is_told_again(redis: Any, answer: int, member: bool) -> None:
    redis.answers = [answer]
    assert commands.rejoin(redis, "ann", "news") is member
    assert redis.calls[0][1:] == (b"ann", b"news", b'[:chsk/joined ["news" ', 100, 1)


def test_a_user_of_too_many_topics_joins_no_more(redis: Any) -> None:
    redis.answers = [-1]
    with pytest.raises(UsageError, match="uid 'ann' is in 100 topics already"):
        commands.join(redis, "ann", "news")


def test_a_user_leaves(redis: Any) -> None:
    redis.answers = [1, 0]
    assert commands.leave(redis, "ann", "news")
    assert not commands.leave(redis, "ann", "news")
    assert redis.calls[0] == (scripts.LEAVE, b"ann", b"news", b'[:chsk/left "news"]')


def test_the_clients_that_can_be_asked_are_known(redis: Any) -> None:
    redis.answers = [[b"c1", b"c2"], []]
    assert commands.askable(redis, "ann") == {"c1", "c2"}
    assert commands.askable(redis, None) == frozenset()
    assert redis.calls == [(scripts.CLIENTS, b"ann"), (scripts.CLIENTS, b"")]

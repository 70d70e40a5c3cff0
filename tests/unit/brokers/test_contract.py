"""Names of channels, and the texts of what a broker itself tells."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_chsk.brokers.contract import (
    ANONYMOUS,
    EVERYONE,
    begun_control,
    client_channel,
    control,
    is_close,
    page_of,
    pubsub_of,
    too_many_clients,
    topic_channel,
    user_channel,
)
from flask_chsk.packers.edn import EdnPacker
from flask_chsk.protocol.push import Push


def test_no_two_channels_have_the_same_name() -> None:
    names = [EVERYONE, ANONYMOUS]
    for word in ("ann", "c1", "*", "-", "c1:ann", "u:ann"):
        names += [user_channel(word), topic_channel(word)]
    names += [client_channel(uid, "c1") for uid in (None, "ann", "ann:bob", "c1")]
    names += [client_channel(uid, "ann") for uid in (None, "c1")]
    assert len(names) == len({*names})


@pytest.mark.parametrize("uid", ["ann", "ann:bob", "日本", "c:1"])
def test_a_clients_channel_is_heard_by_its_users(uid: str) -> None:
    assert pubsub_of(client_channel(uid, "c1")) == user_channel(uid)


def test_an_anonymous_client_is_heard_by_itself() -> None:
    assert pubsub_of(client_channel(None, "c1")) == client_channel(None, "c1")


@pytest.mark.parametrize(
    "channel", [EVERYONE, ANONYMOUS, user_channel("ann"), user_channel("c:1"), topic_channel("c:1")]
)
def test_other_channels_are_heard_by_their_own_name(channel: str) -> None:
    assert pubsub_of(channel) == channel


@pytest.mark.parametrize(
    ("text", "closes"),
    [
        ("[:chsk/close]", True),
        ('[:chsk/close-others "c1"]', True),
        ("[:chat/close]", False),
        ('[:chat/said "[:chsk/close]"]', False),
        ("[:chsk/joined :x]", False),
    ],
)
def test_an_event_that_closes_is_known_by_its_id(text: str, closes: bool) -> None:
    assert is_close(text) is closes


@pytest.mark.parametrize("topic", ["news", 'a "quoted" one', "back\\slash", "日本", "]"])
def test_a_membership_is_told_as_an_event(topic: str) -> None:
    assert EdnPacker().unpack(control(":chsk/joined", topic)) == ["chsk/joined", topic]
    begun = f"{begun_control(topic)}7]]"
    assert EdnPacker().unpack(begun) == ["chsk/joined", [topic, 7]]


def test_one_client_too_many_is_refused_with_the_setting_and_a_time() -> None:
    refused = too_many_clients(50)
    assert (refused.status, refused.retry_after) == (429, 10)
    assert str(refused) == "this user has 50 clients already (CHSK_MAX_CLIENTS_PER_UID)"


@given(st.text(), st.text(), st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True))
def test_no_two_channels_share_a_name(one: str, other: str, client_id: str) -> None:
    names = [EVERYONE, ANONYMOUS, user_channel(one), topic_channel(one), client_channel(None, "c")]
    names += [client_channel(one, client_id), user_channel(f"{other}x{one}")]
    if one:
        assert len(set(names)) == len(names)


def test_a_page_has_so_many_bytes_and_one_event_at_least() -> None:
    pushes = [Push(EVERYONE, "x" * 10, offset, 0, None, 0.0, False) for offset in (1, 2, 3)]
    size = pushes[0].size
    assert page_of(pushes, 9, False, 2 * size) == (tuple(pushes[:2]), 2, True, True)
    assert page_of(pushes, 9, True, 3 * size) == (tuple(pushes), 9, True, True)
    assert page_of(pushes, 9, False, 1).pushes == (pushes[0],)

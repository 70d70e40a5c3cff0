"""Who may be addressed: what is a uid, and what it is kept as."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from flask_chsk.errors import UsageError
from flask_chsk.protocol.uids import (
    ALL_USERS_WITHOUT_UID,
    NOBODY,
    as_member,
    as_topic,
    as_uid,
    is_text,
)

ID = "12345678-1234-5678-1234-567812345678"


class Name(str):
    """A text of an application's own type."""


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("ann", "ann"),
        ("zoë 日本 😀", "zoë 日本 😀"),
        ("7", "7"),
        (7, "7"),
        (0, "0"),
        (-1, "-1"),
        (UUID(ID), ID),
        (Name("ann"), "ann"),
        ("a:b/c", "a:b/c"),
        ("x" * 255, "x" * 255),
        (ALL_USERS_WITHOUT_UID, None),
    ],
)
def test_a_uid_is_kept_as_text(given: Any, kept: str | None) -> None:
    assert as_uid(given) == kept
    assert type(as_uid(given)) is type(kept)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "ALL_USERS_WITHOUT_UID addresses anonymous clients"),
        (True, "not True: pass its id"),
        (1.5, "not 1.5: pass its id"),
        (b"ann", "not b'ann': pass its id"),
        (["ann"], r"not \['ann'\]: pass its id"),
        ("", "1 to 255 characters, not 0"),
        ("x" * 256, "1 to 255 characters, not 256"),
        (10**255, "1 to 255 characters, not 256"),
        ("\ud800", "half of a surrogate pair"),
        ("ann\udfff", "half of a surrogate pair"),
    ],
)
def test_what_is_no_uid_is_refused(given: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        as_uid(given)


@pytest.mark.parametrize("text", ["", "ann", "zoë", "😀", "\ufffd", "\x00"])
def test_text_can_be_sent(text: str) -> None:
    assert is_text(text)
    assert text.encode().decode() == text


@pytest.mark.parametrize("text", ["\ud83d", "\ude00", "a\ud800b", "\ude00\ud83d"])
def test_half_of_a_surrogate_pair_is_no_text(text: str) -> None:
    assert not is_text(text)
    with pytest.raises(UnicodeEncodeError):
        text.encode()


def test_the_anonymous_are_shown_by_their_name() -> None:
    assert repr(ALL_USERS_WITHOUT_UID) == "ALL_USERS_WITHOUT_UID"


def test_nobody_is_connected_by_any_transport() -> None:
    assert (NOBODY.ws, NOBODY.ajax, NOBODY.any) == (frozenset(),) * 3


@pytest.mark.parametrize("topic", ["a", "x" * 255, "zwei wörter: 😀"])
def test_a_topic_is_a_short_text(topic: str) -> None:
    assert as_topic(topic) == topic


@pytest.mark.parametrize("topic", ["", "x" * 256, None, 7, b"news", "\ud800"])
def test_all_else_is_no_topic(topic: Any) -> None:
    with pytest.raises(UsageError, match="a topic is"):
        as_topic(topic)


def test_users_join_topics_and_the_anonymous_do_not() -> None:
    assert as_member(7) == "7"
    with pytest.raises(UsageError, match="anonymous clients cannot join"):
        as_member(ALL_USERS_WITHOUT_UID)

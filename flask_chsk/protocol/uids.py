"""Who may be addressed, a user, all who are none or a topic, and who is connected."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from ..errors import UsageError

_HALF = re.compile("[\ud800-\udfff]")


class _Anonymous:
    def __repr__(self) -> str:
        return "ALL_USERS_WITHOUT_UID"


ALL_USERS_WITHOUT_UID: Any = _Anonymous()
"""As a uid: every client that has none."""


class Identity(NamedTuple):
    """A user until *expires_at*: what ``@chsk.user_id`` returns for a token that expires.

    :param expires_at: seconds since 1970, as ``exp`` of a JWT, or a datetime with a zone; None:
        never.
    """

    uid: Any
    expires_at: float | datetime | None = None


class ConnectedUids(NamedTuple):
    """The users that are connected, by transport; anonymous clients are not in it."""

    ws: frozenset[str]
    ajax: frozenset[str]
    any: frozenset[str]


NOBODY = ConnectedUids(frozenset(), frozenset(), frozenset())


def is_text(text: str) -> bool:
    """Whether *text* can be sent: half of a surrogate pair, which JSON may hold, cannot."""
    return text.isascii() or _HALF.search(text) is None


def as_uid(uid: Any) -> str | None:
    """A uid as it is kept: str; int and UUID are converted, the anonymous are None.

    :raises UsageError: for what is no uid.
    """
    if type(uid) is str:
        text = uid
    elif uid is ALL_USERS_WITHOUT_UID:
        return None
    elif isinstance(uid, str | int | UUID) and not isinstance(uid, bool):
        text = str(uid)
    else:
        hint = "; ALL_USERS_WITHOUT_UID addresses anonymous clients" if uid is None else ""
        raise UsageError(f"a uid is a str, int or UUID, not {uid!r}{hint or ': pass its id'}")
    if not text or len(text) > 255:
        raise UsageError(f"a uid has 1 to 255 characters, not {len(text)}")
    if not is_text(text):
        raise UsageError(f"a uid is text, and {text!r} has half of a surrogate pair in it")
    return text


def as_topic(topic: Any) -> str:
    """The name of a topic, where it is one.

    :raises UsageError: for what is none.
    """
    if not isinstance(topic, str) or not 1 <= len(topic) <= 255:
        raise UsageError(f"a topic is a str of 1 to 255 characters, not {topic!r}")
    if not is_text(topic):
        raise UsageError(f"a topic is text, and {topic!r} has half of a surrogate pair in it")
    return topic


def as_member(uid: Any) -> str:
    """The uid of somebody who is to join a topic.

    :raises UsageError: for what is no uid, and for the anonymous.
    """
    key = as_uid(uid)
    if key is None:
        raise UsageError("anonymous clients cannot join a topic: give them a uid")
    return key

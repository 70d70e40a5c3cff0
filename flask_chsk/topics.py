"""Which users of this process are members of which topics, and since when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


class Topics:
    """Memberships of the users who have a client here; pure, and touched on the hub only."""

    __slots__ = ("_members", "_since")

    def __init__(self) -> None:
        self._since: dict[str, dict[str, int]] = {}  # user -> topic -> the offset of joining
        self._members: dict[str, set[str]] = {}  # topic -> users

    def __contains__(self, topic: str) -> bool:
        return topic in self._members

    def of(self, uid: str) -> Mapping[str, int]:
        """A user's topics, each with the offset at which it was joined."""
        return self._since.get(uid, {})

    def members(self, topic: str) -> Iterable[str]:
        """The users here who are members."""
        return self._members.get(topic, ())

    def joined(self, uid: str, topic: str, offset: int) -> None:
        """A user is a member from *offset* on."""
        self._since.setdefault(uid, {})[topic] = offset
        self._members.setdefault(topic, set()).add(uid)

    def left(self, uid: str, topic: str) -> bool:
        """A user is no member any more; whether that was the last one here."""
        topics = self._since.get(uid, {})
        if topics.pop(topic, None) is None:
            return False
        if not topics:
            del self._since[uid]
        members = self._members[topic]
        members.discard(uid)
        if members:
            return False
        del self._members[topic]
        return True

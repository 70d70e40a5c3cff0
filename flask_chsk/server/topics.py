"""Which users of this process are members of which topics, and since when.

Joining and leaving are told by events of the user's channel. They are news once: history gives
them again to whoever was away, and for the first time to a process that heard nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

MOST_FORMER = 100  # memberships of one user that ended within the window; older ones are forgotten


class Topics:
    """Memberships of the users who have a client here; pure, and touched on the hub only."""

    __slots__ = ("_former", "_left", "_members", "_since", "_window")

    def __init__(self, window: float) -> None:
        """:param window: seconds for which history may give a control again."""
        self._window = int(window * 1e6)
        self._since: dict[str, dict[str, int]] = {}  # user -> topic -> the offset of joining
        self._members: dict[str, dict[str, None]] = {}  # topic -> users
        self._left: dict[str, dict[str, int]] = {}  # user -> topic -> the offset of leaving
        # user -> topic, joined, left: of memberships that ended within the window
        self._former: dict[str, list[tuple[str, int, int]]] = {}

    def __contains__(self, topic: str) -> bool:
        return topic in self._members

    def of(self, uid: str) -> Mapping[str, int]:
        """A user's topics, each with the offset at which it was joined."""
        return self._since.get(uid, {})

    def to_read(self, uid: str, cursor: int) -> dict[str, int]:
        """The topics that a user was in at some time after *cursor*, each with when that began."""
        topics = dict(self.of(uid))
        for topic, joined, left in self._former.get(uid, ()):
            if left > cursor:
                topics[topic] = min(joined, topics.get(topic, joined))
        return topics

    def was_member(self, uid: str, topic: str, offset: int) -> bool:
        """Whether a user was in a topic when its event with that offset was published."""
        since = self.of(uid).get(topic)
        return (since is not None and offset > since) or any(
            one == topic and joined < offset <= left
            for one, joined, left in self._former.get(uid, ())
        )

    def members(self, topic: str) -> Iterable[str]:
        """The users here who are members."""
        return self._members.get(topic, ())

    def joined(self, uid: str, topic: str, offset: int) -> bool:
        """A user is a member from *offset* on; False where that is no news."""
        if offset <= self._latest(uid, topic):
            return False
        self._since.setdefault(uid, {})[topic] = offset
        self._members.setdefault(topic, {})[uid] = None
        return True

    def left(self, uid: str, topic: str, offset: int) -> bool:
        """A user is no member any more; whether that was the last one here."""
        if offset <= self._latest(uid, topic):
            return False
        left = self._left.setdefault(uid, {})
        left[topic] = offset
        for old in [one for one, when in left.items() if when < offset - self._window]:
            del left[old]
        joined = self.of(uid).get(topic)
        if joined is not None:
            former = self._former.get(uid, [])
            recent = [one for one in former if one[2] >= offset - self._window]
            self._former[uid] = [*recent, (topic, joined, offset)][-MOST_FORMER:]
        return self._remove(uid, topic)

    def gone(self, uid: str) -> list[str]:
        """A user has no client here any more; the topics whose last member here that was."""
        self._left.pop(uid, None)
        self._former.pop(uid, None)
        return [topic for topic in list(self.of(uid)) if self._remove(uid, topic)]

    def snapshot(self) -> dict[str, list[str]]:
        """The topics of each user who has a client here."""
        return {uid: list(topics) for uid, topics in self._since.items()}

    def restart(self, offset: int) -> None:
        """A new epoch began at *offset*: who is a member has been one from there on."""
        self._left.clear()
        self._former.clear()
        for topics in self._since.values():
            topics.update(dict.fromkeys(topics, offset))

    def _latest(self, uid: str, topic: str) -> int:
        since, left = self._since.get(uid, {}), self._left.get(uid, {})
        return max(since.get(topic, -1), left.get(topic, -1))

    def _remove(self, uid: str, topic: str) -> bool:
        topics = self._since.get(uid, {})
        if topics.pop(topic, None) is None:
            return False
        if not topics:
            del self._since[uid]
        members = self._members[topic]
        members.pop(uid, None)
        if members:
            return False
        del self._members[topic]
        return True

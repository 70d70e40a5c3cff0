"""Memberships of users in topics."""

from __future__ import annotations

from ...errors import UsageError
from ..contract import MAX_TOPICS, control, user_channel
from .journal import Journal
from .table import ClientTable


class MemoryTopics:
    """As :class:`..contract.BrokerTopics`."""

    def __init__(self, journal: Journal, table: ClientTable) -> None:
        self._journal = journal
        self._table = table
        self._members: dict[str, set[str]] = {}  # topic -> users
        self._topics: dict[str, dict[str, int]] = {}  # user -> topic -> since which offset

    def of(self, uid: str | None) -> dict[str, int]:
        """A user's topics, with the offsets at which the memberships began; with the lock held."""
        return {} if uid is None else dict(self._topics.get(uid, ()))

    def users(self, topic: str) -> list[str]:
        """The members of a topic; with the lock held."""
        return sorted(self._members.get(topic, ()))

    def join(self, uid: str, topic: str) -> bool:
        journal = self._journal
        now = journal.now()
        with journal.lock:
            topics = self._topics.get(uid, {})
            if topic in topics:
                return False
            if len(topics) >= MAX_TOPICS:
                raise UsageError(f"uid {uid!r} is in {MAX_TOPICS} topics already")
            self._topics[uid] = topics
            self._members.setdefault(topic, set()).add(uid)
            channel = user_channel(uid)
            if self._table.is_there(channel, now):
                topics[topic] = journal.append(channel, control(":chsk/joined", topic), None, now)
            else:
                topics[topic] = journal.next_offset(now)
        journal.deliver_soon()
        return True

    def rejoin(self, uid: str, topic: str) -> bool:
        with self._journal.lock:  # it never begins anew, so that it knows all memberships
            return topic in self._topics.get(uid, ())

    def leave(self, uid: str, topic: str) -> bool:
        journal = self._journal
        now = journal.now()
        with journal.lock:
            topics = self._topics.get(uid, {})
            if topic not in topics:
                return False
            del topics[topic]
            if not topics:
                del self._topics[uid]
            members = self._members[topic]
            members.discard(uid)
            if not members:
                del self._members[topic]
            channel = user_channel(uid)
            if self._table.is_there(channel, now):
                journal.append(channel, control(":chsk/left", topic), None, now)
        journal.deliver_soon()
        return True

    def members(self, topic: str) -> frozenset[str]:
        with self._journal.lock:
            return frozenset(self._members.get(topic, ()))

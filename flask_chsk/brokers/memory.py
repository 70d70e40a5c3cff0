"""The broker of one process: offsets, histories and presence in plain dicts.

A publish is a function call: it assigns the offset and stores under one native lock, then
the hub drains what arrived, in order. Nothing here blocks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from ..config import Config
from ..errors import UsageError
from ..protocol.push import Push
from ..protocol.uids import ConnectedUids
from ..security import check_may_act
from .contract import (
    ANONYMOUS,
    DROPPED,
    KEPT_BYTES,
    KEY_SECONDS,
    KEYS,
    MAX_TOPICS,
    Arrival,
    Listener,
    Page,
    client_channel,
    control,
    is_close,
    too_many_clients,
    user_channel,
)

if TYPE_CHECKING:
    from ..hub import Hub

Topics = dict[str, int]  # with the offsets at which the memberships began

FAREWELL = 10.0  # seconds for which a close is kept for a client between two polls
SEND_COST = 200  # bytes that a keyed send takes beside its key and its reply


class History:
    """The last events of one channel, within limits of number, bytes and age."""

    __slots__ = ("bytes", "last", "pushes", "until")

    def __init__(self) -> None:
        self.pushes: deque[Push] = deque()
        self.bytes = 0
        self.last = 0  # offset of the last event there was, kept or not
        self.until = 0.0  # when the last event is past its time

    def add(self, push: Push, max_events: int, max_bytes: int) -> None:
        self.pushes.append(push)
        self.bytes += push.size
        self.last = push.offset
        while self.pushes and (len(self.pushes) > max_events or self.bytes > max_bytes):
            self.drop_oldest()

    def drop_oldest(self) -> None:
        self.bytes -= self.pushes.popleft().size

    def after(self, offset: int) -> tuple[list[Push], bool]:
        """Events above *offset*, and whether none of them is missing."""
        if self.last <= offset:
            return [], True
        pushes = list(self.pushes)
        found = pushes[bisect_right(pushes, offset, key=lambda push: push.offset) :]
        return found, bool(found) and found[0].before <= offset


class Client(NamedTuple):
    """A client that was let in."""

    token: str  # of its opening
    kind: str  # "ws" or "ajax"
    v1: bool
    digest: str  # of its secret
    served: int | None  # the offset up to which a client without a cursor was served


class Send:
    """A keyed send, and the reply to it; empty until there is one."""

    __slots__ = ("reply", "token")

    def __init__(self, token: str) -> None:
        self.token = token
        self.reply = ""


class Sends:
    """The keyed sends of all clients, within limits of number, bytes and age."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._clients: dict[str, dict[str, Send]] = {}  # the one that sent last comes last
        self._until: dict[str, float] = {}
        self._bytes = 0

    def claim(self, client: str, key: str, token: str, now: float) -> str | None:
        sends = self._clients.get(client, {})
        send = sends.get(key)
        if send is not None:
            return None if send.token == token and not send.reply else send.reply
        if len(sends) >= KEYS:
            oldest = next(iter(sends))
            self._bytes -= SEND_COST + len(oldest) + len(sends.pop(oldest).reply)
        sends[key] = Send(token)
        self._used(client, sends, SEND_COST + len(key), now)
        return None

    def settle(self, client: str, key: str, reply: str, now: float) -> None:
        sends = self._clients.get(client, {})
        send = sends.get(key)
        if send is not None:
            grows = len(reply) - len(send.reply)
            send.reply = reply
            self._used(client, sends, grows, now)

    def forget(self, now: float) -> None:
        """Forget the sends of clients that sent none for the window."""
        while self._until and next(iter(self._until.values())) <= now:
            self._drop_oldest()

    def _used(self, client: str, sends: dict[str, Send], grows: int, now: float) -> None:
        self._clients.pop(client, None)
        self._until.pop(client, None)
        self._clients[client], self._until[client] = sends, now + self._seconds
        self._bytes += grows
        while self._bytes > KEPT_BYTES and self._clients:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        client = next(iter(self._clients))
        del self._until[client]
        for key, send in self._clients.pop(client).items():
            self._bytes -= SEND_COST + len(key) + len(send.reply)


class MemoryBroker:
    """For one process; with several, each would reach its own clients only."""

    local = True
    deaf = False
    snapshot_seconds = 0.0

    def __init__(self, config: Config) -> None:
        self.name = self.epoch = ""  # until start
        self._config = config
        self._last = 0  # the last offset given
        self._drained = 0  # the last offset delivered
        self._forgotten = 0  # the last offset of all histories that are gone
        self._histories: dict[str, History] = {}
        self._clients: dict[str | None, dict[str, Client]] = {}  # user -> client id -> client
        # Channel of a user or client who is gone -> until when its events are kept
        self._grace: dict[str, float] = {}
        self._expected: dict[str, float] = {}  # user with a page on its way -> until when
        # User -> offset of the last event that was kept nowhere; the latest comes last
        self._dropped: dict[str, int] = {}
        self._dropped_before = 0  # the highest offset of those that are forgotten
        self._members: dict[str, set[str]] = {}  # topic -> users
        self._topics: dict[str, dict[str, int]] = {}  # user -> topic -> since which offset
        self._sends = Sends(max(config.recovery_seconds, KEY_SECONDS))
        # user, client id -> its secret's digest, the event that closed it, until when it is kept
        self._farewells: dict[tuple[str | None, str], tuple[str, str, float]] = {}
        self._connected: ConnectedUids | None = None  # until somebody comes or goes
        self._watched = False
        self._openings = 0
        self._generation = 0
        self._arrived: deque[Push] = deque()
        self._draining = False

    def start(self, hub: Hub, listener: Listener) -> None:
        self._hub = hub
        self._clock = hub.wall
        self._lock = hub.native_lock()
        self.name = hub.token(8)
        self.epoch = hub.token(4)
        self._listener = listener

    def ready(self) -> None:
        pass

    def listen(self) -> None:
        pass

    def retire(self, seconds: float) -> None:
        pass

    def stop(self) -> None:
        pass

    def publish(
        self,
        channel: str,
        text: str,
        *,
        but: tuple[str | None, str] | None = None,
        flush: bool = False,
    ) -> int | None:
        now = self._clock()
        with self._lock:
            if not (is_close(text) or self._is_there(channel, now)):
                if channel.startswith("u:"):
                    self._drop(channel[2:], now)
                return None
            offset = self._append(channel, text, but, now, flush)
            if is_close(text):
                self._note_farewells(channel, text, now)
        self._hub.call(self._drain)
        return offset

    def _note_farewells(self, channel: str, text: str, now: float) -> None:
        """A client between two polls hears of a close by its next poll."""
        only, uids = None, list[str | None]()
        kind, _, rest = channel.partition(":")
        if kind == "c":
            only, _, owner = rest.partition(":")
            uids = [owner or None]
        elif kind == "u":
            uids = [rest]
        elif kind == "t":
            uids = [*self._members.get(rest, ())]
        elif channel == ANONYMOUS:
            uids = [None]
        for uid in uids:
            for client_id, client in self._clients.get(uid, {}).items():
                if client.kind == "ajax" and client.v1 and only in (None, client_id):
                    self._farewells[uid, client_id] = (client.digest, text, now + FAREWELL)

    def _append(
        self,
        channel: str,
        text: str,
        but: tuple[str | None, str] | None,
        now: float,
        flush: bool = False,
    ) -> int:
        config = self._config
        history = self._histories.get(channel)
        if history is None:
            history = self._histories[channel] = History()
        offset = self._next_offset(now)
        push = Push(channel, text, offset, history.last, but, now, flush)
        history.add(push, config.recovery_events, config.recovery_bytes)
        history.until = now + config.recovery_seconds
        self._arrived.append(push)
        return offset

    def _next_offset(self, now: float) -> int:
        self._last = max(self._last + 1, int(now * 1e6))
        return self._last

    def _drop(self, uid: str, now: float) -> None:
        """An event to nobody gets an offset, and nothing else is kept of it."""
        self._dropped.pop(uid, None)
        self._dropped[uid] = self._next_offset(now)
        if len(self._dropped) > DROPPED:
            self._forget_dropped()

    def _forget_dropped(self) -> None:
        self._dropped_before = self._dropped.pop(next(iter(self._dropped)))

    def _dropped_of(self, uid: str | None) -> int:
        return 0 if uid is None else self._dropped.get(uid, self._dropped_before)

    def _is_there(self, channel: str, now: float) -> bool:
        kind, _, rest = channel.partition(":")
        if kind == "u":
            there = rest in self._clients or self._expected.get(rest, 0.0) > now
        elif kind == "c":
            client_id, _, uid = rest.partition(":")
            there = client_id in self._clients.get(uid or None, ())
        else:
            return True
        return there or self._grace.get(channel, 0.0) > now

    def _drain(self) -> None:
        if self._draining:
            return  # a delivery that publishes: its event comes after the one being delivered
        self._draining = True
        try:
            arrived = self._arrived
            while arrived:
                push = arrived[0]
                self._drained = push.offset
                try:
                    self._listener.deliver(push)
                finally:
                    arrived.popleft()
        finally:
            self._draining = False

    def since(self, channels: Mapping[str, int], cursor: int, page_bytes: int) -> Page:
        now = self._clock()
        with self._lock:
            end = self._last
            # Where the clock went back, offsets and cursors are ahead of it: their age says little.
            oldest = max((now - self._config.recovery_seconds) * 1e6, self._forgotten)
            complete = oldest <= cursor <= end
            found: list[Push] = []
            for channel, joined in channels.items():
                history = self._histories.get(channel)
                if history is not None:
                    pushes, whole = history.after(max(cursor, joined))
                    found += pushes
                    complete = complete and whole
        if not complete:
            return Page((), end, False, False)
        found.sort(key=lambda push: push.offset)
        size = 0
        for count, push in enumerate(found):
            size += push.size
            if size > page_bytes and count:
                return Page(tuple(found[:count]), found[count - 1].offset, True, True)
        return Page(tuple(found), end, False, True)

    def watermark(self) -> int:
        with self._lock:
            if not self._arrived:  # else what is about to be delivered would count as had
                self._last = self._drained = max(self._last, int(self._clock() * 1e6))
            return self._drained

    def expect(self, uid: str, seconds: float) -> None:
        until = self._clock() + min(seconds, self._config.recovery_seconds)
        with self._lock:
            self._expected[uid] = max(until, self._expected.get(uid, 0.0))

    def attach(
        self,
        uid: str | None,
        client_id: str,
        kind: str = "ws",
        v1: bool = False,
        token: str | None = None,
        *,
        digest: str = "",
        quiet: bool = False,
    ) -> Arrival | None:
        with self._lock:
            said, text, _ = self._farewells.get((uid, client_id), ("", "", 0.0))
            if kind == "poll" and text and said == digest:
                del self._farewells[uid, client_id]
                return Arrival("", False, {}, farewell=text)
            clients = self._clients.get(uid, {})
            held = clients.get(client_id)
            check_may_act(uid, None if held is None else held.digest, digest)
            topics = {} if uid is None else dict(self._topics.get(uid, ()))
            if held is None:
                most = self._config.max_clients_per_uid
                if uid is not None and len(clients) >= most:
                    raise too_many_clients(most)
            elif kind == "poll" and held.kind == "ws":
                return None
            elif kind == "try" and held.kind == "ajax" and held.v1:
                dropped = self._dropped_of(uid)
                return Arrival("", False, topics, offset=self._last, trial=True, dropped=dropped)
            return self._let_in(uid, client_id, kind, v1, digest, topics)

    def _let_in(
        self, uid: str | None, client_id: str, kind: str, v1: bool, digest: str, topics: Topics
    ) -> Arrival:
        self._farewells.pop((uid, client_id), None)  # the next close that it hears is a later one
        clients = self._clients.setdefault(uid, {})
        first = not clients
        held = clients.get(client_id)
        self._openings += 1
        token, kind = str(self._openings), "ws" if kind in ("ws", "try") else "ajax"
        cursor = None if held is None else held.served
        offset = self._last = max(self._last, int(self._clock() * 1e6))
        # What a WebSocket is given nobody notes: its cursor is known again when it is lost.
        kept = (offset if cursor is None else cursor) if kind == "ajax" and not v1 else None
        clients[client_id] = Client(token, kind, v1, digest, kept)
        if uid is not None:
            self._grace.pop(user_channel(uid), None)
            if held is None or held.kind != kind:
                self._presence_changed()
        return Arrival(
            token,
            first,
            topics,
            generation=self._next_generation() if first else 0,
            offset=offset,
            known=held is not None and held.v1 == v1,
            cursor=cursor,
            epoch=self.epoch,
            dropped=self._dropped_of(uid),
        )

    def holder(self, uid: str | None, client_id: str) -> str | None:
        with self._lock:
            client = self._clients.get(uid, {}).get(client_id)
        return None if client is None else client.digest

    def detach(self, uid: str | None, client_id: str, token: str) -> int:
        with self._lock:
            clients = self._clients.get(uid)
            client = None if clients is None else clients.get(client_id)
            if clients is None or client is None or client.token != token:
                return 0
            del clients[client_id]
            until = self._clock() + self._config.recovery_seconds
            self._grace[client_channel(uid, client_id)] = until
            if uid is not None:
                self._presence_changed()
            if clients:
                return 0
            del self._clients[uid]
            if uid is not None:
                self._grace[user_channel(uid)] = until
            return self._next_generation()

    def _next_generation(self) -> int:
        self._generation = max(self._generation + 1, int(self._clock() * 1e6))
        return self._generation

    def join(self, uid: str, topic: str) -> bool:
        now = self._clock()
        with self._lock:
            topics = self._topics.get(uid, {})
            if topic in topics:
                return False
            if len(topics) >= MAX_TOPICS:
                raise UsageError(f"uid {uid!r} is in {MAX_TOPICS} topics already")
            self._topics[uid] = topics
            self._members.setdefault(topic, set()).add(uid)
            channel = user_channel(uid)
            if self._is_there(channel, now):
                topics[topic] = self._append(channel, control(":chsk/joined", topic), None, now)
            else:
                topics[topic] = self._next_offset(now)
        self._hub.call(self._drain)
        return True

    def rejoin(self, uid: str, topic: str) -> bool:
        with self._lock:  # it never begins anew, so that it knows all memberships
            return topic in self._topics.get(uid, ())

    def leave(self, uid: str, topic: str) -> bool:
        now = self._clock()
        with self._lock:
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
            if self._is_there(channel, now):
                self._append(channel, control(":chsk/left", topic), None, now)
        self._hub.call(self._drain)
        return True

    def members(self, topic: str) -> frozenset[str]:
        with self._lock:
            return frozenset(self._members.get(topic, ()))

    def was_here(self, uid: str) -> int:
        return 0  # it never begins anew

    def take(self, uid: str | None, client_id: str, token: str, offset: int) -> bool:
        with self._lock:
            held = self._clients.get(uid, {}).get(client_id)
            if held is None or held.token != token:
                return False
            self._clients[uid][client_id] = held._replace(served=offset)
            return True

    def claim(self, client: str, key: str, token: str) -> str | None:
        with self._lock:
            return self._sends.claim(client, key, token, self._clock())

    def settle(self, client: str, key: str, reply: str) -> None:
        with self._lock:
            self._sends.settle(client, key, reply, self._clock())

    def unused(self, channel: str) -> None:
        pass

    def watch(self) -> None:
        self._watched = True

    def _presence_changed(self) -> None:
        self._connected = None
        if self._watched:
            self._hub.call(self._listener.changed)

    def connected(self) -> ConnectedUids:
        with self._lock:
            if self._connected is None:
                kinds = {
                    (uid, client.kind)
                    for uid, clients in self._clients.items()
                    if uid is not None
                    for client in clients.values()
                }
                ws, ajax = (frozenset(u for u, k in kinds if k == one) for one in ("ws", "ajax"))
                self._connected = ConnectedUids(ws, ajax, ws | ajax)
            return self._connected

    def clients(self, uid: str | None) -> frozenset[str]:
        with self._lock:
            clients = self._clients.get(uid, {})
            return frozenset(id for id, client in clients.items() if client.v1)

    def tell(self, name: str, text: str) -> None:
        if name == self.name:
            self._hub.call(self._listener.on_worker_message, text)

    def health(self) -> str:
        return ""

    def note(self) -> str:
        return ""

    def stats(self) -> dict[str, int]:
        return {}

    def sweep(self) -> None:
        now = self._clock()
        oldest = now - self._config.recovery_seconds
        with self._lock:
            self._sends.forget(now)
            for key in [key for key, (*_, until) in self._farewells.items() if until <= now]:
                del self._farewells[key]
            for channel in [one for one, until in self._grace.items() if until <= now]:
                del self._grace[channel]
            for uid in [one for one, until in self._expected.items() if until <= now]:
                del self._expected[uid]
            while self._dropped and next(iter(self._dropped.values())) < oldest * 1e6:
                self._forget_dropped()
            for channel, history in list(self._histories.items()):
                if history.until <= now:
                    del self._histories[channel]
                    self._forgotten = max(self._forgotten, history.last)
                else:
                    while history.pushes and history.pushes[0].time < oldest:
                        history.drop_oldest()

"""Events from outside: a Celery task, a cron job, a script.

A :class:`Publisher` needs the broker's URL and nothing else: no application, no hub, no
monkey-patching. Presence and what clients send need the application. Threads may share one; after
a fork each process connects anew.
"""

from __future__ import annotations

import secrets
import time
from datetime import tzinfo
from typing import TYPE_CHECKING, Any, NoReturn

from . import forks
from .after_commit import defer
from .brokers.contract import EVERYONE, channel_of, topic_channel
from .config import zone
from .errors import BadEvent, ConfigError, PackError
from .packers import zoned
from .packers.edn import EdnPacker
from .plain import plain
from .printable import masked
from .protocol import question as q
from .protocol import session as s
from .protocol.event import assert_event, assert_whole
from .protocol.uids import as_member, as_topic, as_uid
from .semaphore import Semaphore

if TYPE_CHECKING:
    from .after_commit import AnySession
    from .brokers.redis.calls import Redis
    from .packers import PackDefault

MAX_BYTES = 2 * 1024 * 1024  # half of what may wait for one connection, where nobody set it


def is_shared(broker_url: str) -> bool:
    """Whether *broker_url* names a broker that other processes reach."""
    return broker_url.startswith(("redis://", "rediss://", "unix://"))


class Publisher:
    """Sends to the clients of an application, and asks them, by way of its Redis.

    ::

        publisher = Publisher("redis://localhost:6379/0")
        publisher.send("ann", ["order/shipped", {"id": 7}])

    :param broker_url: the application's ``CHSK_BROKER_URL``.
    :param pack_default: as ``@chsk.pack_default``: makes a packable value of one that no packer
        knows.
    :param naive_datetimes: as ``CHSK_NAIVE_DATETIMES``: the zone of datetimes that have none.
    :raises ConfigError: for a URL that only one process could use, a *pack_default* that no call
        runs, or a zone that there is not.
    """

    def __init__(
        self,
        broker_url: str,
        *,
        max_bytes: int = MAX_BYTES,
        pack_default: PackDefault | None = None,
        naive_datetimes: tzinfo | str | None = None,
    ) -> None:
        if not is_shared(broker_url):
            raise ConfigError(
                "a publisher needs the redis://… that the workers have as CHSK_BROKER_URL,"
                f" not {masked(broker_url) if '://' in broker_url else 'another text'}"
            )
        self._connections = Connections(broker_url)
        self._max_bytes = max_bytes
        if pack_default is not None:
            plain(pack_default, "pack_default", takes="value")
        default = zoned(zone("naive_datetimes", naive_datetimes), pack_default)
        self._packer = EdnPacker(bytes_tag=True, pack_default=default)  # as brokers keep events

    def send(
        self,
        uid: Any,
        event: Any,
        *more: NoReturn,
        client_id: str | None = None,
        after_commit: AnySession | None = None,
    ) -> int | None:
        """Push ``[id, data]`` to every client of a user; the event's offset.

        None where that user is not there. ``ALL_USERS_WITHOUT_UID``: every client that has none.

        :param after_commit: a session of SQLAlchemy: as in :meth:`flask_chsk.Chsk.send`.
        :raises UsageError: for what is no uid, or no session.
        :raises BrokerUnavailable: Redis is away; nothing was sent.
        :raises PublishUnknown: its answer was lost.
        :raises BadEvent, PackError: before anything is sent.
        """
        assert_whole("publisher.send(uid, {})", event, more)
        return self._publish(channel_of(as_uid(uid), client_id), event, after_commit)

    def broadcast(
        self, event: Any, *more: NoReturn, after_commit: AnySession | None = None
    ) -> int | None:
        """Push ``[id, data]`` to every connected client."""
        assert_whole("publisher.broadcast({})", event, more)
        return self._publish(EVERYONE, event, after_commit)

    def publish(
        self, topic: str, event: Any, *more: NoReturn, after_commit: AnySession | None = None
    ) -> int | None:
        """Push ``[id, data]`` to every client of every member of *topic*."""
        assert_whole("publisher.publish(topic, {})", event, more)
        return self._publish(topic_channel(as_topic(topic)), event, after_commit)

    def ask(self, uid: Any, event: Any, client_id: str | None = None, timeout: float = 10.0) -> Any:
        """Ask a user's clients, or one of them; block for the first answer and return it.

        It opens a connection to Redis of its own while it waits.

        :raises NoClient: at once, where the user has no client.
        :raises ClientGone: the last client that was asked went away.
        :raises AskTimeout: after *timeout* seconds.
        :raises AskFailed: the client's handler raised, or it has none.
        :raises BrokerUnavailable: Redis is away, or went away while this waited.
        """
        from .brokers.redis import commands
        from .brokers.redis.inbox import Inbox

        redis, key, asked_event = self._connections.redis, as_uid(uid), assert_event(event)
        outcomes: list[q.Outcome] = []
        clients = commands.askable(redis, key)
        question = q.Question(q.asked_of(key, clients, client_id), outcomes.append)
        name = secrets.token_hex(8)
        ask_id = f"{name}.{secrets.token_hex(12)}"
        text = self._packed(q.asking(ask_id, asked_event))
        end = time.monotonic() + timeout
        with Inbox(redis, name) as inbox:
            commands.publish(redis, channel_of(key, client_id), text, flush=True)
            while not outcomes and (left := end - time.monotonic()) > 0:
                answer = inbox.next(min(left, q.ASKED_STILL))
                if answer is None:
                    question.only({(key, one) for one in commands.askable(redis, key)})
                else:
                    client, answered = q.read(answer)
                    if answered.id == ask_id:
                        question.answer(client, answered)
        return q.value_of(outcomes[0] if outcomes else None, key, asked_event.id, timeout)

    def close(self, uid: Any, client_id: str | None = None, reconnect: bool = True) -> None:
        """Close a user's connections, or one of them: no later event reaches them.

        The pages are told at once.

        :param reconnect: False: the clients stay closed and tell their application
            (``signed-out``).
        :raises BrokerUnavailable: Redis is away; nothing was closed.
        :raises PublishUnknown: its answer was lost.
        """
        from .brokers.redis import commands

        channel, text = channel_of(as_uid(uid), client_id), self._packed(s.closing(reconnect))
        commands.publish(self._connections.redis, channel, text)

    def join(self, uid: Any, topic: str) -> bool:
        """Make a user, with all their clients, a member of *topic*; False if they were one.

        :raises UsageError: for the anonymous, and for a user who is in 100 topics already.
        :raises BrokerUnavailable: Redis is away.
        """
        from .brokers.redis import commands

        return commands.join(self._connections.redis, as_member(uid), as_topic(topic))

    def leave(self, uid: Any, topic: str) -> bool:
        """End a user's membership of *topic*; False if there was none."""
        from .brokers.redis import commands

        key = as_uid(uid)
        return key is not None and commands.leave(self._connections.redis, key, as_topic(topic))

    def disconnect(self) -> None:
        """Close the connections to Redis; a call that follows opens one again."""
        self._connections.redis.close()

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *args: object) -> None:
        self.disconnect()

    def _publish(self, channel: str, event: Any, after_commit: AnySession | None) -> int | None:
        from .brokers.redis import commands

        id, data = assert_event(event)
        if id.startswith("chsk/"):
            raise BadEvent(f"ids in the chsk namespace are the protocol's own, not {id!r}")
        text = self._packed([id, data])

        def publish() -> int | None:
            return commands.publish(self._connections.redis, channel, text)

        if after_commit is not None:
            defer(after_commit, id, publish)
            return None
        return publish()

    def _packed(self, event: list[Any]) -> str:
        text = self._packer.pack(event, root="event")
        if len(text) > self._max_bytes:
            raise PackError(f"an event of {len(text)} bytes: more than {self._max_bytes}")
        return text


class _Runtime:
    """In place of a hub: what this process has, be it patched or not."""

    def now(self) -> float:
        return time.monotonic()

    def token(self, size: int) -> str:
        return secrets.token_hex(size)

    def semaphore(self, count: int) -> Semaphore:
        return Semaphore(count)


class Connections:
    """The connections to Redis; a child process makes its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.redis = self._made()
        forks.register(self)

    def forked(self) -> None:
        """This is a child process: the connections are its parent's."""
        self.redis = self._made()

    def _made(self) -> Redis:
        from .brokers.redis.calls import Redis, address_of  # redis-py is an extra

        return Redis(address_of(self._url), _Runtime())

"""Events from outside: a Celery task, a cron job, a script.

A :class:`Publisher` needs the broker's URL and nothing else: no application, no hub, no
monkey-patching. It sends and does not listen; asking, joining and presence need the
application. Threads may share one; after a fork each process connects anew.
"""

from __future__ import annotations

from datetime import tzinfo
from typing import TYPE_CHECKING, Any, NoReturn

from . import forks
from .brokers import ANONYMOUS, EVERYONE, client_channel, pubsub_of, topic_channel, user_channel
from .config import zone
from .errors import BadEvent, ConfigError, PackError
from .packers import zoned
from .packers.edn import EdnPacker
from .plain import plain
from .printable import masked
from .protocol.event import assert_event, assert_whole
from .protocol.uids import as_uid

if TYPE_CHECKING:
    from .brokers.redis.calls import Redis
    from .packers import PackDefault

MAX_BYTES = 2 * 1024 * 1024  # half of what may wait for one connection, where nobody set it


class Publisher:
    """Sends events to the clients of an application, by way of its Redis.

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
        if not broker_url.startswith(("redis://", "rediss://", "unix://")):
            raise ConfigError(
                "a publisher needs the redis://… that the workers have as CHSK_BROKER_URL,"
                f" not {masked(broker_url) if '://' in broker_url else 'another text'}"
            )
        self._connections = _Connections(broker_url)
        self._max_bytes = max_bytes
        if pack_default is not None:
            plain(pack_default, "pack_default", takes="value")
        default = zoned(zone("naive_datetimes", naive_datetimes), pack_default)
        self._packer = EdnPacker(bytes_tag=True, pack_default=default)  # as brokers keep events

    def send(
        self, uid: Any, event: Any, *more: NoReturn, client_id: str | None = None
    ) -> int | None:
        """Push ``[id, data]`` to every client of a user; the event's offset.

        None where that user is not there. ``ALL_USERS_WITHOUT_UID``: every client that has none.

        :raises UsageError: for what is no uid.
        :raises BrokerUnavailable: Redis is away; nothing was sent.
        :raises PublishUnknown: its answer was lost.
        :raises BadEvent, PackError: before anything is sent.
        """
        assert_whole("publisher.send(uid, {})", event, more)
        key = as_uid(uid)
        if client_id is not None:
            return self._publish(client_channel(key, client_id), event)
        return self._publish(ANONYMOUS if key is None else user_channel(key), event)

    def broadcast(self, event: Any, *more: NoReturn) -> int | None:
        """Push ``[id, data]`` to every connected client."""
        assert_whole("publisher.broadcast({})", event, more)
        return self._publish(EVERYONE, event)

    def publish(self, topic: str, event: Any, *more: NoReturn) -> int | None:
        """Push ``[id, data]`` to every client of every member of *topic*."""
        assert_whole("publisher.publish(topic, {})", event, more)
        return self._publish(topic_channel(topic), event)

    def close(self) -> None:
        """Close the connections; a send that follows opens one again."""
        self._connections.redis.close()

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def _publish(self, channel: str, event: Any) -> int | None:
        from .brokers.redis import scripts

        id, data = assert_event(event)
        if id.startswith("chsk/"):
            raise BadEvent(f"ids in the chsk namespace are the protocol's own, not {id!r}")
        text = self._packer.pack([id, data], root="event")
        if len(text) > self._max_bytes:
            raise PackError(f"an event of {len(text)} bytes: more than {self._max_bytes}")
        args = (channel, pubsub_of(channel), text, "", "0")
        encoded = [arg.encode("utf-8", "surrogatepass") for arg in args]
        offset = self._connections.redis.publish(scripts.PUBLISH, *encoded)
        return None if offset is None else int(offset)


class _Connections:
    """The connections to Redis; a child process makes its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.redis = self._made()
        forks.register(self)

    def forked(self) -> None:
        """This is a child process: the connections are its parent's."""
        self.redis = self._made()

    def _made(self) -> Redis:
        from .brokers.redis.calls import Redis  # redis-py is an extra

        return Redis(self._url)

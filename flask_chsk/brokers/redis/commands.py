"""What workers and publishers have Redis do alike: publish, join, leave, and who can be asked.

Each call blocks its caller alone, and raises :class:`~flask_chsk.errors.BrokerUnavailable` where
Redis is away.
"""

from __future__ import annotations

from ...errors import BrokerUnavailable, UsageError
from ...protocol.uids import ConnectedUids
from ..contract import EVERYONE, MAX_TOPICS, begun_control, control, is_close, pubsub_of
from . import scripts
from .calls import FAILURES, Redis
from .records import excluded_text, to_bytes, to_text


def publish(
    redis: Redis,
    channel: str,
    text: str,
    *,
    exclude: tuple[str | None, str] | None = None,
    flush: bool = False,
) -> int | None:
    """As :meth:`flask_chsk.brokers.contract.Broker.publish`."""
    heard_by = EVERYONE if is_close(text) else pubsub_of(channel)
    args = (channel, heard_by, text, excluded_text(exclude), str(int(flush)))
    offset = redis.publish(scripts.PUBLISH, *map(to_bytes, args))
    return None if offset is None else int(offset)


def join(redis: Redis, uid: str, topic: str) -> bool:
    """As :meth:`flask_chsk.brokers.contract.BrokerTopics.join`."""
    return _join(redis, uid, topic, control(":chsk/joined", topic), again=False) > 0


def rejoin(redis: Redis, uid: str, topic: str) -> bool:
    """As :meth:`flask_chsk.brokers.contract.BrokerTopics.rejoin`."""
    return _join(redis, uid, topic, begun_control(topic), again=True) >= 0


def _join(redis: Redis, uid: str, topic: str, event: str, *, again: bool) -> int:
    args = (to_bytes(uid), to_bytes(topic), to_bytes(event), MAX_TOPICS, int(again))
    joined: int = redis.call(scripts.JOIN, *args)
    if joined == -1:
        raise UsageError(f"uid {uid!r} is in {MAX_TOPICS} topics already")
    return joined


def leave(redis: Redis, uid: str, topic: str) -> bool:
    """As :meth:`flask_chsk.brokers.contract.BrokerTopics.leave`."""
    args = (to_bytes(uid), to_bytes(topic), to_bytes(control(":chsk/left", topic)))
    return bool(redis.call(scripts.LEAVE, *args))


def askable(redis: Redis, uid: str | None) -> frozenset[str]:
    """As :meth:`flask_chsk.brokers.contract.BrokerClients.askable`."""
    return frozenset(map(to_text, redis.call(scripts.CLIENTS, to_bytes(uid or ""))))


def connected(redis: Redis) -> ConnectedUids:
    """As :meth:`flask_chsk.brokers.contract.BrokerClients.connected`."""
    ws, ajax = (frozenset(map(to_text, uids)) for uids in redis.call(scripts.CONNECTED))
    return ConnectedUids(ws, ajax, ws | ajax)


def workers(redis: Redis) -> list[str]:
    """The names of the workers that live."""
    return sorted(map(to_text, redis.call(scripts.WORKERS)))


def tell(redis: Redis, name: str, text: str) -> None:
    """As :meth:`flask_chsk.brokers.contract.Broker.tell`."""
    redis.call(scripts.TELL, name, to_bytes(text))


def facts(redis: Redis) -> tuple[str, str, float]:
    """Redis' version, its ``maxmemory-policy``, and its clock in seconds since 1970."""
    connection = redis.connect()
    try:
        wire = connection.wire
        wire.send_command("INFO")
        lines = to_text(wire.read_response()).splitlines()
        wire.send_command("TIME")
        seconds, micros = wire.read_response()
    except FAILURES as error:
        raise BrokerUnavailable(f"Redis at {redis.where}: {error}") from error
    finally:
        connection.close()
    info = dict(line.split(":", 1) for line in lines if ":" in line)
    policy = info.get("maxmemory_policy", "")
    return info.get("redis_version", ""), policy, int(seconds) + int(micros) / 1e6

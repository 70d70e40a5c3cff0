"""Where events get their order, and are kept for those who were away for a moment.

The contract is in :mod:`.contract`, the choice of a broker by its URL in :mod:`.urls`.
"""

from .contract import (
    ANONYMOUS,
    EVERYONE,
    KEPT_BYTES,
    KEYS,
    MAX_TOPICS,
    Arrival,
    Broker,
    Listener,
    Page,
    begun_control,
    channel_of,
    client_channel,
    control,
    is_close,
    pubsub_of,
    topic_channel,
    user_channel,
)
from .urls import make

__all__ = [
    "ANONYMOUS",
    "EVERYONE",
    "KEPT_BYTES",
    "KEYS",
    "MAX_TOPICS",
    "Arrival",
    "Broker",
    "Listener",
    "Page",
    "begun_control",
    "channel_of",
    "client_channel",
    "control",
    "is_close",
    "make",
    "pubsub_of",
    "topic_channel",
    "user_channel",
]

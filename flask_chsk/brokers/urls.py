"""Which broker a URL names. A broker's module is imported when its URL is first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ConfigError

if TYPE_CHECKING:
    from ..config import Config
    from .contract import Broker


def make(config: Config) -> Broker:
    """The broker that ``CHSK_BROKER_URL`` names.

    :raises ConfigError: for a scheme that no broker speaks.
    """
    scheme, colon, _ = config.broker_url.partition(":")
    if scheme == "memory":
        from .memory.broker import MemoryBroker

        return MemoryBroker(config)
    if scheme in ("redis", "rediss", "unix"):
        from .redis.broker import RedisBroker
        from .redis.calls import address_of

        return RedisBroker(config, address_of(config.broker_url))
    raise ConfigError(
        f"CHSK_BROKER_URL {scheme if colon else ''}:… is not known; use memory:// or"
        " redis://host:6379/0"
    )

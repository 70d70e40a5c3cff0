"""Where events get their order, and are kept for those who were away for a moment.

A broker gives every event an offset, keeps a short history per channel, knows which users
are there, and hands events in offset order to the server of each process (BROKER.md of the
design; docs/broker.rst). Channels: a user, one client, a topic, everyone, the anonymous.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..errors import ConfigError
from ..push import Push

if TYPE_CHECKING:
    from ..config import Config
    from ..hub import Hub

EVERYONE = "*"
ANONYMOUS = "-"


def user_channel(uid: str) -> str:
    """The channel of all clients of one user."""
    return f"u:{uid}"


def client_channel(uid: str | None, client_id: str) -> str:
    """The channel of one client. Client ids hold no colon, so this is unambiguous."""
    return f"c:{client_id}" if uid is None else f"c:{client_id}:{uid}"


def topic_channel(topic: str) -> str:
    """The channel of the members of one topic."""
    return f"t:{topic}"


class Page(NamedTuple):
    """A part of history: what follows a cursor, up to ``end``.

    ``complete`` is False where something between may be missing: then nothing of it is to
    be delivered as recovered.
    """

    pushes: tuple[Push, ...]
    end: int
    more: bool
    complete: bool


class Broker(Protocol):
    """What the server asks of a broker. On the hub, except where it says otherwise."""

    @property
    def epoch(self) -> str:
        """The name of the counter's life; offsets compare within one epoch only."""

    def start(self, hub: Hub, deliver: Callable[[Push], None]) -> None:
        """Begin; *deliver* gets every event of this process's channels, in offset order."""

    def stop(self) -> None:
        """End; what was published stays published."""

    def publish(
        self, channel: str, text: str, *, but: tuple[str | None, str] | None = None
    ) -> int | None:
        """Give an event (canonical EDN) its offset and send it on its way; from any thread.

        None where *channel* is of a user or client that is not there.

        :raises BrokerUnavailable: nothing was sent.
        :raises PublishUnknown: the answer was lost.
        """

    def since(self, channels: Mapping[str, int], cursor: int, page_bytes: int) -> Page:
        """What *channels* (each from its own offset on) had after *cursor*."""

    def watermark(self) -> int:
        """The offset up to which everything was handed to ``deliver``."""

    def attach(self, uid: str | None, client_id: str) -> bool:
        """A client opened; True where its user had none before."""

    def detach(self, uid: str | None, client_id: str) -> bool:
        """A client is gone for good; True where it was its user's last."""

    def join(self, uid: str, topic: str) -> bool:
        """Make a user a member; False where they were one."""

    def leave(self, uid: str, topic: str) -> bool:
        """End a membership; False where there was none."""

    def members(self, topic: str) -> frozenset[str]:
        """The users of a topic; from any thread."""

    def topics(self, uid: str) -> Mapping[str, int]:
        """A user's topics, and the offset at which each membership began."""

    def sweep(self) -> None:
        """Forget what is past its time; called about once a second."""


def make(config: Config) -> Broker:
    """The broker that ``CHSK_BROKER_URL`` names.

    :raises ConfigError: for a scheme that no broker speaks.
    """
    scheme = config.broker_url.partition(":")[0]
    if scheme == "memory":
        from .memory import MemoryBroker

        return MemoryBroker(config)
    raise ConfigError(f"CHSK_BROKER_URL {scheme}:… is not known; use memory://")

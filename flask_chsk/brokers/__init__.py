"""Where events get their order, and are kept for those who were away for a moment.

A broker gives every event an offset, keeps a short history per channel, knows which users
are there, and hands events in offset order to the server of each process (BROKER.md of the
design; docs/broker.rst). Channels: a user, one client, a topic, everyone, the anonymous.
"""

from __future__ import annotations

from collections.abc import Mapping
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


class Arrival(NamedTuple):
    """A client was let in.

    ``token`` names this opening: a late end of an older one disturbs nothing. ``first``: its
    user had no client before, anywhere. ``topics``: the user's, with the offset at which
    each membership began.
    """

    token: str
    first: bool
    topics: Mapping[str, int]


class Listener(Protocol):
    """Whom a broker tells; always on the hub."""

    def deliver(self, push: Push) -> None:
        """An event of this process's channels, in offset order."""

    def released(self, uid: str | None, client_id: str, token: str) -> None:
        """A client of this process was let in by another."""

    def presence(self, uid: str, came: bool) -> None:
        """A user came or went, whose process could not say so."""

    def reset(self) -> None:
        """The epoch is a new one: what was before cannot be told from what was lost."""


class Broker(Protocol):
    """What the server asks of a broker; from any thread, and it may block, where not said.

    One that is ``local`` never blocks, so the hub calls it directly.
    """

    local: bool

    @property
    def epoch(self) -> str:
        """The name of the counter's life; offsets compare within one epoch only."""

    def start(self, hub: Hub, listener: Listener) -> None:
        """Begin; once, before anything else."""

    def stop(self) -> None:
        """End; what was published stays published."""

    def publish(
        self, channel: str, text: str, *, but: tuple[str | None, str] | None = None
    ) -> int | None:
        """Give an event (canonical EDN) its offset and send it on its way.

        None where *channel* is of a user or client that is not there.

        :raises BrokerUnavailable: nothing was sent.
        :raises PublishUnknown: the answer was lost.
        """

    def since(self, channels: Mapping[str, int], cursor: int, page_bytes: int) -> Page:
        """What *channels* (each from its own offset on) had after *cursor*."""

    def watermark(self) -> int:
        """The offset up to which everything was delivered. On the hub, does not block."""

    def attach(self, uid: str | None, client_id: str) -> Arrival:
        """Let a client in; from now on its channels are delivered here."""

    def detach(self, uid: str | None, client_id: str, token: str) -> bool:
        """A client is gone for good; True where it was its user's last.

        Nothing where *token* is not that of its latest opening.
        """

    def join(self, uid: str, topic: str) -> bool:
        """Make a user a member; False where they were one.

        To where they are connected goes ``[:chsk/joined topic]``, by their channel: its
        offset is where the membership begins.
        """

    def leave(self, uid: str, topic: str) -> bool:
        """End a membership, by ``[:chsk/left topic]``; False where there was none."""

    def members(self, topic: str) -> frozenset[str]:
        """The users of a topic."""

    def sweep(self) -> None:
        """Forget what is past its time; on the hub, about once a second; does not block."""


def make(config: Config) -> Broker:
    """The broker that ``CHSK_BROKER_URL`` names.

    :raises ConfigError: for a scheme that no broker speaks.
    """
    scheme = config.broker_url.partition(":")[0]
    if scheme == "memory":
        from .memory import MemoryBroker

        return MemoryBroker(config)
    raise ConfigError(f"CHSK_BROKER_URL {scheme}:… is not known; use memory://")

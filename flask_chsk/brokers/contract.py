"""What a worker asks of a broker, and what the broker tells the worker.

A broker gives each event an offset, keeps a short history of each channel, knows which users are
connected, and delivers events to each worker in the order of their offsets (docs/broker.rst, "The
contract"). A channel is a user, one client, a topic, everyone, or all who are anonymous.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..errors import Refused
from ..packers.edn import EdnPacker
from ..protocol.push import Push

if TYPE_CHECKING:
    from ..hub import Hub
    from ..protocol.uids import ConnectedUids

EVERYONE = "*"
ANONYMOUS = "-"
MAX_TOPICS = 100  # of one user: each is a channel to read when a client comes back
KEYS = 256  # keyed sends of one client that are remembered
KEY_SECONDS = 120.0  # for which they are, at least: clients repeat a send for 100 s
DROPPED = 10_000  # users for whom the offset of the last event that was dropped is remembered
CLOSE_KEPT = 10.0  # seconds, at least, for which a close is kept for a client between two polls
KEPT_BYTES = 64 * 1024 * 1024  # of all clients' keyed sends; then the oldest clients lose theirs


def user_channel(uid: str) -> str:
    """The channel of all clients of one user."""
    return f"u:{uid}"


def client_channel(uid: str | None, client_id: str) -> str:
    """The channel of one client. No two clients have the same: client ids contain no colon."""
    return f"c:{client_id}" if uid is None else f"c:{client_id}:{uid}"


def channel_of(uid: str | None, client_id: str | None) -> str:
    """The channel of a user, or of one of their clients; uid None: of the anonymous."""
    if client_id is not None:
        return client_channel(uid, client_id)
    return ANONYMOUS if uid is None else user_channel(uid)


def topic_channel(topic: str) -> str:
    """The channel of the members of one topic."""
    return f"t:{topic}"


def pubsub_of(channel: str) -> str:
    """The subscription that carries a channel: a client's is its user's."""
    if channel.startswith("c:"):
        client_id, _, uid = channel[2:].partition(":")
        return f"u:{uid}" if uid else f"c:{client_id}"
    return channel


def is_close(text: str) -> bool:
    """Whether an event closes connections. All workers hear it, whether the user is there or not.

    A request that is being let in may have been authenticated before the close.
    """
    return text.startswith("[:chsk/close")


def control(id: str, topic: str) -> str:
    """``[:chsk/joined topic]``, which a broker publishes to a user's channel.

    For a membership that began earlier it publishes ``[:chsk/joined [topic offset]]``.
    """
    return f"[{id} {EdnPacker().pack(topic)}]"


def begun_control(topic: str) -> str:
    """``[:chsk/joined [topic``; a script adds the offset and the brackets."""
    return f"[:chsk/joined [{EdnPacker().pack(topic)} "


def too_many_clients(most: int) -> Refused:
    """The error of a user who has *most* clients, and opens another."""
    return Refused(
        429,
        f"this user has {most} clients already (CHSK_MAX_CLIENTS_PER_UID)",
        retry_after=10,
    )


class Page(NamedTuple):
    """A part of history: what follows a cursor."""

    pushes: tuple[Push, ...]
    end: int  # the offset up to which history was read
    more: bool  # whether there is more after that
    # False: something may be missing, so nothing is to be delivered as recovered (`Broker.since`).
    complete: bool


def page_of(pushes: Sequence[Push], end: int, more: bool, page_bytes: int) -> Page:
    """A complete page of *pushes*, which are in order, up to *page_bytes* and one event at least.

    :param end: up to which history was read.
    :param more: whether it goes on there.
    """
    size = 0
    for count, push in enumerate(pushes):
        size += push.size
        if size > page_bytes and count:
            return Page(tuple(pushes[:count]), pushes[count - 1].offset, True, True)
    return Page(tuple(pushes), end, more, True)


class Arrival(NamedTuple):
    """A client was let in, unless ``trial`` or ``missed_close`` says otherwise."""

    token: str  # of this opening: a late end of an older one disturbs nothing
    first: bool  # its user had no client before, at any worker
    topics: Mapping[str, int]  # of its user, with the offsets at which the memberships began
    generation: int = 0  # rises each time that a user comes or goes
    offset: int = 0  # the start: what was published before is history
    known: bool = False  # the client was there before, at this worker or another
    cursor: int | None = None  # how far a client was served that keeps no cursor itself
    # Nothing was changed: the client polls, and goes on so until its WebSocket is proven.
    trial: bool = False
    # Nothing was changed: the event by which a client that polls was closed (`is_close`).
    missed_close: str | None = None
    epoch: str = ""  # of these offsets
    # Whether `topics` are all there are. Else the broker began anew, and workers have yet to say
    # who was a member.
    whole: bool = True
    restored: int = (
        0  # when the last of them did; a cursor below may be of a worker that did not know
    )
    # No event to this user above this offset was dropped for want of a client (`expect`).
    dropped: int = 0


class Listener(Protocol):
    """A worker, as a broker sees it. All of this is called on the hub."""

    def deliver(self, push: Push) -> None:
        """An event of a channel that this worker listens to. Offsets rise from call to call."""

    def client_taken_over(self, uid: str | None, client_id: str, token: str) -> None:
        """Another worker let in a client of this one."""

    def user_presence_changed(self, uid: str, online: bool, generation: int) -> None:
        """A user came or went, and the worker of that user could not tell its handlers."""

    def reset(self, since: int) -> None:
        """A new epoch began: whether events were lost is unknown.

        :param since: the offset at which it began. Memberships from before begin there.
        """

    def resync_required(self) -> None:
        """Events may have been missed: clients read from history before they get new ones."""

    def reattach(self, silent: bool) -> None:
        """The broker lost its record of this worker's clients: attach them again.

        :param silent: it began a new epoch; the users have been there since the one before.
        """

    def needs(self, name: str) -> bool:
        """Whether a client here still listens to a channel. A user's stands for its clients'."""

    def on_worker_message(self, text: str) -> None:
        """Another worker sent this one a message (:meth:`Broker.tell`)."""

    def changed(self) -> None:
        """Users came or went, at any worker (:meth:`BrokerClients.watch`)."""


class BrokerClients(Protocol):
    """The clients of all workers, and which users are there. From any thread; it may block."""

    def expect(self, uid: str, seconds: float) -> None:
        """A page was rendered for a user: keep events to them for *seconds*, or the window.

        The shorter of the two counts. Meanwhile events to the user are kept without a client.

        An event that came before, and found no client, was dropped. For each of DROPPED users the
        broker remembers the offset of the last event that was dropped, and the highest offset of
        all users that it forgets. A page whose cursor is below ``Arrival.dropped`` has missed
        events.

        :raises BrokerUnavailable: they are not kept.
        """

    def attach(
        self,
        uid: str | None,
        client_id: str,
        kind: str = "ws",
        v1: bool = False,
        token: str | None = None,
        *,
        digest: str = "",
        silent: bool = False,
    ) -> Arrival | None:
        """Let a client in: from now on the events of its channels are delivered to this worker.

        :param kind: ``"ws"``; ``"ajax"``; ``"poll"``, a poll without a handshake, which changes
            nothing (None) if the client has a WebSocket; ``"try"``, a WebSocket of a client that
            polls, on trial.
        :param v1: the client keeps its cursor itself.
        :param token: of its opening here, to let it in again. Nothing is changed (None) if it was
            opened again since.
        :param digest: of its secret (:func:`~flask_chsk.security.digest_of_secret`).
        :param silent: its user was here before the epoch began, which handlers know: the opening is
            told only if a closing was told since. If another worker told an opening in this epoch,
            ``Listener.user_presence_changed`` is told of a closing before it.
        :raises Refused: 409 if an anonymous client with another secret has this id; 429 if the
            user has too many clients.
        """

    def holder(self, uid: str | None, client_id: str) -> str | None:
        """The digest of the client that has this id, at any worker; None: there is none."""

    def detach(self, uid: str | None, client_id: str, token: str) -> int:
        """End a client; the generation of the closing if it was its user's last, else 0.

        Nothing is changed if *token* is not that of its latest opening.
        """

    def was_here(self, uid: str) -> int:
        """In a new epoch: a user was here before it, and has no client here now.

        Returns the generation of the closing, if the caller is to tell it; else 0.
        """

    def ack(self, uid: str | None, client_id: str, token: str, offset: int) -> bool:
        """Note that a client without a cursor is served up to *offset*.

        A worker notes the events of an answer before it sends the answer: the next poll goes on
        behind them, at any worker. If the answer could not be sent, it notes the *offset* before.

        False if *token* is not that of the latest opening: another worker serves the client.
        """

    def watch(self) -> None:
        """From now on call ``Listener.changed`` when users come or go."""

    def connected(self) -> ConnectedUids:
        """The users that are connected, at any worker. The cost grows with their number."""

    def askable(self, uid: str | None) -> frozenset[str]:
        """The clients of a user, at any worker, that can be asked (``v=1``)."""


class BrokerTopics(Protocol):
    """Memberships of users in topics. From any thread; it may block."""

    def join(self, uid: str, topic: str) -> bool:
        """Make a user a member; False if they were one.

        The broker publishes ``[:chsk/joined topic]`` to the user's channel. The membership begins
        at its offset.

        :raises UsageError: the user is in MAX_TOPICS topics.
        """

    def rejoin(self, uid: str, topic: str) -> bool:
        """In a new epoch: a user was a member before it.

        The membership goes on from the start of the epoch, unless the user left since. False if
        that is too long ago to know: then it has ended.
        """

    def leave(self, uid: str, topic: str) -> bool:
        """End a membership, and publish ``[:chsk/left topic]``; False if there was none."""

    def members(self, topic: str) -> frozenset[str]:
        """The users of a topic."""


class BrokerSends(Protocol):
    """Sends that their clients may repeat. From any thread; it may block."""

    def claim(self, client: str, key: str, token: str) -> str | None:
        """None: the caller, who has *token*, is the first to claim this send, and handles it.

        Else the reply to it, empty while there is none. The same *token* may claim it again. The
        last KEYS sends of a client are remembered, and KEPT_BYTES of all clients, for KEY_SECONDS
        or the window, whichever is longer.
        """

    def keep_reply(self, client: str, key: str, reply: str) -> None:
        """Keep the reply to a send that was claimed."""


class Broker(Protocol):
    """A broker, as a worker sees it. From any thread; it may block, where not said otherwise.

    The worker calls it from the background, and goes on in a later callback on the hub, whether
    the broker blocks or not.
    """

    local: bool  # whether there is no other worker
    name: str  # of this worker, for tell()
    snapshot_seconds: float  # for which the worker keeps an answer of clients.connected()

    @property
    def clients(self) -> BrokerClients: ...
    @property
    def topics(self) -> BrokerTopics: ...
    @property
    def sends(self) -> BrokerSends: ...

    @property
    def epoch(self) -> str:
        """The name of this life of the counter. Offsets of two epochs cannot be compared."""

    def start(self, hub: Hub, listener: Listener) -> None:
        """Start. Called once, before anything else. Does not block."""

    def ready(self) -> None:
        """Wait until the epoch is known.

        :raises BrokerUnavailable: the broker was not reached yet.
        :raises ConfigError: the broker cannot be used as it is configured.
        """

    def listen(self) -> None:
        """Wait until this worker hears what is published. Returns at once once it does.

        :raises BrokerUnavailable: there is no subscription.
        """

    def retire(self, seconds: float) -> None:
        """This worker ends: its clients are gone, unless another worker has them in *seconds*."""

    def stop(self) -> None:
        """End. What was published stays published."""

    def publish(
        self,
        channel: str,
        text: str,
        *,
        exclude: tuple[str | None, str] | None = None,
        flush: bool = False,
    ) -> int | None:
        """Give an event (canonical EDN) its offset, keep it and deliver it.

        None: the event was dropped, since the user or client of *channel* is not there and was not
        within the window. An event that closes (:func:`is_close`) is never dropped. If the user was
        not expected either (:meth:`BrokerClients.expect`), ``Arrival.dropped`` tells of it.

        :param exclude: the ``(uid, client id)`` that shall not get it.
        :param flush: it is sent at once, with what waits before it, whatever the send window is.

        :raises BrokerUnavailable: nothing was sent.
        :raises PublishUnknown: the answer was lost.
        """

    def since(self, channels: Mapping[str, int], cursor: int, page_bytes: int) -> Page:
        """The events of *channels*, each from its own offset on, that follow *cursor*.

        Completeness is proved by what is kept. For each channel the broker knows since which offset
        its history is whole: an event names the one before it in its channel, and the broker keeps
        the last offset of what it forgot. A cursor below that is incomplete. A key that is missing,
        was evicted or has expired proves nothing. Clocks prove nothing either, nor does a history
        that was kept for a shorter time than the window is now.
        """

    def watermark(self) -> int:
        """The offset up to which everything was delivered. Does not block."""

    @property
    def disconnected(self) -> bool:
        """Whether this worker hears nothing now. ``resync_required`` is called once it does."""

    def unused(self, channel: str) -> None:
        """A channel may have lost its last client here. On the hub, does not block."""

    def tell(self, name: str, text: str) -> None:
        """Send a message to one worker (``Listener.on_worker_message``)."""

    def health(self) -> str:
        """What is wrong, in one line; empty: nothing. Does not block."""

    def note(self) -> str:
        """A warning in one line, while events are delivered; empty: none. Does not block."""

    def stats(self) -> dict[str, int]:
        """Counters and gauges. Does not block."""

    def sweep(self) -> None:
        """Forget what is past its time. On the hub, about once a second; does not block."""

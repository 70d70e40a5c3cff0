"""Where events get their order, and are kept for those who were away for a moment.

A broker gives every event an offset, keeps a short history per channel, knows which users
are there, and hands events in offset order to the server of each process (docs/broker.rst,
"The contract"). Channels: a user, one client, a topic, everyone, the anonymous.
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
DROPPED = 10_000  # users of whose last event that was kept nowhere the offset is remembered
CLOSE_KEPT = 10.0  # seconds, at least, for which a close is kept for a client between two polls
KEPT_BYTES = 64 * 1024 * 1024  # of all clients' keyed sends; then the oldest clients lose theirs


def user_channel(uid: str) -> str:
    """The channel of all clients of one user."""
    return f"u:{uid}"


def client_channel(uid: str | None, client_id: str) -> str:
    """The channel of one client. Client ids hold no colon, so this is unambiguous."""
    return f"c:{client_id}" if uid is None else f"c:{client_id}:{uid}"


def channel_of(uid: str | None, client_id: str | None) -> str:
    """The channel of a user, or of one client of theirs; uid None: of the anonymous."""
    if client_id is not None:
        return client_channel(uid, client_id)
    return ANONYMOUS if uid is None else user_channel(uid)


def topic_channel(topic: str) -> str:
    """The channel of the members of one topic."""
    return f"t:{topic}"


def pubsub_of(channel: str) -> str:
    """By which subscription a channel is heard: a client's by its user's."""
    if channel.startswith("c:"):
        client_id, _, uid = channel[2:].partition(":")
        return f"u:{uid}" if uid else f"c:{client_id}"
    return channel


def is_close(text: str) -> bool:
    """Whether an event closes connections. All processes hear it, whoever is there.

    A request that is being let in may have asked who somebody is before the close.
    """
    return text.startswith("[:chsk/close")


def control(id: str, topic: str) -> str:
    """``[:chsk/joined topic]``: what a broker tells by way of a user's channel.

    ``[:chsk/joined [topic offset]]`` of a membership that began before it is told, at *offset*.
    """
    return f"[{id} {EdnPacker().pack(topic)}]"


def begun_control(topic: str) -> str:
    """``[:chsk/joined [topic`` of that, to which a script puts offset and brackets."""
    return f"[:chsk/joined [{EdnPacker().pack(topic)} "


def too_many_clients(most: int) -> Refused:
    """What a broker raises that lets no client more of a user in."""
    return Refused(
        429,
        f"this user has {most} clients already (CHSK_MAX_CLIENTS_PER_UID)",
        retry_after=10,
    )


class Page(NamedTuple):
    """A part of history: what follows a cursor, up to ``end``.

    ``complete`` is False where something between may be missing: then nothing of it is to
    be delivered as recovered. It is proved by what is kept, never by what is missing: see
    :meth:`Broker.since`.
    """

    pushes: tuple[Push, ...]
    end: int
    more: bool
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
    """Whom a broker tells; always on the hub."""

    def deliver(self, push: Push) -> None:
        """An event of this process's channels, in offset order."""

    def client_taken_over(self, uid: str | None, client_id: str, token: str) -> None:
        """A client of this process was let in by another."""

    def user_presence_changed(self, uid: str, online: bool, generation: int) -> None:
        """A user came or went, whose process could not say so."""

    def reset(self, since: int) -> None:
        """The epoch is a new one: what was before cannot be told from what was lost.

        :param since: the offset at which it began; whoever was a member then, is from there on.
        """

    def resync_required(self) -> None:
        """Events may have been missed: what follows is to be read from history first."""

    def reattach(self, silent: bool) -> None:
        """The broker knows this process's clients no more: let them in again.

        *silent*: it began anew, and their users have been there since before.
        """

    def needs(self, name: str) -> bool:
        """Whether a client here still listens to a channel (a user's stands for its clients')."""

    def on_worker_message(self, text: str) -> None:
        """What another process had to say to this one."""

    def changed(self) -> None:
        """Users came or went, anywhere."""


class BrokerClients(Protocol):
    """The clients of all workers, and which users are there. From any thread; it may block."""

    def expect(self, uid: str, seconds: float) -> None:
        """A page was rendered for a user: keep events to them for *seconds*, or the window.

        Whether such an event found a client is not asked then.

        An event that came before, and found nobody, is kept nowhere. The broker remembers the
        offset of the last one for each of DROPPED users, and of those that it forgets the highest
        offset. A page's cursor below what ``Arrival.dropped`` then says is incomplete.

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
        """Let a client in; from now on its channels are delivered here.

        :param kind: ``"ws"``, ``"ajax"``; ``"poll"``: no handshake, so it changes nothing
            (None) where the client has a WebSocket elsewhere; ``"try"``: a WebSocket that
            has yet to prove itself to one that polls.
        :param v1: it keeps its cursor itself.
        :param token: of its opening here, to let it in again: changes nothing (None) where
            there was a later one.
        :param digest: of its secret (:func:`~flask_chsk.security.digest_of_secret`).
        :param silent: its user has been here since before the epoch. That they came is told
            only where a closing was told since; where another process told that they came, the
            listener's ``user_presence_changed`` is told of the closing that belongs before.
        :raises Refused: 409 where an anonymous client with another secret has this id; 429
            where the user has too many.
        """

    def holder(self, uid: str | None, client_id: str) -> str | None:
        """The digest that a client was let in with, in whatever process; None: there is none."""

    def detach(self, uid: str | None, client_id: str, token: str) -> int:
        """A client is gone for good; the generation where it was its user's last, else 0.

        Nothing where *token* is not that of its latest opening.
        """

    def was_here(self, uid: str) -> int:
        """Tell a broker that began anew of a user who was here before, and has no client here.

        The generation of their closing, where it is to be told; else 0.
        """

    def ack(self, uid: str | None, client_id: str, token: str, offset: int) -> bool:
        """Note that a client which keeps no cursor is served up to *offset*.

        The events of one answer are noted before it leaves, and no others: the next poll goes on
        behind them, in whatever process. An earlier *offset* than before takes back what could not
        be given.

        False where *token* is not that of its latest opening: another process serves it.
        """

    def watch(self) -> None:
        """From now on the listener is told that somebody's coming or going has changed who is."""

    def connected(self) -> ConnectedUids:
        """Who is connected, anywhere; costs as much as there are users."""

    def askable(self, uid: str | None) -> frozenset[str]:
        """The clients of a user, anywhere, that can be asked (``v=1``)."""


class BrokerTopics(Protocol):
    """Memberships of users in topics. From any thread; it may block."""

    def join(self, uid: str, topic: str) -> bool:
        """Make a user a member; False where they were one.

        To where they are connected goes ``[:chsk/joined topic]``, by their channel: its
        offset is where the membership begins.
        """

    def rejoin(self, uid: str, topic: str) -> bool:
        """Tell a broker that began anew of a membership that was there before.

        It has been one since the epoch began, unless the user left since. False where that is
        too long ago to know: then it has ended.
        """

    def leave(self, uid: str, topic: str) -> bool:
        """End a membership, by ``[:chsk/left topic]``; False where there was none."""

    def members(self, topic: str) -> frozenset[str]:
        """The users of a topic."""


class BrokerSends(Protocol):
    """Sends that their clients may repeat. From any thread; it may block."""

    def claim(self, client: str, key: str, token: str) -> str | None:
        """Take a send that its client may repeat for one process: None.

        Else its reply, empty while there is none. The same *token* may ask again. The last
        KEYS of a client are remembered, and KEPT_BYTES of all, for KEY_SECONDS or the window,
        whichever is longer.
        """

    def keep_reply(self, client: str, key: str, reply: str) -> None:
        """Keep the reply to a send that was claimed."""


class Broker(Protocol):
    """What the server asks of a broker; from any thread, and it may block, where not said.

    The server asks from the background, and what follows runs in a later callback on the hub,
    whether a broker blocks or not. ``local``: there is no other worker.
    """

    local: bool
    name: str  # of this process, for tell()
    snapshot_seconds: float  # for which an answer of connected() is not asked for again

    @property
    def clients(self) -> BrokerClients: ...
    @property
    def topics(self) -> BrokerTopics: ...
    @property
    def sends(self) -> BrokerSends: ...

    @property
    def epoch(self) -> str:
        """The name of the counter's life; offsets compare within one epoch only."""

    def start(self, hub: Hub, listener: Listener) -> None:
        """Begin; once, before anything else. Does not block."""

    def ready(self) -> None:
        """Wait until the epoch is known.

        :raises BrokerUnavailable: it is not yet.
        :raises ConfigError: this broker cannot be used.
        """

    def listen(self) -> None:
        """Wait until what is published is heard; at once, but after a start or a cut.

        :raises BrokerUnavailable: it is not.
        """

    def retire(self, seconds: float) -> None:
        """This process ends: clients that are not elsewhere in *seconds* are gone."""

    def stop(self) -> None:
        """End; what was published stays published."""

    def publish(
        self,
        channel: str,
        text: str,
        *,
        exclude: tuple[str | None, str] | None = None,
        flush: bool = False,
    ) -> int | None:
        """Give an event (canonical EDN) its offset and send it on its way.

        None where *channel* is of a user or client that is not there, and was not within the
        window, but for :func:`is_close`. Such an event is kept nowhere. Of one to a user who was
        not expected either (:meth:`BrokerClients.expect`) the offset is remembered: see
        ``Arrival.dropped``.

        :param flush: it waits for no window, nor does what is before it.

        :raises BrokerUnavailable: nothing was sent.
        :raises PublishUnknown: the answer was lost.
        """

    def since(self, channels: Mapping[str, int], cursor: int, page_bytes: int) -> Page:
        """What *channels* (each from its own offset on) had after *cursor*.

        Completeness is proved by what is kept. For each channel the broker knows since which
        offset its history is whole: an event names the one before it in its channel, and of what
        is forgotten the broker keeps the last offset. A cursor below is incomplete. That a key is
        missing, was evicted or has expired, and what clocks say, proves nothing; nor does a
        history that was kept for a shorter time than the window is now.
        """

    def watermark(self) -> int:
        """The offset up to which everything was delivered. From any thread, does not block."""

    @property
    def disconnected(self) -> bool:
        """Whether nothing is heard just now; then ``resync_required`` is called once it is."""

    def unused(self, channel: str) -> None:
        """A channel may have lost its last client here. On the hub, does not block."""

    def tell(self, name: str, text: str) -> None:
        """Say something to one process."""

    def health(self) -> str:
        """What is wrong, in one line; empty: nothing. Does not block."""

    def note(self) -> str:
        """What somebody should look at though events pass, in one line. Does not block."""

    def stats(self) -> dict[str, int]:
        """Counters and gauges. Does not block."""

    def sweep(self) -> None:
        """Forget what is past its time; on the hub, about once a second; does not block."""

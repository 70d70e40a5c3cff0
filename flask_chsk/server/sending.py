"""Checks and packs what an application sends, and publishes it at the broker; from any thread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..after_commit import defer
from ..brokers.contract import EVERYONE, Broker, channel_of, topic_channel
from ..config import Config
from ..errors import BadEvent, PackError, UsageError
from ..logs import logger
from ..packers.edn import EdnPacker
from ..protocol import session as s
from ..protocol.event import Event, assert_event
from ..protocol.push import CANONICAL
from .connection import Key, Uid
from .delayed_closes import PendingResponse
from .registry import Registry
from .router import EventMessage

if TYPE_CHECKING:
    from ..after_commit import AnySession

log = logger(__name__)

OURS = (s.CLOSE, s.ASK)  # of the ids of the protocol, those that the server itself sends
NOTED = 1000  # users whose absence was logged


class Sending:
    """The way of an event to its clients, up to the broker.

    :ivar canonical: the packer of events as the broker keeps them; another one knows the
        application's ``pack_default``.
    :ivar check_receivers: raises PackError for an event that no client could get.
    :ivar on_absent: called with the uid and the event of a send that found nobody.
    """

    def __init__(
        self, config: Config, broker: Broker, registry: Registry[Any], counters: Counter[str]
    ) -> None:
        self._broker = broker
        self._registry = registry
        self._counters = counters
        self._limit = config.max_outbox_bytes
        self._absent_noted: set[str] = set()
        self.canonical = CANONICAL
        self.check_receivers: Callable[[str, Any, str], object] = lambda id, data, text: None
        self.on_absent: Callable[[str, Event], object] = lambda uid, event: None

    def send(
        self,
        uid: Uid,
        event: Any,
        client_id: str | None = None,
        flush: bool = False,
        exclude: EventMessage | None = None,
        after_commit: AnySession | None = None,
    ) -> int | None:
        """Publish *event* to a user, or one client of theirs.

        :param exclude: the client that sent this event message does not get it.
        :param after_commit: check and pack it now, and publish it when this session has committed.
        :raises BadEvent: for what is no event.
        :raises PackError: naming the path to what cannot be packed.
        :raises UsageError: where *exclude* is no event message, or *after_commit* no session.
        """
        return self._publish(
            channel_of(uid, client_id),
            event,
            user=uid if client_id is None else None,
            flush=flush,
            exclude=exclude,
            after_commit=after_commit,
        )

    def broadcast(
        self,
        event: Any,
        exclude: EventMessage | None = None,
        after_commit: AnySession | None = None,
    ) -> int | None:
        """Publish *event* to every client."""
        return self._publish(EVERYONE, event, exclude=exclude, after_commit=after_commit)

    def publish(
        self,
        topic: str,
        event: Any,
        exclude: EventMessage | None = None,
        after_commit: AnySession | None = None,
    ) -> int | None:
        """Publish *event* to the members of *topic*."""
        channel = topic_channel(topic)
        return self._publish(channel, event, exclude=exclude, after_commit=after_commit)

    def close(
        self, uid: Uid, client_id: str | None, reconnect: bool, after: PendingResponse | None = None
    ) -> None:
        """Close a user's connections, in whatever process.

        :param after: tell the clients when this response has ended.
        """
        self.send(uid, s.closing(reconnect, after), client_id)

    def _publish(
        self,
        channel: str,
        event: Any,
        *,
        user: Uid = None,
        flush: bool = False,
        exclude: EventMessage | None = None,
        after_commit: AnySession | None = None,
    ) -> int | None:
        """:param user: who may be absent, where the event is for all clients of one user."""
        checked, text, excluded = packed(
            event, exclude, self.canonical, self.check_receivers, self._limit
        )
        if after_commit is not None:
            publish = partial(self._publish_packed, channel, text, excluded, flush, user, checked)
            defer(after_commit, checked.id, publish, self._count_unsent)
            return None
        return self._publish_packed(channel, text, excluded, flush, user, checked)

    def _count_unsent(self) -> None:
        self._counters["unsent_after_commit"] += 1

    def _publish_packed(
        self, channel: str, text: str, excluded: Key | None, flush: bool, user: Uid, event: Event
    ) -> int | None:
        offset = self._broker.publish(channel, text, exclude=excluded, flush=flush)
        self._counters["dropped_absent" if offset is None else "events_out"] += 1
        if offset is None and user is not None:
            self._note_absent(user)
            if event.id not in OURS:
                self.on_absent(user, event)
        return offset

    def _note_absent(self, uid: str) -> None:
        """Log the first drop to a user who is not there: mostly a uid spelt differently."""
        if uid in self._absent_noted or len(self._absent_noted) >= NOTED:
            return
        self._absent_noted.add(uid)
        some = sorted(self._registry.connected_uids.any)[:5]
        log.info("nothing was sent to uid %r, who is not connected; in this process: %s", uid, some)


def packed(
    event: Any,
    exclude: EventMessage | None,
    packer: EdnPacker,
    check_receivers: Callable[[str, Any, str], object],
    limit: int,
) -> tuple[Event, str, Key | None]:
    """What is to be sent, checked; its packed form; and the client that it is not for.

    :param check_receivers: as :attr:`Sending.check_receivers`.
    :param limit: the setting CHSK_MAX_OUTBOX_BYTES.
    :raises BadEvent, PackError, UsageError: as :meth:`Sending.send`.
    """
    excluded = _sender(exclude)
    checked = assert_event(event)
    id, data = checked
    if id.startswith("chsk/") and id not in OURS:
        raise BadEvent(f"ids in the chsk namespace are the protocol's own, not {id!r}")
    text = packer.pack([id, data], root="event")
    check_receivers(id, data, text)
    if len(text) > limit // 2:
        raise PackError(
            f"an event of {len(text)} bytes: more than half of CHSK_MAX_OUTBOX_BYTES ({limit})"
        )
    return checked, text, excluded


def _sender(exclude: EventMessage | None) -> Key | None:
    """The client that sent *exclude*; None where no client did.

    :raises UsageError: where it is no event message.
    """
    if exclude is None:
        return None
    if not isinstance(exclude, EventMessage):
        raise UsageError(
            "exclude= takes the event message that a handler got, as in"
            f" chsk.publish(topic, event, exclude=ev), not {exclude!r}"
        )
    return None if exclude.client_id is None else (exclude.uid, exclude.client_id)

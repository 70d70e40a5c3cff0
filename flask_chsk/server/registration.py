"""Keeps the broker's record of this worker's clients current, with retries.

:meth:`~flask_chsk.server.clients.Clients.enter` lets a client in the first time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from ..brokers.contract import Arrival, Broker
from ..errors import BrokerError, Refused, UsageError
from ..hub import Hub, on_hub
from ..logs import RateLimitedLogger, logger
from .connection import Connection, Uid
from .memberships import Memberships
from .presence import Presence
from .registry import Registry
from .replay import RETRY
from .topics import Topics

log = logger(__name__)
rate_limited = RateLimitedLogger(log)


MOVED = 10.0  # seconds for which a worker remembers the users who moved to another worker
LATER = 2.0  # seconds in which their new workers report them first


class Moved(NamedTuple):
    """A user whose last client here was let in by another worker."""

    when: float
    uid: str
    topics: list[str]


class BrokerRegistration:
    """On the hub, except what says that it may wait for the broker."""

    def __init__(
        self,
        hub: Hub,
        broker: Broker,
        registry: Registry[Connection],
        topics: Topics,
        memberships: Memberships,
        presence: Presence,
        taken_over: Callable[[Uid, str, str], object],
    ) -> None:
        """:param taken_over: called with user, client and token: another process has it now."""
        self.hub = hub
        self._broker = broker
        self._registry = registry
        self._topics = topics
        self._memberships = memberships
        self._presence = presence
        self._taken_over = taken_over
        self._leaving: deque[tuple[Uid, str, str]] = deque()  # clients to be signed off
        self._waiting: dict[Connection, bool] = {}  # clients to be attached again; silently?
        self._unsaid: dict[str, list[str]] = {}  # user -> topics that the broker does not know
        self._gone: dict[str, None] = {}  # users of before the epoch who are gone
        self._gone_from = 0.0  # when the broker is told of those
        self._at_it = False
        self._moved: deque[Moved] = deque()

    # who is there ----------------------------------------------------------------------

    @on_hub
    def reattach(self, silent: bool, only: Connection | None = None) -> None:
        """The broker lost its record of our clients: attach them again, one after another.

        :param silent: it began anew, knows of no topic, and of nobody who was here.
        """
        if silent:
            for uid, topics in self._topics.snapshot().items():
                self._unsaid[uid] = list({*self._unsaid.get(uid, ()), *topics})
            if only is None:
                self._speak_for_moved()
        for one in [*self._waiting]:
            if one.gone:
                self._went(self._waiting.pop(one), one.session.uid)
        for one in self._registry if only is None else [only]:
            self._waiting[one] = silent or self._waiting.get(one, False)
        self._begin()

    @on_hub
    def _begin(self) -> None:
        if (self._waiting or self._unsaid or self._gone) and not self._at_it:
            self._at_it = True
            self.hub.background(self._reattach)

    @on_hub
    def _went(self, silent: bool, uid: Uid) -> None:
        if silent and uid is not None:
            self._gone[uid] = None

    @on_hub
    def moved(self, uid: str, topics: list[str]) -> None:
        """Another worker let in the last client that a user had here.

        If the broker begins anew just then, the other one may never have had its answer: then
        only this one knows that the user was there, and a member.
        """
        now = self.hub.now()
        while self._moved and self._moved[0].when < now - MOVED:
            self._moved.popleft()
        self._moved.append(Moved(now, uid, topics))

    @on_hub
    def moved_user_left(self, uid: str, topic: str) -> None:
        """A user who has no client here left a topic."""
        for one in self._moved:
            if one.uid == uid and topic in one.topics:
                one.topics.remove(topic)

    def _speak_for_moved(self) -> None:
        since = self.hub.now() - MOVED
        for one in self._moved:
            if one.when >= since:
                self._gone[one.uid] = None
                if one.topics:
                    self._unsaid[one.uid] = list({*self._unsaid.get(one.uid, ()), *one.topics})
        self._moved.clear()
        self._gone_from = self.hub.now() + LATER
        self.hub.timer(LATER, self._begin)

    @on_hub
    def had_before(self, uid: Uid) -> bool:
        """Whether a user was here before the epoch, which the broker does not know yet."""
        if uid is None:
            return False
        if uid in self._gone:
            return True
        waiting = self._waiting
        return bool(waiting) and any(waiting.get(one, False) for one in self._registry.of(uid))

    @on_hub
    def unsaid(self, uid: Uid) -> Sequence[str]:
        """The topics of a user that this worker has yet to tell the broker."""
        return () if uid is None else self._unsaid.get(uid, ())

    @on_hub
    def waits(self, connection: Connection) -> bool:
        """Whether a client is to be attached again; perhaps another worker has it by now."""
        return connection in self._waiting

    def _reattach(self) -> None:
        """Attach until nothing is left to do, topics first; may wait for the broker."""
        try:
            while one := self.hub.run(self._next):
                what, more = one
                if isinstance(what, Connection):
                    self._attach_again(what, more is True)
                elif more:
                    self._say_topic(what, str(more))
                else:
                    self._say_gone(what)
                self.hub.run(self._is_in, what, more)
        except BrokerError as error:
            log.warning("%d clients wait to be let in again: %s", len(self._waiting), error)
            self._later(self._reattach)

    @on_hub
    def _next(self) -> tuple[Connection | str, bool | str] | None:
        for uid, topics in self._unsaid.items():
            return uid, topics[-1]
        for one in self._waiting.items():
            return one
        if self.hub.now() >= self._gone_from:
            for uid in self._gone:
                return uid, ""
        self._at_it = False
        return None

    @on_hub
    def _is_in(self, one: Connection | str, what: bool | str) -> None:
        if isinstance(one, Connection):
            if self._waiting.get(one) == what:  # else the broker began anew meanwhile
                del self._waiting[one]
            return
        if not what:
            self._gone.pop(one, None)
            return
        topics = self._unsaid.get(one, [])
        if what in topics:
            topics.remove(str(what))
        if not topics:
            self._unsaid.pop(one, None)

    def _attach_again(self, connection: Connection, silent: bool) -> None:
        uid, client_id = connection.key
        token = connection.token
        if connection.gone:
            self.hub.run(self._went, silent, uid)
            return
        if not token:
            return
        try:
            arrival = self._broker.clients.attach(
                uid,
                client_id,
                connection.kind,
                connection.session.v1,
                token,
                digest=connection.digest,
                silent=silent,
            )
        except Refused as error:
            rate_limited.warning("again", "uid %r could not be let in again: %s", uid, error)
            return
        if arrival is None:  # another worker let it in while this one was cut off
            self.hub.call(self._taken_over, uid, client_id, token)
        else:
            self.hub.call(self._attached, connection, arrival)

    def _say_gone(self, uid: str) -> None:
        generation = self._broker.clients.was_here(uid)
        if generation:
            self.hub.call(self._presence.user_presence_changed, uid, False, generation)

    def _say_topic(self, uid: str, topic: str) -> None:
        try:
            if self._broker.topics.rejoin(uid, topic):
                return
            why = "that they did not leave since is not known any more"
        except UsageError as error:
            why = str(error)
        words = "uid %r is no member of %r any more: %s"
        rate_limited.warning("topic", words, uid, topic, why)
        self.hub.call(self._memberships.lost, uid, topic)

    def confirm_socket(self, connection: Connection) -> None:
        """A WebSocket passed its trial: its client no longer polls elsewhere. May wait."""
        uid, client_id = connection.key
        if connection.transport is None:
            return
        try:
            silent = self.hub.run(self.had_before, uid)
            arrival = self._broker.clients.attach(
                uid,
                client_id,
                "ws",
                connection.session.v1,
                digest=connection.digest,
                silent=silent,
            )
        except BrokerError as error:
            rate_limited.warning("claim", "uid %r is known as polling yet: %s", uid, error)
            self._later(self.confirm_socket, connection)
        except Refused as error:
            rate_limited.warning("refused", "uid %r stays known as polling: %s", uid, error)
        else:
            if arrival is not None:
                self.hub.call(self._attached, connection, arrival)

    @on_hub
    def _attached(self, connection: Connection, arrival: Arrival) -> None:
        uid, client_id = connection.key
        if arrival.first:
            self._presence.user_presence_changed(uid, True, arrival.generation)
        if not connection.gone:
            connection.register(arrival.token, arrival.offset)
            if uid is not None:
                self._memberships.take(uid, arrival, complete=True)
        else:  # the client was forgotten meanwhile
            self.detach(uid, client_id, arrival.token)

    # who went --------------------------------------------------------------------------

    @on_hub
    def detach(self, uid: Uid, client_id: str, token: str) -> None:
        """Sign a client off, now or when the broker answers again."""
        self._leaving.append((uid, client_id, token))
        if len(self._leaving) == 1:
            self.hub.background(self._sign_off)

    def _sign_off(self) -> None:
        """Sign clients off, one after another; may wait for the broker."""
        while self._leaving:
            gone = uid, client_id, token = self._leaving[0]
            try:
                generation = self._broker.clients.detach(uid, client_id, token)
            except BrokerError as error:
                rate_limited.warning("sign off", "uid %r is not signed off yet: %s", uid, error)
                self._later(self._sign_off)
                return
            if generation:
                self.hub.call(self._presence.user_presence_changed, uid, False, generation)
            with suppress(ValueError):  # under native threads another may be at it
                self._leaving.remove(gone)

    def leave_cursor(self, connection: Connection) -> None:
        """Tell the broker how far a client without a cursor was served: it may come back elsewhere.

        May wait for the broker.
        """
        try:
            self._broker.clients.ack(*connection.key, connection.token, connection.session.acked)
        except BrokerError as error:
            log.debug("uid %r may miss events: %s", connection.session.uid, error)

    def _later(self, job: Callable[..., object], *args: Any) -> None:
        again = partial(self.hub.background, job, *args)
        self.hub.call(self.hub.timer, RETRY, again)

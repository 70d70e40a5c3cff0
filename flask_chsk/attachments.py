"""Keeps true what the broker knows of this process's clients: until it holds, and again.

Letting a client in the first time is the server's (:meth:`~flask_chsk.server.Server.enter`). With a
broker in this process there is nothing that could go wrong.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from .brokers import Arrival
from .connection import Connection, Uid
from .errors import BrokerError, Refused, UsageError
from .history import RETRY
from .hub import Hub
from .logs import Sparse, logger

if TYPE_CHECKING:
    from .server import Server

log = logger("flask_chsk.attachments")
sparse = Sparse(log)


class Attachments:
    """On the hub, except what says that it may wait for the broker."""

    hub: Hub  # from `start`

    def __init__(self, server: Server) -> None:
        self._server = server
        self._broker = server.broker
        self._registry = server.registry
        self._topics = server.topics
        self._leaving: deque[tuple[Uid, str, str]] = deque()  # to be signed off

    def start(self, hub: Hub) -> None:
        """Begin to live on *hub*."""
        self.hub = hub

    # who is there ----------------------------------------------------------------------

    def reattach(self, quiet: bool) -> None:
        """The broker lost sight of our clients: let them in again, one after another.

        :param quiet: it began anew, and knows of no topic; nobody came.
        """
        topics = self._topics.snapshot() if quiet else {}
        self.hub.background(self._reattach, list(self._registry), quiet, topics)

    def _reattach(
        self, connections: list[Connection], quiet: bool, topics: dict[str, list[str]]
    ) -> None:
        """May wait for the broker; comes back until all are in."""
        while connections and not self._server.closing:
            try:
                self._attach_again(connections[-1], quiet, topics)
            except BrokerError as error:
                log.warning("%d clients wait to be let in again: %s", len(connections), error)
                self._later(self._reattach, connections, quiet, topics)
                return
            connections.pop()

    def _attach_again(
        self, connection: Connection, quiet: bool, topics: dict[str, list[str]]
    ) -> None:
        uid, client_id = connection.key
        token = connection.token
        while uid is not None and topics.get(uid):
            # Whatever became of this client since: its user was a member.
            topic = topics[uid][-1]
            try:
                self._broker.join(uid, topic, again=True)
            except UsageError as error:
                log.warning("uid %r is no member of %r any more: %s", uid, topic, error)
            topics[uid].pop()
        if self._registry.get(uid, client_id) is not connection or not token:
            return
        try:
            arrival = self._broker.attach(
                uid,
                client_id,
                connection.kind,
                connection.session.v1,
                token,
                digest=connection.digest,
            )
        except Refused as error:
            log.warning("uid %r could not be let in again: %s", uid, error)
            return
        if arrival is None:  # it went elsewhere while we were cut off
            self.hub.call(self._server.released, uid, client_id, token)
        else:
            self.hub.call(self._attached, connection, arrival, quiet)

    def claim(self, connection: Connection) -> None:
        """A WebSocket proved itself: its client polls elsewhere no more. May wait."""
        uid, client_id = connection.key
        if self._registry.get(uid, client_id) is not connection or connection.transport is None:
            return
        try:
            arrival = self._broker.attach(
                uid, client_id, "ws", connection.session.v1, digest=connection.digest
            )
        except BrokerError as error:
            log.warning("uid %r is known as polling yet: %s", uid, error)
            self._later(self.claim, connection)
        except Refused as error:
            log.warning("uid %r stays known as polling: %s", uid, error)
        else:
            if arrival is not None:
                self.hub.call(self._attached, connection, arrival, False)

    def _attached(self, connection: Connection, arrival: Arrival, quiet: bool) -> None:
        uid, client_id = connection.key
        if self._registry.get(uid, client_id) is connection:
            connection.token = arrival.token
            if arrival.first and not quiet:
                self._server.user(uid, True, arrival.generation)
            if uid is not None:
                self._server.take_topics(uid, arrival)
        else:  # it went in between
            self.detach(uid, client_id, arrival.token)

    # who went --------------------------------------------------------------------------

    def detach(self, uid: Uid, client_id: str, token: str) -> None:
        """Sign a client off, now or when the broker answers again."""
        self._leaving.append((uid, client_id, token))
        if self._broker.local:
            self._sign_off()
        elif len(self._leaving) == 1:
            self.hub.background(self._sign_off)

    def _sign_off(self) -> None:
        """One after another, until all who went are signed off; may wait for the broker."""
        while self._leaving:
            gone = uid, client_id, token = self._leaving[0]
            try:
                generation = self._broker.detach(uid, client_id, token)
            except BrokerError as error:
                sparse.warning("sign off", "uid %r is not signed off yet: %s", uid, error)
                self._later(self._sign_off)
                return
            if generation:
                self.hub.call(self._server.user, uid, False, generation)
            with suppress(ValueError):  # under native threads another may be at it
                self._leaving.remove(gone)

    def leave_cursor(self, connection: Connection) -> None:
        """A client without a cursor may come back elsewhere: say how far it was served.

        May wait for the broker.
        """
        try:
            self._broker.take(*connection.key, connection.token, connection.session.acked)
        except BrokerError as error:
            log.debug("uid %r may miss events: %s", connection.session.uid, error)

    def _later(self, job: Callable[..., object], *args: Any) -> None:
        again = partial(self.hub.background, job, *args)
        self.hub.call(self.hub.timer, RETRY, again)

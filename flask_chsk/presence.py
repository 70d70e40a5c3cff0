"""Tells handlers, signals and watchers who came and who went.

A user comes with the first client in any process and goes with the last. Anonymous clients are
nobody's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from . import session as s
from .brokers import Broker
from .dispatch import Dispatcher, Host
from .errors import BrokerError
from .event import Event
from .hub import Hub
from .registry import NOBODY, ConnectedUids, Registry
from .replies import Elsewhere

log = logging.getLogger("flask_chsk.presence")


class Presence:
    """Who is connected, in all processes of the broker; on the hub, but for `connected_uids`."""

    hub: Hub  # from `start`

    def __init__(
        self, registry: Registry[Any], broker: Broker, dispatcher: Dispatcher, host: Host
    ) -> None:
        self._registry = registry
        self._broker = broker
        self._dispatcher = dispatcher
        self._host = host
        self.signals: list[Callable[[str, bool], None]] = []  # user came (True) or went
        self.watchers: list[Callable[[ConnectedUids, ConnectedUids], object]] = []
        self._comparing = False
        self._seen = NOBODY  # what watchers were told last

    def start(self, hub: Hub) -> None:
        """Begin to live on *hub*."""
        self.hub = hub

    @property
    def connected_uids(self) -> ConnectedUids:
        """Who is connected; from any thread."""
        if self._broker.local:
            return self._registry.connected_uids
        return self._broker.connected()

    def user(self, uid: str | None, came: bool, channel: Elsewhere) -> None:
        """A user came or went: handlers of ``uidport-open`` and ``-close``, then all others.

        :param channel: for what these handlers reply.
        """
        if uid is None:
            return
        log.info("uid %r %s", uid, "connected" if came else "disconnected")
        event = Event(s.UIDPORT_OPEN if came else s.UIDPORT_CLOSE, uid)
        if self._broker.local and self.watchers:
            # Only where somebody looks: a snapshot costs as much as there are users, and for each
            # of a crowd that comes that would be the square of it.
            now = self.connected_uids
            before = ConnectedUids(now.ws, now.ajax, now.any - {uid} if came else now.any | {uid})
            then = partial(self._tell_all, uid, came, before, now)
        else:
            then = partial(self._signal, uid, came)
        self._dispatcher.take_own(event, uid, channel, then)

    def changed(self) -> None:
        """Users came or went, in whatever process: the broker says so."""
        if self.watchers and not self._comparing:
            self._comparing = True
            self.hub.spawn(self._compare)

    @contextmanager
    def noting(self, uid: str | None) -> Iterator[None]:
        """Tell watchers where a user who stays is on one transport more, or less."""
        if uid is None or not self.watchers or not self._broker.local:
            yield
            return
        before = self._registry.connected_uids
        yield
        if uid in before.any and self._registry.count(uid):
            now = self._registry.connected_uids
            if now != before:
                for watch in list(self.watchers):
                    self.hub.spawn(self._host.run_plain, watch, before, now)

    def _compare(self) -> None:
        try:
            now = self._broker.connected()
        except BrokerError as error:
            log.debug("who is connected is not known: %s", error)
            return
        finally:
            self._comparing = False
        before, self._seen = self._seen, now
        if now != before:
            self._tell_watchers(before, now)

    def _tell_all(self, uid: str, came: bool, before: ConnectedUids, now: ConnectedUids) -> None:
        self._signal(uid, came)
        self._tell_watchers(before, now)

    def _tell_watchers(self, before: ConnectedUids, now: ConnectedUids) -> None:
        for watch in list(self.watchers):
            self._host.run_plain(watch, before, now)

    def _signal(self, uid: str, came: bool) -> None:
        for tell in self.signals:
            self._host.run_plain(tell, uid, came)

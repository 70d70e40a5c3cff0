"""Tells handlers, signals and watchers who came and who went.

A user comes with the first client in any process and goes with the last. Anonymous clients are
nobody's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from ..brokers import Broker
from ..errors import BrokerError
from ..hub import Hub, on_hub
from ..logs import logger
from ..protocol import session as s
from ..protocol.event import Event
from ..protocol.uids import NOBODY, ConnectedUids
from .dispatch import Dispatcher, Host
from .registry import Registry
from .replies import NoReplyChannel
from .sending import Sending

log = logger(__name__)

HEALED = 10.0  # seconds after which all processes told a broker that began anew who is there
SNAPSHOT = 1.0  # seconds for which who is connected elsewhere is not asked again


class Presence:
    """Who is connected, in all processes of the broker; on the hub, but for `connected_uids`.

    :ivar signals: called with a user, and whether they came (True) or went.
    :ivar watchers: called with who was connected, and who is.
    """

    def __init__(
        self,
        hub: Hub,
        registry: Registry[Any],
        broker: Broker,
        dispatcher: Dispatcher,
        host: Host,
        sending: Sending,
    ) -> None:
        self.hub = hub
        self._registry = registry
        self._broker = broker
        self._dispatcher = dispatcher
        self._host = host
        self._channel = NoReplyChannel(sending, self)
        self.signals: list[Callable[[str, bool], None]] = []
        self.watchers: list[Callable[[ConnectedUids, ConnectedUids], object]] = []
        self._snapshot = (-SNAPSHOT, NOBODY)  # when it was asked for, and itself
        # Where there are other processes:
        self._watching = False  # the broker says when somebody comes or goes
        self._comparing = False
        self._healed = 0.0  # when the broker may be asked again
        self._asked = -SNAPSHOT  # when watchers were last compared for
        self._changed = False  # since the last comparison began
        self._seen = NOBODY  # what watchers were told last

    @property
    def connected_uids(self) -> ConnectedUids:
        """Who is connected; from any thread. With other processes, who was a second ago."""
        if self._broker.local:
            return self._registry.connected_uids
        asked, snapshot = self._snapshot
        if self.hub.now() - asked < SNAPSHOT:
            return snapshot
        return self._ask()

    def _ask(self) -> ConnectedUids:
        asked, before = self.hub.now(), self._snapshot
        if before[0] >= 0:
            self._snapshot = (asked, before[1])  # one asks; others have the last answer meanwhile
        mine = self._snapshot
        try:
            snapshot = self._broker.connected()
        except BrokerError:
            if self._snapshot is mine:
                self._snapshot = before
            raise
        if self._snapshot is mine:  # nobody came or went here since
            self._snapshot = (asked, snapshot)
        return snapshot

    @on_hub
    def user_presence_changed(self, uid: str | None, online: bool, generation: int) -> None:
        """A user came or went: handlers of ``uidport-open`` and ``-close``, then all others.

        :param generation: of their comings and goings, which rises.
        """
        if uid is None:
            return
        log.info("uid %r %s", uid, "connected" if online else "disconnected")
        self._snapshot = (-SNAPSHOT, self._snapshot[1])  # handlers of this will ask who is there
        event = Event(s.UIDPORT_OPEN if online else s.UIDPORT_CLOSE, uid)
        if self._broker.local and self.watchers:
            # Only where somebody looks: a snapshot costs as much as there are users, and for each
            # of a crowd that comes that would be the square of it.
            now = self.connected_uids
            before = ConnectedUids(now.ws, now.ajax, now.any - {uid} if online else now.any | {uid})
            on_done = partial(self._tell_all, uid, online, before, now)
        else:
            on_done = partial(self._signal, uid, online)
        self._dispatcher.submit_own(event, uid, generation, self._channel, on_done)

    @on_hub
    def sweep(self) -> None:
        """See that the broker tells of others' comings and goings, once somebody watches."""
        if self.watchers and not self._watching and not self._broker.local:
            self._watching = self._comparing = True
            self.hub.background(self._watch)

    def _watch(self) -> None:
        try:
            self._broker.watch()
            self._changed = True  # whoever came before is told of, too
        except BrokerError as error:
            self._watching = False  # until the next sweep
            log.debug("who comes and goes is not known: %s", error)
        finally:
            self.hub.call(self._compared)

    @on_hub
    def changed(self) -> None:
        """Users came or went, in whatever process: the broker says so."""
        self._changed = True
        if self.watchers and self._watching and not self._comparing:
            self._comparing = True
            when = max(max(self._snapshot[0], self._asked) + SNAPSHOT, self._healed)
            wait = when - self.hub.now()
            self.hub.timer(max(0.0, wait), lambda: self.hub.background(self._compare))

    @on_hub
    def restart(self) -> None:
        """The broker began anew: until it was told who is there, watchers are told nothing."""
        self._healed = self.hub.now() + HEALED
        self.changed()

    @on_hub
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
        self._changed = False  # what changes from now on may not be in the answer
        self._asked = self.hub.now()
        try:
            now = self._ask()
        except BrokerError as error:
            self._changed = True  # perhaps: ask again
            log.debug("who is connected is not known: %s", error)
            now = self._seen
        before, self._seen = self._seen, now
        if now == before:
            self.hub.call(self._compared)
        else:
            self.hub.call(self.hub.spawn, self._tell_in_turn, before, now)

    def _tell_in_turn(self, before: ConnectedUids, now: ConnectedUids) -> None:
        """Watchers may block: what comes next is compared when they are done."""
        try:
            self._tell_watchers(before, now)
        finally:
            self.hub.call(self._compared)

    @on_hub
    def _compared(self) -> None:
        self._comparing = False
        if self._changed:
            self.changed()

    def _tell_all(self, uid: str, came: bool, before: ConnectedUids, now: ConnectedUids) -> None:
        self._signal(uid, came)
        self._tell_watchers(before, now)

    def _tell_watchers(self, before: ConnectedUids, now: ConnectedUids) -> None:
        for watch in list(self.watchers):
            self._host.run_plain(watch, before, now)

    def _signal(self, uid: str, came: bool) -> None:
        for tell in self.signals:
            self._host.run_plain(tell, uid, came)

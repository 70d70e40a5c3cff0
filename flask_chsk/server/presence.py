"""Tells handlers, signals and watchers who came and who went.

A user comes with the first client in any process and goes with the last. Anonymous clients are
nobody's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ..brokers.contract import Broker
from ..errors import BrokerError
from ..hub import Hub, on_hub
from ..logs import logger
from ..protocol import session as s
from ..protocol.event import Event
from ..protocol.uids import NOBODY, ConnectedUids
from .dispatch import Dispatcher, Host
from .replies import NoReplyChannel
from .sending import Sending

log = logger(__name__)

HEALED = 10.0  # seconds after which all processes told a broker that began anew who is there
NEVER = -1e9  # seconds of the hub's clock


class Presence:
    """Who is connected, in all processes of the broker; on the hub, but for `connected_uids`.

    :ivar signals: called with a user, and whether they came (True) or went.
    :ivar watchers: called with who was connected, and who is.
    """

    def __init__(
        self,
        hub: Hub,
        broker: Broker,
        dispatcher: Dispatcher,
        host: Host,
        sending: Sending,
    ) -> None:
        self.hub = hub
        self._broker = broker
        self._dispatcher = dispatcher
        self._host = host
        self._channel = NoReplyChannel(sending, self)
        self.signals: list[Callable[[str, bool], None]] = []
        self.watchers: list[Callable[[ConnectedUids, ConnectedUids], object]] = []
        self._snapshot = (NEVER, NOBODY)  # when it was asked for, and itself
        self._watching = False  # the broker says when somebody comes or goes
        self.comparing = False  # until watchers were told what has changed
        self._healed = 0.0  # when the broker may be asked again
        self._asked = NEVER  # when watchers were last compared for
        self._changed = False  # since the last comparison began
        self._seen = NOBODY  # what watchers were told last

    @property
    def connected_uids(self) -> ConnectedUids:
        """Who is connected, or was less than ``snapshot_seconds`` ago; from any thread."""
        asked, snapshot = self._snapshot
        if self.hub.now() - asked < self._broker.snapshot_seconds:
            return snapshot
        return self._ask()

    def _ask(self) -> ConnectedUids:
        asked, before = self.hub.now(), self._snapshot
        if before[0] >= 0:
            self._snapshot = (asked, before[1])  # one asks; others have the last answer meanwhile
        mine = self._snapshot
        try:
            snapshot = self._broker.clients.connected()
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
        self._snapshot = (NEVER, self._snapshot[1])  # handlers of this will ask who is there
        event = Event(s.UIDPORT_OPEN if online else s.UIDPORT_CLOSE, uid)
        self._watch_if_wanted()
        on_done = partial(self._signal, uid, online)
        self._dispatcher.submit_own(event, uid, generation, self._channel, on_done)

    @on_hub
    def sweep(self) -> None:
        """See that the broker tells of comings and goings, once somebody watches."""
        self._watch_if_wanted()

    def _watch_if_wanted(self) -> None:
        if self.watchers and not self._watching:
            self._watching = self.comparing = True
            self.hub.background(self._watch)

    def _watch(self) -> None:
        try:
            self._broker.clients.watch()
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
        if self.watchers and self._watching and not self.comparing:
            self.comparing = True
            again = max(self._snapshot[0], self._asked) + self._broker.snapshot_seconds
            wait = max(again, self._healed) - self.hub.now()
            self.hub.timer(max(0.0, wait), lambda: self.hub.background(self._compare))

    @on_hub
    def restart(self) -> None:
        """The broker began anew: until it was told who is there, watchers are told nothing."""
        self._healed = self.hub.now() + HEALED
        self.changed()

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
            for watch in list(self.watchers):
                self._host.run_plain(watch, before, now)
        finally:
            self.hub.call(self._compared)

    @on_hub
    def _compared(self) -> None:
        self.comparing = False
        if self._changed:
            self.changed()

    def _signal(self, uid: str, came: bool) -> None:
        for tell in self.signals:
            self._host.run_plain(tell, uid, came)

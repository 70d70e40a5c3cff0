"""Carries out what a client session decides: links, threads, timers, the application's functions.

The private half of :class:`~flask_chsk.client.ChannelSocket`, and the owner of its transports
(:class:`~.link.PostOwner`). One lock guards the session. Under it the session decides, and
what never blocks is done; bytes leave after it was released.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

from .. import forks
from ..errors import ChannelClosed, PackError, UsageError
from ..interrupts import from_signal
from ..logs import logger
from ..protocol.event import Event
from ..protocol.wire import Data
from .dispatch import Dispatcher, NoHandler
from .effects import Asked, Changed, Deliver, Dropped, End, Open, Replied, Repoll, Send, State
from .endpoint import Endpoint
from .link import Link, LinkClosed, Outgoing, Transport
from .polling import Polling
from .session import AT_REST, ClientSession
from .waiting import Flag, JobQueue, ThreadGroup
from .websocket import WebSocket

log = logger(__name__)
T = TypeVar("T")

JOIN = 1.0  # seconds destroy() waits for threads; one that is connecting ends by itself
TICK = 5.0  # seconds between looks whether the machine slept


class Engine:
    """Owns the session of one client, its links and its threads."""

    def __init__(
        self,
        session: ClientSession,
        endpoint: Endpoint,
        dispatcher: Dispatcher,
        threads: ThreadGroup,
        lock: threading.RLock,
    ) -> None:
        self.session = session
        self._endpoint = endpoint
        self._dispatcher = dispatcher
        self._threads = threads
        self._lock = lock
        self._deciding: int | None = None  # the thread in which the session decides
        self._writes = JobQueue(threads.start, "writes")
        self._transports: list[Transport] = []
        self._waiting_open: list[Flag] = []  # of calls that block until it is open
        self._alarm: Flag | None = None  # wakes the clock's thread, if there is one
        self._alarm_at = 0.0
        self._is_copy = False  # in a child process: the original is the parent's
        self._carries_out: dict[type, Callable[[Any, list[Transport]], None]] = {
            Send: self._send,
            Deliver: self._deliver,
            Replied: self._replied,
            Changed: self._changed,
            Open: self._open,
            End: self._end,
            Asked: self._asked,
            Dropped: self._dropped,
            Repoll: self._repoll,
        }
        forks.register(self)

    def forked(self) -> None:
        """This is a child process: threads and connections are its parent's."""
        self._is_copy = True
        closed = {**self.session.state, "status": "closed", "open": False}
        self.session.state = MappingProxyType(closed)

    # calls of the application --------------------------------------------------------

    def decide(self, decision: Callable[..., T], *args: Any) -> T:
        """Let the session decide, ``decision(*args, now)``, and carry out what it decided.

        :raises UsageError: in a child of the process that made this client.
        """
        if self._is_copy:
            raise UsageError(
                "this ChannelSocket belongs to the process that forked this one: make another here"
            )
        with self._lock:
            outer, self._deciding = self._deciding, threading.get_ident()
            try:
                self.session.wall = wall()
                result = decision(*args, time.monotonic())
                written = self._carry_out()
                self._set_alarm()
            finally:
                self._deciding = outer
        for transport in written:
            if self._threads.on_hub():
                self._writes.put(transport.flush)
            else:
                transport.flush()
        return result

    def may_block(self, name: str) -> None:
        """See that a call may block here.

        :raises UsageError: in a function that the session waits for.
        """
        if self._deciding == threading.get_ident():
            raise UsageError(f"{name}() blocks, which a backoff must not: use send()")

    def wait_open(self, timeout: float) -> None:
        """Return when it is open.

        :raises ChannelClosed: where it is at rest, or not open after *timeout* seconds.
        """
        until = time.monotonic() + timeout
        while True:
            flag = Flag()
            self._waiting_open.append(flag)
            try:
                state = self.session.state
                if state["open"]:
                    return
                if state["status"] in AT_REST or not flag.wait(until - time.monotonic()):
                    raise ChannelClosed(f"not open: {why(self.session.state)}")
            finally:
                if flag in self._waiting_open:
                    self._waiting_open.remove(flag)

    def destroy(self) -> None:
        """Close for good; no thread, greenlet or socket stays."""
        if self._is_copy:
            return
        threads = self._threads
        self.decide(self.session.destroy)
        threads.ending.set()
        self._dispatcher.close()
        self._writes.close(finish=True)
        with self._lock:
            transports = list(self._transports)
        for transport in transports:
            transport.hurry()
        if not threads.join(JOIN / 2):
            for transport in transports:
                transport.cut()
            threads.join(JOIN / 2)
        self._endpoint.http.close()
        self._dispatcher.clear()

    # carrying out --------------------------------------------------------------------

    def _carry_out(self) -> list[Transport]:
        """Do what never blocks; returns the transports that have something to write."""
        written: list[Transport] = []
        carries_out = self._carries_out
        while effects := self.session.take_effects():
            for effect in effects:
                carries_out[type(effect)](effect, written)
        return written

    def _send(self, effect: Send, written: list[Transport]) -> None:
        transport = _transport_of(effect.link)
        if transport.take(effect.outgoing):
            written.append(transport)
        else:
            self.session.not_taken(effect.outgoing, time.monotonic())

    def _deliver(self, effect: Deliver, written: list[Transport]) -> None:
        self._dispatcher.deliver(effect.event, effect.pushed, effect.size)

    def _replied(self, effect: Replied, written: list[Transport]) -> None:
        self._dispatcher.replied(effect)

    def _changed(self, effect: Changed, written: list[Transport]) -> None:
        status = effect.new["status"]
        if status != effect.old["status"]:
            level = logging.ERROR if status == "refused" else logging.DEBUG
            log.log(level, "%s: %s", self._endpoint.shown, why(effect.new))
            if status == "open" or status in AT_REST:
                for flag in self._waiting_open:
                    flag.set()
        self._dispatcher.changed(effect.old, effect.new)

    def _open(self, effect: Open, written: list[Transport]) -> None:
        link = effect.link
        parts = (self, link, self._endpoint, self._threads, self._lock)
        transport: Transport
        if link.kind == "ws":
            transport = WebSocket(*parts)
        else:
            transport = Polling(*parts, self.session.requests)
        link.transport = transport
        self._transports.append(transport)
        transport.start()

    def _end(self, effect: End, written: list[Transport]) -> None:
        transport = _transport_of(effect.link)
        transport.end(effect.code)
        written.append(transport)

    def _asked(self, effect: Asked, written: list[Transport]) -> None:
        self._threads.start_for_users("ask", partial(self._answer, effect.id, effect.event))

    def _dropped(self, effect: Dropped, written: list[Transport]) -> None:
        log.warning("%s: %s, which waited, is dropped", effect.why, effect.outgoing.name)

    def _repoll(self, effect: Repoll, written: list[Transport]) -> None:
        _transport_of(effect.link).restart()

    def _answer(self, ask_id: str, event: Event) -> None:
        """In a thread for users' code: answer what the server asks."""
        answer = self.session.answer
        try:
            value = self._dispatcher.answer(event)
            self.decide(partial(answer, ask_id, value=value))
        except BaseException as error:
            if from_signal(error):
                raise
            if not isinstance(error, NoHandler | PackError):
                log.exception("answering %s failed", event.id)
            text = str(error) or type(error).__name__
            self.decide(partial(answer, ask_id, error=text))

    # time ----------------------------------------------------------------------------

    def _set_alarm(self) -> None:
        """See that the clock's thread wakes when something is due."""
        resting = self.session.state["status"] in AT_REST
        if self._alarm is None:
            if not resting:
                self._alarm = Flag()
                self._alarm_at = 0.0
                self._threads.start("clock", self._keep_time)
            return
        due = self.session.next_due()
        if resting or (due is not None and due < self._alarm_at):
            self._alarm.set()

    def _keep_time(self) -> None:
        while True:
            with self._lock:
                if self.session.state["status"] in AT_REST:
                    self._alarm = None
                    return
                now = time.monotonic()
                due = self.session.next_due()
                self._alarm_at = now + TICK if due is None else min(due, now + TICK)
                alarm = self._alarm = Flag()
                seconds = self._alarm_at - now
            alarm.wait(seconds)
            self.decide(lambda now: self.session.tick(now, wall()))

    # what transports report (link.PostOwner) -----------------------------------------

    def opened(self, link: Link) -> None:
        """The server accepted a WebSocket."""
        self.decide(self.session.opened, link)

    def received(self, link: Link, data: Data) -> str | None:
        """A message came; returns its value where that is a word."""
        return self.decide(self.session.received, link, data)

    def heard(self, link: Link) -> None:
        """A sign of life came that is no message."""
        self.decide(self.session.heard, link)

    def closed(self, link: Link, how: LinkClosed) -> None:
        """*link* ended by itself."""
        self.decide(self.session.closed, link, how)

    def finished(self, transport: Transport) -> None:
        """*transport* has no thread any more."""
        with self._lock:
            if transport in self._transports:
                self._transports.remove(transport)

    def may_poll(self) -> bool:
        """Whether no WebSocket that the server accepted is on trial."""
        trial = self.session.trial
        return trial is None or not trial.opened

    def post_answered(self, outgoing: Outgoing, data: Data) -> None:
        """The server answered a POST with *data*."""
        self.decide(lambda now: self.session.post_answered(outgoing, data))

    def post_interrupted(self, outgoing: Outgoing) -> None:
        """A POST ended without an answer."""
        self.decide(self.session.post_interrupted, outgoing)

    def post_failed(self, outgoing: Outgoing, reply: Any, details: Any = None) -> None:
        """A POST was refused, or timed out."""
        self.decide(lambda now: self.session.requests.reply(outgoing, reply, details))


def _transport_of(link: Link) -> Transport:
    """What carries *link*: the session says ``Open`` first."""
    assert link.transport is not None
    return link.transport


def wall() -> float:
    """The time of day minus the steady clock, in seconds."""
    return time.time() - time.monotonic()


def why(state: State) -> str:
    """Why it is not open, for messages."""
    close = state["last_close"]
    if close is None or state["open"]:
        return str(state["status"])
    said = close.get("message") or close.get("code")
    return f"{state['status']} ({close['reason']}{f': {said}' if said else ''})"

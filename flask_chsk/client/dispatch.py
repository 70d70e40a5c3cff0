"""Calls the application's functions: handlers, watchers, callbacks of sends.

One after another, in a thread or greenlet of their own, never under the client's lock and never in
a thread that reads. What waits for them is bounded. It decides nothing about the connection.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..errors import ChskError
from ..interrupts import from_signal
from ..logs import logger
from ..protocol.event import Event, assert_event
from ..protocol.session import GAP
from ..values import Keyword
from .effects import STATE, Replied, State
from .link import MAX_MESSAGE
from .waiting import Flag, JobQueue, Queue, ThreadGroup

log = logger(__name__)

EVENTS = 10_000  # that may wait for their handlers; then the oldest go, and a gap is told
EVENTS_BYTES = 4 * MAX_MESSAGE  # of these
RECV_BYTES = MAX_MESSAGE  # of the events in ch_recv


@dataclass(frozen=True, slots=True)
class EventMsg:
    """One event as a handler or a router gets it: ``event``, and its ``id`` and ``data``."""

    event: Event

    @property
    def id(self) -> str:
        """The event's id, such as ``"chat/said"``."""
        return self.event.id

    @property
    def data(self) -> Any:
        """The event's datum; None where it has none."""
        return self.event.data


Handler = Callable[[EventMsg], Any]
Watcher = Callable[[State, State], object]


def is_event_msg(x: object) -> bool:
    """Whether *x* is what ``ch_recv`` gives."""
    return isinstance(x, EventMsg)


class RecvQueue(Queue[EventMsg]):
    """Event messages that no handler took; where it is full the oldest is dropped.

    It is full with *limit* events, or with 16 MiB of them.
    """

    def __init__(self, limit: int | None = None) -> None:
        super().__init__(limit, RECV_BYTES)

    def put(self, item: Any, size: int = 0) -> None:
        """Append an event message, or an event ``[id, data]``, which came as *size* bytes.

        :raises BadEvent: for anything else.
        """
        dropped = self.dropped
        super().put(item if isinstance(item, EventMsg) else EventMsg(assert_event(item)), size)
        if self.dropped and not dropped:
            log.warning("events that nobody takes are dropped: register on(id), or read ch_recv")


class NoHandler(ChskError):
    """A server asks something for which the application has no handler."""


class PendingReply:
    """The callback of a call that blocks for its reply."""

    __slots__ = ("details", "flag", "reply")

    def __init__(self) -> None:
        self.flag = Flag()
        self.reply: Any = None
        self.details: Any = None

    def set(self, reply: Any, details: Any) -> None:
        """Let the caller go on."""
        self.reply, self.details = reply, details
        self.flag.set()


class Dispatcher:
    """The functions of one client's application, and what waits for them.

    :ivar ch_recv: takes events that no handler takes.
    """

    def __init__(self, threads: ThreadGroup, ch_recv: RecvQueue, wrap_recv: bool) -> None:
        """
        :param wrap_recv: whether pushed events are ``["chsk/recv", event]`` in *ch_recv*.
        """
        self.ch_recv = ch_recv
        self._threads = threads
        self._wrap_recv = wrap_recv
        self._lock = threading.Lock()  # of the handlers, which are replaced and never changed
        self._handlers: dict[str, tuple[Handler, ...]] = {}
        self._watchers: tuple[Watcher, ...] = ()
        self._missed = False  # events were dropped, and the application does not know yet
        start = threads.start_for_users
        self._events = JobQueue(start, "events", EVENTS, self._dropped, EVENTS_BYTES)
        self._replies = JobQueue(start, "replies")

    def on(self, id: str, fn: Handler) -> Callable[[], None]:
        """Call *fn* with each event of *id*; returns the undo."""
        with self._lock:
            self._handlers[id] = (*self._handlers.get(id, ()), fn)

        def undo() -> None:
            with self._lock:
                left = tuple(one for one in self._handlers.get(id, ()) if one is not fn)
                if left:
                    self._handlers[id] = left
                else:
                    self._handlers.pop(id, None)

        return undo

    def watch(self, fn: Watcher) -> Callable[[], None]:
        """Call ``fn(old, new)`` with each change of state; returns the undo."""
        with self._lock:
            self._watchers = (*self._watchers, fn)

        def undo() -> None:
            with self._lock:
                watchers = list(self._watchers)
                if fn in watchers:
                    watchers.remove(fn)
                self._watchers = tuple(watchers)

        return undo

    # what the client has to tell -----------------------------------------------------

    def changed(self, old: State, new: State) -> None:
        """The state changed."""
        for fn in self._watchers:
            self._events.put(partial(fn, old, new))

    def deliver(self, event: Event, pushed: bool, size: int = 0) -> None:
        """An event came, as *size* bytes; *pushed*: a server sent it to this user."""
        fns = self._handlers.get(event.id)
        if fns is None:
            if event.id.startswith("chsk/ws-p"):
                return  # keep-alive is only for handlers of that very id
            fns = self._handlers.get("*")
        if fns is None:
            if pushed and self._wrap_recv:
                event = Event(Keyword("chsk/recv"), event)
            self.ch_recv.put(EventMsg(event), size)
            return
        ev = EventMsg(event)
        for fn in fns:
            self._events.put(partial(self._handle, fn, ev), size)

    def replied(self, replied: Replied) -> None:
        """A send has its reply."""
        cb, reply = replied.outgoing.cb, replied.reply
        if isinstance(cb, PendingReply):
            cb.set(reply, replied.details)
        elif hasattr(cb, "put"):
            name = Keyword(f"{replied.outgoing.name}.cb")
            self._replies.put(partial(cb.put, [name, reply]))
        else:
            self._replies.put(partial(cb, reply))

    def answer(self, event: Event) -> Any:
        """What the application answers to *event*, which a server asks; in the calling thread.

        :raises NoHandler: where there is none.
        """
        fns = self._handlers_of(event.id)
        if not fns:
            raise NoHandler(f"no handler for {event.id}")
        return fns[0](EventMsg(event))

    # in the thread of the events -----------------------------------------------------

    def _handle(self, fn: Handler, ev: EventMsg) -> None:
        """Call a handler, unless that would be after the end."""
        if self._missed:
            self._missed = False
            self._tell_gap()
        if ev.id == STATE or not self._threads.ending.is_set():
            fn(ev)

    def _tell_gap(self) -> None:
        for fn in self._handlers_of(GAP):
            try:
                fn(EventMsg(Event(GAP)))
            except BaseException as error:
                if from_signal(error):
                    raise
                log.exception("handler of %s failed", GAP)

    def _dropped(self) -> None:
        if not self._missed:
            log.warning("handlers are too slow: events were dropped")
        self._missed = True

    def _handlers_of(self, id: str) -> tuple[Handler, ...]:
        return self._handlers.get(id) or self._handlers.get("*") or ()

    # the end -------------------------------------------------------------------------

    def close(self) -> None:
        """Take nothing more; what waits is still told."""
        self.ch_recv.close()
        self._events.close(finish=True)
        self._replies.close(finish=True)

    def clear(self) -> None:
        """Let the application's functions go."""
        with self._lock:
            self._handlers.clear()
            self._watchers = ()

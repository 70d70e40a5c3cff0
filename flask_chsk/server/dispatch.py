"""Events on their way to handlers: one client's in order, different clients' side by side."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Protocol

from .. import forks
from ..errors import BrokerError, PackError
from ..hub import SLICE, Hub, on_hub
from ..interrupts import from_signal
from ..logs import RateLimitedLogger, logger
from ..printable import error_line
from ..protocol.event import Event
from ..transports.budget import MemoryBudget
from ..transports.transport import Transport
from .connection import KeptRequest, Uid
from .replies import ReplyChannel
from .router import Channel, EventMessage, Handler, RefusedByParse, Router
from .trace import Trace
from .twice import imported_again

log = logger(__name__)
rate_limited = RateLimitedLogger(log)


MOST_NAMED = 8  # ids in a line of the log
EVENT_BYTES = 800  # that a waiting event holds: its message, its job, its way back
RUNNING_BYTES = 12 * 1024  # that a running one holds: its greenlet and its request's context


class Host(Protocol):
    """The application around the handlers: contexts, errors and their words."""

    def run(self, handler: Handler, ev: EventMessage, request: Any) -> Any:
        """What the handler answers; raises what it raises.

        :raises SignedOut: the session behind *request* has another user by now.
        """

    def run_plain(self, fn: Callable[..., object], *args: Any) -> None:
        """Call a hook in an application context."""

    def explain(self, error: BaseException) -> tuple[int, str]:
        """Status and message for a client."""


class SignedOut(Exception):
    """The session behind a connection belongs to another user by now."""


class Inbox:
    """Events of one client (or a user's comings and goings) that wait for their handlers."""

    __slots__ = ("bytes", "concurrent_running", "jobs", "key", "paused", "running")

    def __init__(self, key: Any) -> None:
        self.key = key
        self.jobs: deque[Job] = deque()
        self.running = False  # a worker handles them, one after another
        self.concurrent_running = 0  # events whose concurrent handlers run
        self.bytes = 0  # that all these hold
        self.paused: Transport | None = None

    @property
    def waiting(self) -> int:
        """Events that wait or run."""
        return len(self.jobs) + self.concurrent_running


class Job:
    """One event and the handler that takes it."""

    __slots__ = ("channel", "ev", "handler", "is_handled_elsewhere", "on_done", "request", "size")

    def __init__(
        self,
        ev: EventMessage,
        handler: Handler | None,
        channel: ReplyChannel | None,
        request: Any,
        on_done: Callable[[], object] | None = None,
        size: int = 0,
        is_handled_elsewhere: Callable[[], bool] | None = None,
    ) -> None:
        self.ev = ev
        self.handler = handler
        self.channel = channel
        self.request = request
        self.on_done = on_done
        self.size = size  # bytes that it holds, with what goes with it
        self.is_handled_elsewhere = is_handled_elsewhere  # by another worker; may block


class Dispatcher:
    """The inboxes of a process, and the workers that empty them."""

    def __init__(
        self,
        hub: Hub,
        max_inbox: int,
        max_bytes: int,
        budget: MemoryBudget,
        router: Router,
        host: Host,
        counters: Counter[str],
        trace: Trace,
        signed_out: Callable[[Uid, str], object],
    ) -> None:
        """
        :param signed_out: called on the hub with a client whose user has changed.
        :param max_bytes: of one client's events that wait, when no more is read; what each of
            *max_inbox* events holds by itself comes on top.
        """
        self.hub = hub
        self._signed_out = signed_out
        self._max_inbox = max_inbox
        self._max_bytes = max_bytes + EVENT_BYTES * max_inbox
        self._budget = budget
        self._router = router
        self._host = host
        self._counters = counters
        self._trace = trace
        self._inboxes: dict[Any, Inbox] = {}
        self._stopped = False  # no event is handled any more
        self.recv_put: Callable[[EventMessage], bool] | None = None  # once somebody wants ch_recv
        self.when_idle: Callable[[], object] | None = None
        forks.register(self)

    def forked(self) -> None:
        """What waits is handled in the parent."""
        for inbox in self._inboxes.values():
            inbox.jobs.clear()

    def __len__(self) -> int:
        return len(self._inboxes)

    @on_hub
    def waiting(self, key: Any) -> int:
        """How many events wait, or run, under *key*."""
        inbox = self._inboxes.get(key)
        return 0 if inbox is None else inbox.waiting

    @on_hub
    def is_full(self, key: Any) -> bool:
        """Whether no more events should be submitted."""
        inbox = self._inboxes.get(key)
        return inbox is not None and self._is_full(inbox)

    def _is_full(self, inbox: Inbox) -> bool:
        return (
            inbox.waiting >= self._max_inbox or inbox.bytes >= self._max_bytes or self._budget.full
        )

    @on_hub
    def is_half_full(self, key: Any) -> bool:
        """Whether the client should wait before it sends more."""
        inbox = self._inboxes.get(key)
        return inbox is not None and (
            inbox.waiting >= self._max_inbox // 2 or inbox.bytes >= self._max_bytes // 2
        )

    @on_hub
    def forget_transport(self, key: Any) -> None:
        """The transport that was paused is gone."""
        inbox = self._inboxes.get(key)
        if inbox is not None:
            inbox.paused = None

    @on_hub
    def submit(
        self,
        event: Event,
        uid: Uid,
        client_id: str,
        channel: ReplyChannel | None,
        request: KeptRequest | None,
        transport: Transport | None = None,
        size: int = 0,
        on_done: Callable[[], object] | None = None,
        is_handled_elsewhere: Callable[[], bool] | None = None,
    ) -> None:
        """Queue a client's event for its handler; *transport* is not read while too many wait.

        :param size: bytes that it holds, besides what each event does.
        :param on_done: called when later events may be handled: after its handler, or now where
            that waits for nobody.
        :param is_handled_elsewhere: asked before the handler runs; where it says True none does.
        """
        handler = self._router.find(event.id)
        if handler is None and event.id.startswith("chsk/ws-p"):
            if on_done is not None:
                on_done()
            return  # "*" does not take keep-alive messages
        self._counters["events_in"] += 1
        ev = EventMessage(event, uid, client_id, channel)
        if self._trace.on:
            about = "wants a reply" if channel is not None and channel.wants_reply else ""
            self._trace.client("in", uid, client_id, event.id, about, event.data)
        if handler is not None and handler.concurrent:
            size += RUNNING_BYTES  # however many there are
            if on_done is not None:
                on_done()
                on_done = None
        job = Job(ev, handler, channel, request, on_done, EVENT_BYTES + size, is_handled_elsewhere)
        self._enqueue((uid, client_id), job, transport)

    @on_hub
    def submit_own(
        self, event: Event, uid: str, generation: int, way: Channel, on_done: Callable[[], object]
    ) -> None:
        """Queue an event about a user, made by the worker; *on_done* runs after its handler."""
        ev = EventMessage(event, uid, None, way, generation=generation)
        handler = self._router.find(event.id) or Handler(lambda ev: None)
        self._enqueue((uid, None), Job(ev, handler, None, None, on_done), None)

    def _enqueue(self, key: Any, job: Job, transport: Transport | None) -> None:
        inbox = self._inboxes.get(key)
        if inbox is None:
            inbox = self._inboxes[key] = Inbox(key)
        inbox.bytes += job.size
        self._budget.waiting += job.size
        concurrent = job.handler is not None and job.handler.concurrent
        if concurrent:
            inbox.concurrent_running += 1
        else:
            inbox.jobs.append(job)
        # Before `spawn`: the handler may be done when that returns, and nothing would resume it.
        if transport is not None and inbox.paused is None and self._is_full(inbox):
            inbox.paused = transport
            transport.pause()
        if concurrent:
            self.hub.spawn(self._run_concurrent, inbox, job)
        elif not inbox.running:
            inbox.running = True
            self.hub.spawn(self._run_inbox, inbox)

    def _run_inbox(self, inbox: Inbox) -> None:
        """In a worker: one event after another, until none waits."""
        jobs = inbox.jobs
        hub = self.hub
        try:
            while jobs:
                until = hub.now() + SLICE
                while (job := _next(jobs)) is not None:
                    try:
                        self._run(job)
                    finally:
                        if job.size or inbox.paused is not None:
                            hub.call(self._handled, inbox, job.size)
                    if hub.now() >= until:
                        hub.yield_to_loop()
                        break
        finally:  # whatever ends this greenlet, the next event starts another
            hub.call(self._rest, inbox)

    def _run_concurrent(self, inbox: Inbox, job: Job) -> None:
        """In a worker: one event, while the client's others go on."""
        try:
            self._run(job)
        finally:
            self.hub.call(self._concurrent_done, inbox, job.size)

    @on_hub
    def _concurrent_done(self, inbox: Inbox, size: int) -> None:
        inbox.concurrent_running -= 1
        self._handled(inbox, size)
        self._done_with(inbox)

    @on_hub
    def _handled(self, inbox: Inbox, size: int) -> None:
        inbox.bytes -= size
        self._budget.waiting -= size
        self._unpause(inbox)

    def _unpause(self, inbox: Inbox) -> None:
        if inbox.paused is None:
            return
        # Half empty, or empty where others fill the process.
        room = inbox.waiting <= self._max_inbox // 2 and inbox.bytes <= self._max_bytes // 2
        if not inbox.waiting or (room and not self._budget.full):
            paused, inbox.paused = inbox.paused, None
            paused.resume()

    @on_hub
    def _rest(self, inbox: Inbox) -> None:
        if inbox.jobs:
            self.hub.spawn(self._run_inbox, inbox)
        else:
            inbox.running = False
            self._unpause(inbox)
            self._done_with(inbox)

    def _done_with(self, inbox: Inbox) -> None:
        if inbox.running or inbox.concurrent_running:
            return
        self._inboxes.pop(inbox.key, None)
        if not self._inboxes and self.when_idle is not None:
            self.when_idle()

    @on_hub
    def stop(self) -> None:
        """Handle nothing more, and answer waiting events with ``:chsk/closed``."""
        self._stopped = True
        for inbox in list(self._inboxes.values()):
            while (job := _next(inbox.jobs)) is not None:
                self._budget.waiting -= job.size
                if job.channel is not None:
                    job.channel.closed()
                if job.on_done is not None:
                    job.on_done()

    def _run(self, job: Job) -> None:
        """In a worker: run the handler of one event, and see that it is answered."""
        ev, channel = job.ev, job.channel
        try:
            if self._stopped and channel is not None:
                channel.closed()
                return
            if job.is_handled_elsewhere is not None and job.is_handled_elsewhere():
                return
            if job.handler is None:
                self._unhandled(ev, channel)
                return
            value = self._host.run(job.handler, ev, job.request)
            if channel is not None and ev.wants_reply:
                if ev.deferred:
                    self._tell_reply(ev, "deferred")
                    self.hub.call(channel.expire_later, ev)
                else:
                    self._reply(ev, channel, value)
        except SignedOut:
            self._answer_error(ev, channel, 401, "signed out")
            if ev.client_id is not None:
                self.hub.call(self._signed_out, ev.uid, ev.client_id)
        except RefusedByParse as refused:
            assert refused.__cause__ is not None
            self._refused_by_parse(ev, channel, refused.__cause__)
        except BaseException as error:  # an error ends its handler only
            if from_signal(error) or (isinstance(error, SystemExit) and forks.is_caller()):
                raise
            self._failed(ev, channel, error)
        finally:
            if job.on_done is not None:
                job.on_done()

    def _reply(self, ev: EventMessage, channel: ReplyChannel, value: Any) -> None:
        try:
            ev.reply(value)
        except PackError as error:  # says where in the value; the traceback would be ours alone
            self._counters["handler_errors"] += 1
            log.error("handler of %s failed, uid %r: its %s", ev.id, ev.uid, error)
            self._answer_error(ev, channel, 500, "the handler failed")

    def _answer_error(
        self, ev: EventMessage, channel: ReplyChannel | None, status: int, message: str
    ) -> None:
        """Answer ``:chsk/error``, where an answer is wanted; each is counted."""
        self._counters[f"errors_{status}"] += 1
        self._tell_reply(ev, f"error {status}: {message}")
        if channel is not None and ev.wants_reply:
            channel.error(status, message)

    def _tell_reply(self, ev: EventMessage, about: str) -> None:
        if self._trace.on:
            self._trace.client("reply", ev.uid, ev.client_id, ev.id, about)

    def _refused_by_parse(
        self, ev: EventMessage, channel: ReplyChannel | None, error: BaseException
    ) -> None:
        self._counters["refused_by_parse"] += 1
        # One kind for all ids that "*" takes: those are the peer's words.
        kind = f"parse {ev.id}" if ev.id in self._router.handlers else "parse"
        words = "parse of %s refused what uid %r sent: %s (more at DEBUG)"
        rate_limited.warning(kind, words, ev.id, ev.uid, type(error).__name__)
        log.debug("parse of %s, uid %r: %s", ev.id, ev.uid, error)  # it quotes the data
        self._answer_error(ev, channel, 400, error_line(error))

    def _failed(self, ev: EventMessage, channel: ReplyChannel | None, error: BaseException) -> None:
        status, message = self._host.explain(error)
        if isinstance(error, BrokerError):
            self._counters["handler_errors"] += 1
            rate_limited.warning("broker", "handler of %s, uid %r: %s", ev.id, ev.uid, error)
        elif status >= 500:
            self._counters["handler_errors"] += 1
            log.error("handler of %s failed, uid %r", ev.id, ev.uid, exc_info=error)
        else:
            words = "%s from uid %r was answered with status %d"
            rate_limited.log(logging.INFO, f"status {status}", words, ev.id, ev.uid, status)
        self._answer_error(ev, channel, status, message)

    def _unhandled(self, ev: EventMessage, channel: ReplyChannel | None) -> None:
        if self.recv_put is not None:
            if not self.recv_put(ev):
                self._counters["recv_dropped"] += 1
            if channel is not None and ev.wants_reply:
                self.hub.call(channel.expire_later, ev)
            return
        self._counters["unhandled"] += 1
        if not ev.id.startswith("chsk/uidport"):
            id = str(ev.id)
            words = "no handler for %s (from uid %r): add @chsk.on(%r); %s"
            # One kind, whatever the id: ids are the peer's words.
            rate_limited.warning("no handler", words, id, ev.uid, id, _Known(self._router, id))
        self._answer_error(ev, channel, 404, f"no handler for {ev.id}")


class _Known:
    """Words about the ids that have handlers: made when they are logged, once a minute at most."""

    def __init__(self, router: Router, id: str) -> None:
        self._router = router
        self._id = id

    def __str__(self) -> str:
        names = self._router.nearest(self._id, MOST_NAMED)
        more = len(self._router.handlers) - len(names)
        known = ", ".join(names) + (f" and {more} more" if more else "")
        words = f"handlers there are: {known}" if names else "there are no handlers"
        again = imported_again()
        if again is not None:
            words += (
                f". This script runs twice, as __main__ and as {again}, and each has a Chsk of its"
                f" own: start it with flask --app {again} run, or make chsk in another module"
            )
        return words


def _next(jobs: deque[Job]) -> Job | None:
    """The next of *jobs*; under native threads two may ask at once."""
    try:
        return jobs.popleft()
    except IndexError:
        return None

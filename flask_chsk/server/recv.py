"""``ch_recv`` and its router: Sente's way to take events that no handler took."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from typing import Any

import gevent
from gevent import monkey
from gevent.queue import Empty, Full, Queue

from .. import forks
from ..errors import ConfigError
from ..interrupts import from_signal
from ..logs import RateLimitedLogger, logger
from ..plain import plain
from .router import EventMessage

LOOK = 0.5  # seconds between looks whether a router was stopped

log = logger(__name__)
rate_limited = RateLimitedLogger(log)


class RecvQueue:
    """A bounded gevent queue of event messages; what does not fit is counted, not kept."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._queue: Queue[Any] = Queue(size)
        self.dropped = 0
        forks.register(self)

    def forked(self) -> None:
        """What waits is handled in the parent."""
        self._queue = Queue(self._size)

    def offer(self, ev: EventMessage) -> bool:
        """Put *ev* in; False where there is no room."""
        try:
            self._queue.put_nowait(ev)
        except Full:
            self.dropped += 1
            rate_limited.warning("full", "ch_recv is full (CHSK_RECV_BUF): %s was dropped", ev.id)
            return False
        return True

    def put(self, ev: EventMessage) -> None:
        """Inject an event message.

        :raises ConfigError: where there is no room.
        """
        if not self.offer(ev):
            raise ConfigError("ch_recv is full: take from it, or raise CHSK_RECV_BUF")

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """The next event message.

        :raises queue.Empty: after *timeout* seconds.
        """
        return self._queue.get(block, timeout)

    def __len__(self) -> int:
        return self._queue.qsize()


def start_router(
    ch_recv: Any, handler: Callable[[EventMessage], object], *, trace_evs: bool = False
) -> Callable[[], None]:
    """Call *handler* with each event message of *ch_recv*; returns its stop.

    Errors are caught and logged.

    :param trace_evs: log each event at DEBUG before it is handled.
    """
    plain(handler, "start_chsk_router()", takes="ev")
    stopped = False

    def loop() -> None:
        forks.stay_behind(gevent.getcurrent())
        while not stopped:
            try:
                ev = ch_recv.get(timeout=LOOK)
            except Empty:
                continue
            if trace_evs:
                log.debug("event %s", ev.id)
            try:
                handler(ev)
            except BaseException as error:
                if from_signal(error):
                    raise
                log.exception("handler of %s failed, uid %r", ev.id, ev.uid)

    thread = threading.Thread(target=loop, name="flask_chsk.router", daemon=True)
    thread.start()

    def stop() -> None:
        nonlocal stopped
        stopped = True
        atexit.unregister(end)

    def end() -> None:
        stop()
        thread.join(2 * LOOK)

    if not monkey.is_module_patched("threading"):  # else it is a greenlet
        # Python aborts now and then where it ends while a native thread waits in gevent's loop.
        atexit.register(end)
    return stop

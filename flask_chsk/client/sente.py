"""Sente's functions by their names, for programs translated from Clojure.

Each is a method of :class:`ChannelSocket` or a few lines. Options may have Sente's spelling
(``{"ws-kalive-ms": 25000}``) or Python's (``ws_kalive=25.0``).
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from queue import Empty
from typing import Any

import gevent

from .. import forks
from ..errors import ChannelClosed
from ..interrupts import from_signal
from ..logs import logger
from ..plain import plain
from ..protocol.backoff import exp_backoff
from .channel import REMEDY, ChannelSocket
from .dispatch import EventMsg, RecvQueue

log = logger(__name__)

STOP_CHECK = 0.5  # seconds between checks whether a router was stopped

_NAMES = {
    "recv_buf_or_n": "recv_buf",
    "chsk_url_fn": "chsk_url",
    "wrap_recv_evs": "wrap_recv",
}


class Parts(Mapping[str, Any]):
    """What :func:`make_channel_socket` gives: ``ch_recv``, ``send_fn``, ``state``, ``chsk``.

    ``state`` is the state at the moment it is read.
    """

    def __init__(self, chsk: ChannelSocket) -> None:
        self.chsk = chsk
        self.ch_recv: RecvQueue = chsk.ch_recv
        self.send_fn: Callable[..., bool] = chsk.send

    @property
    def state(self) -> Mapping[str, Any]:
        return self.chsk.state

    def __getitem__(self, key: str) -> Any:
        if key not in ("ch_recv", "send_fn", "state", "chsk"):
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        return iter(("ch_recv", "send_fn", "state", "chsk"))

    def __len__(self) -> int:
        return 4


def make_channel_socket(
    path: str,
    opts: Mapping[str, Any] | None = None,
    _deprecated_more_opts: Mapping[str, Any] | None = None,
    **options: Any,
) -> Parts:
    """A :class:`ChannelSocket` as Sente's map of parts.

    :param path: the whole URL of the server's channel socket: a program has no page.
    :param opts: named as the keyword arguments of :class:`ChannelSocket`, or as Sente names
        them: ``type recv-buf-or-n ws-kalive-ms lp-timeout-ms lp-kalive-ms chsk-url-fn packer
        client-id client-uuid ajax-opts``.
    """
    given = _options(opts or {})
    if _deprecated_more_opts is not None:
        warnings.warn("give all options in one mapping", DeprecationWarning, stacklevel=2)
        given.update(_options(_deprecated_more_opts))
    given.update(options)
    return Parts(ChannelSocket(path, **given))


def _options(opts: Mapping[str, Any]) -> dict[str, Any]:
    options = {}
    for key, value in opts.items():
        name = str(key).replace("-", "_").rstrip("?")
        if name.endswith("_ms"):
            name, value = name[:-3], value / 1000
        options[_NAMES.get(name, name)] = value
    return options


def chsk_send(chsk: ChannelSocket, event: Any, *args: Any) -> bool:
    """Send *event*; *args* are ``timeout, cb``, or a mapping of both, or nothing.

    :returns: whether it left, as far as is known.
    """
    return chsk.send(event, *args)


def chsk_reconnect(chsk: ChannelSocket) -> None:
    """Drop the connection, and open again at once: after a login or a logout."""
    chsk.reconnect()


def chsk_destroy(chsk: ChannelSocket) -> None:
    """Close for good."""
    chsk.destroy()


def start_chsk_router(
    ch_recv: Any,
    event_msg_handler: Callable[[EventMsg], object],
    opts: Mapping[str, Any] | None = None,
    *,
    trace_evs: bool = False,
) -> Callable[[], None]:
    """Call *event_msg_handler* with each event message of *ch_recv*; returns the stop.

    It runs in a thread of its own; exceptions of the handler are logged.

    :param opts: ``{"trace-evs?": True}`` logs each event first, as *trace_evs* does.
    """
    plain(event_msg_handler, "start_chsk_router()", REMEDY, takes="ev")
    trace = trace_evs or bool(_options(opts or {}).get("trace_evs"))
    stopped = threading.Event()

    def loop() -> None:
        forks.stay_behind(gevent.getcurrent())
        while not stopped.is_set():
            try:
                ev = ch_recv.get(timeout=STOP_CHECK)
            except Empty:
                continue
            except ChannelClosed:
                return
            if stopped.is_set():
                ch_recv.put(ev)  # it came while the router was stopped: for the next reader
                return
            if trace:
                log.debug("event %s", ev.event)
            try:
                event_msg_handler(ev)
            except BaseException as error:
                if from_signal(error):
                    raise
                log.exception("handler of %s failed", ev.id)

    threading.Thread(target=loop, name="flask_chsk.client router", daemon=True).start()
    return stopped.set


def start_chsk_router_loop(
    event_handler: Callable[[Any, Any], object], ch_recv: Any
) -> Callable[[], None]:
    """Deprecated: :func:`start_chsk_router` with its arguments the other way round.

    *event_handler* gets the event, and *ch_recv*.
    """
    warnings.warn("use start_chsk_router(ch_recv, handler)", DeprecationWarning, stacklevel=2)
    return start_chsk_router(ch_recv, lambda ev: event_handler(ev.event, ch_recv))


def set_exp_backoff_timeout(
    nullary_f: Callable[[], object], nattempt: int = 0
) -> Callable[[], None]:
    """Call *nullary_f* after the backoff of try number *nattempt*; returns the undo."""
    timer = threading.Timer(exp_backoff(nattempt), nullary_f)
    timer.daemon = True
    timer.start()
    return timer.cancel

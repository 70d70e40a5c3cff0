"""What a child made by ``fork()`` lets go of: its parent's sockets, greenlets and queues.

A forked child has copies of all of them. Under gevent they would live on: the child runs its
parent's event loop, so it would answer the parent's clients and take bytes meant for the parent.
So in a child all that the parent had of ours ends, without a word to the peers, whose connections
are the parent's: a descriptor is closed, never shut down. What the child asks for afterwards is
made anew. As after a fork of a process with threads, only the caller of ``fork()`` goes on: a copy
of another handler or request stays where it waits, or its effects would happen twice.

It does not touch the greenlets of the application, and of the WSGI server's sockets only those at
an address where a worker served us, in a child that one of its greenlets forked.
"""

from __future__ import annotations

import _socket
import contextlib
import os
import socket
import stat
import sys
from typing import Any, NoReturn, Protocol
from weakref import WeakSet

from .errors import UsageError
from .logs import logger

log = logger(__name__)


class Owner(Protocol):
    """Something that a child must not share with its parent."""

    def forked(self) -> None:
        """This process is a child: let go. Before gevent renews the loop, so it must not wait."""


_owners: WeakSet[Owner] = WeakSet()
_greenlets: WeakSet[Any] = WeakSet()
_parents: list[Owner] = []  # in a child: what its parent had. To free it could wake what it holds
_silent: list[socket.socket] = []
_caller: Any = None  # in a child: the greenlet that forked


def register(owner: Owner) -> None:
    """Call ``owner.forked()`` in every child that is forked while *owner* exists."""
    _owners.add(owner)


def stay_behind(greenlet: Any) -> None:
    """Let no copy of *greenlet* run in a child, nor its ``finally`` clauses."""
    _greenlets.add(greenlet)


def _in_child() -> None:
    global _caller
    _caller = _current()
    owners = list(_owners)
    _owners.clear()
    _parents.extend(owners)
    for greenlet in _greenlets:
        if greenlet is not _caller:
            greenlet.switch = greenlet.throw = _never
    for owner in owners:
        try:
            owner.forked()
        except Exception:
            log.exception("error after a fork in %r", owner)


if hasattr(os, "register_at_fork"):  # not where there is no fork
    os.register_at_fork(after_in_child=_in_child)


def silence(fileno: int, listens: bool = False) -> None:
    """Put a socket that never says anything in the place of a descriptor.

    Greenlets that wait for the descriptor go on waiting. If it were closed, they would get an
    error, or another file under its number.
    """
    if not _silent:
        _silent.extend(socket.socketpair())
        _silent[0].setblocking(False)
        _silent.append(_listener())
    os.dup2(_silent[2 if listens else 0].fileno(), fileno, inheritable=False)


def _listener() -> socket.socket:
    """One to which nobody connects."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind("")  # Linux finds a name for it
    except OSError:
        listener.close()
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
    listener.listen()
    listener.setblocking(False)
    return listener


def silence_address(address: Any) -> None:
    """Silence all sockets at one local address: a server's listener, and what it accepted.

    :param address: as ``getsockname`` gives it; of an IP address the port counts.
    """
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):
            fileno = int(name)
            if not stat.S_ISSOCK(os.fstat(fileno).st_mode):
                continue
            one = _socket.socket(fileno=fileno)
            try:
                found = one.getsockname()
                listens = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            finally:
                one.detach()
            if _place(found) == _place(address):
                silence(fileno, bool(listens))


def _place(address: Any) -> Any:
    return address[1] if isinstance(address, tuple) else address


def _current() -> Any:
    """The current greenlet; None in a process without gevent, such as a publisher's."""
    gevent = sys.modules.get("gevent")
    return None if gevent is None else gevent.getcurrent()


def _is_spawned(greenlet: Any) -> bool:
    """Whether gevent spawned *greenlet*; a thread's main greenlet runs the code of the thread."""
    gevent = sys.modules.get("gevent")
    return gevent is not None and isinstance(greenlet, gevent.Greenlet)


def by_greenlet() -> bool:
    """In a child: whether a greenlet forked, not the thread that started the greenlets."""
    return _is_spawned(_caller)


def is_caller() -> bool:
    """In a child: whether the caller forked it. Then ``sys.exit()`` ends it, and is no error."""
    return _caller is not None and _caller is _current()


def stay() -> NoReturn:
    """End a call to what is the parent's: a copy of its caller waits here for ever.

    :raises UsageError: for who forked, or has no loop to wait in.
    """
    current = _current()
    if not _is_spawned(current) or current is _caller:
        raise UsageError(
            "this is the parent process's: in a forked child use chsk.send(…), which connects anew"
        )
    hub = sys.modules["gevent"].get_hub()
    while True:
        hub.switch()


def _never(*args: Any) -> None:
    """In place of a greenlet's ``switch``."""

"""Sends that belong to a transaction: they wait for its commit, and are dropped without one.

A send waits with the innermost savepoint of its session. A savepoint that is released hands what
waits to the transaction around it, and one that is rolled back drops it. What is left when the root
transaction has committed is sent, in the order of the calls. SQLAlchemy tells of commits and ends;
it is imported when the first session is given.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from .errors import BrokerError, UsageError
from .logs import logger

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, SessionTransaction, scoped_session

    AnySession = Session | scoped_session[Any]

log = logger(__name__)


class _Waiting:
    """What waits for the end of one transaction, or of one savepoint."""

    __slots__ = ("committed", "sends")

    def __init__(self) -> None:
        self.committed = False
        self.sends: deque[_Send] = deque()


# Not kept on the sessions, so a session that is closed, or used again, has nothing of the past.
_waiting: WeakKeyDictionary[SessionTransaction, _Waiting] = WeakKeyDictionary()


class _Send(NamedTuple):
    id: str  # of the event
    send: Callable[[], object]
    on_lost: Callable[[], object]


def defer(
    session: AnySession,
    id: str,
    send: Callable[[], object],
    on_lost: Callable[[], object] = lambda: None,
) -> None:
    """Call *send* when the root transaction of *session* has committed; never, if it does not.

    Where the session has no transaction, one begins. What *send* raises is logged.

    :param id: of the event, for the log.
    :param on_lost: called where the transaction has committed, and the event is not sent.
    :raises UsageError: for what is no session of SQLAlchemy, or for one whose transaction is over.
    """
    transaction = _innermost(_session_of(session))
    waiting = _waiting.get(transaction)
    if waiting is None:
        _listen(transaction.session)
        waiting = _waiting[transaction] = _Waiting()
    waiting.sends.append(_Send(id, send, on_lost))


def _session_of(given: Any) -> Session:
    try:
        from sqlalchemy.orm import Session, scoped_session
    except ImportError:
        raise UsageError(
            f"after_commit= takes a session of SQLAlchemy, which is not installed, not {given!r}"
        ) from None
    session: Any = given() if isinstance(given, scoped_session) else given
    if isinstance(session, Session):
        return session
    from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session

    if isinstance(session, AsyncSession | async_scoped_session):
        raise UsageError(
            "after_commit= takes no AsyncSession, since a send blocks and would hold up its event"
            " loop: send after `await session.commit()`, with asyncio.to_thread()"
        )
    raise UsageError(
        "after_commit= takes a session of SQLAlchemy, such as db.session or a Session(), not"
        f" {given!r}"
    )


def _innermost(session: Session) -> SessionTransaction:
    """The savepoint or transaction in progress; one begins where there is none."""
    transaction = session.get_nested_transaction() or session.get_transaction()
    if transaction is None:
        if not session.autobegin:
            raise UsageError(
                "after_commit= of a session that has no transaction, and autobegin=False: call"
                " it after session.begin()"
            )
        return session.begin()
    if not transaction.is_active:
        raise UsageError(
            "after_commit= of a session whose transaction takes no more: it was rolled back after"
            " an error and waits for session.rollback(), or it is just being committed"
        )
    return transaction


def _listen(session: Session) -> None:
    # On the session and not on its class: listeners of a class are shared with threads that are
    # just calling them, and SQLAlchemy allows no change meanwhile.
    from sqlalchemy import event

    for name, fn in (("after_commit", _committed), ("after_transaction_end", _ended)):
        if not event.contains(session, name, fn):
            event.listen(session, name, fn)


def _committed(session: Session) -> None:
    """A savepoint was released, or the root transaction was committed."""
    transaction = session.get_nested_transaction() or session.get_transaction()
    waiting = None if transaction is None else _waiting.get(transaction)
    if waiting is not None:
        waiting.committed = True


def _ended(session: Session, transaction: SessionTransaction) -> None:
    """A savepoint or transaction has ended in whatever way, and its connections are free."""
    waiting = _waiting.pop(transaction, None)
    if waiting is None:
        return  # nothing was sent in it, or it is the work of one flush
    if not waiting.committed:
        if log.isEnabledFor(logging.DEBUG):
            ids = ", ".join(one.id for one in waiting.sends)
            log.debug("dropped, as their transaction ended without a commit: %s", ids)
        return
    around = transaction.parent
    while around is not None and around.parent is not None and not around.nested:
        around = around.parent  # a savepoint within a flush
    if around is None:
        _send(waiting.sends)
    else:
        _waiting.setdefault(around, _Waiting()).sends.extend(waiting.sends)


def _send(sends: deque[_Send]) -> None:
    id = ""
    try:
        while sends:
            id, send, on_lost = sends[0]
            try:
                send()
            except Exception as error:
                known = isinstance(error, BrokerError)
                log.error("%s was not sent after its commit: %s", id, error, exc_info=not known)
                on_lost()
            sends.popleft()
    except BaseException as error:  # a timeout of gevent, say: the caller's own
        more = len(sends) - 1
        log.error("%s and %d more were not sent after their commit: %r", id, more, error)
        for one in sends:
            one.on_lost()
        raise

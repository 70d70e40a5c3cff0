"""One question to clients: who may still answer it, and what came of it.

docs/protocol.rst, "Questions to clients".
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from typing import Any

from ..errors import AskFailed, AskTimeout, ClientGone, NoClient
from . import session as s
from .event import Event
from .push import CANONICAL

ASKED_STILL = 1.0  # seconds between looks whether a client of another process is still there

Client = tuple[str | None, str]
"""The uid and the client id."""

Outcome = tuple[str, Any]
"""``("value", value)``, ``("error", message)`` of the last client, or ``("gone", None)``."""


class Question:
    """Asked of several clients; the first answer that is no error ends it."""

    __slots__ = ("_on_end", "asked", "error")

    def __init__(self, asked: dict[Client, None], on_end: Callable[[Outcome], object]) -> None:
        """:param on_end: called with the outcome."""
        self.asked = asked  # who has not answered yet
        self.error: str | None = None
        self._on_end = on_end

    def answer(self, client: Client, answer: s.Answered) -> bool:
        """Take an answer; False where *client* was not asked, or has answered."""
        if client not in self.asked:
            return False
        if answer.error is None:
            del self.asked[client]
            self._on_end(("value", answer.value))
        else:
            self.error = answer.error
            self.gone(client)
        return True

    def gone(self, client: Client) -> None:
        """Wait for *client* no more."""
        self.asked.pop(client, None)
        if not self.asked:
            self._on_end(("gone", None) if self.error is None else ("error", self.error))

    def only(self, there: Container[Client]) -> None:
        """Wait for no others than *there*."""
        for client in [client for client in self.asked if client not in there]:
            self.gone(client)


def asked_of(uid: str | None, clients: Iterable[str], client_id: str | None) -> dict[Client, None]:
    """Those of a user's *clients* that are asked: all, or *client_id*.

    :raises NoClient: where that is none.
    """
    asked = dict.fromkeys((uid, one) for one in clients if client_id in (None, one))
    if not asked:
        raise NoClient(f"uid {uid!r} has no client that can be asked")
    return asked


def asking(ask_id: str, event: Event) -> list[Any]:
    """The event that asks."""
    return [s.ASK, [ask_id, [*event]]]


def value_of(outcome: Outcome | None, uid: str | None, id: str, timeout: float) -> Any:
    """What the question *id* was answered with; None as *outcome*: nothing in *timeout* seconds.

    :raises AskTimeout, ClientGone, AskFailed: for the other outcomes.
    """
    if outcome is None:
        raise AskTimeout(f"uid {uid!r} did not answer {id} within {timeout:g} s")
    kind, value = outcome
    if kind == "gone":
        raise ClientGone(f"the last client of uid {uid!r} that was asked went away")
    if kind == "error":
        raise AskFailed(f"{id}: {value}")
    return value


def written(client: Client, answer: s.Answered) -> str:
    """An answer as a worker tells it to the process that asked."""
    return CANONICAL.pack([*client, *answer], root="answer")


def read(text: str) -> tuple[Client, s.Answered]:
    """The client and the answer in what :func:`written` made.

    :raises UnpackError, TypeError, ValueError: for another text.
    """
    uid, client_id, *answer = CANONICAL.unpack(text)
    return (uid, client_id), s.Answered(*answer[:3])

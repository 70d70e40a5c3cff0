"""Questions to clients: who may still answer, and who waits for it."""

from __future__ import annotations

from .connection import Connection
from .hub import Waiter
from .session import Answered


class Asks:
    """The open questions of this process; on the hub."""

    def __init__(self) -> None:
        self._open: dict[str, Ask] = {}

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, ask_id: str, asked: set[Connection], waiter: Waiter) -> None:
        """Ask *asked*; *waiter* is told ``("value" | "error" | "gone", …)``."""
        self._open[ask_id] = Ask(asked, waiter)

    def end(self, ask_id: str) -> None:
        """Nobody waits for it any more."""
        self._open.pop(ask_id, None)

    def answered(self, connection: Connection, answer: Answered) -> bool:
        """A client answered; False where it was not asked that."""
        ask = self._open.get(answer.id)
        if ask is None or connection not in ask.asked:
            return False
        ask.answer(connection, answer)
        return True

    def gone(self, connection: Connection) -> None:
        """A client will not answer any more."""
        for ask in [ask for ask in self._open.values() if connection in ask.asked]:
            ask.gone(connection)


class Ask:
    """One question."""

    __slots__ = ("asked", "error", "waiter")

    def __init__(self, asked: set[Connection], waiter: Waiter) -> None:
        self.asked = asked  # who has not answered yet
        self.waiter = waiter
        self.error: str | None = None

    def answer(self, connection: Connection, answer: Answered) -> None:
        """Take an answer; the first that is no error wins."""
        if answer.error is None:
            self.asked.discard(connection)
            self.waiter.set(("value", answer.value))
        else:
            self.error = answer.error
            self.gone(connection)

    def gone(self, connection: Connection) -> None:
        """One less to wait for."""
        self.asked.discard(connection)
        if not self.asked:
            self.waiter.set(("gone", None) if self.error is None else ("error", self.error))

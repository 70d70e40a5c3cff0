"""Questions to clients: who may still answer, and who waits for it."""

from __future__ import annotations

from .hub import Waiter
from .session import Answered

Client = tuple[str | None, str]
"""The uid and the client id."""


class Asks:
    """The open questions of this process; on the hub."""

    def __init__(self) -> None:
        self._open: dict[str, Ask] = {}

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, ask_id: str, asked: set[Client], waiter: Waiter) -> None:
        """Ask *asked*; *waiter* is told ``("value" | "error" | "gone", …)``."""
        self._open[ask_id] = Ask(asked, waiter)

    def end(self, ask_id: str) -> None:
        """Nobody waits for it any more."""
        self._open.pop(ask_id, None)

    def answered(self, client: Client, answer: Answered) -> bool:
        """A client answered; False where it was not asked that."""
        ask = self._open.get(answer.id)
        if ask is None or client not in ask.asked:
            return False
        ask.answer(client, answer)
        return True

    def only(self, ask_id: str, there: set[Client]) -> None:
        """Of those asked, none but *there* can still answer."""
        ask = self._open.get(ask_id)
        if ask is not None:
            for client in ask.asked - there:
                ask.gone(client)

    def gone(self, client: Client) -> None:
        """A client will not answer any more."""
        for ask in [ask for ask in self._open.values() if client in ask.asked]:
            ask.gone(client)


class Ask:
    """One question."""

    __slots__ = ("asked", "error", "waiter")

    def __init__(self, asked: set[Client], waiter: Waiter) -> None:
        self.asked = asked  # who has not answered yet
        self.waiter = waiter
        self.error: str | None = None

    def answer(self, client: Client, answer: Answered) -> None:
        """Take an answer; the first that is no error wins."""
        if answer.error is None:
            self.asked.discard(client)
            self.waiter.set(("value", answer.value))
        else:
            self.error = answer.error
            self.gone(client)

    def gone(self, client: Client) -> None:
        """One less to wait for."""
        self.asked.discard(client)
        if not self.asked:
            self.waiter.set(("gone", None) if self.error is None else ("error", self.error))

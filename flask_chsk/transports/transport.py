"""What all transports of a client have in common, as the server sees them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..protocol.generations import Generation
from ..protocol.session import ServerSession


class Client(Protocol):
    """Whom a transport serves."""

    session: ServerSession
    generation: Generation


class Transport(Protocol):
    """Carries one client's messages; on the hub only. No method blocks.

    What waits to be sent stays in the client's session. So a transport that ends loses nothing,
    and the next one goes on.
    """

    @property
    def kind(self) -> str:
        """``"ws"`` or ``"ajax"``."""

    @property
    def parked(self) -> bool:
        """Whether a request waits for an answer."""

    @property
    def closing(self) -> bool:
        """Whether nothing can be sent any more."""

    @property
    def reading(self) -> bool:
        """Whether silence of the peer means something: False while nothing is read from it."""

    def wake(self) -> None:
        """Send what waits and may leave now."""

    def flush(self) -> None:
        """The same for a client that is about to be forgotten: nobody keeps the rest for it."""

    def end(self, code: int, reason: str = "") -> None:
        """Tell the client to go, by a close code."""

    def mute(self) -> Callable[[int, str], None]:
        """Send and receive no more; the returned function is a late :meth:`end`."""

    def replaced(self, code: int, reason: str) -> None:
        """End, because another transport serves the client now."""

    def drain(self, reason: str) -> None:
        """Take nothing more in: the worker ends soon (close code 1012 with *reason*)."""

    def pause(self) -> None:
        """Stop reading: too many of the client's events wait for their handlers."""

    def resume(self) -> None:
        """Read again."""

    def stalled(self, now: float) -> bool:
        """Whether the peer has taken no byte for too long."""

"""The generations of Sente's clients: by what a request tells its own, and what follows from it.

Pure. ``CHSK_WIRE`` names the wire of a path (wire.py), which several generations may share. The
table below says by which parameters each kind of request tells them apart. Where nothing does,
the newest one that fits is assumed; the comments say why that is safe for the others.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from .session import NORMAL, REPLACED, SIGNED_OUT, TIMEOUT

Kind = Literal["ws", "poll", "post"]

# After these the client is to stay away, or has another connection already.
FINAL_CODES = frozenset({NORMAL, REPLACED, SIGNED_OUT})

POLLED_AT = 25.0  # seconds after which clients of 1.0 to 1.8 end an idle poll, and poll again


class Mark(NamedTuple):
    """Parameters that a request has, and parameters that it has not."""

    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()

    def fits(self, params: Container[str]) -> bool:
        """Whether a request with *params* has this mark."""
        return all(name in params for name in self.has) and not any(
            name in params for name in self.lacks
        )


@dataclass(frozen=True)
class Generation:
    """Versions of Sente's client that ask for the same, named by the first of them."""

    first: str
    last: str
    wire: str  # their CHSK_WIRE
    marks: dict[Kind, Mark] = field(default_factory=dict)  # by kind of request; none: never told
    supported: bool = True
    poll_end: Any = TIMEOUT  # what ends an empty poll
    idle_poll: float = 0.0  # seconds for which an idle poll is not answered, at least
    hang_up: bool = False  # a restart ends its polls without an answer
    clean_close_is_final: bool = False  # after a close frame it never comes back
    post_without_id: bool = False  # its POSTs need no client-id


# Newest first within a wire: the first mark that fits decides.
GENERATIONS = (
    Generation("1.21", "1.22", "1.21", {"ws": Mark(), "poll": Mark(), "post": Mark()}),
    # 1.18 answers no ping, 1.19 and 1.20 do. Nothing tells them apart, so silence ends neither.
    Generation("1.18", "1.20", "1.18", {"ws": Mark(), "poll": Mark(), "post": Mark()}),
    Generation(
        "1.17",
        "1.17",
        "1.17",
        {"ws": Mark(), "poll": Mark(), "post": Mark()},
        clean_close_is_final=True,
    ),
    Generation(
        "1.14",
        "1.16",
        "1.0",
        {"ws": Mark(("csrf-token",)), "poll": Mark(("udt", "csrf-token"))},
        clean_close_is_final=True,
    ),
    # The WebSockets of 1.3 to 1.8 look the same. A connection that ends without a close frame
    # suits those, too: they come back after any end. They throw at the server's ping, and go on.
    # The POSTs of 1.7 to 1.16 look the same, and are answered the same.
    Generation(
        "1.9",
        "1.13",
        "1.0",
        {
            "ws": Mark(("client-id",)),
            "poll": Mark(("client-id",), lacks=("_",)),
            "post": Mark(("client-id",)),
        },
        clean_close_is_final=True,
    ),
    # 1.3 to 1.6 poll the same way; their POSTs differ.
    Generation(
        "1.7",
        "1.8",
        "1.0",
        {"poll": Mark(("client-id", "_"))},
        poll_end=[],  # it throws at anything but a vector of events
        idle_poll=POLLED_AT + 3.0,
        hang_up=True,
    ),
    Generation(
        "1.3",
        "1.6",
        "1.0",
        {"post": Mark(lacks=("client-id",))},
        poll_end=[],
        idle_poll=POLLED_AT + 3.0,
        hang_up=True,
        post_without_id=True,
    ),
    # Their POSTs cannot be told from those of 1.3, but they never get a connection.
    Generation("1.0", "1.2", "1.0", {"ws": Mark(), "poll": Mark()}, supported=False),
)

CURRENT = GENERATIONS[0]
"""Asks for nothing special: our own clients, too."""


def told(wire: str, kind: Kind, params: Container[str]) -> Generation:
    """The generation of a request of *kind* on a path that speaks *wire*."""
    for one in GENERATIONS:
        if one.wire == wire and kind in one.marks and one.marks[kind].fits(params):
            return one
    return CURRENT

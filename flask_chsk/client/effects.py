"""What a client session decided, as values: each is one thing to do.

:meth:`ClientSession.take_effects` returns them in order; the engine carries them out. A test
compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..protocol.event import Event
from ..values import Keyword
from .link import Link, Outgoing

State = Mapping[str, Any]
STATE = Keyword("chsk/state")  # the event by which the application learns of a new state


class Open(NamedTuple):
    """Begin *link*: ask for credentials, connect, and report what comes."""

    link: Link


class End(NamedTuple):
    """End *link*; a WebSocket's close frame has *code*."""

    link: Link
    code: int


class Repoll(NamedTuple):
    """Begin the poll of *link* anew: the network that it waits on may be gone."""

    link: Link


class Send(NamedTuple):
    """Send *outgoing* over *link*."""

    link: Link
    outgoing: Outgoing


class Deliver(NamedTuple):
    """Give *event* to the application.

    *pushed*: a server sent it to this user. *size*: its share of the bytes, or characters, of the
    message that it came in.
    """

    event: Event
    pushed: bool = False
    size: int = 0


class Asked(NamedTuple):
    """The server asks *event* and waits for the answer to *id*."""

    id: str
    event: Event


class Replied(NamedTuple):
    """*outgoing* has its reply; *details* came with a ``chsk/error``."""

    outgoing: Outgoing
    reply: Any
    details: Any = None


class Dropped(NamedTuple):
    """*outgoing* waited for an opening and is not sent: the user changed, or the client closed."""

    outgoing: Outgoing
    why: str


class Changed(NamedTuple):
    """The state changed."""

    old: State
    new: State


Effect = Open | End | Repoll | Send | Deliver | Asked | Replied | Dropped | Changed

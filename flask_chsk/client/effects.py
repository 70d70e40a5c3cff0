"""What a client session decided, as values: each is one thing to do.

:meth:`ClientSession.take_effects` returns them in order; the engine carries them out. A test
compares them: values of two types are never equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..protocol.event import Event
from ..values import Keyword
from .link import Link, Outgoing

State = Mapping[str, Any]
STATE = Keyword("chsk/state")  # the event by which the application learns of a new state


@dataclass(frozen=True, slots=True)
class Open:
    """Begin *link*: ask for credentials, connect, and report what comes."""

    link: Link


@dataclass(frozen=True, slots=True)
class End:
    """End *link*; a WebSocket's close frame has *code*."""

    link: Link
    code: int


@dataclass(frozen=True, slots=True)
class Repoll:
    """Begin the poll of *link* anew: the network that it waits on may be gone."""

    link: Link


@dataclass(frozen=True, slots=True)
class Send:
    """Send *outgoing* over *link*."""

    link: Link
    outgoing: Outgoing


@dataclass(frozen=True, slots=True)
class Deliver:
    """Give *event* to the application.

    *pushed*: a server sent it to this user. *size*: its share of the bytes, or characters, of the
    message that it came in.
    """

    event: Event
    pushed: bool = False
    size: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """The server asks *event* and waits for the answer to *id*."""

    id: str
    event: Event


@dataclass(frozen=True, slots=True)
class Replied:
    """*outgoing* has its reply; *details* came with a ``chsk/error``."""

    outgoing: Outgoing
    reply: Any
    details: Any = None


@dataclass(frozen=True, slots=True)
class Dropped:
    """*outgoing* waited for an opening and is not sent: the user changed, or the client closed."""

    outgoing: Outgoing
    why: str


@dataclass(frozen=True, slots=True)
class Changed:
    """The state changed."""

    old: State
    new: State


Effect = Open | End | Repoll | Send | Deliver | Asked | Replied | Dropped | Changed

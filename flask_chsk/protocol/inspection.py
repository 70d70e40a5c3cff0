"""What the command line asks each worker, and what workers answer: JSON, by way of the broker.

No client takes part in it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

_ASKED, _ANSWERED = "chsk/inspect ", "chsk/inspected "


@dataclass(frozen=True, slots=True)
class Inquiry:
    """A question to a worker.

    :ivar asker: who hears the answers (:meth:`flask_chsk.brokers.contract.Broker.tell`).
    :ivar id: of the question; a tail is asked for again by the same.
    :ivar what: ``"stats"``, ``"clients"``, ``"topics"`` or ``"tail"``.
    :ivar uid, topic, event: of a tail, to whom, where and what it is limited; of clients, whose.
    :ivar payload: whether a tail has the data of events and replies.
    """

    asker: str
    id: str
    what: str
    uid: str | None = None
    topic: str | None = None
    event: str | None = None
    payload: bool = False

    def text(self) -> str:
        """What is told to each worker."""
        return _ASKED + json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> Inquiry | None:
        """The question that *text* is; None: it is none that this version knows."""
        if not text.startswith(_ASKED):
            return None
        try:
            return cls(**json.loads(text.removeprefix(_ASKED)))
        except (TypeError, ValueError):
            return None


class Finding(NamedTuple):
    """What one worker answers to a question."""

    id: str
    worker: str
    value: Any

    def text(self) -> str:
        """What is told to the asker."""
        return _ANSWERED + json.dumps(self)

    @classmethod
    def read(cls, text: str) -> Finding | None:
        """The answer that *text* is; None: it is none."""
        if not text.startswith(_ANSWERED):
            return None
        try:
            return cls(*json.loads(text.removeprefix(_ANSWERED)))
        except (TypeError, ValueError):
            return None

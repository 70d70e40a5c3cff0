"""How far the events of a client have come: an epoch of the server and an offset in it.

Pure. An event at or below the cursor came before and is not delivered again.
"""

from __future__ import annotations

import re
from typing import Any

_OFFSETS = re.compile(r"([a-z0-9]{1,20}):([0-9]{1,16}(?:,\+[0-9]{1,16})*)")


def read_offsets(text: Any) -> tuple[str, list[int]]:
    """``"e7f3:1042,+1,+7"`` as its epoch and offsets; none from anything else.

    docs/protocol.rst, "Pushes".
    """
    found = _OFFSETS.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return "", []
    offsets = []
    at = 0
    for step in found[2].split(","):
        at += int(step)
        offsets.append(at)
    return found[1], offsets


class Cursor:
    """Where a client stands.

    :param page: the cursor that a view gave, which holds until the first handshake.
    """

    __slots__ = ("_offset", "_page", "epoch")

    def __init__(self, page: str | None = None) -> None:
        self._page = page
        self.epoch: str | None = None  # None: no event and no handshake told one yet
        self._offset = 0

    @property
    def text(self) -> str | None:
        """As the server is told, such as ``"e7f3:1042"``."""
        return self._page if self.epoch is None else f"{self.epoch}:{self._offset}"

    def advance(self, epoch: str, offset: int) -> bool:
        """Move to *offset*; False where the cursor is there or past it already."""
        if epoch == self.epoch and offset <= self._offset:
            return False
        self.epoch, self._offset = epoch, offset
        return True

    def move(self, epoch: str, offset: int) -> None:
        """Move to *offset*, onwards or back: a handshake says so."""
        self.epoch, self._offset = epoch, offset

    def clear(self) -> None:
        """Forget: the next connection begins a new session."""
        self._page, self.epoch, self._offset = None, None, 0

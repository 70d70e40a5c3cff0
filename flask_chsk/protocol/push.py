"""One event on its way to clients: packed once per packer, shared by all who get it.

Pure. The canonical form is EDN, made in the caller of ``send`` (so that what cannot be
packed is refused there, and what the caller changes afterwards changes nothing); other
packers' forms are made from it when the first client that speaks them is served.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import PackError
from ..packers.edn import EdnPacker
from ..values import Keyword
from .wire import Composer

T = TypeVar("T")
UNPACKABLE = Keyword("chsk/unpackable")


class Push:
    """An event with its place in the broker's order.

    ``offset``: one rising number for the whole broker. ``before``: the offset of the entry
    before this one in its channel (0: none), by which gaps are noticed. ``exclude``: the
    ``(uid, client id)`` that shall not get it. ``flush``: it waits for no window.
    """

    __slots__ = (
        *("_forms", "_frames", "before", "channel", "exclude", "flush", "offset", "text", "time"),
    )

    def __init__(
        self,
        channel: str,
        text: str,
        offset: int = 0,
        before: int = 0,
        exclude: tuple[str | None, str] | None = None,
        time: float = 0.0,
        flush: bool = False,
    ) -> None:
        self.channel = channel
        self.text = text
        self.offset = offset
        self.before = before
        self.exclude = exclude
        self.time = time
        self.flush = flush
        self._forms: dict[str, Any] | None = None
        self._frames: dict[Any, Any] | None = None

    @property
    def size(self) -> int:
        """Bytes it counts for, near enough: its characters of EDN."""
        return len(self.text)

    def piece(self, composer: Composer) -> Any:
        """The packed event for *composer*'s packer."""
        forms = self._forms
        if forms is None:
            forms = self._forms = {}
        name = composer.packer.name
        piece = forms.get(name)
        if piece is None:
            if name == "edn" and "#chsk/bytes" not in self.text:
                piece = self.text
            else:
                event = CANONICAL.unpack(self.text)
                try:
                    piece = composer.piece(event)
                except PackError as error:
                    composer.on_unpackable(event[0], error)
                    piece = composer.piece([UNPACKABLE, event[0]])
            forms[name] = piece
        return piece

    def frame(self, key: Any, make: Callable[[], T]) -> T:
        """The frame of this event alone, made once per *key*."""
        frames = self._frames
        if frames is None:
            frames = self._frames = {}
        frame = frames.get(key)
        if frame is None:
            frame = frames[key] = make()
        return frame


CANONICAL = EdnPacker(bytes_tag=True, max_bytes=64 * 1024 * 1024, max_values=None)
"""EDN, and ``#chsk/bytes`` for bytes: the form in which brokers keep events.

It is made by this library alone, so it has as many values as an application likes to send.
"""

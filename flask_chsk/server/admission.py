"""How many clients a worker lets in at a time.

A client gives a connection up after 5 seconds. Whoever waits longer for its turn is let in for
nobody, and comes again: a worker that takes all who come at once serves none of them. It knows no
client and no request.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from ..errors import Refused


class Admission:
    """Room for *most* clients that are being let in."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._lock = Lock()

    @contextmanager
    def entering(self) -> Iterator[None]:
        """Let one in.

        :raises Refused: 503 where there is no room.
        """
        with self._lock:
            if not self._free:
                raise Refused(
                    503, "too many clients connect at once (CHSK_MAX_OPENINGS)", retry_after=1
                )
            self._free -= 1
        try:
            yield
        finally:
            with self._lock:
                self._free += 1

"""The package's loggers: ``flask_chsk.<area>``, under one level."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

_LEVELS = {"trace": logging.DEBUG, "report": logging.INFO}  # Sente's names that logging lacks


def set_logging_level(level: str | int) -> None:
    """Show this package's log records from *level* up, such as ``"debug"``.

    Refusals are WARNING, users that come and go INFO, messages DEBUG.

    :raises ValueError: for a level that logging does not know.
    """
    if isinstance(level, str):
        level = _LEVELS.get(level.lower(), level.upper())
    logging.getLogger("flask_chsk").setLevel(level)


class Sparse:
    """Logs each kind of thing once a minute at most, and then how often it came meanwhile.

    What a peer can cause at will goes through one of these: a flood of bad requests is no
    flood of log lines.
    """

    EVERY = 60.0  # seconds
    KINDS = 256  # remembered: kinds are words of ours, never the peer's

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._kinds: dict[str, tuple[float, int]] = {}  # kind -> last line, unsaid since

    def warning(self, kind: str, message: str, *args: object) -> None:
        """Log *message* (in logging's manner), unless *kind* had its line this minute."""
        now = self._clock()
        last, unsaid = self._kinds.get(kind, (now - self.EVERY, 0))
        if now - last < self.EVERY:
            self._kinds[kind] = (last, unsaid + 1)
            return
        if kind not in self._kinds and len(self._kinds) >= self.KINDS:
            del self._kinds[next(iter(self._kinds))]
        self._kinds[kind] = (now, 0)
        if unsaid:
            message += " (and %d more like it)"
            args += (unsaid,)
        self._log.warning(message, *args)

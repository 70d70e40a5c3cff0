"""The package's loggers: ``flask_chsk.<area>``, under one level.

What they are told is often a peer's: a uid, an event id, what an error quotes. Whatever it is, a
record is one printable line of bounded length, and so is each line of its traceback. That holds
for every record of the package, so a call that logs need not think of it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from traceback import TracebackException
from typing import Any

from .printable import printable, shown

_LEVELS = {"trace": logging.DEBUG, "report": logging.INFO}  # Sente's names that logging lacks
_LINES = 100  # of what one exception says: pydantic says some for each field


def logger(name: str) -> logging.Logger:
    """The logger *name*, whose records are fit to be shown (see above)."""
    log = logging.getLogger(name)
    log.addFilter(_make_printable)
    return log


def set_logging_level(level: str | int) -> None:
    """Show this package's log records from *level* up, such as ``"debug"``.

    Refusals are WARNING, users that come and go INFO, messages DEBUG.

    :raises ValueError: for a level that logging does not know.
    """
    if isinstance(level, str):
        level = _LEVELS.get(level.lower(), level.upper())
    logging.getLogger("flask_chsk").setLevel(level)


def _make_printable(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(
            arg if isinstance(arg, int | float | None) else _Shown(arg) for arg in record.args
        )
    if record.exc_info and not record.exc_text:
        record.exc_text = _traceback(record.exc_info[1])  # formatters take it as it is
    return True


class _Shown:
    """A value in a record: ``%s`` and ``%r`` of it are printable and short."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def __str__(self) -> str:
        return shown(self._value, str)

    def __repr__(self) -> str:
        return shown(self._value)


def _traceback(error: BaseException | None) -> str | None:
    """The traceback of *error*; what exceptions say in several lines is indented below the first.

    At the beginning of a line it could pass for a record of its own.
    """
    if error is None:
        return None
    lines: list[str] = []
    named = False  # the exception; what follows are its notes
    for part in TracebackException.from_exception(error).format():
        first, *more = part.removesuffix("\n").split("\n")
        if not first or first.startswith("Traceback "):
            named = False
        elif not first.startswith(" "):
            if named:
                first = f"    {first}"
            named = True
        if first:  # else it is what stands between two exceptions, which is Python's own
            more = [f"    {line}" for line in more[:_LINES]]
        lines += [printable(line, 2000) for line in (first, *more)]
    return "\n".join(lines)


class RateLimitedLogger:
    """Logs each kind of thing once a minute at most, and then how often it came meanwhile.

    What a peer can cause at will goes through one of these: a flood of bad requests is no
    flood of log lines.
    """

    EVERY = 60.0  # seconds
    KINDS = 256  # remembered at a time; more, and all that are new count as one kind

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._kinds: dict[str, tuple[float, int]] = {}  # kind -> last line, unsaid since

    def warning(self, kind: str, message: str, *args: object) -> None:
        """Log *message* (in logging's manner), unless *kind* had its line this minute."""
        self.log(logging.WARNING, kind, message, *args)

    def log(self, level: int, kind: str, message: str, *args: object) -> None:
        """The same at any level."""
        now = self._clock()
        if kind not in self._kinds and len(self._kinds) >= self.KINDS:
            self._forget(now)
            if len(self._kinds) >= self.KINDS:
                kind = "other"
        last, unsaid = self._kinds.get(kind, (now - self.EVERY, 0))
        if now - last < self.EVERY:
            self._kinds[kind] = (last, unsaid + 1)
            return
        self._kinds[kind] = (now, 0)
        if unsaid:
            message += " (and %d more like it)"
            args += (unsaid,)
        self._log.log(level, message, *args)

    def _forget(self, now: float) -> None:
        for kind, (last, _) in list(self._kinds.items()):
            if now - last >= self.EVERY:
                del self._kinds[kind]

"""The package's loggers: ``flask_chsk.<area>``, under one level."""

from __future__ import annotations

import logging

_LEVELS = {"trace": logging.DEBUG, "report": logging.INFO}  # Sente's names that logging lacks


def set_logging_level(level: str | int) -> None:
    """Show this package's log records from *level* up, such as ``"debug"``.

    Refusals are WARNING, users that come and go INFO, messages DEBUG.

    :raises ValueError: for a level that logging does not know.
    """
    if isinstance(level, str):
        level = _LEVELS.get(level.lower(), level.upper())
    logging.getLogger("flask_chsk").setLevel(level)

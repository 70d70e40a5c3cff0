"""What the tests of packers share: equality that sees types."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from flask_chsk.values import Tagged


def typed(value: Any) -> Any:
    """*value* in a form in which only what is equal in type and detail too is equal.

    ``1``, ``1.0`` and ``True`` differ, ``:a`` and ``"a"`` differ, NaN is itself, ``-0.0`` is not
    ``0.0``.
    """
    kind = type(value).__name__
    if isinstance(value, Mapping):
        return kind, frozenset((typed(key), typed(item)) for key, item in value.items())
    if isinstance(value, Set):
        return kind, frozenset(map(typed, value))
    if isinstance(value, list | tuple):
        return kind, tuple(map(typed, value))
    if isinstance(value, Tagged):
        return kind, value.tag, typed(value.value)
    return kind, repr(value)

"""Short excerpts of values, for error messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from types import NoneType
from typing import Any

from ..values import Tagged


def short(text: str, length: int = 60) -> str:
    """*text*, cut to *length* characters."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def shown(value: Any) -> str:
    """*value* for an error message; of a large one not more is looked at than is shown."""
    if isinstance(value, str):
        return short(repr(value if len(value) < 60 else value[:60]))
    if isinstance(value, Mapping | list | tuple | Set | Tagged | bytes):
        size = 1 if isinstance(value, Tagged) else len(value)
        if size > 8 or not all(map(_is_simple, _items_of(value))):
            return f"a {type(value).__qualname__}"
    return short(repr(value))


def _items_of(value: Any) -> Iterable[Any]:
    if isinstance(value, Tagged):
        return (value.tag, value.value)
    return (*value, *value.values()) if isinstance(value, Mapping) else value


def _is_simple(value: Any) -> bool:
    kind = type(value)
    if isinstance(value, str | bytes):
        return len(value) < 60
    return kind in (int, float, bool, NoneType)

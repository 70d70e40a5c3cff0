"""What a value becomes whose type a packer does not write: an enum, a dataclass, a type of yours.

A packer pays for none of this while it is given plain values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import Any
from uuid import UUID

from ..errors import PackError
from ..interrupts import OF_CODE, from_signal
from ..values import Char, Keyword, StrKey, Symbol, Tagged
from .excerpts import short

PackDefault = Callable[[Any], Any]


def zoned(zone: tzinfo | None, default: PackDefault | None) -> PackDefault | None:
    """The hook that gives datetimes without a zone *zone*, then asks *default*."""
    if zone is None:
        return default

    def pack_default(value: Any) -> Any:
        if isinstance(value, datetime):
            return value.replace(tzinfo=zone)
        return NotImplemented if default is None else default(value)

    return pack_default


def plainer(value: Any, pack_default: PackDefault | None) -> Any:
    """*value*, which a packer does not know, as one that it is likelier to know.

    :raises PackError: where neither we nor the application's *pack_default* can say.
    """
    if isinstance(value, Enum):
        return value.value
    for kind, exact in _EXACT:
        if isinstance(value, kind) and type(value) is not kind:
            return exact(value)
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    if is_dataclass(value) and not isinstance(value, type | Tagged):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Set):
        return frozenset(value)
    if isinstance(value, ValueError | AssertionError):  # of checks, as in pydantic's errors()
        return str(value)
    if pack_default is None:
        raise PackError(f"{type_of(value)}: {_remedy(value)}")
    return _by_default(value, pack_default)


def aware(value: datetime, pack_default: PackDefault | None) -> Any:
    """What *pack_default* makes of *value*, a datetime without a zone.

    :raises PackError: where it makes nothing, or a datetime without a zone.
    """
    if pack_default is not None:
        known = _by_default(value, pack_default)
        if not isinstance(known, datetime) or known.utcoffset() is not None:
            return known
    raise PackError(type_of(value))


def _by_default(value: Any, pack_default: PackDefault) -> Any:
    try:
        known = pack_default(value)
    except OF_CODE as exc:
        if from_signal(exc):
            raise
        raise PackError(f"{type_of(value)}: pack_default said {short(repr(exc))}") from exc
    if known is None:  # a function that falls off its end would send nil
        raise PackError(f"{type_of(value)}: pack_default returned None")
    if known is NotImplemented:
        raise PackError(f"{type_of(value)}: {_remedy(value)}")
    return known


_EXACT: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (Keyword, Keyword),
    (Symbol, Symbol),
    (Char, Char),
    (StrKey, StrKey),
    (str, str),
    (int, int),
    (float, float),
    (dict, dict),
    (list, list),
    (tuple, tuple),
    (
        datetime,
        lambda d: datetime(
            d.year,
            d.month,
            d.day,
            d.hour,
            d.minute,
            d.second,
            d.microsecond,
            d.tzinfo,
            fold=d.fold,
        ),
    ),
    (UUID, lambda u: UUID(int=u.int)),
    (Decimal, Decimal),
    (Fraction, lambda f: Fraction(f.numerator, f.denominator)),
    (bytes, bytes),
)


def type_of(value: Any) -> str:
    """The type of *value*, for an error message."""
    if isinstance(value, datetime):
        return (
            "naive datetime; give it a zone, as datetime.now(timezone.utc) does, or set"
            ' CHSK_NAIVE_DATETIMES, such as to "UTC"'
        )
    return f"object of type {type(value).__qualname__}"


def _remedy(value: Any) -> str:
    """What to pass in place of *value*, for what people often have."""
    if isinstance(value, timedelta):
        return "pass its total_seconds()"
    if isinstance(value, time):
        return "pass its isoformat()"
    if hasattr(value, "model_dump"):
        return 'pass its model_dump(mode="json")'
    if hasattr(value, "_asdict"):
        return "pass its _asdict()"
    if hasattr(value, "__table__"):
        return "pass a dict of its columns"
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return "pass a list of it"
    return "pass what it is made of, or register a pack_default"

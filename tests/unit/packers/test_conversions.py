"""What a value becomes whose type a packer does not write; test_base.py asks the packers."""

from __future__ import annotations

from collections import OrderedDict, UserDict, deque
from datetime import date, datetime, time, timedelta, timezone
from enum import Enum
from typing import Any

import pytest

from flask_chsk.errors import PackError
from flask_chsk.packers.conversions import aware, plainer, zoned
from flask_chsk.values import Tagged

from . import typed


class Color(Enum):
    RED = "red"


class Own(str):
    pass


class Moment(datetime):
    pass


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Color.RED, "red"),
        (Own("a"), "a"),
        (OrderedDict(a=1), {"a": 1}),
        (UserDict(a=1), {"a": 1}),
        ({1: 2}.keys(), frozenset([1])),
        (bytearray(b"a"), b"a"),
        (memoryview(b"a"), b"a"),
        (date(2026, 1, 2), "2026-01-02"),
        (Moment(2026, 1, 2, fold=1), datetime(2026, 1, 2, fold=1)),
        (ValueError("too short"), "too short"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_types_that_all_know_become_plain(value: Any, plain: Any) -> None:
    def never(value: Any) -> Any:
        raise AssertionError(value)

    assert typed(plainer(value, never)) == typed(plain)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (object(), "object of type object: pass what it is made of, or register a pack_default"),
        (timedelta(1), r"object of type timedelta: pass its total_seconds\(\)"),
        (time(1), r"object of type time: pass its isoformat\(\)"),
        (deque(), "object of type deque: pass a list of it"),
        (Tagged("t", 1), "object of type Tagged"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_stays_unknown_is_refused_with_a_remedy(value: Any, why: str) -> None:
    for default in (None, lambda value: NotImplemented):
        with pytest.raises(PackError, match=f"^{why}"):
            plainer(value, default)


def test_your_hook_is_asked_last() -> None:
    assert plainer(timedelta(seconds=90), timedelta.total_seconds) == 90.0
    with pytest.raises(PackError, match="pack_default returned None"):
        plainer(object(), lambda value: None)
    with pytest.raises(PackError, match="pack_default said ZeroDivisionError") as caught:
        plainer(object(), lambda value: 1 / 0)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_datetime_needs_a_zone() -> None:
    naive = datetime(2026, 1, 2)
    noted = naive.replace(tzinfo=timezone.utc)
    assert aware(naive, lambda value: noted) is noted
    assert aware(naive, datetime.isoformat) == naive.isoformat()
    for default in (None, lambda value: naive):
        with pytest.raises(PackError, match=r"^naive datetime; give it a zone"):
            aware(naive, default)


def test_a_zone_for_datetimes_without_one_comes_before_your_hook() -> None:
    default = zoned(timezone.utc, str)
    assert default is not None
    naive = datetime(2026, 1, 2)
    assert aware(naive, default) == naive.replace(tzinfo=timezone.utc)
    assert default(5) == "5"
    assert zoned(None, str) is str
    only_zone = zoned(timezone.utc, None)
    assert only_zone is not None and only_zone(5) is NotImplemented

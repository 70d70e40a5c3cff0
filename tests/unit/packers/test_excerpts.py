"""Short excerpts of values, for error messages."""

from __future__ import annotations

from typing import Any

import pytest

from flask_chsk.packers.excerpts import short, shown
from flask_chsk.values import Tagged


class Endless(list[int]):
    """A list of which nobody may look at every item."""

    def __len__(self) -> int:
        return 10**6

    def __iter__(self) -> Any:
        raise AssertionError("looked at")


@pytest.mark.parametrize(
    ("value", "excerpt"),
    [
        ("a", "'a'"),
        ("a" * 100, "'" + "a" * 58 + "…"),
        ([1, "b"], "[1, 'b']"),
        ([[]], "a list"),
        ({"a": 1}, "{'a': 1}"),
        ([0] * 9, "a list"),
        ({"a": "x" * 60}, "a dict"),
        (Tagged("t", 1), "Tagged(tag='t', value=1)"),
        (1.5, "1.5"),
    ],
)
def test_an_excerpt_is_short(value: Any, excerpt: str) -> None:
    assert shown(value) == excerpt


def test_text_is_cut_with_a_mark() -> None:
    assert (short("abc", 3), short("abcd", 3)) == ("abc", "ab…")


@pytest.mark.parametrize(
    ("value", "excerpt"),
    [
        (None, "None"),
        (True, "True"),
        (b"ab", "b'ab'"),
        (bytes(9), "a bytes"),
        ({1, 2}, "{1, 2}"),
        ((), "()"),
        (Tagged("t", []), "a Tagged"),
        (10**100, "1" + "0" * 58 + "…"),
        ("a\nb", r"'a\nb'"),
    ],
)
def test_an_excerpt_is_one_line(value: Any, excerpt: str) -> None:
    assert shown(value) == excerpt


def test_of_a_large_value_no_more_is_looked_at_than_is_shown() -> None:
    assert shown(Endless()) == "a Endless"

"""Words of a peer, made fit for a log, a terminal or an error message."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_chsk.printable import MOST, error_line, masked, printable


@given(st.text(), st.integers(0, 50))
def test_anything_becomes_one_printable_line(text: str, most: int) -> None:
    shown = printable(text, most)
    assert shown.isprintable()
    assert len(shown) <= 10 * most + 40


def test_what_is_printable_stays() -> None:
    assert printable("zoë 日本 😀") == "zoë 日本 😀"
    assert printable("x" * 20, 5) == "xxxxx… (20 characters)"


def test_an_error_that_cannot_say_what_it_is_has_a_type() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert error_line(Mute()) == "Mute"
    assert error_line(ValueError("a\n\x1b b")) == "a \\x1b b"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:pw@host:1/0?prefix=x", "redis://:***@host:1/0?prefix=x"),
        ("redis://ann:p/w@x:y#z@host/0", "redis://ann:***@host/0"),
        ("redis://host/0?password=pw&db=1", "redis://host/0?password=***&db=1"),
        ("unix://:pw@/tmp/socket?db=1", "unix://:***@/tmp/socket?db=1"),
        ("redis://ann@host/0", "redis://ann@host/0"),
        (
            "https://ann:pw@host/@path?csrf-token=x&a=b",
            "https://ann:***@host/@path?csrf-token=***&a=b",
        ),
        ("https://host/@path", "https://host/@path"),
        ("memory://", "memory://"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert masked(url) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\r\nb", r"a\r\nb"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\u202eevil", r"\u202eevil"),
        ("\x9b31m", r"\x9b31m"),
        ("\ud800", r"\ud800"),
        ("\u2028\x00", r"\u2028\x00"),
        ("", ""),
    ],
)
def test_what_is_not_visible_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_long_text_is_cut_and_its_length_told() -> None:
    assert printable("x" * MOST) == "x" * MOST
    assert printable("x" * (MOST + 1)) == "x" * MOST + f"… ({MOST + 1} characters)"


def test_a_subclass_of_text_is_shown_as_plain_text() -> None:
    class Own(str):
        """Of an application."""

    assert type(printable(Own("a"))) is str


def test_an_error_is_one_line_of_bounded_length() -> None:
    assert error_line(ValueError("a  b\n\tc")) == "a b c"
    assert error_line(ValueError("x" * 400)) == "x" * 300 + "… (400 characters)"
    assert error_line(ValueError("abc"), 2) == "ab… (3 characters)"


@pytest.mark.parametrize("error", [ValueError(), ValueError(""), ValueError("  \n")])
def test_an_error_that_says_nothing_has_a_type(error: ValueError) -> None:
    assert error_line(error) == "ValueError"

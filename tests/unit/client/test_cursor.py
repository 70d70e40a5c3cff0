"""How far events have come."""

from __future__ import annotations

from typing import Any

import pytest

from flask_chsk.client.cursor import Cursor, read_offsets


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("e7f3:1042", ("e7f3", [1042])),
        ("e7f3:1042,+1,+7", ("e7f3", [1042, 1043, 1050])),
        ("e7f3:", ("", [])),
        ("e7f3:1,2", ("", [])),
        ("E7:1", ("", [])),
        (f"e:{'9' * 17}", ("", [])),
        (1042, ("", [])),
        (None, ("", [])),
    ],
)
def test_offsets_are_read_or_there_are_none(text: Any, read: tuple[str, list[int]]) -> None:
    assert read_offsets(text) == read


def test_a_cursor_advances_within_an_epoch() -> None:
    cursor = Cursor()
    assert cursor.text is None
    assert cursor.advance("e1", 5) is True
    assert [cursor.advance("e1", offset) for offset in (4, 5, 6)] == [False, False, True]
    assert cursor.text == "e1:6"


def test_another_epoch_is_always_onwards() -> None:
    cursor = Cursor()
    cursor.advance("e1", 5)
    assert cursor.advance("e2", 1) is True
    assert cursor.text == "e2:1"


def test_a_handshake_moves_it_back_too() -> None:
    cursor = Cursor()
    cursor.advance("e1", 5)
    cursor.move("e1", 2)
    assert cursor.text == "e1:2"
    cursor.clear()
    assert (cursor.text, cursor.epoch) == (None, None)


def test_the_cursor_of_a_page_holds_until_there_is_another() -> None:
    cursor = Cursor("e1:5.signed")
    assert (cursor.text, cursor.epoch) == ("e1:5.signed", None)
    cursor.move("e1", 5)
    assert cursor.text == "e1:5"
    cursor.clear()
    assert cursor.text is None


def test_a_cursor_that_is_cleared_forgets_its_page() -> None:
    cursor = Cursor("e1:5.signed")
    cursor.clear()
    assert cursor.text is None

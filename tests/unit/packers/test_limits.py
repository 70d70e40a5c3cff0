"""The limits of a message, and what refuses one that is over them."""

from __future__ import annotations

import pytest

from flask_chsk.errors import UnpackError
from flask_chsk.packers.limits import MAX_VALUES, too_many_values, too_much_referred, weight


@pytest.mark.parametrize("text", ["", "a", "a" * 1000])
def test_ascii_text_weighs_a_byte_per_character(text: str) -> None:
    assert weight(text) == len(text)


@pytest.mark.parametrize("text", ["é", "a" * 999 + "é", "日本", "😀" * 10])
def test_one_character_beyond_ascii_makes_all_weigh_four(text: str) -> None:
    assert weight(text) == 4 * len(text)


def test_a_text_weighs_at_least_what_python_keeps_for_it() -> None:
    for text in ("a" * 1000, "é" * 1000, "日" * 1000, "😀" * 1000):
        kept = text.__sizeof__() - "".__sizeof__()
        assert weight(text) >= 0.9 * kept


def test_refusals_name_the_limit_and_its_setting() -> None:
    assert isinstance(too_many_values(MAX_VALUES), UnpackError)
    assert str(too_many_values(5)) == "over 5 values (CHSK_MAX_MESSAGE_VALUES)"
    assert isinstance(too_much_referred(), UnpackError)
    assert "CHSK_MAX_MESSAGE_BYTES" in str(too_much_referred())

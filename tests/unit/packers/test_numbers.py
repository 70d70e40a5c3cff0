"""How large numbers may be."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest

from flask_chsk.errors import PackError, UnpackError
from flask_chsk.packers.numbers import (
    LARGEST_EXPONENT,
    LONGEST_NUMBER,
    MOST_BITS,
    MOST_DIGITS,
    check_decimal,
    check_fraction,
    decimal_of,
)


def test_the_largest_integers_and_fractions_fit_into_the_longest_number() -> None:
    assert len(str(-(2**MOST_BITS))) <= LONGEST_NUMBER
    half = 2 ** (MOST_BITS // 2) - 1
    assert len(f"-{half}/{half}") <= LONGEST_NUMBER


@pytest.mark.parametrize(
    "text", ["0", "-1.50", f"1E{LARGEST_EXPONENT}", f"1E-{LARGEST_EXPONENT}", "9" * MOST_DIGITS]
)
def test_a_decimal_in_range_is_read_and_written(text: str) -> None:
    number = decimal_of(text)
    assert str(number) == str(Decimal(text))
    check_decimal(number)


@pytest.mark.parametrize(
    "text", [f"1E{LARGEST_EXPONENT + 1}", f"1E-{LARGEST_EXPONENT + 1}", "9" * (MOST_DIGITS + 1)]
)
def test_a_decimal_out_of_range_is_neither(text: str) -> None:
    with pytest.raises(UnpackError, match="decimal out of range"):
        decimal_of(text)
    with pytest.raises(PackError, match="decimal out of range"):
        check_decimal(Decimal(text))


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "sNaN"])
def test_a_decimal_that_is_no_number_is_not_written(text: str) -> None:
    with pytest.raises(PackError, match="decimal out of range"):
        check_decimal(Decimal(text))


def test_a_fraction_has_so_many_bits() -> None:
    half = MOST_BITS // 2
    check_fraction(Fraction(2**half - 1, 2 ** (half - 1)))
    with pytest.raises(PackError, match="a fraction of more than"):
        check_fraction(Fraction(2**half + 1, 2**half))

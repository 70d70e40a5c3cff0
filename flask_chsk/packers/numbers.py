"""How large numbers may be, read or written, so that none takes long or much memory."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from ..errors import PackError, UnpackError
from .excerpts import short, shown

LONG = range(-(2**63), 2**63)
LONGEST_NUMBER = 1024  # characters: int() of decimal digits takes quadratic time
MOST_BITS = 3390  # of integers and fractions; so many always fit into those characters
MOST_DIGITS = 1000  # of decimals; likewise
LARGEST_EXPONENT = 6144  # decimal128's; int() of 1e999999999 would take all memory there is

TOO_MANY_BITS = f"an integer of more than {MOST_BITS} bits"


def decimal_of(text: str) -> Decimal:
    """The decimal that *text* is.

    :raises UnpackError: where it is out of range.
    """
    number = Decimal(text)
    # Without an exponent, and so short, it is in range.
    short_enough = len(text) <= MOST_DIGITS and "E" not in text and "e" not in text
    if not short_enough and not _is_moderate(number):
        raise UnpackError(f"decimal out of range: {short(text)}")
    return number


def check_decimal(number: Decimal) -> None:
    """:raises PackError: where *number* is out of range."""
    if not _is_moderate(number):
        raise PackError(f"decimal out of range: {shown(number)}")


def _is_moderate(number: Decimal) -> bool:
    return (
        number.is_finite()
        and abs(number.adjusted()) <= LARGEST_EXPONENT
        and len(number.as_tuple().digits) <= MOST_DIGITS
    )


def check_fraction(number: Fraction) -> None:
    """:raises PackError: where *number* is too large."""
    if number.numerator.bit_length() + number.denominator.bit_length() > MOST_BITS:
        raise PackError(f"a fraction of more than {MOST_BITS} bits")

"""Packers: one value to one text or bytes, and back (docs/packers.rst)."""

from .base import BuiltinPacker, Packer
from .by_name import make
from .conversions import PackDefault, zoned
from .limits import MAX_BYTES, MAX_DEPTH, MAX_VALUES, SHORT_BYTES, VALUE_BYTES

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_VALUES",
    "SHORT_BYTES",
    "VALUE_BYTES",
    "BuiltinPacker",
    "PackDefault",
    "Packer",
    "make",
    "zoned",
]

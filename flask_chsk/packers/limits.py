"""The limits of a message, and what refuses one that is over them."""

from __future__ import annotations

from ..errors import UnpackError

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 100
MAX_VALUES = 20_000  # of one message: read in 10 ms, and the most expensive kinds in some 60
ENVELOPE = 4  # levels of nesting kept for what a frame puts around a value: [[[id value] …] cb …]

# What a message holds in memory once it is read, near enough: its characters, and for each value
# an object and a place in a list or a dict. A short one is not counted: a little more per byte.
VALUE_BYTES = 64
SHORT = 256
SHORT_BYTES = 16  # of a short one, per byte

# A key of 50 characters that a reference of 3 bytes stands for. What is more is no saving of
# honest writers, but a message that grows when it is read, or written again.
EXPANSION = 16


def weight(text: str) -> int:
    """Bytes of memory that each copy of *text* takes: one character beyond ASCII widens all."""
    return len(text) if text.isascii() else 4 * len(text)


def too_many_values(most: int) -> UnpackError:
    """What refuses a message of more than *most* values."""
    return UnpackError(f"over {most} values (CHSK_MAX_MESSAGE_VALUES)")


def too_much_referred() -> UnpackError:
    """What refuses a message whose references stand for more than it may hold."""
    return UnpackError(
        f"references and namespaces that stand for more than {EXPANSION} times the message, or"
        " for more than CHSK_MAX_MESSAGE_BYTES"
    )

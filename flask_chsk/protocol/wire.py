"""Messages: one packed vector ``[value cb]`` in both directions, and its older dresses.

Pure. Knows the generations of Sente's wire (docs/protocol.rst, "Sente's generations"); what values
mean is the session's business. Frames are composed of *pieces*, values that are packed already, so
that an event that goes to many clients is packed once per packer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ..errors import PackError, UnpackError
from ..packers import SHORT_BYTES, Packer
from ..values import Keyword, StrKey

_NAMES = frozenset([str, StrKey, Keyword])  # what nearly all callback ids are

Data = str | bytes
"""What a packer makes: text, or bytes from a binary one."""


class Composer:
    """Composes messages of one packer and one wire generation.

    A built-in packer joins packed pieces (its ``array``). One that can only ``pack`` and
    ``unpack`` is given whole values: then a piece is the value itself.
    """

    __slots__ = (
        *("array", "finish", "has_keywords", "key", "nil", "packer", "piece"),
        *("on_unpackable", "unpack_padded", "unpack_sized", "wire"),
    )

    def __init__(self, packer: Packer, wire: Wire) -> None:
        self.packer = packer
        self.wire = wire
        self.key = f"{packer.name} {wire.name}"  # what two connections share frames by
        self.on_unpackable: Callable[[str, PackError], object] = lambda id, error: None
        array = getattr(packer, "array", None)
        self.piece: Callable[[Any], Any]
        self.array: Callable[[Iterable[Any]], Any]
        self.finish: Callable[[Any], Data] | None
        if array is not None:
            self.piece = packer.pack
            self.array = array
            self.finish = getattr(packer, "finish", None)  # gzip: compresses the whole
        else:
            self.piece = self._checked
            self.array = list
            self.finish = packer.pack
        self.unpack_sized: Callable[[Any], tuple[Any, int]]
        sized = getattr(packer, "unpack_sized", None)
        self.unpack_sized = self._estimated if sized is None else sized
        # For POSTs: Sente's MessagePack client sends its whole buffer, NUL bytes at the end.
        padded = getattr(packer, "unpack_padded", None)
        self.unpack_padded = self.unpack_sized if padded is None else padded
        self.nil = self.piece(None)
        self.has_keywords = _has_keywords(packer)  # else a string may be an event id

    def _checked(self, value: Any) -> Any:
        self.packer.pack(value)  # raises now, in the caller, before anything is sent
        return value

    def bounded(self, value: Any, most: int, root: str) -> Any:
        """The piece of *value*, which is the application's, where it may wait in an outbox.

        :param most: bytes, half of ``CHSK_MAX_OUTBOX_BYTES``.
        :param root: what *value* is, for the error.
        :raises PackError: for one that this packer cannot carry, or that is larger.
        """
        try:
            packed = self.packer.pack(value)
        except PackError as error:
            raise PackError(root + str(error).removeprefix("data")) from error.__cause__
        if len(packed) > most:
            raise PackError(
                f"{root} of {len(packed)} bytes: more than half of CHSK_MAX_OUTBOX_BYTES"
                f" ({2 * most})"
            )
        return value if self.array is list else packed

    def _estimated(self, data: Data) -> tuple[Any, int]:
        return self.packer.unpack(data), SHORT_BYTES * len(data)

    def message(self, value: Any, cb: Any = None, third: Any = None) -> Data:
        """``[value cb third?]``, packed.

        :raises PackError: for a value this packer cannot carry.
        """
        return self.compose(
            self.piece(value),
            None if cb is None else self.piece(cb),
            None if third is None else self.piece(third),
        )

    def compose(self, value: Any, cb: Any = None, third: Any = None) -> Data:
        """The same from pieces; *cb* and *third* are None where there is none."""
        wire = self.wire
        prefix = "" if self.packer.binary else wire.prefix
        if third is not None:
            whole = self.array((value, self.nil if cb is None else cb, third))
        elif cb is not None:
            whole = self.array((value, cb))
        elif wire.writes_nil:
            whole = self.array((value, self.nil))
        elif wire.writes_bare and not self.packer.binary:
            whole, prefix = value, "-"
        else:
            whole = self.array((value,))
        data = whole if self.finish is None else self.finish(whole)
        return prefix + data if prefix and isinstance(data, str) else data

    def read(self, data: Data) -> tuple[Any, Any, Any]:
        """*data* as ``(value, cb, third)``.

        :raises UnpackError: where it is not one message.
        """
        return self.read_sized(data)[:3]

    def read_sized(self, data: Data, padded: bool = False) -> tuple[Any, Any, Any, int]:
        """*data* as ``(value, cb, third, size)``: about the bytes that it holds once it is read.

        :param padded: NUL bytes may follow a binary message.
        :raises UnpackError: where it is not one message.
        """
        if type(data) is str and data[:1] in ("+", "-"):  # Sente before 1.18
            prefix, data = data[0], data[1:]
            if prefix == "-":
                value, size = self.unpack_sized(data)
                return value, None, None, size
        elif type(data) is str and self.packer.binary:
            raise UnpackError(f"text, where the packer {self.packer.name!r} is binary")
        message, size = (self.unpack_padded if padded else self.unpack_sized)(data)
        if type(message) is not list or not message:
            raise UnpackError("not a message: expected [value cb]")
        length = len(message)
        cb = message[1] if length > 1 else None
        if cb is False:
            cb = None
        elif cb is not None and type(cb) not in _NAMES:
            self._check_cb(cb)
        third = message[2] if length > 2 else None
        return message[0], cb, third, size

    def _check_cb(self, cb: Any) -> None:
        # Whatever it is, each answer repeats it; and readers take some levels more than writers.
        try:
            self.piece(cb)
        except PackError as error:
            raise UnpackError(f"a callback id that no answer can repeat: {error}") from error


def _has_keywords(packer: Packer) -> bool:
    try:
        return isinstance(packer.unpack(packer.pack(Keyword("a/b"))), Keyword)
    except (PackError, UnpackError):  # one of an application's own, which takes less than we send
        return False


@dataclass(frozen=True)
class Wire:
    """One generation of the wire (docs/protocol.rst, "Sente's generations")."""

    name: str
    prefix: str = ""  # before every wrapped text
    writes_nil: bool = False  # [value nil] where there is no callback, else [value]
    writes_bare: bool = False  # -value where there is no callback
    nil_uid: str = "sente/nil-uid"
    csrf_in_handshake: bool = False
    data_always: bool = True  # the handshake carries data even where it is nil
    pongs: bool = True  # all its clients answer pings, so silence is death


WIRES: dict[str, Wire] = {
    "1.21": Wire("1.21", writes_nil=True),
    # 1.19 and 1.20 pong, 1.18 does not, and the bytes do not tell them apart.
    "1.18": Wire("1.18", data_always=False, pongs=False),
    "1.17": Wire(
        "1.17", prefix="+", nil_uid="taoensso.sente/nil-uid", data_always=False, pongs=False
    ),
    "1.0": Wire(
        "1.0",
        prefix="+",
        writes_bare=True,
        nil_uid="taoensso.sente/nil-uid",
        csrf_in_handshake=True,
        data_always=False,
        pongs=False,
    ),
}

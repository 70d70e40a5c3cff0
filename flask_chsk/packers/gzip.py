"""gzip around another packer, for links that are slow or dear (docs/protocol.rst, "Values").

The first byte says what follows: ``00`` the other packer's message as it is, ``01`` the same
compressed. Short ones are not: it would hardly help, and costs more than packing. Reading
inflates up to the message limit and not a byte further, so a bomb costs a refusal. Of little use
where WebSockets or a proxy compress already.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from gzip import compress
from typing import Any

from ..errors import UnpackError
from .base import BuiltinPacker, Packer
from .conversions import PackDefault
from .custom import Guarded
from .edn import EdnPacker
from .excerpts import short
from .limits import MAX_BYTES, MAX_DEPTH, MAX_VALUES

_RAW, _GZIP = b"\0", b"\1"
_WORTHWHILE = 1024  # bytes, as Sente has it
_LEVEL = 4  # 6 takes a few percent of the bytes off, and on some messages ten times as long
_GZIP_HEADER = 16 + zlib.MAX_WBITS  # what zlib wants to hear to expect one


class GzipPacker:
    """The messages of *packer*, or of EDN, compressed where that makes them shorter.

    The keywords are for EDN; a packer that is given brings its own limits, and *max_bytes*
    bounds what is inflated for one that has none.
    """

    content_type = "application/octet-stream"
    binary = True

    # Packed values can be joined, and are compressed as one; not so where the other packer
    # cannot join them. Then there is no such method.
    array: Callable[[Iterable[bytes]], bytes]

    def __init__(
        self,
        packer: Packer | None = None,
        *,
        max_bytes: int = MAX_BYTES,
        max_depth: int = MAX_DEPTH,
        max_values: int | None = MAX_VALUES,
        pack_default: PackDefault | None = None,
    ) -> None:
        if packer is None:
            packer = EdnPacker(
                max_bytes=max_bytes,
                max_depth=max_depth,
                max_values=max_values,
                pack_default=pack_default,
            )
            self.name = "gzip"
        else:
            self.name = f"gzip-{packer.name}"
        self._inner: Any = packer
        if not isinstance(packer, BuiltinPacker):
            self._inner = Guarded(packer, max_bytes=max_bytes)
        self.max_bytes: int = self._inner.max_bytes
        if hasattr(packer, "array") and not hasattr(packer, "finish"):
            self.array = self._array

    def __repr__(self) -> str:
        return f"<GzipPacker {self.name}>"

    def pack(self, value: Any, root: str = "data") -> bytes:
        """*value* packed: a message, not compressed yet where there is ``array``.

        :raises PackError: as the other packer does.
        """
        packed = _RAW + _bytes(self._inner.pack(value, root))
        return packed if hasattr(self, "array") else self.finish(packed)

    def finish(self, data: bytes) -> bytes:
        """The message *data*, of ``pack`` or ``array``, compressed where that makes it shorter."""
        if len(data) <= _WORTHWHILE:
            return data
        compressed = _GZIP + compress(data[1:], _LEVEL, mtime=0)
        return compressed if len(compressed) < len(data) else data

    def unpack(self, data: str | bytes) -> Any:
        """The value in *data*, compressed or not.

        :raises UnpackError: for what is damaged, unknown, or over the limit when inflated.
        """
        return self.unpack_sized(data)[0]

    def unpack_sized(self, data: str | bytes) -> tuple[Any, int]:
        """The value in *data*, and the bytes that it holds in memory, near enough.

        :raises UnpackError: as ``unpack`` does.
        """
        return self._sized(data, self._inner.unpack_sized)

    def unpack_padded(self, data: str | bytes) -> tuple[Any, int]:
        """The same, where NUL bytes may follow, in the message or in what was compressed.

        :raises UnpackError: as ``unpack`` does.
        """
        return self._sized(data, getattr(self._inner, "unpack_padded", self._unpack_stripped), True)

    def _unpack_stripped(self, data: bytes) -> tuple[Any, int]:
        if not self._inner.binary:  # no text ends with NUL
            data = data.rstrip(_RAW)
        return self._inner.unpack_sized(data)  # type: ignore[no-any-return]

    def _sized(
        self, data: str | bytes, unpack: Callable[[bytes], tuple[Any, int]], padded: bool = False
    ) -> tuple[Any, int]:
        if isinstance(data, str):
            raise UnpackError(f"text, where the packer {self.name!r} is binary")
        kind, rest = bytes(data[:1]), data[1:]
        if kind == _RAW:
            return unpack(rest)
        if kind == _GZIP:
            return unpack(self._inflated(rest, padded))
        raise UnpackError("no gzip packer's message: its first byte is neither 00 nor 01")

    def _array(self, parts: Iterable[bytes]) -> bytes:
        packed: Iterable[Any] = (part[1:] for part in parts)
        if not self._inner.binary:
            packed = (str(part, "utf-8") for part in packed)
        return _RAW + _bytes(self._inner.array(packed))

    def _inflated(self, data: bytes, padded: bool) -> bytes:
        inflater = zlib.decompressobj(_GZIP_HEADER)
        try:
            inflated = inflater.decompress(data, self.max_bytes + 1)
        except zlib.error as exc:
            raise UnpackError(f"not {self.name}: {short(str(exc))}") from None
        if len(inflated) > self.max_bytes:
            raise UnpackError(f"over {self.max_bytes} bytes, inflated")
        if not inflater.eof:
            raise UnpackError("the compressed message ends too early")
        if inflater.unused_data.strip(_RAW) if padded else inflater.unused_data:
            raise UnpackError("more than the compressed message")
        return inflated


def _bytes(packed: str | bytes) -> bytes:
    return packed.encode() if isinstance(packed, str) else packed

"""What every packer has: one value to one text or bytes, and back (docs/packers.rst).

A packer does not know events, callbacks or frames, converts no case, and never guesses: what it
cannot carry exactly, it refuses. No exception but `PackError` and `UnpackError` leaves one of ours.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from ..errors import PackError, UnpackError
from ..interrupts import OF_CODE, from_signal
from .conversions import PackDefault, aware, plainer
from .excerpts import short
from .faults import FaultFinder
from .limits import ENVELOPE, EXPANSION, MAX_BYTES, MAX_DEPTH, MAX_VALUES

Data = TypeVar("Data", str, bytes)


class Packer(Protocol):
    """What a packer of your own has.

    One that also has ``array(parts)``, the packed vector of values that are packed already, gets
    each event packed once and shared by all its receivers.
    """

    @property
    def name(self) -> str: ...

    @property
    def content_type(self) -> str: ...

    @property
    def binary(self) -> bool: ...

    def pack(self, value: Any, /) -> str | bytes:
        """The packed *value*.

        :raises PackError: naming what cannot be packed.
        """

    def unpack(self, data: Any, /) -> Any:
        """The value packed in *data*.

        :raises UnpackError: where *data* is not exactly one packed value.
        """


class BuiltinPacker(ABC, Generic[Data]):
    """Limits, conveniences and errors; a subclass has ``_pack``, ``_unpack`` and ``array``.

    Both may raise what they like: it leaves as `PackError`, with the path, or `UnpackError`.
    """

    name: ClassVar[str]
    content_type: ClassVar[str]
    binary: ClassVar[bool] = False

    # Types that ``_pack`` writes itself, so that conveniences are not tried on them.
    native: ClassVar[frozenset[type]]

    def __init__(
        self,
        *,
        max_bytes: int = MAX_BYTES,
        max_depth: int = MAX_DEPTH,
        max_values: int | None = MAX_VALUES,
        pack_default: PackDefault | None = None,
    ) -> None:
        self.max_bytes = max_bytes
        self.max_depth = max_depth
        self.max_values = max_bytes if max_values is None else max_values
        self.max_pack_depth = max_depth - ENVELOPE  # so that readers like ours take the frame
        self.pack_default = pack_default

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def pack(self, value: Any, root: str = "data") -> Data:
        """*value* packed.

        :raises PackError: naming the path to what cannot be packed, which starts with *root*.
        """
        try:
            return self._pack(value)
        except OF_CODE as exc:
            if from_signal(exc):
                raise
            try:
                message = self._fault_finder().find(value, root) or f"{root}: {exc}"
            except OF_CODE:  # a value that breaks when looked at, or hardly any stack left
                message = f"{root}: {exc}"
            foreign = exc.__cause__ if isinstance(exc, PackError) else exc
            raise PackError(message) from foreign

    def unpack(self, data: str | bytes) -> Any:
        """The one value in *data*.

        :raises UnpackError: for anything else, and for what is over the limits.
        """
        return self.unpack_sized(data)[0]

    def unpack_sized(self, data: str | bytes) -> tuple[Any, int]:
        """The one value in *data*, and the bytes that it holds in memory, near enough.

        :raises UnpackError: as ``unpack`` does.
        """
        return self._sized(self._unpack, data)

    def _sized(
        self, unpack: Callable[[Any], tuple[Any, int]], data: str | bytes
    ) -> tuple[Any, int]:
        try:
            return unpack(self._checked(data))
        except UnpackError:
            raise
        except RecursionError as exc:
            raise UnpackError("nested too deep") from exc
        except Exception as exc:
            raise UnpackError(f"not {self.name}: {short(str(exc), 120)}") from exc

    @abstractmethod
    def array(self, parts: Iterable[Data]) -> Data:
        """The packed vector of *parts*, which are packed already."""

    @abstractmethod
    def _pack(self, value: Any) -> Data: ...

    @abstractmethod
    def _unpack(self, data: Data) -> tuple[Any, int]: ...

    def _fault_finder(self) -> FaultFinder:
        return FaultFinder(self._pack, self._plainer, self.native, self.max_pack_depth)

    def _room(self, size: int) -> int:
        """Bytes that references may add to a message of *size*."""
        return min(EXPANSION * size, self.max_bytes - size)

    def _checked(self, data: str | bytes) -> Any:
        """*data* within the limit, and as text where this packer reads text."""
        size = len(data)
        if size > self.max_bytes:
            raise UnpackError(f"over {self.max_bytes} bytes")
        if self.binary:
            if isinstance(data, str):
                raise UnpackError(f"text, where the packer {self.name!r} is binary")
        elif not isinstance(data, str):
            return str(data, "utf-8")
        elif not data.isascii() and len(data.encode()) > self.max_bytes:
            raise UnpackError(f"over {self.max_bytes} bytes")
        return data

    def _plainer(self, value: Any) -> Any:
        """*value*, whose type this packer does not write, as one that it is likelier to write.

        :raises PackError: where there is none.
        """
        return plainer(value, self.pack_default)

    def _aware(self, value: datetime) -> Any:
        """What is written for *value*, a datetime without a zone.

        :raises PackError: where ``pack_default`` makes nothing of it.
        """
        return aware(value, self.pack_default)

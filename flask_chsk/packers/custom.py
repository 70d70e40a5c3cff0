"""Packers of your own: two methods and a name, which here can do no harm (docs/packers.rst).

Whatever a packer raises becomes `PackError`, in the caller, or `UnpackError`, a bad package of the
peer's. It is given no message over the limit, and text or bytes as it asks for. What it makes of
its values is its own business: neither nesting nor keys are looked at.
"""

from __future__ import annotations

import re
from typing import Any

from ..errors import ConfigError, PackError, UnpackError
from ..interrupts import OF_CODE, from_signal
from .base import Packer
from .builtin import BUILTIN
from .excerpts import short
from .limits import MAX_BYTES, SHORT_BYTES

_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")  # it stands in URLs
_registered: dict[str, Packer] = {}


def register(packer: Packer) -> None:
    """Make *packer* known by its name: to ``CHSK_PACKERS``, and to the Python client.

    One that has the name of one before takes its place.

    :raises ConfigError: where it is no packer, or is called as one of ours.
    """
    name = Guarded(packer).name
    if name in BUILTIN or not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            f"a packer cannot be called {name!r}: use letters, digits, _ and -, and none of"
            f" {', '.join(BUILTIN)}"
        )
    _registered[name] = packer


def names() -> list[str]:
    """The names of the packers that were registered."""
    return list(_registered)


def registered(name: str, *, max_bytes: int = MAX_BYTES) -> Guarded | None:
    """The packer that was registered under *name*, with this limit."""
    packer = _registered.get(name)
    return None if packer is None else Guarded(packer, max_bytes=max_bytes)


class Guarded:
    """*packer*, which is not ours, as the rest of the package relies on one.

    :raises ConfigError: where it has no name, content type or method of a packer.
    """

    def __init__(self, packer: Packer, *, max_bytes: int = MAX_BYTES) -> None:
        missing = [a for a in ("name", "content_type", "pack", "unpack") if not hasattr(packer, a)]
        if missing:
            raise ConfigError(f"{packer!r} is no packer: it has no {', '.join(missing)}")
        self.name = packer.name
        self.content_type = packer.content_type
        self.binary = bool(getattr(packer, "binary", False))
        self.max_bytes = max_bytes
        self._packer = packer
        for optional in ("array", "finish"):
            if hasattr(packer, optional):
                setattr(self, optional, getattr(packer, optional))

    def __repr__(self) -> str:
        return f"<Guarded {self._packer!r}>"

    def pack(self, value: Any, root: str = "data") -> str | bytes:
        """*value* packed.

        :raises PackError: whatever went wrong.
        """
        try:
            packed = self._packer.pack(value)
        except PackError:
            raise
        except OF_CODE as exc:
            if from_signal(exc):
                raise
            said = short(repr(exc), 120)
            raise PackError(f"{root}: the packer {self.name!r} said {said}") from exc
        wanted = bytes if self.binary else str
        if not isinstance(packed, wanted):
            made = type(packed).__qualname__
            raise PackError(
                f"{root}: the packer {self.name!r} made {made}; with binary={self.binary} it makes"
                f" {wanted.__name__}"
            )
        return packed

    def unpack(self, data: str | bytes) -> Any:
        """The value in *data*.

        :raises UnpackError: whatever went wrong, and for what is over the limit.
        """
        return self.unpack_sized(data)[0]

    def unpack_sized(self, data: str | bytes) -> tuple[Any, int]:
        """The value in *data*, and the bytes that it holds in memory, near enough.

        What a packer does not tell is taken for what a short message of others' holds.

        :raises UnpackError: as ``unpack`` does.
        """
        if len(data) > self.max_bytes:
            raise UnpackError(f"over {self.max_bytes} bytes")
        try:
            if self.binary:
                if isinstance(data, str):
                    raise UnpackError(f"text, where the packer {self.name!r} is binary")
            elif isinstance(data, str):
                if len(data.encode()) > self.max_bytes:
                    raise UnpackError(f"over {self.max_bytes} bytes")
            else:
                data = str(data, "utf-8")
            sized = getattr(self._packer, "unpack_sized", None)
            if sized is not None:
                return sized(data)  # type: ignore[no-any-return]
            return self._packer.unpack(data), SHORT_BYTES * len(data)
        except UnpackError:
            raise
        except OF_CODE as exc:
            if from_signal(exc):
                raise
            raise UnpackError(f"not {self.name}: {short(str(exc), 120)}") from exc

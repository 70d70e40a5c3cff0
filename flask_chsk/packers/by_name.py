"""Which packer a name stands for: one of ours, or one that the application registered."""

from __future__ import annotations

from typing import Any

from ..errors import ConfigError
from .base import Packer
from .builtin import BUILTIN, builtin
from .conversions import PackDefault
from .custom import names, registered
from .limits import MAX_BYTES, MAX_DEPTH, MAX_VALUES

_GZIP_OF = "gzip-"  # before the name of another packer


def make(
    name: str,
    *,
    max_bytes: int = MAX_BYTES,
    max_depth: int = MAX_DEPTH,
    max_values: int | None = MAX_VALUES,
    pack_default: PackDefault | None = None,
) -> Packer:
    """The packer called *name*, with these limits.

    Of ours, or one that was registered (:func:`flask_chsk.packers.custom.register`); with
    ``gzip-`` before its name it goes into gzip.

    *max_bytes*, *max_depth* and *max_values* bound what is unpacked; None: as many values as fit
    into the bytes. *pack_default* makes of a value that no packer knows one that it does.

    :raises ConfigError: where there is none.
    """
    own = registered(name, max_bytes=max_bytes)
    if own is not None:
        return own
    limits: dict[str, Any] = {
        "max_bytes": max_bytes,
        "max_depth": max_depth,
        "max_values": max_values,
        "pack_default": pack_default,
    }
    inner = name.removeprefix(_GZIP_OF)
    if inner != name and not inner.startswith("gzip"):
        return builtin("gzip")(make(inner, **limits), **limits)
    if name in BUILTIN:
        return builtin(name)(**limits)
    known = ", ".join([*BUILTIN, *names()])
    raise ConfigError(
        f"no packer {name!r}: there are {known}, and each but gzip with {_GZIP_OF} before its"
        " name; one of your own goes by its name once flask_chsk.packers.custom.register() has it,"
        " which comes before chsk.init_app(app)"
    )

"""The packers that come with us, by name. Nobody pays for one that they do not use."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

from .base import Packer


class Place(NamedTuple):
    """Where a packer's class lies."""

    module: str
    factory: str


BUILTIN = {
    "edn": Place("edn", "EdnPacker"),
    "json": Place("json", "JsonPacker"),
    "transit": Place("transit", "TransitPacker"),
    "msgpack": Place("msgpack", "MsgpackPacker"),
    "gzip": Place("gzip", "GzipPacker"),
}


def builtin(name: str) -> Callable[..., Packer]:
    """The class of the packer *name*, imported when it is first asked for."""
    place = BUILTIN[name]
    module = import_module(f"{__package__}.{place.module}")
    factory: Callable[..., Packer] = getattr(module, place.factory)
    return factory

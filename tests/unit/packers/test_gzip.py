"""gzip around other packers: what it compresses, and what it does not inflate."""

from __future__ import annotations

import ast
import gzip
import tracemalloc
import zlib
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_chsk.errors import PackError, UnpackError
from flask_chsk.packers import Packer, make
from flask_chsk.packers.edn import EdnPacker
from flask_chsk.packers.gzip import GzipPacker
from flask_chsk.packers.json import JsonPacker
from flask_chsk.packers.msgpack import MsgpackPacker
from flask_chsk.protocol.wire import WIRES, Composer
from flask_chsk.values import Keyword

from . import typed
from .test_edn import values

packer = GzipPacker()
LONG = ["a" * 10_000, {Keyword("n"): [1, None]}]


class Literals:
    """A packer of the application's, with nothing but the two methods."""

    name = "literals"
    content_type = "text/x-python"
    binary = False

    def pack(self, value: Any, /) -> str:
        return repr(value)

    def unpack(self, data: str, /) -> Any:
        return ast.literal_eval(data)


def message(packer: GzipPacker, value: Any) -> bytes:
    """As it leaves, alone."""
    return packer.finish(packer.pack(value))


@pytest.mark.parametrize(
    ("inner", "name"),
    [
        (None, "gzip"),
        (JsonPacker(), "gzip-json"),
        (MsgpackPacker(), "gzip-msgpack"),
        (Literals(), "gzip-literals"),
    ],
)
def test_it_wraps_any_packer(inner: Packer | None, name: str) -> None:
    packer = GzipPacker(inner)
    assert (packer.name, packer.binary) == (name, True)
    assert packer.content_type == "application/octet-stream"
    for value in (["short"], ["long" * 1000, "é"]):
        assert packer.unpack(message(packer, value)) == value


def test_it_is_made_by_name_around_edn() -> None:
    packer = make("gzip", max_bytes=20)
    assert type(packer) is GzipPacker
    assert packer.unpack(b"\0[:a 1]") == [Keyword("a"), 1]
    with pytest.raises(UnpackError, match="over 20 bytes"):
        packer.unpack(b"\0" + b" " * 20 + b"1")


def test_up_to_a_kilobyte_stays_as_it_is() -> None:
    assert message(packer, ["a", 1]) == b'\0["a" 1]'
    assert message(packer, "a" * 1021) == b'\0"' + b"a" * 1021 + b'"'
    compressed = message(packer, "a" * 1022)
    assert compressed[:1] == b"\1"
    assert len(compressed) < 50
    assert gzip.decompress(compressed[1:]) == b'"' + b"a" * 1022 + b'"'


def test_what_does_not_become_shorter_stays_as_it_is() -> None:
    noise = GzipPacker(MsgpackPacker())
    value = b"".join(zlib.compress(str(n).encode()) for n in range(200))
    scrambled = bytes(a ^ (i * i * 7 + i) % 251 for i, a in enumerate(value))
    assert message(noise, scrambled)[:1] == b"\0"
    assert noise.unpack(message(noise, scrambled)) == scrambled


def test_the_same_value_is_the_same_bytes() -> None:
    assert message(packer, LONG) == message(packer, LONG)  # no time of day in its header


@pytest.mark.parametrize("inner", [EdnPacker(), JsonPacker(), MsgpackPacker()])
def test_a_frame_is_joined_and_then_compressed_once(inner: Any) -> None:
    gzipped = Composer(GzipPacker(inner), WIRES["1.21"])
    plain = Composer(inner, WIRES["1.21"])
    events = [["chat/said", "é" * 1000], ["chat/left", None]]

    def frame(composer: Composer) -> Any:
        pieces = composer.array([composer.piece(event) for event in events])
        return composer.compose(pieces, None, composer.piece("e1:7,+1"))

    whole = frame(plain)
    data = frame(gzipped)
    assert data[:1] == b"\1"
    assert gzip.decompress(data[1:]) == (whole.encode() if isinstance(whole, str) else whole)
    assert gzipped.read(data) == plain.read(whole) == (events, None, "e1:7,+1")


def test_a_packer_that_cannot_join_is_given_whole_frames() -> None:
    composer = Composer(GzipPacker(Literals()), WIRES["1.21"])
    pieces = composer.array([composer.piece(["chat/said", n]) for n in range(100)])
    data = composer.compose(pieces)
    assert data[:1] == b"\1"
    assert composer.read(data) == ([["chat/said", n] for n in range(100)], None, None)
    assert composer.message("pong", "c1") == b"\0['pong', 'c1']"


def test_errors_name_the_path() -> None:
    with pytest.raises(
        PackError, match=r'^data\["a"\]\[0\]: object of type object: pass what it is made of'
    ):
        packer.pack({"a": [object()]})
    with pytest.raises(PackError, match=r"^reply: object of type object: pass what it is made of"):
        packer.pack(object(), root="reply")


# What others send -------------------------------------------------------------------------


def compressed(data: bytes) -> bytes:
    return b"\1" + gzip.compress(data, mtime=0)  # the time would be part of a test's name


@pytest.mark.parametrize("level", range(10))
def test_any_level_is_read(level: int) -> None:
    assert packer.unpack(b"\1" + gzip.compress(b"[1 2]", level)) == [1, 2]


def test_any_buffer_is_read() -> None:
    data = compressed(b"[1]")
    buffer: Any
    for buffer in (data, bytearray(data), memoryview(data)):
        assert packer.unpack(buffer) == [1]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"\1",
        b"\2[]",
        b"[]",
        b"\0[",
        b"\0\xff",
        b"\0[] []",
        compressed(b"["),
        compressed(b"\xff"),
        compressed(b"[]")[:-1],
        compressed(b"[]")[:5],
        compressed(b"[]") + b"\0",
        compressed(b"[]") + gzip.compress(b"[]", mtime=0),
        b"\1" + zlib.compress(b"[]"),
        b"\1[]",
        compressed(b"[]")[:-8] + bytes(8),
        compressed(compressed(b"[]")),
    ],
)
def test_what_is_not_one_message_is_refused(data: bytes) -> None:
    with pytest.raises(UnpackError) as caught:
        packer.unpack(data)
    assert len(str(caught.value)) < 200


def test_text_is_refused() -> None:
    with pytest.raises(UnpackError, match="text, where the packer 'gzip' is binary"):
        packer.unpack("[]")


def test_the_limit_is_that_of_what_is_inflated() -> None:
    small = GzipPacker(max_bytes=2000)
    assert small.unpack(compressed(b'"' + b"a" * 1998 + b'"')) == "a" * 1998
    with pytest.raises(UnpackError, match="over 2000 bytes, inflated"):
        small.unpack(compressed(b'"' + b"a" * 1999 + b'"'))


@pytest.mark.parametrize("inner", [EdnPacker(), Literals()])
def test_a_bomb_costs_a_refusal_and_not_memory(inner: Packer) -> None:
    deflater = zlib.compressobj(9, zlib.DEFLATED, 31)
    blocks: Iterable[bytes] = (deflater.compress(bytes(10**6)) for _ in range(100))
    bomb = b"\1" + b"".join(blocks) + deflater.flush()
    assert len(bomb) < 100_000  # and 100 MB inflated
    target = GzipPacker(inner)
    tracemalloc.start()
    with pytest.raises(UnpackError, match="over 1048576 bytes, inflated"):
        target.unpack(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 2**20


@given(values)
def test_it_carries_what_the_other_packer_carries(value: Any) -> None:
    inner = EdnPacker(bytes_tag=True)
    packer = GzipPacker(inner)
    framed = packer.finish(packer.array([packer.pack(value), packer.pack("x" * 2000)]))
    assert framed[:1] == b"\1"
    assert typed(packer.unpack(framed)) == typed([value, "x" * 2000])
    assert packer.pack(value) == b"\0" + inner.pack(value).encode()


@given(st.binary(max_size=60), st.sampled_from([b"", b"\0", b"\1", b"\1\x1f\x8b\x08"]))
def test_any_bytes_are_read_or_refused(data: bytes, start: bytes) -> None:
    with suppress(UnpackError):
        packer.unpack(start + data)

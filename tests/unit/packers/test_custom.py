"""Packers of the application's own: two methods, and no harm done whatever they do."""

from __future__ import annotations

import ast
import hmac
from typing import Any

import pytest

from flask_chsk.errors import ConfigError, PackError, UnpackError
from flask_chsk.packers import Packer, make
from flask_chsk.packers.custom import Guarded, register, registered
from flask_chsk.packers.gzip import GzipPacker
from flask_chsk.packers.msgpack import MsgpackPacker
from flask_chsk.protocol.wire import WIRES, Composer
from flask_chsk.values import Keyword


class Literals:
    """Python's literals, points among them: the example of docs/packers.rst."""

    name = "literals"
    content_type = "text/x-python-literal"
    binary = False

    def pack(self, value: Any, /) -> str:
        return repr(self._plain(value))

    def unpack(self, data: str, /) -> Any:
        return self._rich(ast.literal_eval(data))

    def _plain(self, value: Any) -> Any:
        if isinstance(value, Point):
            return {"point": (value.x, value.y)}
        if isinstance(value, list | tuple):
            return [self._plain(item) for item in value]
        return str(value) if isinstance(value, str) else value

    def _rich(self, value: Any) -> Any:
        if isinstance(value, dict):
            return Point(*value["point"])
        return [self._rich(item) for item in value] if isinstance(value, list) else value


class Point:
    def __init__(self, x: int, y: int) -> None:
        self.x, self.y = x, y

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and (self.x, self.y) == (other.x, other.y)


class Signed:
    """Messages of another packer under a signature: binary, and joined before they are signed."""

    name = "signed"
    content_type = "application/octet-stream"
    binary = True

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.inner: Any = make("edn")

    def pack(self, value: Any, /) -> bytes:
        return bytes(self.inner.pack(value).encode())

    def array(self, parts: Any, /) -> bytes:
        return b"[" + b" ".join(parts) + b"]"

    def finish(self, data: bytes, /) -> bytes:
        return hmac.digest(self.key, data, "sha256") + data

    def unpack(self, data: bytes, /) -> Any:
        if not hmac.compare_digest(hmac.digest(self.key, data[32:], "sha256"), data[:32]):
            raise ValueError("the signature is not ours")
        return self.inner.unpack(data[32:])


class Broken(Literals):
    def pack(self, value: Any, /) -> Any:
        if value == "ours":
            raise PackError("data: as the packer says")
        return {"bytes": b"1", "none": None}[value]

    def unpack(self, data: str, /) -> Any:
        if data == "ours":
            raise UnpackError("as the packer says")
        return 1 / len(data)


def test_two_methods_make_a_packer() -> None:
    packer: Packer = Literals()
    composer = Composer(Guarded(packer), WIRES["1.21"])
    message = composer.message(["map/moved", Point(1, 2)], "c1")
    assert message == "[['map/moved', {'point': (1, 2)}], 'c1']"
    assert composer.read(message) == (["map/moved", Point(1, 2)], "c1", None)


def test_frames_of_it_are_made_of_whole_values() -> None:
    composer = Composer(Guarded(Literals()), WIRES["1.21"])
    events = [composer.piece([Keyword("a/b"), n]) for n in range(2)]
    assert composer.compose(composer.array(events), None, composer.piece("e1:7,+1")) == (
        "[[['a/b', 0], ['a/b', 1]], None, 'e1:7,+1']"
    )


def test_one_that_can_join_has_each_value_packed_once() -> None:
    signed = Signed(b"key")
    composer = Composer(Guarded(signed), WIRES["1.21"])
    message = composer.compose(composer.piece(["a/b", {"c": 1}]))
    assert isinstance(message, bytes)
    assert message[32:] == b'[["a/b" {:c 1}] nil]'
    assert composer.read(message) == (["a/b", {"c": 1}], None, None)
    with pytest.raises(UnpackError, match="not signed: the signature is not ours"):
        composer.read(b"\0" + message[1:])


def test_what_it_raises_when_packing_is_a_pack_error_in_the_caller() -> None:
    packer = Guarded(Broken())
    with pytest.raises(PackError, match="data: the packer 'literals' said KeyError") as caught:
        packer.pack("x")
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(PackError, match=r"^reply: the packer 'literals' said"):
        packer.pack("x", root="reply")
    with pytest.raises(PackError, match=r"^data: as the packer says$"):
        packer.pack("ours")


def test_what_is_no_text_where_text_was_promised_is_refused() -> None:
    for value, made in (("bytes", "bytes"), ("none", "NoneType")):
        with pytest.raises(PackError, match=f"made {made}; with binary=False it makes str"):
            Guarded(Broken()).pack(value)


def test_what_it_raises_when_unpacking_is_the_peer_s_fault() -> None:
    packer = Guarded(Broken())
    with pytest.raises(UnpackError, match="not literals: division by zero"):
        packer.unpack("")
    with pytest.raises(UnpackError, match=r"^as the packer says$"):
        packer.unpack("ours")
    with pytest.raises(UnpackError, match="not literals"):
        Guarded(Literals()).unpack("[" * 100_000)


def test_it_gets_text_or_bytes_as_it_asks() -> None:
    text, binary = Guarded(Literals()), Guarded(Signed(b""))
    assert text.unpack(b"['\xc3\xa9']") == text.unpack("['é']") == ["é"]
    with pytest.raises(UnpackError, match="not literals"):
        text.unpack(b"'\xff'")
    with pytest.raises(UnpackError, match="text, where the packer 'signed' is binary"):
        binary.unpack("[]")


def test_it_gets_no_message_over_the_limit() -> None:
    packer = Guarded(Literals(), max_bytes=6)
    assert packer.unpack("'éé'") == "éé"
    for data in ("'ééa'", "'ééa'".encode(), "1234567", b"1234567"):
        with pytest.raises(UnpackError, match="over 6 bytes"):
            packer.unpack(data)


def test_what_is_no_packer_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="it has no name, content_type, pack, unpack"):
        Guarded(object())  # type: ignore[arg-type]


# By name ----------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_chsk.packers.custom._registered", {})


def test_a_registered_packer_is_known_by_its_name() -> None:
    assert registered("literals") is None
    register(Literals())
    packer = registered("literals", max_bytes=3)
    assert packer is not None
    assert (packer.name, packer.content_type, packer.binary, packer.max_bytes) == (
        ("literals", "text/x-python-literal", False, 3)
    )
    assert packer.unpack("[1]") == [1]


def test_the_last_of_a_name_counts() -> None:
    register(Literals())
    register(Broken())
    packer = registered("literals")
    assert packer is not None
    with pytest.raises(UnpackError):
        packer.unpack("")


def test_gzip_around_another_packer_is_registered_like_any() -> None:
    register(GzipPacker(MsgpackPacker()))
    packer = registered("gzip-msgpack")
    assert packer is not None
    composer = Composer(packer, WIRES["1.21"])
    message = composer.message(["a/b", "c" * 2000])
    assert isinstance(message, bytes) and len(message) < 100
    assert composer.read(message) == (["a/b", "c" * 2000], None, None)


@pytest.mark.parametrize("name", ["edn", "gzip", "", "a b", "a+b", "x" * 33, None])
def test_names_of_ours_and_names_for_no_url_are_refused(name: Any) -> None:
    packer = Literals()
    packer.name = name
    with pytest.raises(ConfigError, match="a packer cannot be called"):
        register(packer)

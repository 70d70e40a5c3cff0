"""Messages of each generation and of every kind of packer.

docs/protocol.rst, "Sente's generations".
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_chsk import config, packers
from flask_chsk.errors import PackError, UnpackError
from flask_chsk.protocol.push import CANONICAL, UNPACKABLE, Push
from flask_chsk.protocol.wire import WIRES, Composer
from flask_chsk.values import Keyword

PING = Keyword("chsk/ws-ping")


def composer(wire: str = "1.21", packer: str = "edn") -> Composer:
    return Composer(packers.make(packer), WIRES[wire])


class Plain:
    """A packer as a user may bring one: it packs and unpacks, and that is all."""

    name = "plain"
    content_type = "text/plain"
    binary = False

    def pack(self, value: Any) -> str:
        try:
            return json.dumps(value)
        except TypeError as error:
            raise PackError(str(error)) from error

    def unpack(self, data: Any) -> Any:
        try:
            return json.loads(data)
        except ValueError as error:
            raise UnpackError(str(error)) from error


class Binary(Plain):
    """The same in bytes."""

    binary = True

    def pack(self, value: Any) -> bytes:  # type: ignore[override]
        return super().pack(value).encode()


def test_the_generations_are_those_of_the_configuration() -> None:
    assert tuple(WIRES) == config.WIRES


@pytest.mark.parametrize(
    ("wire", "without", "with_cb", "third"),
    [
        ("1.21", "[:chsk/ws-ping nil]", '[:chsk/ws-ping "c1"]', "[:chsk/ws-ping nil 3]"),
        ("1.18", "[:chsk/ws-ping]", '[:chsk/ws-ping "c1"]', "[:chsk/ws-ping nil 3]"),
        ("1.17", "+[:chsk/ws-ping]", '+[:chsk/ws-ping "c1"]', "+[:chsk/ws-ping nil 3]"),
        ("1.0", "-:chsk/ws-ping", '+[:chsk/ws-ping "c1"]', "+[:chsk/ws-ping nil 3]"),
    ],
)
def test_a_message_in_each_generation(wire: str, without: str, with_cb: str, third: str) -> None:
    one = composer(wire)
    assert one.message(PING) == without
    assert one.message(PING, "c1") == with_cb
    assert one.message(PING, None, 3) == third


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("packer", ["edn", "json"])
@given(cb=st.none() | st.text() | st.integers(0, 9), third=st.none() | st.text(min_size=1))
def test_what_is_composed_is_read_again(wire: str, packer: str, cb: Any, third: Any) -> None:
    one = composer(wire, packer)
    assert one.read(one.message([PING, 1], cb, third)) == ([PING, 1], cb, third)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("[[:a/b 1] nil]", (["a/b", 1], None, None)),
        ("[[:a/b 1]]", (["a/b", 1], None, None)),
        ("[[:a/b 1] 0]", (["a/b", 1], 0, None)),
        ("[[:a/b 1] false]", (["a/b", 1], None, None)),
        ('[[:a/b 1] "c" {:k 7} :more]', (["a/b", 1], "c", {"k": 7})),
        ('+[[:a/b 1] "c"]', (["a/b", 1], "c", None)),
        ("-[:a/b 1]", (["a/b", 1], None, None)),
        ("-:chsk/ws-ping", ("chsk/ws-ping", None, None)),
    ],
)
def test_every_generation_is_read_whatever_is_spoken(
    wire: str, text: str, read: tuple[Any, Any, Any]
) -> None:
    assert composer(wire).read(text) == read


@pytest.mark.parametrize("text", ["", "+", "-", "nil", "[]", "{}", '"s"', "7", "(1 2)", "[1", "+1"])
def test_what_is_no_message_is_said_to_be_none(text: str) -> None:
    if text == "(1 2)":  # an EDN list reads as a list, so it is one
        assert composer().read(text) == (1, 2, None)
        return
    with pytest.raises(UnpackError):
        composer().read(text)


def test_pieces_make_the_same_message_as_values() -> None:
    one = composer()
    pieces = one.array([one.piece([PING, 1]), one.piece([PING, 2])])
    assert one.compose(pieces) == one.message([[PING, 1], [PING, 2]])


# Packers that users bring ---------------------------------------------------------------


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("packer", [Plain(), Binary()])
def test_a_packer_without_pieces_speaks_every_generation(wire: str, packer: Plain) -> None:
    one = Composer(packer, WIRES[wire])
    message = one.compose(one.array([one.piece(["a/b", 1])]), one.piece("c"))
    assert one.read(message) == ([["a/b", 1]], "c", None)
    assert one.read(one.message(["a/b"])) == (["a/b"], None, None)


def test_binary_messages_have_no_prefix() -> None:
    assert Composer(Binary(), WIRES["1.0"]).message(["a/b"]) == b'[["a/b"]]'


def test_a_value_that_cannot_be_packed_is_refused_when_it_becomes_a_piece() -> None:
    with pytest.raises(PackError):
        Composer(Plain(), WIRES["1.21"]).piece(object())


def test_text_is_no_message_of_a_binary_packer() -> None:
    with pytest.raises(UnpackError, match="binary"):
        Composer(Binary(), WIRES["1.21"]).read('[["a/b"]]')


# Events on their way --------------------------------------------------------------------


def test_an_event_is_packed_once_per_packer() -> None:
    packed: list[Any] = []

    class Counting(Plain):
        def pack(self, value: Any) -> str:
            packed.append(value)
            return super().pack(value)

    push = Push("*", "[:a/b 1]", 1)
    one = Composer(Counting(), WIRES["1.21"])
    packed.clear()
    assert push.piece(one) is push.piece(one)
    assert packed == [["a/b", 1]]


def test_the_canonical_form_is_edns_own() -> None:
    push = Push("*", CANONICAL.pack([Keyword("a/b"), {"k": 1}]), 1)
    assert push.piece(composer()) is push.text
    assert push.piece(composer(packer="json")) == '["a/b",{"k":1}]'


def test_what_a_receivers_packer_cannot_carry_is_named_instead() -> None:
    push = Push("*", CANONICAL.pack([Keyword("a/b"), b"\x00"]), 1)
    assert push.piece(composer()) == f"[:{UNPACKABLE} :a/b]"
    assert push.piece(composer(packer="json")) == f'["{UNPACKABLE}","a/b"]'


def test_a_frame_is_made_once_per_key() -> None:
    push, made = Push("*", "[:a/b]", 1), list[str]()

    def make() -> str:
        made.append("frame")
        return "frame"

    assert [push.frame(key, make) for key in ("x", "x", "y", "x")] == ["frame"] * 4
    assert made == ["frame", "frame"]


def test_an_event_that_a_packer_cannot_carry_is_counted_once() -> None:
    json = composer(packer="json")
    push = Push("u:ann", CANONICAL.pack([Keyword("file/part"), b"\0"]))
    noted: list[str] = []
    json.on_unpackable = lambda id, error: noted.append(id)
    pieces = [push.piece(json) for _ in range(2)]
    assert pieces == ['["chsk/unpackable","file/part"]'] * 2
    assert noted == ["file/part"]

"""An event on its way: packed once for each packer, and framed once for each key."""

from __future__ import annotations

from typing import Any

import pytest

from flask_chsk import packers
from flask_chsk.protocol.push import CANONICAL, Push
from flask_chsk.protocol.wire import WIRES, Composer
from flask_chsk.values import Tagged


def composer(name: str) -> Composer:
    return Composer(packers.make(name), WIRES["1.21"])


def push_of(event: Any) -> Push:
    return Push("u:ann", CANONICAL.pack(event), 7)


def read(push: Push, name: str) -> Any:
    """What a client that speaks the packer *name* reads."""
    speaks = composer(name)
    return speaks.packer.unpack(push.piece(speaks))


@pytest.mark.parametrize("name", ["edn", "json", "transit", "msgpack"])
def test_an_event_arrives_by_every_packer(name: str) -> None:
    event = read(push_of(["chat/said", {"text": "zoë 😀", "n": [1, 2.5, None, True]}]), name)
    assert event == ["chat/said", {"text": "zoë 😀", "n": [1, 2.5, None, True]}]


def test_edn_is_sent_as_it_is_kept() -> None:
    push = push_of(["chat/said", 1])
    assert push.piece(composer("edn")) is push.text


def test_bytes_are_kept_for_packers_that_have_them() -> None:
    assert read(push_of(["file/part", b"\x00\xff"]), "msgpack") == ["file/part", b"\x00\xff"]


def test_all_who_speak_a_packer_share_what_it_packed() -> None:
    push = push_of(["chat/said", {"text": "hi"}])
    assert push.piece(composer("json")) is push.piece(composer("json"))
    assert push.piece(composer("json")) != push.piece(composer("edn"))


def test_what_a_packer_cannot_carry_is_named_and_counted_once() -> None:
    push = push_of(["chat/said", Tagged("x/y", 1)])
    speaks = composer("json")
    told: list[Any] = []
    speaks.on_unpackable = lambda id, error: told.append(id)
    for _ in range(2):
        assert speaks.packer.unpack(push.piece(speaks))[1:] == ["chat/said"]
    assert told == ["chat/said"]


def test_a_frame_is_made_once_for_each_key() -> None:
    push = push_of(["chat/said"])
    made: list[str] = []

    def frame(key: str) -> str:
        def make() -> str:
            made.append(key)
            return f"frame of {key}"

        return push.frame(key, make)

    assert [frame("edn"), frame("json"), frame("edn")] == [
        "frame of edn",
        "frame of json",
        "frame of edn",
    ]
    assert made == ["edn", "json"]


def test_an_event_counts_for_its_characters() -> None:
    assert Push("*", '[:a/b "é"]').size == 10


def test_an_event_has_its_place_and_whom_it_is_not_for() -> None:
    push = Push("t:news", "[:a/b]", 9, 4, ("ann", "c1"), 1.5, True)
    assert (push.channel, push.offset, push.before) == ("t:news", 9, 4)
    assert (push.exclude, push.time, push.flush) == (("ann", "c1"), 1.5, True)
    plain = Push("*", "[:a/b]")
    assert (plain.offset, plain.before, plain.exclude, plain.flush) == (0, 0, None, False)


def test_brokers_keep_events_of_any_number_of_values() -> None:
    many = ["chat/all", list(range(50_000))]
    assert CANONICAL.unpack(CANONICAL.pack(many)) == many

"""Events and the rules for them (docs/protocol.rst, "Events from clients")."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_chsk.errors import BadEvent
from flask_chsk.packers.edn import EdnPacker
from flask_chsk.protocol.event import Event, as_event, assert_event, is_event, is_event_id
from flask_chsk.values import Keyword

GOOD = ["a/b", "chat/say", "my.app/x-1", "a/b/c", "a/*", "ü/ö", "1/a", "a/b1", "->/x", "a/b:c"]
BAD = [
    "",
    "a",
    "/",
    "a/",
    "/b",
    ":a/b",
    "a b/c",
    "a/b c",
    'a/"',
    "a/(",
    "#a/b",
    "a/1",
    "a/b:",
    "a:/b",
    "a/b::c",
    "a/b/",
    "a\n/b",
]


@pytest.mark.parametrize("id", GOOD)
def test_a_namespaced_name_is_an_id(id: str) -> None:
    assert is_event_id(id)


@pytest.mark.parametrize("id", [*BAD, None, 7, ["a/b"], b"a/b"])
def test_anything_else_is_none(id: object) -> None:
    assert not is_event_id(id)


def test_an_id_has_255_characters_at_most() -> None:
    assert is_event_id("a/" + "b" * 253)
    assert not is_event_id("a/" + "b" * 254)


@given(st.text(alphabet="ab/:#.'1-+ü*\\^@;, \x85\x1f") | st.text())
def test_an_id_is_one_keyword_in_edn(text: str) -> None:
    if is_event_id(text):
        assert EdnPacker().pack(Keyword(text)) == f":{text}"
        assert EdnPacker().unpack(f"[:{text} 1]") == [Keyword(text), 1]


@pytest.mark.parametrize(
    ("event", "made"),
    [
        (["a/b", 1], Event(Keyword("a/b"), 1)),
        (["a/b"], Event(Keyword("a/b"))),
        (("a/b", {"c": 1}), Event(Keyword("a/b"), {"c": 1})),
        ([Keyword("a/b"), None], Event(Keyword("a/b"))),
        (Event(Keyword("a/b"), 1), Event(Keyword("a/b"), 1)),
    ],
)
def test_a_list_or_tuple_with_an_id_is_an_event(event: Any, made: Event) -> None:
    assert is_event(event)
    assert as_event(event) == assert_event(event) == made
    assert isinstance(as_event(event).id, Keyword)


@pytest.mark.parametrize(
    ("x", "complaint"),
    [
        (None, "not None"),
        ("a/b", "not 'a/b'"),
        ({"a/b": 1}, "not {'a/b': 1}"),
        ([], "not 0 elements"),
        (["a/b", 1, 2], "not 3 elements"),
        (["a", 1], "not 'a'"),
        ([7], "not 7"),
        ([[1], 1], r"not \[1\]"),
        (["x" * 200], "xxx\\.\\.\\.$"),
    ],
)
def test_what_is_no_event_is_said_to_be_none(x: Any, complaint: str) -> None:
    assert not is_event(x)
    assert as_event(x) == Event(Keyword("chsk/bad-event"), x)
    with pytest.raises(BadEvent, match=complaint):
        assert_event(x)


def test_ids_that_peers_make_up_are_not_all_remembered() -> None:
    from flask_chsk.protocol import event

    for number in range(5000):
        as_event([f"made-up/n{number}"])
    assert len(event._known_ids) <= 4096

"""Text and events as Redis holds them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_chsk.brokers.redis.records import (
    excluded_text,
    published_push,
    push_of,
    to_bytes,
    to_text,
)
from flask_chsk.errors import UnpackError

CLIENTS = [None, (None, "c1"), ("ann", "c1"), ("ann:bob", "c1")]


def message(
    channel: bytes = b"u:ann", excluded: bytes = b"", text: bytes = b"[:a/b 1]", more: bytes = b""
) -> bytes:
    """What the publish script sends."""
    head = b"e1 7000000 %d %d %d 0%b" % (len(channel), len(excluded), len(text), more)
    return head + b"\n" + channel + excluded + text


@given(st.text(st.characters(codec=None)))
def test_any_text_comes_back(text: str) -> None:
    assert to_text(to_bytes(text)) == text


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", ""])
def test_half_of_a_surrogate_pair_comes_back(text: str) -> None:
    assert to_text(to_bytes(text)) == text


def test_other_text_is_utf_8() -> None:
    assert to_bytes("zoë 😀") == "zoë 😀".encode()


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(ValueError):
        to_text(b"\xff")


@pytest.mark.parametrize("client", CLIENTS)
def test_the_excluded_client_comes_back(client: tuple[str | None, str] | None) -> None:
    excluded = to_bytes(excluded_text(client))
    assert push_of(b"*", 1, 0, b"[:a/b]", excluded).exclude == client


def test_an_event_of_history_has_its_place() -> None:
    push = push_of("t:zoë".encode(), 7_500_000, 3, b'[:a/b "hi"]', b"")
    assert (push.channel, push.text) == ("t:zoë", '[:a/b "hi"]')
    assert (push.offset, push.before, push.time) == (7_500_000, 3, 7.5)
    assert not push.flush


@pytest.mark.parametrize("text", [b"7", b"[]", b"[:unqualified]", b"[:a/b 1 2]", b"{}", b"nil"])
def test_what_is_no_event_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="not an event"):
        push_of(b"*", 1, 0, text, b"")


@pytest.mark.parametrize("text", [b"", b"[", b"[:a/b] 1"])
def test_what_is_no_edn_is_refused(text: bytes) -> None:
    with pytest.raises(UnpackError):
        push_of(b"*", 1, 0, text, b"")


def test_a_message_names_epoch_and_event() -> None:
    epoch, push = published_push(message(excluded=b"c1:ann"))
    assert (epoch, push.channel, push.text) == ("e1", "u:ann", "[:a/b 1]")
    assert (push.offset, push.before, push.exclude) == (7_000_000, 0, ("ann", "c1"))


def test_lengths_are_of_bytes_and_text_may_hold_line_breaks() -> None:
    text = '[:a/b "zoë\n😀"]'.encode()
    _, push = published_push(message(channel="u:zoë\n".encode(), text=text))
    assert (push.channel, push.text) == ("u:zoë\n", text.decode())


def test_a_message_says_whether_it_waits_for_no_window() -> None:
    assert not published_push(message())[1].flush
    assert published_push(message().replace(b" 0\n", b" 1\n"))[1].flush


def test_words_that_a_later_version_adds_are_ignored() -> None:
    assert published_push(message(more=b" new words"))[1].text == "[:a/b 1]"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"e1",
        b"e1 7 5 0\nu:ann",
        b"e1 x 1 0 6 0\n*[:a/b]",
        message()[:-1],
        message() + b" ",
        message(text=b"[:a/b"),
    ],
)
def test_what_no_script_of_ours_wrote_is_refused(data: bytes) -> None:
    with pytest.raises((ValueError, UnpackError)):
        published_push(data)

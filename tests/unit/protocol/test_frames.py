"""The codec as its callers see it: feeding, splitting, building, and what it costs to hold."""

from __future__ import annotations

import importlib.util
import sys
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_chsk.errors import UsageError
from flask_chsk.protocol import frames
from flask_chsk.protocol.frames import (
    BINARY,
    CONTINUATION,
    TEXT,
    Close,
    FrameReader,
    Ping,
    Pong,
    binary_frame,
    build,
    close_frame,
    new_key,
    ping_frame,
    pong_frame,
    text_frame,
)

LIMIT = 1 << 20
MASK = b"\x12\x34\x56\x78"

# Around every border: of the forms of length, of the mask's turn, of the two ways to mask.
SIZES = [0, 1, 2, 3, 4, 5, 124, 125, 126, 127, 511, 512, 513, 514, 65535, 65536, 65537]


@pytest.fixture(params=["pure", "speedups"])
def masking(request, monkeypatch):
    """Both ways to mask, whichever is installed."""
    if request.param == "pure":
        monkeypatch.setattr(frames, "apply_mask", frames._xor)
    else:
        speedups = pytest.importorskip("websockets.speedups")
        monkeypatch.setattr(frames, "apply_mask", speedups.apply_mask)


def server(limit: int = LIMIT) -> FrameReader:
    return FrameReader("server", limit)


def client(limit: int = LIMIT) -> FrameReader:
    return FrameReader("client", limit)


# Feeding -------------------------------------------------------------------------------


def test_nothing_fed_is_nothing_received():
    assert server().feed(b"") == []


def test_messages_come_in_the_order_of_their_frames():
    stream = (
        text_frame("one", masked=True)
        + ping_frame(b"p", masked=True)
        + binary_frame(b"\xff", masked=True)
        + pong_frame(masked=True)
        + text_frame("two", masked=True)
        + close_frame(1001, "bye", masked=True)
    )
    assert server().feed(stream) == [
        "one",
        Ping(b"p"),
        b"\xff",
        Pong(b""),
        "two",
        Close(1001, "bye"),
    ]


def test_text_is_str_and_binary_is_bytes():
    kinds = [type(m) for m in client().feed(text_frame("a") + binary_frame(b"a"))]
    assert kinds == [str, bytes]


def test_binary_of_many_pieces_is_bytes_still():
    reader = client()
    reader.feed(b"\x02\x01a")
    assert [type(m) for m in reader.feed(b"\x80\x01b")] == [bytes]


@pytest.mark.parametrize("size", SIZES)
def test_message_of_any_size_arrives_from_both_ends(masking, size):
    data = bytes(i * 7 % 251 for i in range(size))
    assert server().feed(binary_frame(data, masked=True)) == [data]
    assert client().feed(binary_frame(data)) == [data]


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7, 64])
def test_message_arrives_in_pieces(masking, step):
    text = "häßlich, 漢字, 🙂! " * 20
    stream = text_frame(text, masked=True) + ping_frame(b"pong", masked=True)
    reader = server()
    pieces = [reader.feed(stream[i : i + step]) for i in range(0, len(stream), step)]
    assert [message for piece in pieces for message in piece] == [text, Ping(b"pong")]


@given(
    texts=st.lists(st.text(max_size=300), max_size=4),
    cuts=st.lists(st.integers(0, 5000), max_size=10),
    masked=st.booleans(),
)
def test_texts_survive_any_split(texts, cuts, masked):
    stream = b"".join(text_frame(text, masked=masked) for text in texts)
    cuts = sorted(min(cut, len(stream)) for cut in cuts)
    reader = server() if masked else client()
    received = []
    for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        received += reader.feed(stream[a:b])
    assert received == texts
    assert not reader.closed


def test_pieces_of_a_frame_and_of_a_message_mix():
    reader = server()
    stream = (
        build(TEXT, "né".encode()[:2], mask=MASK, fin=False)
        + build(9, b"in between", mask=MASK)
        + build(CONTINUATION, "né".encode()[2:], mask=MASK[::-1], fin=False)
        + build(CONTINUATION, b"", mask=MASK)
        + build(BINARY, b"next", mask=MASK)
    )
    assert [m for byte in stream for m in reader.feed(bytes([byte]))] == [
        Ping(b"in between"),
        "né",
        b"next",
    ]


# Failing -------------------------------------------------------------------------------


def test_messages_before_a_violation_are_not_lost():
    reader = client()
    assert reader.feed(text_frame("kept") + b"\xff\xff" + text_frame("lost")) == ["kept"]
    assert reader.failed is not None
    assert (reader.failed.code, str(reader.failed)) == (
        1002,
        "RSV bit without an extension that uses it",
    )


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (b"\xc1\x00", 1002, "RSV bit without an extension that uses it"),
        (b"\x83\x00", 1002, "reserved opcode 0x3"),
        (b"\x8b\x00", 1002, "reserved opcode 0xb"),
        (b"\x09\x00", 1002, "fragmented control frame"),
        (b"\x81\x80", 1002, "frame from a server with a mask"),
        (b"\x89\x7e", 1002, "control frame longer than 125 bytes"),
        (b"\x81\x7e\x00\x01", 1002, "length of a frame not in its shortest form"),
        (b"\x80\x00", 1002, "continuation of no message"),
        (b"\x01\x00\x01\x00", 1002, "new message inside a fragmented one"),
        (b"\x81\x0b", 1009, "message of over 10 bytes"),
        (b"\x81\x01\xff", 1007, "text that is not UTF-8"),
        (b"\x81\x02\xff", 1007, "text that is not UTF-8"),
        (b"\x88\x01\xff", 1002, "close frame with half a code"),
        (b"\x88\x02\x03\xed", 1002, "close code 1005 has no place on the wire"),
        (b"\x88\x03\x03\xe8\xff", 1007, "close reason that is not UTF-8"),
    ],
)
def test_each_violation_says_what_was_wrong(data, code, message):
    reader = client(10)
    assert reader.feed(data) == []
    assert reader.failed is not None
    assert (reader.failed.code, str(reader.failed)) == (code, message)


@pytest.mark.parametrize(
    ("before", "header", "message"),
    [
        (b"", b"\x80\x80", "continuation of no message"),
        (b"\x01\x80" + MASK, b"\x01\x80", "new message inside a fragmented one"),
        (b"", b"\x81\xfe\x00\x01", "length of a frame not in its shortest form"),
        (b"", b"\x81\x8b", "message of over 10 bytes"),
        (b"\x01\x81" + MASK + b"a", b"\x80\x8a", "message of over 10 bytes"),
    ],
)
def test_violation_is_refused_before_the_mask_comes(before, header, message):
    reader = server(10)
    assert reader.feed(before) == []
    for byte in header[:-1]:
        reader.feed(bytes([byte]))
        assert reader.failed is None
    reader.feed(header[-1:])
    assert str(reader.failed) == message


@pytest.mark.parametrize("kept", [b"\x89", b"\x89\x81", b"\x89\x81" + MASK, b"\x81\x81" + MASK[:3]])
def test_begin_of_a_frame_is_kept_until_the_rest_comes(kept):
    reader = server(10)
    frame = kept[:1] + b"\x81" + MASK + b"\x73"
    assert (reader.feed(kept), reader.held, reader.failed) == ([], 0, None)
    assert reader.feed(frame[len(kept) :]) == [Ping(b"a") if kept[0] == 0x89 else "a"]


def test_missing_mask_says_so():
    reader = server()
    reader.feed(text_frame("hi"))
    assert str(reader.failed) == "frame from a client without a mask"


def test_failed_reader_stays_deaf():
    reader = client()
    reader.feed(b"\xff\xff")
    first = reader.failed
    assert reader.feed(text_frame("hi") + b"\x83\x00") == []
    assert reader.failed is first


def test_closed_reader_is_deaf_and_did_not_fail():
    reader = client()
    assert reader.feed(close_frame(1000)) == [Close(1000)]
    assert reader.feed(b"\xff\xff") == []
    assert (reader.closed, reader.failed) == (True, None)


def test_failure_keeps_no_bytes_of_the_peer():
    reader = client()
    reader.feed(b"\x01\x7d" + b"a" * 100)
    reader.feed(b"\xff" * 25)
    assert reader.failed is not None
    assert reader.failed.__traceback__ is None
    assert reader.failed.__context__ is None
    assert (reader._rest, reader._unfinished) == (b"", None)


def test_unknown_role_is_told_the_two_it_may_be():
    with pytest.raises(UsageError, match="'server' or 'client', not 'peer'"):
        FrameReader("peer", LIMIT)  # type: ignore[arg-type]


# Holding -------------------------------------------------------------------------------


def bytes_held_by(make) -> int:
    """What *make* allocates and returns, without what it used on the way."""
    make()  # caches, interned values
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = make()
        held = tracemalloc.get_traced_memory()[0] - before
        del kept
    finally:
        tracemalloc.stop()
    return held


def test_reader_at_rest_is_tiny():
    assert bytes_held_by(lambda: [server() for _ in range(1000)]) / 1000 < 200


def test_reader_at_rest_after_much_traffic_is_tiny_still():
    stream = text_frame("x" * 100_000, masked=True) + ping_frame(b"p" * 100, masked=True)

    def used() -> list[FrameReader]:
        readers = [server() for _ in range(20)]
        for reader in readers:
            for i in range(0, len(stream), 4096):
                reader.feed(stream[i : i + 4096])
        return readers

    assert bytes_held_by(used) / 20 < 250


def test_announced_bytes_take_no_memory():
    def announced() -> FrameReader:
        reader = server()
        reader.feed(b"\x81\xff" + LIMIT.to_bytes(8, "big") + MASK)
        return reader

    assert bytes_held_by(announced) < 1000


def test_empty_fragments_take_no_memory():
    flood = build(TEXT, b"", fin=False) + build(CONTINUATION, b"", fin=False) * 10_000

    def flooded() -> FrameReader:
        reader = client()
        assert reader.feed(flood) == []
        return reader

    assert bytes_held_by(flooded) < 10_000  # of 10,000 fragments; other threads may add some


def test_message_dripping_in_takes_little_more_than_itself():
    dripping = b"".join(
        build(0 if i else 1, "é".encode()[i % 2 : i % 2 + 1], fin=False) for i in range(20_000)
    )

    def dripped() -> FrameReader:
        reader = client()
        assert reader.feed(dripping) == []
        return reader

    assert bytes_held_by(dripped) < 2 * 20_000


# Building ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, "8200"),
        (125, "827d"),
        (126, "827e007e"),
        (65535, "827effff"),
        (65536, "827f0000000000010000"),
    ],
)
def test_length_is_written_in_its_shortest_form(size, header):
    assert binary_frame(bytes(size)) == bytes.fromhex(header) + bytes(size)


@pytest.mark.parametrize(
    ("size", "header"),
    [(0, "8280"), (125, "82fd"), (126, "82fe007e"), (65536, "82ff0000000000010000")],
)
def test_mask_stands_between_length_and_payload(masking, size, header):
    built = build(BINARY, bytes(size), mask=MASK)
    assert built == bytes.fromhex(header) + MASK + (MASK * (size // 4 + 1))[:size]


def test_server_frames():
    assert text_frame("hé") == b"\x81\x03h\xc3\xa9"
    assert text_frame(b"h\xc3\xa9") == b"\x81\x03h\xc3\xa9"
    assert binary_frame(b"\xff") == b"\x82\x01\xff"
    assert ping_frame() == b"\x89\x00"
    assert pong_frame(b"p") == b"\x8a\x01p"
    assert close_frame() == b"\x88\x00"
    assert close_frame(4002, "é") == b"\x88\x04\x0f\xa2\xc3\xa9"
    assert build(TEXT, b"a", fin=False) == b"\x01\x01a"


@pytest.mark.parametrize("frame", [text_frame, binary_frame, ping_frame, pong_frame])
def test_each_client_frame_has_a_fresh_mask(monkeypatch, frame):
    masks = iter([b"abcd", b"efgh"])
    monkeypatch.setattr(frames.os, "urandom", lambda size: next(masks))
    assert [frame(bytes(2), masked=True)[2:] for _ in range(2)] == [b"abcdab", b"efghef"]


def test_close_frame_of_a_client_is_masked():
    assert server().feed(close_frame(1000, "bye", masked=True)) == [Close(1000, "bye")]


def test_close_reason_is_cut_between_characters():
    assert client().feed(close_frame(1000, "a" + "é" * 100)) == [Close(1000, "a" + "é" * 61)]
    assert client().feed(close_frame(1000, "é" * 100)) == [Close(1000, "é" * 61)]
    assert client().feed(close_frame(1000, "🙂" * 100)) == [Close(1000, "🙂" * 30)]


def test_close_reason_with_a_lone_surrogate_is_sent_all_the_same():
    assert client().feed(close_frame(1011, "bad \ud800")) == [Close(1011, "bad ?")]


@pytest.mark.parametrize("close", [Close(), Close(1000), Close(1014, "gateway"), Close(4999)])
def test_any_close_can_be_echoed(close):
    assert client().feed(close_frame(close.code, close.reason)) == [close]


@pytest.mark.parametrize("code", [0, 999, 1004, 1006, 1015, 2999, 5000, 70000])
def test_close_code_that_may_not_be_sent_is_refused(code):
    with pytest.raises(UsageError, match=f"{code} cannot be sent"):
        close_frame(code)


def test_close_reason_needs_a_code():
    with pytest.raises(UsageError, match="1005 cannot be sent"):
        close_frame(reason="why")


@pytest.mark.parametrize("frame", [ping_frame, pong_frame])
def test_control_frame_over_125_bytes_is_refused(frame):
    assert len(frame(bytes(125))) == 127
    with pytest.raises(UsageError, match="at most 125 bytes, not 126"):
        frame(bytes(126))


def test_text_that_is_not_unicode_is_refused():
    with pytest.raises(UnicodeEncodeError):
        text_frame("\ud800")


def test_keys_are_new_each_time():
    keys = {new_key() for _ in range(10)}
    assert len(keys) == 10
    assert {len(key) for key in keys} == {24}


# Masking -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_pure_masking_is_byte_by_byte(size):
    data = bytes(i * 7 % 251 for i in range(size))
    assert frames._xor(data, MASK) == bytes(b ^ MASK[i % 4] for i, b in enumerate(data))


def test_works_without_the_speedups(monkeypatch):
    monkeypatch.setitem(sys.modules, "websockets.speedups", None)
    spec = importlib.util.find_spec("flask_chsk.protocol.frames")
    assert spec is not None and spec.loader is not None
    pure = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, pure)  # dataclasses look their module up
    spec.loader.exec_module(pure)
    assert pure.apply_mask is pure._xor
    reader = pure.FrameReader("server", LIMIT)
    assert reader.feed(pure.text_frame("hi", masked=True)) == ["hi"]

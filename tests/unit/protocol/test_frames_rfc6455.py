"""The rules of RFC 6455, each by its section. The bytes are written out, not built."""

from __future__ import annotations

import re

import pytest

from flask_chsk.protocol.frames import Close, FrameReader, Message, Ping, Pong, accept_key

LIMIT = 1 << 20
ZERO = bytes(4)  # a mask that changes nothing, so that payloads can be read here


def client_sent(data: str | bytes, limit: int = LIMIT) -> tuple[list[Message], int | None]:
    """What a server reads in *data* (hex or bytes): messages, and the code of the violation."""
    return _read(FrameReader("server", limit), data)


def server_sent(data: str | bytes, limit: int = LIMIT) -> tuple[list[Message], int | None]:
    """What a client reads in *data*."""
    return _read(FrameReader("client", limit), data)


def _read(reader: FrameReader, data: str | bytes) -> tuple[list[Message], int | None]:
    messages = reader.feed(bytes.fromhex(data) if isinstance(data, str) else data)
    assert reader.closed == bool(reader.failed or (messages and isinstance(messages[-1], Close)))
    return messages, reader.failed.code if reader.failed else None


# 4 Handshake ---------------------------------------------------------------------------


def test_4_2_2_accept_is_the_hash_of_key_and_guid():
    assert accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


# 5.1 Masking by role -------------------------------------------------------------------


def test_5_1_unmasked_frame_from_a_client_is_1002():
    assert client_sent("81026869") == ([], 1002)


def test_5_1_masked_frame_from_a_server_is_1002():
    assert server_sent("8182000000006869") == ([], 1002)


def test_5_1_masking_is_judged_before_the_payload_comes():
    assert client_sent("817d") == ([], 1002)
    assert server_sent("81fd") == ([], 1002)


# 5.2 Base framing ----------------------------------------------------------------------


@pytest.mark.parametrize("rsv", [0x40, 0x20, 0x10, 0x70])
@pytest.mark.parametrize("opcode", [0x0, 0x1, 0x2, 0x8, 0x9, 0xA])
def test_5_2_rsv_bit_without_an_extension_is_1002(opcode, rsv):
    assert server_sent(bytes([0x80 | rsv | opcode, 0])) == ([], 1002)


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF])
@pytest.mark.parametrize("fin", [0x80, 0])
def test_5_2_reserved_opcode_is_1002(fin, opcode):
    assert server_sent(bytes([fin | opcode, 0])) == ([], 1002)


@pytest.mark.parametrize(
    ("header", "size"),
    [
        ("8200", 0),
        ("827d", 125),
        ("827e007e", 126),
        ("827effff", 65535),
        ("827f0000000000010000", 65536),
    ],
)
def test_5_2_each_form_of_length_is_read(header, size):
    assert server_sent(bytes.fromhex(header) + bytes(size)) == ([bytes(size)], None)


@pytest.mark.parametrize(
    "header",
    [
        "827e0000",
        "827e007d",
        "827f0000000000000000",
        "827f000000000000007d",
        "827f000000000000ffff",
    ],
)
def test_5_2_length_not_in_its_shortest_form_is_1002(header):
    assert server_sent(header) == ([], 1002)


def test_5_2_top_bit_of_a_64_bit_length_is_1002():
    assert server_sent("827f8000000000010000") == ([], 1002)


# 5.3 The mask --------------------------------------------------------------------------


def test_5_3_payload_is_unmasked_octet_by_octet():
    assert client_sent("828901020304 010203040102030401") == ([bytes(9)], None)


def test_5_3_each_frame_has_its_own_mask():
    assert client_sent("0182 01020304 696b 8081 ff000000 de") == (["hi!"], None)


# 5.4 Fragmentation ---------------------------------------------------------------------


def test_5_4_fragments_make_one_message():
    assert server_sent("0101 61 0001 62 8001 63") == (["abc"], None)


def test_5_4_binary_fragments_make_one_message():
    assert server_sent("0201 ff 8001 fe") == ([b"\xff\xfe"], None)


def test_5_4_fragments_may_be_empty():
    assert server_sent("0100 0000 8000") == ([""], None)


def test_5_4_control_frames_may_come_between_fragments():
    assert server_sent("0101 61 8901 70 8a00 8001 62") == ([Ping(b"p"), Pong(), "ab"], None)


def test_5_4_close_between_fragments_ends_the_message():
    assert server_sent("0101 61 8800 8001 62") == ([Close()], None)


@pytest.mark.parametrize("first", ["00", "80"])
def test_5_4_continuation_of_no_message_is_1002(first):
    assert server_sent(f"{first}01 61") == ([], 1002)
    assert server_sent(f"8101 61 {first}01 61") == (["a"], 1002)


@pytest.mark.parametrize("first", ["01", "02", "81", "82"])
def test_5_4_new_message_inside_a_fragmented_one_is_1002(first):
    assert server_sent(f"0101 61 {first}01 62") == ([], 1002)


# 5.5 Control frames --------------------------------------------------------------------


@pytest.mark.parametrize("opcode", [0x8, 0x9, 0xA])
def test_5_5_fragmented_control_frame_is_1002(opcode):
    assert server_sent(bytes([opcode, 0])) == ([], 1002)


@pytest.mark.parametrize("opcode", [0x8, 0x9, 0xA])
@pytest.mark.parametrize("size", [126, 127])
def test_5_5_control_frame_longer_than_125_is_1002_by_its_second_byte(opcode, size):
    assert server_sent(bytes([0x80 | opcode, size])) == ([], 1002)


def test_5_5_control_frame_of_125_bytes_is_read():
    assert server_sent(b"\x89\x7d" + bytes(125)) == ([Ping(bytes(125))], None)


def test_5_5_control_frames_have_no_part_in_the_limit_of_messages():
    assert server_sent("8903 616263", limit=2) == ([Ping(b"abc")], None)


def test_5_5_1_close_without_payload_means_1005():
    assert server_sent("8800") == ([Close(1005, "")], None)


def test_5_5_1_close_with_one_byte_payload_is_1002():
    assert server_sent("8801 03") == ([], 1002)


def test_5_5_1_close_with_code_and_reason():
    assert server_sent("8805 0fa2 c3a9 21") == ([Close(4002, "é!")], None)


def test_5_5_1_close_reason_that_is_not_utf_8_is_1007():
    assert server_sent("8803 03e8 ff") == ([], 1007)
    assert server_sent("8804 03e8 c3 28") == ([], 1007)


def test_5_5_1_nothing_is_read_after_close():
    assert server_sent("8800 8101 61 ffff") == ([Close()], None)


def test_5_5_2_ping_carries_its_payload():
    assert client_sent("8983 00000000 616263") == ([Ping(b"abc")], None)


def test_5_5_3_pong_may_come_unasked():
    assert client_sent("8a80 00000000") == ([Pong()], None)


# 5.7 The examples ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("read", "data", "messages"),
    [
        (server_sent, "810548656c6c6f", ["Hello"]),
        (client_sent, "818537fa213d7f9f4d5158", ["Hello"]),
        (server_sent, "010348656c 80026c6f", ["Hello"]),
        (server_sent, "890548656c6c6f", [Ping(b"Hello")]),
        (client_sent, "8a8537fa213d7f9f4d5158", [Pong(b"Hello")]),
        (server_sent, "827e0100" + "61" * 256, [b"a" * 256]),
        (server_sent, "827f0000000000010000" + "61" * 65536, [b"a" * 65536]),
    ],
)
def test_5_7_examples(read, data, messages):
    assert read(data) == (messages, None)


# 7.4 Close codes -----------------------------------------------------------------------


@pytest.mark.parametrize("code", [*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999])
def test_7_4_code_of_the_registry_or_the_private_ranges_is_read(code):
    assert server_sent(b"\x88\x02" + code.to_bytes(2, "big")) == ([Close(code)], None)


@pytest.mark.parametrize(
    "code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]
)
def test_7_4_code_without_a_place_on_the_wire_is_1002(code):
    assert server_sent(b"\x88\x02" + code.to_bytes(2, "big")) == ([], 1002)


# 8.1 UTF-8 -----------------------------------------------------------------------------

# RFC 3629, 4, as what may still become a character: a pattern for its first two bytes.
POSSIBLE = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]|\xed[\x80-\x9f]"
    rb"|\xf0[\x90-\xbf]|[\xf1-\xf3][\x80-\xbf]|\xf4[\x80-\x8f]"
)


def test_8_1_impossible_character_is_refused_at_its_second_byte():
    wrong = []
    for pair in (bytes([a, b]) for a in range(0xC0, 0x100) for b in range(0x100)):
        reader = FrameReader("client", LIMIT)
        reader.feed(b"\x81\x05" + pair)  # three more bytes are to come
        if bool(reader.failed) == bool(POSSIBLE.fullmatch(pair)):
            wrong.append(pair)
    assert wrong == []


@pytest.mark.parametrize("byte", [0x80, 0xBF, 0xC0, 0xC1, 0xF5, 0xFF])
def test_8_1_byte_that_begins_no_character_is_refused_at_once(byte):
    assert server_sent(bytes([0x81, 5, byte])) == ([], 1007)


@pytest.mark.parametrize(
    "text", ["c0af", "e08080", "f0808080", "eda080", "edbfbf", "f4908080", "c3", "e282", "f09f98"]
)
def test_8_1_text_that_is_not_utf_8_is_1007_whole_or_in_fragments(text):
    payload = bytes.fromhex(text)
    assert server_sent(bytes([0x81, len(payload)]) + payload) == ([], 1007)
    pieces = b"".join(bytes([0 if i else 1, 1, byte]) for i, byte in enumerate(payload))
    assert server_sent(pieces + b"\x80\x00") == ([], 1007)


@pytest.mark.parametrize("text", ["\x00", "\x7f\x80", "\u07ff\u0800", "\ud7ff\ue000", "\U0010ffff"])
def test_8_1_character_may_be_split_between_fragments(text):
    pieces = b"".join(bytes([0 if i else 1, 1, byte]) for i, byte in enumerate(text.encode()))
    assert server_sent(pieces + b"\x80\x00") == ([text], None)


def test_8_1_binary_is_any_bytes():
    assert server_sent("8202 c3ff") == ([b"\xc3\xff"], None)


# 10.4 Limits ---------------------------------------------------------------------------


def test_10_4_message_of_just_the_limit_is_read():
    assert server_sent("8103 616263", limit=3) == (["abc"], None)
    assert server_sent("0101 61 8002 6263", limit=3) == (["abc"], None)


def test_10_4_message_over_the_limit_is_1009_by_its_header():
    assert server_sent("8104", limit=3) == ([], 1009)
    assert server_sent("827f7fffffffffffffff") == ([], 1009)


def test_10_4_header_over_the_limit_is_refused_before_its_mask():
    assert client_sent("8184", limit=3) == ([], 1009)


def test_10_4_sum_of_fragments_over_the_limit_is_1009_by_its_header():
    assert server_sent("0102 6162 0002", limit=3) == ([], 1009)

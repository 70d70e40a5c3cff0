"""The same bytes for us and for wsproto; the streams are those of ``tests/fuzz/frames.py``."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_chsk.protocol.frames import Close, FrameReader, build
from tests.fuzz import frames as fuzz


@pytest.mark.parametrize("start", range(0, 2000, 500))
def test_same_messages_and_same_verdict_as_wsproto(start):
    disagreed = [seed for seed in range(start, start + 500) if not fuzz.agree(*fuzz.case(seed))]
    assert disagreed == []


def test_streams_are_worth_reading():
    """Else the test above compares nothing: all verdicts, and many messages, must occur."""
    verdicts = [fuzz.ours(*fuzz.case(seed)) for seed in range(500)]
    assert {verdict.code for verdict in verdicts} == {None, 1002, 1007}
    assert {type(m) for verdict in verdicts for m in verdict.messages} == {
        str,
        bytes,
        fuzz.Ping,
        fuzz.Pong,
        Close,
    }


@given(role=st.sampled_from(fuzz.ROLES), data=st.binary(max_size=64))
def test_same_verdict_on_arbitrary_bytes(role, data):
    assert fuzz.agree(role, [data])


@given(
    role=st.sampled_from(fuzz.ROLES),
    opcode=st.sampled_from([1, 8]),
    prefix=st.sampled_from([b"", b"\x03\xe8"]),
    text=st.binary(max_size=12),
    fin=st.booleans(),
)
def test_same_verdict_on_arbitrary_text_and_reasons(role, opcode, prefix, text, fin):
    mask = b"\x01\x02\x03\x04" if role == "server" else None
    data = build(opcode, prefix + text, mask=mask, fin=fin)
    assert fuzz.agree(role, [data])
    assert fuzz.agree(role, [data[i : i + 1] for i in range(len(data))])


@pytest.mark.parametrize("role", fuzz.ROLES)
@pytest.mark.parametrize("code", [*range(990, 1030), 1100, 2000, 2999, 3000, 4999, 5000, 65535])
def test_same_verdict_on_close_codes(role, code):
    mask = bytes(4) if role == "server" else None
    assert fuzz.agree(role, [build(8, code.to_bytes(2, "big"), mask=mask)])


@pytest.mark.parametrize("role", fuzz.ROLES)
def test_same_verdict_on_every_first_two_bytes(role):
    disagreed = [
        (first, second)
        for first in range(256)
        for second in range(256)
        if not fuzz.agree(role, [bytes([first, second])])
    ]
    assert disagreed == []


# Where we differ on purpose ------------------------------------------------------------


def judged_by_us_only(role: str, data: bytes) -> int | None:
    """The code of a violation that wsproto does not see yet."""
    assert fuzz.wsproto(role, [data]).code is None
    return fuzz.ours(role, [data]).code


def test_we_judge_a_header_before_its_length_is_here():
    assert judged_by_us_only("client", b"\xc1\x7e") == 1002


def test_we_judge_a_continuation_before_its_payload_is_here():
    assert judged_by_us_only("client", b"\x80\x01") == 1002


def test_we_judge_half_a_surrogate_without_its_third_byte():
    assert judged_by_us_only("client", b"\x81\x03\xed\xa0") == 1007


def test_we_know_close_code_1014():
    assert FrameReader("client", 100).feed(b"\x88\x02\x03\xf6") == [Close(1014)]


@given(seed=st.integers(0, 1 << 32), data=st.data())
def test_any_split_gives_the_same_messages_and_verdict(seed, data):
    dice = random.Random(seed)
    role = dice.choice(fuzz.ROLES)
    stream = fuzz.stream(dice, role)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    split = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    limit = data.draw(st.sampled_from([0, 100, 1000, 1 << 20]))
    assert fuzz.ours(role, split, limit) == fuzz.ours(role, [stream], limit)

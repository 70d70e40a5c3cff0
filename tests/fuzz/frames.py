"""Frames against wsproto: the same bytes, the same messages, the same verdict.

    python -m tests.fuzz.frames --count 1000000

prints the first stream on which the two disagree and ends with 1. The streams come from a
seed, so a number is a reproducer: ``--seed N --count 1``.

Where we differ on purpose:

- close code 1014 ("bad gateway", registered with IANA) is legal here, unknown to wsproto;
- a header is judged by its first two bytes, and a continuation by its header, where wsproto
  first waits for the rest of the header or for payload;
- half a surrogate in UTF-8 is judged at its second byte, where wsproto waits for its third.
"""

from __future__ import annotations

import argparse
import random
import sys
from typing import Any, NamedTuple

from wsproto.frame_protocol import Frame, FrameProtocol, Opcode, ParseFailed

from flask_chsk.protocol.frames import Close, FrameReader, Message, Ping, Pong, build
from tests.fuzz.watch import confine, watched

ROLES = ("server", "client")
NO_LIMIT = 1 << 63  # wsproto has none in its frame layer

# Ends any message that is still open, completes any header, is too much for any character.
NUDGE = {"server": b"\x80\x80" + bytes(14), "client": b"\x80\x00" + bytes(14)}


class Verdict(NamedTuple):
    """What a reader made of a stream."""

    messages: list[Message]
    code: int | None  # of the violation


def ours(role: str, chunks: list[bytes], limit: int = NO_LIMIT) -> Verdict:
    reader = FrameReader(role, limit)  # type: ignore[arg-type]
    messages: list[Message] = []
    for chunk in chunks:
        messages += reader.feed(chunk)
    return Verdict(messages, reader.failed.code if reader.failed else None)


class _Wsproto(FrameProtocol):
    """wsproto, had it heard of 1014."""

    def _process_close(self, frame: Frame) -> Frame:
        payload: Any = frame.payload
        if payload[:2] != (1014).to_bytes(2, "big"):
            return super()._process_close(frame)
        known = (1013).to_bytes(2, "big") + payload[2:]
        judged: Any = super()._process_close(frame._replace(payload=known)).payload
        return frame._replace(payload=(1014, judged[1]))


def wsproto(role: str, chunks: list[bytes]) -> Verdict:
    protocol = _Wsproto(client=role == "client", extensions=[])
    messages: list[Message] = []
    parts: list[Any] = []
    try:
        for chunk in chunks:
            protocol.receive_bytes(chunk)
            for frame in protocol.received_frames():
                payload: Any = frame.payload
                if frame.opcode is Opcode.PING:
                    messages.append(Ping(bytes(payload)))
                elif frame.opcode is Opcode.PONG:
                    messages.append(Pong(bytes(payload)))
                elif frame.opcode is Opcode.CLOSE:
                    messages.append(Close(*payload))
                else:
                    parts.append(payload)
                    if frame.message_finished:
                        messages.append(type(payload)().join(parts))
                        parts.clear()
    except ParseFailed as error:
        return Verdict(messages, int(error.code))
    return Verdict(messages, None)


def agree(role: str, chunks: list[bytes]) -> bool:
    """Whether both make the same of *chunks*, but for what we do better on purpose."""
    mine, theirs = ours(role, chunks), wsproto(role, chunks)
    if mine == theirs:
        return True
    if mine.code is None:
        return False
    # We were sooner: from that very byte on, wsproto must be bound to fail the same way.
    return mine == wsproto(role, [*_until_failure(role, b"".join(chunks)), NUDGE[role]])


def _until_failure(role: str, data: bytes) -> list[bytes]:
    """The bytes of *data* one by one, up to the one that proved it wrong."""
    reader = FrameReader(role, NO_LIMIT)  # type: ignore[arg-type]
    for end in range(1, len(data) + 1):
        reader.feed(data[end - 1 : end])
        if reader.failed:
            return [data[i : i + 1] for i in range(end)]
    raise AssertionError("fails in one piece, but not byte by byte")


# Streams -------------------------------------------------------------------------------

LENGTHS = (0, 1, 2, 3, 4, 5, 7, 8, 60, 124, 125, 126, 127, 128, 511, 513, 1000)
LONG = (65535, 65536, 70000)
CODES = (*range(998, 1018), 2999, 3000, 3999, 4000, 4999, 5000, 65535)
CHARACTERS = "a~\x00\x7f\x80\u07ff\u0800\ud7ff\ue000\ufeff\uffff\U00010000\U0010ffff"
SCRAPS = tuple(
    bytes.fromhex(scrap)
    for scrap in "80 bf c0 c1af c2 e0 e080 e0a0 ed ed9f eda0 edbfbf f0 f08080 f090 f48f f490"
    " f5 ff c3a9 e282ac f09f9880".split()
)


def stream(dice: random.Random, role: str) -> bytes:
    """Frames of a peer: well-formed ones, now and then with something wrong."""
    wrong = dice.random() < 0.6
    frames = bytearray()
    for _ in range(dice.randint(1, 6)):
        frames += _message(dice, role, wrong)
        if wrong and dice.random() < 0.1:
            frames += dice.randbytes(dice.randint(1, 20))
    if wrong:
        for _ in range(dice.randint(0, 3)):
            at = dice.randrange(len(frames) + 1)
            match dice.randrange(5):
                case 0 if at < len(frames):
                    frames[at] ^= 1 << dice.randrange(8)
                case 1 if at < len(frames):
                    frames[at] = dice.randrange(256)
                case 2:
                    del frames[at : at + dice.randint(1, 4)]
                case 3:
                    frames[at:at] = dice.randbytes(dice.randint(1, 4))
                case 4:
                    del frames[at:]
    return bytes(frames)


def _message(dice: random.Random, role: str, wrong: bool) -> bytes:
    kind = dice.random()
    if kind < 0.3:
        return _control(dice, role, wrong)
    opcode = 1 if kind < 0.8 else 2
    size = dice.choice(LONG) if dice.random() < 0.01 else dice.choice(LENGTHS)
    payload = _text(dice, size, wrong) if opcode == 1 else dice.randbytes(size)
    frames = bytearray()
    for number in range(fragments := dice.choice((1, 1, 1, 2, 3, 6))):
        last = number == fragments - 1
        cut = len(payload) if last else dice.randint(0, len(payload))
        part, payload = payload[:cut], payload[cut:]
        frames += _frame(dice, role, 0 if number else opcode, part, fin=last)
        while not last and dice.random() < 0.2:
            frames += _control(dice, role, wrong)
    return bytes(frames)


def _control(dice: random.Random, role: str, wrong: bool) -> bytes:
    opcode = dice.choice((9, 9, 9, 10, 10, 8 if dice.random() < 0.3 else 9))
    payload = dice.randbytes(dice.choice((0, 0, 1, 4, 125, 126 if wrong else 125)))
    if opcode == 8 and dice.random() < 0.9:
        code = dice.choice(CODES) if wrong else 1000
        payload = code.to_bytes(2, "big") + _text(dice, dice.randint(0, 100), wrong)
    return _frame(dice, role, opcode, payload)


def _frame(dice: random.Random, role: str, opcode: int, payload: bytes, fin: bool = True) -> bytes:
    return build(opcode, payload, fin=fin, mask=dice.randbytes(4) if role == "server" else None)


def _text(dice: random.Random, size: int, wrong: bool) -> bytes:
    text = "".join(dice.choices(CHARACTERS, k=dice.randint(0, 8))).encode()
    if wrong and dice.random() < 0.4:
        text += dice.choice(SCRAPS)
    text += b"x" * (size - len(text))
    if wrong and dice.random() < 0.2:
        text += dice.choice(SCRAPS)
    return text


def chopped(dice: random.Random, data: bytes) -> list[bytes]:
    """*data* as a socket might give it."""
    match dice.randrange(3):
        case 0:
            return [data]
        case 1 if len(data) < 2000:
            return [data[i : i + 1] for i in range(len(data))]
    cuts = sorted(dice.randint(0, len(data)) for _ in range(dice.randint(1, 6)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def case(seed: int) -> tuple[str, list[bytes]]:
    dice = random.Random(seed)
    role = dice.choice(ROLES)
    return role, chopped(dice, stream(dice, role))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    confine()
    refused = 0
    for seed in watched(range(options.seed, options.seed + options.count), options.count):
        role, chunks = case(seed)
        if not agree(role, chunks):
            print(f"seed {seed}, {role}: {[chunk.hex() for chunk in chunks]}")
            print(f"ours    {ours(role, chunks)}\nwsproto {wsproto(role, chunks)}")
            return 1
        refused += ours(role, chunks).code is not None
    print(f"{options.count} streams, {refused} of them refused by both: no disagreement")
    return 0


if __name__ == "__main__":
    sys.exit(main())

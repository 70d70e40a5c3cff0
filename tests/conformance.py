"""The judged cases of Autobahn's fuzzing client, by its numbers, and a raw peer that runs them.

Each is what the peer sends to an endpoint that echoes messages, and what has to come back, in
order. Sections 1 to 7, 9 and 10; 12 and 13 are of compression, which we do not offer. The peer
makes and reads its frames by itself, so that it shares no mistake with the code under test.

Where the suite takes more than one behaviour (its "non-strict") ours is the strict one: what came
before a violation counts. The codes 1012 to 1014, which it once called invalid, are IANA's today.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
NORMAL, PROTOCOL, NOT_UTF8 = 1000, 1002, 1007

Message = tuple[int, bytes]  # opcode and payload


class Frame(NamedTuple):
    """One frame that the peer sends, lawful or not."""

    opcode: int
    payload: bytes = b""
    fin: bool = True
    rsv: int = 0
    missing: int = 0  # octets that the header announces, and that never come

    def encode(self, masked: bool) -> bytes:
        first = (0x80 if self.fin else 0) | self.rsv << 4 | self.opcode
        size, flag = len(self.payload) + self.missing, 0x80 if masked else 0
        if size < 126:
            head = bytes((first, flag | size))
        elif size < 65536:
            head = bytes((first, flag | 126)) + size.to_bytes(2, "big")
        else:
            head = bytes((first, flag | 127)) + size.to_bytes(8, "big")
        if not masked:
            return head + self.payload
        mask = os.urandom(4)
        return head + mask + unmasked(self.payload, mask)


def unmasked(payload: bytes, mask: bytes) -> bytes:
    """*payload* with *mask* laid over it, or taken off."""
    over = (mask * (len(payload) // 4 + 1))[: len(payload)]
    number = int.from_bytes(payload, "big") ^ int.from_bytes(over, "big")
    return number.to_bytes(len(payload), "big")


@dataclass(frozen=True)
class Case:
    """What goes out, what has to come back, and how it ends."""

    name: str
    sends: tuple[Frame, ...]
    expects: tuple[Message, ...] = ()
    #: The code with which the endpoint closes by itself; None: it closes when it is told.
    ends: int | None = None
    #: The payload of the close frame that tells it.
    close: bytes = NORMAL.to_bytes(2, "big")
    #: Octets that are written at a time; None: in each of :data:`WAYS`.
    chop: int | None = None


def text(payload: str | bytes, fin: bool = True, rsv: int = 0, missing: int = 0) -> Frame:
    data = payload.encode() if isinstance(payload, str) else payload
    return Frame(TEXT, data, fin, rsv, missing)


def more(payload: str | bytes, fin: bool = False) -> Frame:
    """A continuation; not the last unless *fin*."""
    return Frame(CONTINUATION, payload.encode() if isinstance(payload, str) else payload, fin)


def fragments(opcode: int, payload: bytes, size: int) -> tuple[Frame, ...]:
    """A message in frames of *size* octets, the last of fewer."""
    parts = [payload[at : at + size] for at in range(0, len(payload), size)] or [b""]
    last = len(parts) - 1
    return tuple(
        Frame(CONTINUATION if n else opcode, part, fin=n == last) for n, part in enumerate(parts)
    )


def echoed(name: str, *frames: Frame, chop: int | None = None) -> Case:
    """Lawful messages, which come back whole; pings get their pongs at their place."""
    expects: list[Message] = []
    parts: list[bytes] = []
    kind = TEXT
    for frame in frames:
        if frame.opcode == PING:
            expects.append((PONG, frame.payload))
        elif frame.opcode != PONG:
            kind = frame.opcode or kind
            parts.append(frame.payload)
            if frame.fin:
                expects.append((kind, b"".join(parts)))
                parts.clear()
    return Case(name, frames, tuple(expects), chop=chop)


def refused(name: str, *frames: Frame, code: int = PROTOCOL, after: int = 0) -> Case:
    """The first *after* frames are lawful; what follows breaks the protocol."""
    return Case(name, frames, echoed("", *frames[:after]).expects, ends=code)


# 1: framing; 2: pings and pongs ------------------------------------------------------------

SIZES = (0, 125, 126, 127, 128, 65535, 65536)
NO_TEXT = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"


def framing() -> Iterator[Case]:
    for section, opcode, octet in ((1, TEXT, b"*"), (2, BINARY, b"\xfe")):
        for number, size in enumerate(SIZES, 1):
            yield echoed(f"1.{section}.{number}", Frame(opcode, octet * size))
        yield echoed(f"1.{section}.8", Frame(opcode, octet * 65536), chop=997)


def pings() -> Iterator[Case]:
    ten = [Frame(PING, b"payload-%d" % number) for number in range(10)]
    yield echoed("2.1", Frame(PING))
    yield echoed("2.2", Frame(PING, b"Hello, world!"))
    yield echoed("2.3", Frame(PING, NO_TEXT))
    yield echoed("2.4", Frame(PING, b"\xfe" * 125))
    yield refused("2.5", Frame(PING, b"\xfe" * 126))
    yield echoed("2.6", Frame(PING, b"\xfe" * 125), chop=1)
    yield echoed("2.7", Frame(PONG))
    yield echoed("2.8", Frame(PONG, b"unsolicited"))
    yield echoed("2.9", Frame(PONG, b"unsolicited"), Frame(PING, b"ping"))
    yield echoed("2.10", *ten)
    yield echoed("2.11", *ten, chop=1)


# 3: reserved bits; 4: reserved opcodes -----------------------------------------------------


def reserved() -> Iterator[Case]:
    hello = text("Hello, world!")
    yield refused("3.1", text("Hello, world!", rsv=1))
    for number in (2, 3, 4):
        wrong = text("Hello, world!", rsv=number)
        yield refused(f"3.{number}", hello, wrong, Frame(PING), after=1)
    yield refused("3.5", Frame(BINARY, NO_TEXT, rsv=5))
    yield refused("3.6", Frame(PING, b"Hello, world!", rsv=6))
    yield refused("3.7", Frame(CLOSE, rsv=7))
    for section, first in ((1, 3), (2, 11)):
        yield refused(f"4.{section}.1", Frame(first))
        yield refused(f"4.{section}.2", Frame(first + 1, b"reserved opcode"))
        yield refused(f"4.{section}.3", hello, Frame(first + 2), Frame(PING), after=1)
        for number in (3, 4):
            wrong = Frame(first + number, b"reserved opcode")
            yield refused(f"4.{section}.{number + 1}", hello, wrong, Frame(PING), after=1)


# 5: fragments ------------------------------------------------------------------------------


def fragmented() -> Iterator[Case]:
    """5.3 and 5.6, 5.9, 5.12 and 5.19 stand for the numbers that write the same in pieces."""
    one, two = text("fragment1", fin=False), more("fragment2", fin=True)
    whole = text("Hello, world!")
    yield refused("5.1", Frame(PING, b"fragment1", fin=False), two)
    yield refused("5.2", Frame(PONG, b"fragment1", fin=False), two)
    yield echoed("5.3-5", one, two)
    yield echoed("5.6-8", one, Frame(PING, b"ping payload"), two)
    yield refused("5.9-11", more("non-continuation payload", fin=True), whole)
    yield refused("5.12-14", more("non-continuation payload"), whole)
    yield refused("5.15", one, two, more("fragment3"), text("fragment4"), after=2)
    yield refused("5.16", *(more("fragment1"), text("fragment2", fin=False), two) * 2)
    yield refused("5.17", *(more("fragment1", fin=True), text("fragment2", fin=False), two) * 2)
    yield refused("5.18", one, text("fragment2"))
    yield echoed(
        "5.19-20",
        one,
        more("fragment2"),
        Frame(PING, b"pongme 1!"),
        more("fragment3"),
        more("fragment4"),
        Frame(PING, b"pongme 2!"),
        more("fragment5", fin=True),
    )


# 6: UTF-8 ----------------------------------------------------------------------------------

GOOD = {
    "6.5": ["cebae1bdb9cf83cebcceb5"],
    "6.7": ["00", "c280", "e0a080", "f0908080"],
    "6.9": ["7f", "dfbf", "efbfbf", "f48fbfbf"],
    "6.11": ["ed9fbf", "ee8080", "efbfbd", "f48fbfbf"],
    "6.22": [  # noncharacters, and lawful
        chr(plane << 16 | last).encode().hex() for plane in range(17) for last in (0xFFFE, 0xFFFF)
    ],
    "6.23": ["efbfb9", "efbfba", "efbfbb", "efbfbc", "efbfbd", "efbfbe", "efbfbf"],
}

BAD = {
    "6.3": ["cebae1bdb9cf83cebcceb5eda080656469746564"],
    "6.8": ["f888808080", "fc8480808080"],
    "6.10": ["f7bfbfbf", "fbbfbfbfbf", "fdbfbfbfbfbf"],
    "6.11": ["f4908080"],
    "6.12": ["80", "bf", *("80bf" * n for n in (1, 2, 3)), "80bf80", "80bf80bf80"]
    + [bytes(range(0x80, 0xC0)).hex()],
    "6.13": [
        b"".join(bytes((first, 0x20)) for first in range(start, end)).hex()
        for start, end in ((0xC0, 0xE0), (0xE0, 0xF0), (0xF0, 0xF8), (0xF8, 0xFC), (0xFC, 0xFE))
    ],
    "6.14": ["c0", "e080", "f08080", "f8808080", "fc80808080"]
    + ["df", "efbf", "f7bfbf", "fbbfbfbf", "fdbfbfbfbf"],
    "6.15": ["c0e080f08080f8808080fc80808080dfefbff7bfbffbbfbfbffdbfbfbfbf"],
    "6.16": ["fe", "ff", "fefeffff"],
    "6.17": ["c0af", "e080af", "f08080af", "f8808080af", "fc80808080af"],
    "6.18": ["c1bf", "e09fbf", "f08fbfbf", "f887bfbfbf", "fc83bfbfbfbf"],
    "6.19": ["c080", "e08080", "f0808080", "f880808080", "fc8080808080"],
    "6.20": ["eda080", "edadbf", "edae80", "edafbf", "edb080", "edbe80", "edbfbf"],
    "6.21": [
        first + second
        for first in ("eda080", "edadbf", "edae80", "edafbf")
        for second in ("edb080", "edbfbf")
    ],
}


def utf8() -> Iterator[Case]:
    hello = "Hello-µ@ßöäüàá-UTF-8!!".encode()
    greek = "κόσμε".encode()
    yield echoed("6.1.1", text(""))
    yield echoed("6.1.2", text("", fin=False), more(""), more("", fin=True))
    yield echoed("6.1.3", text("", fin=False), more("middle"), more("", fin=True))
    yield echoed("6.2.1", text(hello))
    yield echoed("6.2.2", text(hello[:12], fin=False), more(hello[12:], fin=True))
    yield echoed("6.2.3", *fragments(TEXT, hello, 1))
    yield echoed("6.2.4", *fragments(TEXT, greek, 1))
    for size in range(1, len(greek) + 1):
        part = greek[:size]
        complete = part.decode(errors="ignore").encode() == part
        made = echoed if complete else not_utf8
        yield made(f"6.6.{size}", text(part))
    for section, inputs in GOOD.items():
        for number, good in enumerate(inputs, 1):
            yield echoed(f"{section}.{number}", text(bytes.fromhex(good)))
    for section, inputs in BAD.items():
        for number, wrong in enumerate(inputs, 1):
            payload = bytes.fromhex(wrong)
            yield not_utf8(f"{section}.{number}-bad", text(payload))
            yield not_utf8(f"{section}.{number}-bad-by-octets", *fragments(TEXT, payload, 1))


def not_utf8(name: str, *frames: Frame) -> Case:
    return refused(name, *frames, code=NOT_UTF8)


def unfinished() -> Iterator[Case]:
    """Text that is wrong before all of it is here: the rest is not awaited (6.4)."""
    greek, wrong = "κόσμε".encode(), b"\xf4\x90\x80\x80"
    yield not_utf8("6.4.1", text(greek, fin=False), more(wrong))
    yield not_utf8("6.4.2", text(greek, fin=False), more(wrong[:2]))
    yield not_utf8("6.4.3", text(greek + wrong, missing=12))
    yield not_utf8("6.4.4", text(greek + wrong[:2], missing=14))


# 7: closing --------------------------------------------------------------------------------

CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014)
CODES += (3000, 3999, 4000, 4999)
NO_CODES = (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)


def closing() -> Iterator[Case]:
    hello, close = text("Hello World!"), Frame(CLOSE, b"\x03\xe8")
    yield Case("7.1.1", (hello,), ((TEXT, b"Hello World!"),))
    for number, after in ((2, close), (3, Frame(PING)), (4, hello)):
        yield Case(f"7.1.{number}", (close, after), ends=NORMAL)  # closed once, and mute
    yield Case("7.1.5", (text("fragment1", fin=False), close, more("", fin=True)), ends=NORMAL)
    large = text("BAsd7&jh23" * 26214)
    yield Case("7.1.6", (large, close, Frame(PING)), ((TEXT, large.payload),), ends=NORMAL)
    yield Case("7.3.1", (), close=b"")
    yield refused("7.3.2", Frame(CLOSE, b"\x03"))
    yield Case("7.3.3", (), close=b"\x03\xe8")
    yield Case("7.3.4", (), close=b"\x03\xe8Hello World!")
    yield Case("7.3.5", (), close=b"\x03\xe8" + b"*" * 123)
    yield refused("7.3.6", Frame(CLOSE, b"\x03\xe8" + b"*" * 124))
    yield not_utf8("7.5.1", Frame(CLOSE, b"\x03\xe8" + bytes.fromhex(BAD["6.3"][0])))
    for code in CODES:
        yield Case(f"7.7-{code}", (), close=code.to_bytes(2, "big"))
    for code in NO_CODES:
        yield refused(f"7.9-{code}", Frame(CLOSE, code.to_bytes(2, "big")))


# 9: limits; 10: other ----------------------------------------------------------------------

KIB, MIB = 1 << 10, 1 << 20
MANY = 1000


def limits() -> Iterator[Case]:
    for kind, opcode in (("text", TEXT), ("binary", BINARY)):
        for size in (64 * KIB, 256 * KIB, MIB, 4 * MIB, 8 * MIB, 16 * MIB):
            yield echoed(f"9.1-{kind}-{size}", Frame(opcode, b"*" * size))
        for size in (64, 256, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB):
            yield echoed(f"9.3-{kind}-4M-by-{size}", *fragments(opcode, b"*" * 4 * MIB, size))
        for chop in (64, 128, 256, 512, KIB, 2 * KIB):
            yield echoed(f"9.5-{kind}-1M-chopped-{chop}", Frame(opcode, b"*" * MIB), chop=chop)
        for size in (0, 16, 64, 256, KIB, 4 * KIB):
            messages = (Frame(opcode, b"*" * size),) * MANY
            yield echoed(f"9.7-{kind}-{MANY}-of-{size}", *messages)
    yield echoed("10.1.1", *fragments(TEXT, b"*" * 65536, 1300))


#: Short ones, each to be written in all ways; section 9 is long.
CASES = (
    *framing(),
    *pings(),
    *reserved(),
    *fragmented(),
    *utf8(),
    *unfinished(),
    *closing(),
)
LIMITS = tuple(limits())
WAYS = ("whole", "frames", "octets")
SHORT = 1000  # octets, above which a case is not written octet by octet


def is_long(case: Case) -> bool:
    return sum(len(frame.payload) for frame in case.sends) > SHORT


#: Each of CASES with each way that it is to be written.
WRITTEN = [
    (case, way)
    for case in CASES
    for way in (WAYS if case.chop is None else WAYS[:1])
    if way != "octets" or not is_long(case)
]


def code_of(close: bytes) -> bytes:
    """The code in the payload of a close frame; one without a code is as good as 1000."""
    return close[:2] or NORMAL.to_bytes(2, "big")


# The peer ----------------------------------------------------------------------------------


class RawPeer:
    """The other end of an endpoint that echoes: a client of a server (masked), or the reverse."""

    def __init__(self, sock: socket.socket, masked: bool, read: bytes = b"") -> None:
        """:param read: bytes of frames that came already."""
        sock.settimeout(20)
        self._sock = sock
        self._masked = masked
        self._read = bytearray(read)

    def run(self, case: Case, way: str = "whole") -> list[Message]:
        """What comes back, up to the end of the connection; of a close frame, its code only."""
        pieces = list(self._pieces(case, way))
        # Neither side may have to wait for the other to read first.
        writing = threading.Thread(target=self._write, args=(pieces,))
        writing.start()
        got: list[Message] = []
        if case.ends is None:
            # An endpoint may drop what it still has to say when it is told to close.
            while len(got) < len(case.expects) and (message := self.read()):
                got.append(message)
            writing.join()
            self._write([Frame(CLOSE, case.close).encode(self._masked)])
        while message := self.read():
            got.append(message)
        writing.join()
        return got

    def _pieces(self, case: Case, way: str) -> Iterator[bytes]:
        frames = [frame.encode(self._masked) for frame in case.sends]
        if way == "frames":
            yield from frames
            return
        data = b"".join(frames)
        chop = case.chop or (1 if way == "octets" else len(data) or 1)
        for at in range(0, len(data), chop):
            yield data[at : at + chop]

    def _write(self, pieces: Sequence[bytes]) -> None:
        with contextlib.suppress(ConnectionError):  # closed, for what came before
            for piece in pieces:
                self._sock.sendall(piece)

    def read(self) -> Message | None:
        """The next frame, which has to be a whole message; None at the end."""
        if not self._fill(2):
            assert not self._read, "half a frame at the end"
            return None
        first, second = self._read[:2]
        assert first & 0xF0 == 0x80, f"fragmented, or RSV bits: {first:#x}"
        assert bool(second & 0x80) != self._masked, "masked by a server, or unmasked by a client"
        size, at = second & 0x7F, 2
        if size > 125:
            at = 4 if size == 126 else 10
            assert self._fill(at)
            size = int.from_bytes(self._read[2:at], "big")
            assert size > (125 if at == 4 else 65535), "a length that is not in its shortest form"
        mask = bytes(4)
        if not self._masked:
            assert self._fill(at + 4)
            mask = bytes(self._read[at : at + 4])
            at += 4
        assert self._fill(at + size), "half a frame at the end"
        payload = bytes(self._read[at : at + size])
        del self._read[: at + size]
        if not self._masked:
            payload = unmasked(payload, mask)
        opcode = first & 0x0F
        return opcode, code_of(payload) if opcode == CLOSE else payload

    def _fill(self, size: int) -> bool:
        """Have *size* bytes here; False at the end of the connection."""
        while len(self._read) < size:
            try:
                data = self._sock.recv(1 << 18)
            except ConnectionResetError:
                data = b""
            if not data:
                return False
            self._read += data
        return True


def expected(case: Case) -> list[Message]:
    """What :meth:`RawPeer.run` has to return."""
    close = case.close if case.ends is None else case.ends.to_bytes(2, "big")
    return [*case.expects, (CLOSE, code_of(close))]

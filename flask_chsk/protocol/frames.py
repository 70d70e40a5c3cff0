"""RFC 6455 both ways, as values: bytes to messages, messages to frames.

:class:`FrameReader` takes what a socket gave and returns the messages it completed;
:func:`text_frame` and its siblings return bytes to send. Both ends of a connection use the
same code; only the masking differs (servers read masked frames, clients send them).

What it refuses to do: it owns no socket, clock or greenlet, answers nothing by itself (a
ping's pong and a close's echo are the caller's), negotiates no extension (so RSV bits are
violations, and nothing can inflate), and holds no byte that is not part of an unfinished
message within the limit.
"""

from __future__ import annotations

import os
from base64 import b64encode
from codecs import utf_8_decode
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from struct import Struct
from typing import Final, Literal, TypeAlias

from ..errors import ProtocolError, UsageError

__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "PING",
    "PONG",
    "TEXT",
    "Close",
    "FrameReader",
    "Message",
    "Ping",
    "Pong",
    "accept_key",
    "binary_frame",
    "build",
    "close_frame",
    "new_key",
    "ping_frame",
    "pong_frame",
    "text_frame",
]

# RFC 6455, 5.2: opcodes.
CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

_FIN = 0x80
_OPCODE = 0x0F
_CONTROL = 0x08  # the bit that all control opcodes, and no others, have
_MASKED = 0x80
_WHOLE_TEXT = _FIN | TEXT
_WHOLE_BINARY = _FIN | BINARY

# Every first byte a frame may have: no RSV bit, no reserved opcode, no fragmented control frame.
_FIRST_BYTES = (
    *(CONTINUATION, TEXT, BINARY),
    *(_FIN | opcode for opcode in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG)),
)

_SHORT = 125  # 5.2: the longest length in one byte, and 5.5: the longest control frame
_IN_2_BYTES = 126  # in place of a length: the two bytes that follow have it
_IN_8_BYTES = 127  # the eight that follow
_NOT_SHORTEST = 1 << 64  # in place of a length: the peer took a longer form than it needed
_NO_STATUS = 1005  # 7.1.5: what a close frame without a code means; never on the wire


def _headers(mask_bit: int) -> dict[bytes, tuple[int, int, int]]:
    """Each two bytes that a frame may begin with: first byte, length, bytes of the whole header."""
    more = {_IN_2_BYTES: 2, _IN_8_BYTES: 8}
    mask = 4 if mask_bit else 0
    return {
        bytes((first, mask_bit | length)): (first, length, 2 + more.get(length, 0) + mask)
        for first in _FIRST_BYTES
        for length in range((_SHORT if first & _CONTROL else _IN_8_BYTES) + 1)
    }


# Tables, so that the reader asks one question of nearly every frame.
_MASKED_HEADERS = _headers(_MASKED)
_BARE_HEADERS = _headers(0)
_NO_HEADER = (0, 0, 1 << 64)  # longer than what is here, always

_head16 = Struct("!BBH").pack
_head64 = Struct("!BBQ").pack


# Messages ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ping:
    """The peer wants a pong with the same *payload* (5.5.2)."""

    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Pong:
    """The peer lives; *payload* is that of the ping it answers, if any (5.5.3)."""

    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Close:
    """The peer's last word (5.5.1); *code* is 1005 where it gave none."""

    code: int = _NO_STATUS
    reason: str = ""


#: A text message is a ``str``, a binary one ``bytes``.
Message: TypeAlias = str | bytes | Ping | Pong | Close


# Masking -------------------------------------------------------------------------------


@cache
def _xor_table(byte: int) -> bytes:
    return bytes(byte ^ other for other in range(256))


def _xor(data: bytes, mask: bytes) -> bytes:
    """*data* with the four bytes of *mask* laid over it again and again (5.3)."""
    size = len(data)
    if size <= 512:  # where four table passes begin to be cheaper than one big integer
        over = int.from_bytes((mask * (size // 4 + 1))[:size], "little")
        return (int.from_bytes(data, "little") ^ over).to_bytes(size, "little")
    result = bytearray(data)
    for i in range(4):
        result[i::4] = data[i::4].translate(_xor_table(mask[i]))
    return bytes(result)


apply_mask: Callable[[bytes, bytes], bytes]
try:  # the extra "speedups": 5 times as fast at 128 bytes, 50 times at 64 KiB
    from websockets.speedups import apply_mask
except ImportError:
    apply_mask = _xor


# Reading -------------------------------------------------------------------------------


class _Unfinished:
    """A data message of which a part is still to come."""

    __slots__ = ("final", "left", "mask", "opcode", "payload", "tail")

    def __init__(self, opcode: int) -> None:
        self.opcode = opcode
        self.payload = bytearray()  # unmasked, of all its frames so far
        self.tail = b""  # of a text: the last bytes, when they end inside a character
        # Of the frame that is arriving:
        self.final = False
        self.left = 0  # bytes of payload not yet here
        self.mask = b""  # turned so that it begins with the next byte's

    def check_text(self, chunk: bytes, complete: bool) -> bool:
        """Whether the text is UTF-8 so far (8.1), which does not wait for a bad megabyte to end."""
        text = self.tail + chunk
        try:
            self.tail = text[utf_8_decode(text, "strict", complete)[1] :]
        except UnicodeDecodeError:
            return False
        # Half a surrogate is hopeless, yet Python waits for its third byte.
        return not (self.tail[:1] == b"\xed" and self.tail[1:] >= b"\xa0")


class FrameReader:
    """Messages out of the bytes of one peer, however they were split on the way.

    *role* is this end's: a ``"server"`` insists on masked frames, a ``"client"`` on
    unmasked ones. A message of more than *max_message_bytes* is refused as soon as a
    header announces it, alone or with the fragments before it; nothing is allocated for
    what has not arrived.

    :ivar failed: how the peer broke the protocol, with the close code to answer: 1002, 1007
        (text that is not UTF-8) or 1009 (too big). None while it did not.
    :ivar closed: no more messages will come: the peer sent :class:`Close`, or it failed.
    """

    # At rest this is all there is: buffers exist only while something is unfinished.
    __slots__ = ("_limit", "_masked", "_rest", "_unfinished", "closed", "failed")

    def __init__(self, role: Literal["server", "client"], max_message_bytes: int) -> None:
        if role not in ("server", "client"):
            raise UsageError(f"a FrameReader's role is 'server' or 'client', not {role!r}")
        self._masked = role == "server"
        self._limit = max_message_bytes
        self._rest = b""  # a header or control frame that is not all here: at most 130 bytes
        self._unfinished: _Unfinished | None = None
        self.failed: ProtocolError | None = None
        self.closed = False

    @property
    def held(self) -> int:
        """Bytes of a data message of which a part is still to come."""
        return 0 if self._unfinished is None else len(self._unfinished.payload)

    def feed(self, data: bytes) -> list[Message]:
        """The messages that *data* completes, in order.

        Never raises for what a peer sent: look at :attr:`failed` after the messages, which
        came before the violation and count. Bytes after a close or a violation are ignored.
        """
        received: list[Message] = []
        if self._rest:
            data, self._rest = self._rest + data, b""
        masked, limit = self._masked, self._limit
        headers = _MASKED_HEADERS if masked else _BARE_HEADERS
        pos, end = 0, len(data)
        while pos < end and not self.closed:
            unfinished = self._unfinished
            if unfinished is not None and unfinished.left:
                pos += self._extend(unfinished, data[pos : pos + unfinished.left], received)
                continue
            first, size, header = headers.get(data[pos : pos + 2], _NO_HEADER)
            begin = pos + header
            if begin > end:
                self._keep_header(data[pos:])
                break
            if size > _SHORT:
                size = _long_size(size, data[pos + 2 : pos + 10])
            if size > limit or unfinished is not None or not first & _OPCODE:
                self._check(first, size)
                if self.closed:
                    break
            mask = data[begin - 4 : begin] if masked else b""
            stop = begin + size
            if first == _WHOLE_TEXT and stop <= end:  # first in line: nearly all are so
                payload = data[begin:stop]
                try:
                    received.append((apply_mask(payload, mask) if masked else payload).decode())
                except UnicodeDecodeError:
                    self._fail(1007, "text that is not UTF-8")
            elif first & _CONTROL:
                if stop > end:
                    self._rest = data[pos:]
                    break
                payload = data[begin:stop]
                self._control(first, apply_mask(payload, mask) if masked else payload, received)
            elif first == _WHOLE_BINARY and stop <= end:
                payload = data[begin:stop]
                received.append(apply_mask(payload, mask) if masked else payload)
            else:
                self._begin(first, size, mask, received)
                stop = begin
            pos = stop
        return received

    def _keep_header(self, data: bytes) -> None:
        """Keep a header that is not all here, unless what is here is wrong already."""
        header = (_MASKED_HEADERS if self._masked else _BARE_HEADERS).get(data[:2])
        if header is not None:
            first, size, length = header
            mask = length - 4 if self._masked else length  # where it begins
            if len(data) >= mask:
                size = _long_size(size, data[2:mask]) if size > _SHORT else size
                self._check(first, size)
        elif len(data) > 1:
            self._fail(1002, _fault(data[0], data[1], self._masked))
        if not self.closed:
            self._rest = data

    def _check(self, first: int, size: int) -> None:
        """Fail where a frame of *size* bytes may not come now."""
        if first & _CONTROL:
            return
        if size == _NOT_SHORTEST:
            self._fail(1002, "length of a frame not in its shortest form")
        elif self._unfinished is None and not first & _OPCODE:
            self._fail(1002, "continuation of no message")
        elif self._unfinished is not None and first & _OPCODE:
            self._fail(1002, "new message inside a fragmented one")
        elif size + self.held > self._limit:
            self._fail(1009, f"message of over {self._limit} bytes")

    def _begin(self, first: int, size: int, mask: bytes, received: list[Message]) -> None:
        """Begin with a frame of a data message that is not whole, or not all here."""
        message = self._unfinished
        if message is None:
            message = self._unfinished = _Unfinished(first & _OPCODE)
        message.final = first >= _FIN
        message.left = size
        message.mask = mask
        if not size:  # nothing will come to finish it with
            self._extend(message, b"", received)

    def _extend(self, message: _Unfinished, chunk: bytes, received: list[Message]) -> int:
        """Take *chunk*, at most what is left of the frame that is arriving; its length."""
        size = len(chunk)
        message.left -= size
        if self._masked:
            turn = size % 4
            chunk = apply_mask(chunk, message.mask)
            message.mask = message.mask[turn:] + message.mask[:turn]
        complete = message.final and not message.left
        if message.opcode == TEXT and not message.check_text(chunk, complete):
            self._fail(1007, "text that is not UTF-8")
            return size
        message.payload += chunk
        if complete:
            payload = message.payload
            received.append(payload.decode() if message.opcode == TEXT else bytes(payload))
            self._unfinished = None
        return size

    def _control(self, first: int, payload: bytes, received: list[Message]) -> None:
        opcode = first & _OPCODE
        if opcode == PING:
            received.append(Ping(payload))
        elif opcode == PONG:
            received.append(Pong(payload))
        elif not payload:
            received.append(Close())
            self._end()
        elif len(payload) == 1:
            self._fail(1002, "close frame with half a code")
        else:
            code = int.from_bytes(payload[:2], "big")
            if not _sendable(code):
                self._fail(1002, f"close code {code} has no place on the wire")
                return
            try:
                received.append(Close(code, payload[2:].decode()))
            except UnicodeDecodeError:
                self._fail(1007, "close reason that is not UTF-8")
                return
            self._end()

    def _fail(self, code: int, message: str) -> None:
        # Made, never raised: a kept traceback would keep the peer's bytes alive with it.
        self.failed = ProtocolError(code, message)
        self._end()

    def _end(self) -> None:
        self.closed = True
        self._unfinished = None


def _long_size(form: int, data: bytes) -> int:
    """The length that *data* begins with, where it is in the bytes after the first two."""
    if form == _IN_2_BYTES:
        size = data[0] << 8 | data[1]
        return size if size > _SHORT else _NOT_SHORTEST
    size = int.from_bytes(data, "big")
    return size if size > 0xFFFF and not size >> 63 else _NOT_SHORTEST


def _fault(first: int, second: int, masked: bool) -> str:
    """What is wrong with two bytes that no frame may begin with."""
    if first & 0x70:
        return "RSV bit without an extension that uses it"
    if (first & 0x07) > 2:
        return f"reserved opcode {first & _OPCODE:#x}"
    if first & _CONTROL and not first & _FIN:
        return "fragmented control frame"
    if masked and not second & _MASKED:
        return "frame from a client without a mask"
    if second & _MASKED and not masked:
        return "frame from a server with a mask"
    return "control frame longer than 125 bytes"


def _sendable(code: int) -> bool:
    """Whether *code* may stand in a close frame (7.4, and IANA's 1012 to 1014)."""
    if code >= 3000:
        return code <= 4999
    return 1000 <= code <= 1003 or 1007 <= code <= 1014


# Writing -------------------------------------------------------------------------------


def build(opcode: int, payload: bytes, *, mask: bytes | None = None, fin: bool = True) -> bytes:
    """One frame (5.2), masked when there is a *mask* of four bytes.

    For fragments and tests; messages have :func:`text_frame` and its siblings, which draw
    the unpredictable mask that 5.3 wants.
    """
    size = len(payload)
    first = opcode | _FIN if fin else opcode
    flag = 0 if mask is None else _MASKED
    if size <= _SHORT:
        head = bytes((first, flag | size))
    elif size <= 0xFFFF:
        head = _head16(first, flag | 126, size)
    else:
        head = _head64(first, flag | 127, size)
    if mask is None:
        return head + payload
    return head + mask + apply_mask(payload, mask)  # the small ones first: one large copy


def text_frame(text: str | bytes, *, masked: bool = False) -> bytes:
    """A text message; *text* may be UTF-8 already, which is not checked again.

    *masked*, here and below, is for clients: each frame gets a fresh mask.

    :raises UnicodeEncodeError: a lone surrogate, which UTF-8 cannot carry.
    """
    payload = text.encode() if isinstance(text, str) else text
    return build(TEXT, payload, mask=os.urandom(4) if masked else None)


def binary_frame(data: bytes, *, masked: bool = False) -> bytes:
    """A binary message."""
    return build(BINARY, data, mask=os.urandom(4) if masked else None)


def ping_frame(payload: bytes = b"", *, masked: bool = False) -> bytes:
    """A ping; the pong will carry its *payload* of at most 125 bytes."""
    return _control_frame(PING, payload, masked)


def pong_frame(payload: bytes = b"", *, masked: bool = False) -> bytes:
    """The answer to the ping with this *payload*."""
    return _control_frame(PONG, payload, masked)


def close_frame(code: int = _NO_STATUS, reason: str = "", *, masked: bool = False) -> bytes:
    """The last frame of this end; *reason* is cut to 123 bytes, between characters.

    1005, which :class:`Close` has where the peer gave no code, makes a frame without one,
    so ``close_frame(close.code)`` echoes any close.

    :raises UsageError: a code that may not be sent (7.4), or a reason without a code.
    """
    if code == _NO_STATUS and not reason:
        return _control_frame(CLOSE, b"", masked)
    if not _sendable(code):
        raise UsageError(f"{code} cannot be sent: take 1000-1003, 1007-1014 or 3000-4999")
    # "replace": a reason quotes what went wrong, and must not itself go wrong.
    cut = reason.encode("utf-8", "replace")[: _SHORT - 2].decode("utf-8", "ignore")
    return _control_frame(CLOSE, code.to_bytes(2, "big") + cut.encode(), masked)


def _control_frame(opcode: int, payload: bytes, masked: bool) -> bytes:
    if len(payload) > _SHORT:
        raise UsageError(f"a control frame carries at most 125 bytes, not {len(payload)}")
    return build(opcode, payload, mask=os.urandom(4) if masked else None)


# Handshake -----------------------------------------------------------------------------


def new_key() -> str:
    """A client's ``Sec-WebSocket-Key``, new for every connection (4.1)."""
    return b64encode(os.urandom(16)).decode()


def accept_key(key: str) -> str:
    """The ``Sec-WebSocket-Accept`` that answers the ``Sec-WebSocket-Key`` *key* (4.2.2)."""
    salted = key.encode("latin-1") + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    return b64encode(sha1(salted, usedforsecurity=False).digest()).decode()

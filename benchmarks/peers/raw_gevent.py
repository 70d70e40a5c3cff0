"""The floor: a gevent loop that moves frames without reading what is in them.

No protocol, no packer, no users, no contexts, and it would break on a frame that comes in two
reads. What a message costs here, it costs before a library has done anything.
"""

from __future__ import annotations

import os
import re
import sys
from base64 import b64encode
from hashlib import sha1
from typing import Any

import gevent
import gevent.server

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
KEY = re.compile(rb"Sec-WebSocket-Key: (\S+)")
UID = re.compile(rb"uid=(\w+)")
everyone: dict[bytes, Any] = {}  # by user


def frame(payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 65536:
        return bytes((0x81, 126)) + size.to_bytes(2, "big") + payload
    return bytes((0x81, 127)) + size.to_bytes(8, "big") + payload


def serve(sock: Any, address: Any) -> None:
    head = sock.recv(65536)
    key, user = KEY.search(head), UID.search(head)
    if key is None or user is None:
        answer = command(*head.split()[1].decode().strip("/").split("/"))
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)
        return
    accept = b64encode(sha1(key[1] + GUID).digest())
    sock.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + frame(b"hello")
    )
    everyone[user[1]] = sock
    try:
        while data := sock.recv(65536):
            size = data[1] & 0x7F
            start = 2 if size < 126 else 4
            length = len(data) - start - 4
            mask = (data[start : start + 4] * (length // 4 + 1))[:length]
            payload = int.from_bytes(data[start + 4 :], "big") ^ int.from_bytes(mask, "big")
            sock.sendall(frame(payload.to_bytes(length, "big")))
    finally:
        everyone.pop(user[1], None)


def command(name: str, *numbers: str) -> bytes:
    if name == "pid":
        return str(os.getpid()).encode()
    {"broadcast": broadcast, "push": push}[name](*map(int, numbers))
    return b"done"


def event(number: int) -> bytes:
    return frame(b'["event", {"text": "%s", "n": %d}]' % (b"pushed " * 4, number))


def broadcast(count: int, gap_ms: int) -> None:
    for number in range(count):
        data = event(number)
        for sock in list(everyone.values()):
            sock.sendall(data)
        gevent.sleep(gap_ms / 1000)


def push(count: int, users: int) -> None:
    for number in range(count):
        everyone[b"u%d" % (number * 7919 % users)].sendall(event(number))
        if number % 20 == 19:
            gevent.sleep(0)


gevent.server.StreamServer(("127.0.0.1", int(sys.argv[1])), serve, backlog=4096).serve_forever()

"""A connected socket: one reads, any may write, and it ends once."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from flask_chsk.client.stream import Stream


@pytest.fixture
def pair() -> Iterator[tuple[Stream, socket.socket]]:
    """A stream and its peer."""
    ours, peer = socket.socketpair()
    peer.settimeout(60)
    stream = Stream(ours)
    yield stream, peer
    stream.close()
    peer.close()


def read_all(peer: socket.socket) -> bytes:
    """What comes until the end."""
    parts = []
    while part := peer.recv(65_536):
        parts.append(part)
    return b"".join(parts)


def test_bytes_pass_both_ways(pair: tuple[Stream, socket.socket]) -> None:
    stream, peer = pair
    stream.send(b"question")
    assert peer.recv(100) == b"question"
    peer.sendall(b"answer")
    assert stream.receive() == b"answer"


def test_more_than_a_buffer_is_sent_whole(pair: tuple[Stream, socket.socket]) -> None:
    stream, peer = pair
    data = bytes(range(256)) * 8_192

    def send() -> None:
        stream.send(data)
        stream.finish()

    sender = threading.Thread(target=send)
    sender.start()
    assert read_all(peer) == data
    sender.join(60)


def test_nothing_is_received_at_the_end(pair: tuple[Stream, socket.socket]) -> None:
    stream, peer = pair
    peer.sendall(b"last")
    peer.close()
    assert [stream.receive(), stream.receive()] == [b"last", b""]


def test_a_finished_stream_sends_no_more_and_reads_on(pair: tuple[Stream, socket.socket]) -> None:
    stream, peer = pair
    stream.finish()
    assert peer.recv(1) == b""
    with pytest.raises(OSError):
        stream.send(b"more")
    peer.sendall(b"late answer")
    assert stream.receive() == b"late answer"


def test_a_hard_end_wakes_who_reads(pair: tuple[Stream, socket.socket]) -> None:
    stream, _ = pair
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(stream.receive()))
    reader.start()
    stream.finish(hard=True)
    reader.join(60)
    assert received == [b""]


def test_a_closed_stream_may_be_finished_again(pair: tuple[Stream, socket.socket]) -> None:
    stream, _ = pair
    stream.close()
    stream.finish()
    stream.finish(hard=True)
    stream.close()
    with pytest.raises(OSError):
        stream.send(b"more")

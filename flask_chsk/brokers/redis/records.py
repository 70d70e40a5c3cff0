"""Text and events as Redis holds them."""

from __future__ import annotations

from ...protocol.event import is_event
from ...protocol.push import CANONICAL, Push


def to_text(data: bytes) -> str:
    """What :func:`to_bytes` made bytes of."""
    return data.decode("utf-8", "surrogatepass")


def to_bytes(text: str) -> bytes:
    """Any text, also one with half of a surrogate pair in it."""
    return text.encode("utf-8", "surrogatepass")


def excluded_text(client: tuple[str | None, str] | None) -> str:
    """The client that an event is not for: ``id``, or ``id:uid``; empty: there is none."""
    if client is None:
        return ""
    uid, client_id = client
    return client_id if uid is None else f"{client_id}:{uid}"


def push_of(
    channel: bytes, offset: int, before: int, text: bytes, excluded: bytes, flush: bool = False
) -> Push:
    """An event as it was kept.

    :raises ValueError: where it is none.
    """
    event = to_text(text)
    if not is_event(CANONICAL.unpack(event)):
        raise ValueError("not an event")
    client = None
    if excluded:
        client_id, _, uid = to_text(excluded).partition(":")
        client = (uid or None, client_id)
    return Push(to_text(channel), event, offset, before, client, offset / 1e6, flush)


def published_push(data: bytes) -> tuple[str, Push]:
    """The epoch and the event in a message of the publish script.

    :raises ValueError: for what no script of ours wrote.
    """
    head, _, body = data.partition(b"\n")
    epoch, offset, channel, excluded, size, flush, *_ = head.split()
    a = int(channel)
    b = a + int(excluded)
    if len(body) != b + int(size):
        raise ValueError("lengths that do not fit")
    push = push_of(body[:a], int(offset), 0, body[b:], body[a:b], flush == b"1")
    return epoch.decode(), push

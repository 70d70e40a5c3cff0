"""The parts alone: packers, frames, a session's outbox, a router's dispatch; µs of CPU each.

python -m benchmarks.micro
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask_chsk.packers.edn import EdnPacker
from flask_chsk.protocol.event import Event
from flask_chsk.protocol.frames import text_frame
from flask_chsk.protocol.push import Push
from flask_chsk.protocol.session import Rules, ServerSession, read_message
from flask_chsk.protocol.wire import WIRES, Composer
from flask_chsk.server.router import EventMessage, Handlers
from flask_chsk.values import Keyword

from . import frames, packers

COMPOSER = Composer(EdnPacker(), WIRES["1.21"])
MESSAGE = '[[:chat/say {:text "hello, world", :room "general", :n 42}] "c1"]'


def _session(n: int) -> ServerSession:
    return ServerSession(f"u{n}", f"c{n}", COMPOSER, Rules(epoch="e"), 0.0, v1=True)


def _encode(message: Any) -> bytes:
    return text_frame(message)


def outbox(clients: int, batch: int) -> Callable[[], object]:
    """*batch* events go to each of *clients*, and leave in one frame."""
    sessions = [_session(n) for n in range(clients)]
    offset = 0

    def deliver() -> None:
        nonlocal offset
        shared: dict[Any, bytes] = {}
        pushes = []
        for _ in range(batch):
            offset += 1
            pushes.append(Push("*", '[:chat/said {:text "hello", :n 42}]', offset, offset - 1))
        for session in sessions:
            for push in pushes:
                session.deliver(push)
        for session in sessions:
            session.drain(_encode, shared)

    return deliver


def dispatch() -> Callable[[], object]:
    """An event finds its handler, which runs without any context."""
    handlers = Handlers()
    handlers.on("chat/say")(lambda ev: ev.data)
    event = Event(Keyword("chat/say"), {"text": "hello"})

    def run() -> None:
        handler = handlers.find(event.id)
        assert handler is not None
        handlers.run(handler, EventMessage(event, "ann", "c1"))

    return run


def figures() -> dict[str, float]:
    """All of them, in the order of the table."""
    found: dict[str, float] = {}
    for name, call in packers.figures(packers.CHAT).items():
        found[f"{name}, chat event"] = frames.microseconds(call)
    for size, label in ((128, "128 B"), (1 << 16, "64 KiB")):
        found[f"frame read, {label}"] = frames.microseconds(frames.reading(size))
        found[f"frame build, {label}"] = frames.microseconds(frames.building(size))
    found["message read: EDN to happening"] = frames.microseconds(
        lambda: read_message(COMPOSER, MESSAGE)
    )
    found["outbox, a delivery, one event a frame"] = frames.microseconds(outbox(200, 1)) / 200
    found["outbox, a delivery, 20 events a frame"] = frames.microseconds(outbox(200, 20)) / 4000
    found["router, an event"] = frames.microseconds(dispatch())
    return found


def table(found: dict[str, float]) -> str:
    """Them as text."""
    return "\n".join(f"{name:<42}{value:>8.2f} µs" for name, value in found.items())


if __name__ == "__main__":
    print(table(figures()))

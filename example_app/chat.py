"""Chat: what pages say, who is here, and what was said before they came."""

from __future__ import annotations

import secrets
from collections import deque
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from flask import Flask, current_app

from flask_chsk import ConnectedUids, EventMessage, Handlers

from .sockets import chsk

KEPT = 50  # lines that a new page is shown
LONGEST = 500  # characters of a line

handlers = Handlers("chat")  # on("say") takes "chat/say"


@dataclass(frozen=True)
class Say:
    """What a page may say."""

    text: str

    @classmethod
    def parse(cls, data: Any) -> Say:
        """A checked line; what this refuses is answered with status 400 and its message."""
        text = data.get("text") if isinstance(data, dict) else None
        if not isinstance(text, str) or not text.strip():
            raise ValueError("Say something first.")
        if len(text) > LONGEST:
            raise ValueError(f"That is {len(text)} characters; {LONGEST} is the most.")
        return cls(text.strip())


class Lines:
    """What was said last, in this process."""

    def __init__(self) -> None:
        self.kept: deque[dict[str, Any]] = deque(maxlen=KEPT)

    def add(self, who: str | None, text: str) -> dict[str, Any]:
        """A new line, with an id: a page that gets it twice shows it once."""
        at = datetime.now(timezone.utc)
        line = {"id": secrets.token_urlsafe(9), "who": who, "text": text, "at": at}
        self.kept.append(line)
        return line


def init_app(app: Flask) -> None:
    """Give *app* its lines."""
    app.extensions["lines"] = Lines()


@handlers.on("say", parse=Say.parse)
def say(ev: EventMessage) -> dict[str, Any]:
    """Tell everybody; the reply tells the sender which line it became."""
    line = current_app.extensions["lines"].add(ev.uid, ev.data.text)
    chsk.broadcast(["chat/said", line])
    return {"id": line["id"]}


@handlers.on("recent")
def recent(ev: EventMessage) -> list[dict[str, Any]]:
    """The reply to a page that has just opened, or that missed something."""
    return list(current_app.extensions["lines"].kept)


def present(uids: ConnectedUids) -> list[dict[str, Any]]:
    """Who is here, and over what."""
    return [{"name": u, "ws": u in uids.ws, "ajax": u in uids.ajax} for u in sorted(uids.any)]


@chsk.handshake_data
def greet() -> dict[str, Any]:
    """What a page gets with its handshake."""
    return {"present": present(chsk.connected_uids)}


def tell_presence(old: ConnectedUids, new: ConnectedUids) -> None:
    """Tell everybody who is here, whenever that changes; `create_app` registers it."""
    chsk.broadcast(["chat/present", present(new)])

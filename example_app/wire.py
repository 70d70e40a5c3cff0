"""The panel's half on the server: round trips, order, and a look at oneself."""

from __future__ import annotations

import os
from typing import Any

from flask import session

from flask_chsk import EventMessage, Handlers

handlers = Handlers("wire")


@handlers.on("ping")
def ping(ev: EventMessage) -> None:
    """Nothing; the reply's way is what the page measures."""


@handlers.on("whoami")
def whoami(ev: EventMessage) -> dict[str, Any]:
    """What a handler knows of who sent the event."""
    return {
        "uid": ev.uid,
        "client-id": ev.client_id,
        "address": ev.request.remote_addr,
        "signed-in": session["since"],  # to read; a route writes it
        "worker": os.getpid(),
    }


@handlers.on("number")
def number(ev: EventMessage) -> None:
    """Send the number back to the very tab it came from."""
    ev.push(["wire/handled", ev.data])

"""How a parked poll ends where a generation is to get no answer."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

from flask_chsk.transports.longpoll import NoAnswer, Parked


class Waiter:
    """Has its value already."""

    def set(self, value: Any) -> None: ...

    def wait(self, timeout: float) -> Any:
        return NoAnswer(b"-[]")


def parked(sock: socket.socket | None) -> Parked:
    hub = SimpleNamespace(
        watch_hangup=lambda *args: SimpleNamespace(stop=lambda: None), call=lambda *args: None
    )
    requests: Any = SimpleNamespace(hub=hub, abandon=None)
    return Parked(requests, ("ann", "1"), Waiter(), sock, 1.0)


def test_its_connection_ends_instead() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert list(parked(ours)) == [b""]
        assert theirs.recv(1) == b""


def test_it_is_answered_with_no_events_where_the_connection_is_out_of_reach() -> None:
    assert list(parked(None)) == [b"-[]"]  # TLS

"""A client that was let in half-way, when something failed, does not stay."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from flask_chsk import Chsk
from flask_chsk.server.connection import Opening
from flask_chsk.server.worker import Worker
from flask_chsk.transports.longpoll import Poller
from tests.process import eventually


class Broken(BaseException):
    """What ends a request in the middle, as a killed greenlet does."""


class Quiet:
    """A socket whose peer says nothing."""

    stalled_since = None
    closed = False

    def __init__(self) -> None:
        self.written = b""

    def start(self, receiver: Any, data: bytes = b"") -> None: ...

    def write(self, data: bytes) -> bool:
        self.written += data
        return True

    def close_when_flushed(self, timeout: float) -> None:
        self.closed = True


class Link:
    """A socket that takes nothing."""

    stalled_since = None

    def write(self, data: bytes) -> bool:
        raise Broken

    def close(self) -> None: ...


@pytest.fixture(params=["memory", "redis"])
def app(request: pytest.FixtureRequest) -> Flask:
    app = Flask(__name__)
    app.secret_key = "for tests"
    app.config.update(CHSK_CLOSE_GRACE_WS=0.1, CHSK_CLOSE_GRACE_AJAX=0.1)
    if request.param == "redis":
        url = request.getfixturevalue("redis_url")
        app.config["CHSK_BROKER_URL"] = f"{url}?prefix={secrets.token_hex(4)}"
    return app


@pytest.fixture
def seen() -> list[str]:
    return []


@pytest.fixture
def server(app: Flask, seen: list[str]) -> Worker:
    chsk = Chsk(app)

    @chsk.on("chsk/uidport-open")
    @chsk.on("chsk/uidport-close")
    def presence(ev: Any) -> None:
        seen.append(f"{ev.id} {ev.data}")

    server: Worker = app.extensions["chsk"].worker()
    server.ready()
    return server


def opening(app: Flask) -> Opening:
    state = app.extensions["chsk"]
    asked = state.worker().clients.asked()
    return Opening("ann", "c-1", state.composer("edn", state.config), asked=asked)


def is_gone(server: Worker) -> bool:
    here = server.registry.get("ann", "c-1") is None
    return here and not len(server.registration._leaving) and not server.presence.connected_uids.any


def breaks(*args: Any) -> Any:
    raise Broken


@pytest.mark.parametrize(
    "broken",
    [
        lambda server: (server.topics, "joined"),
        lambda server: (server.registry, "add"),
        lambda server: (server.broker, "watermark"),
    ],
    ids=["topics", "registry", "watermark"],
)
def test_a_failure_in_the_middle_undoes_what_was_done(
    app: Flask,
    server: Worker,
    seen: list[str],
    broken: Callable[[Worker], tuple[Any, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.broker.topics.join("ann", "topic")
    owner, name = broken(server)
    first = opening(app)  # it waits for the subscription, which is not to break
    with monkeypatch.context() as patch:
        patch.setattr(type(owner), name, breaks)
        with pytest.raises(Broken):
            server.clients.enter(first, "ws")
    eventually(lambda: is_gone(server))
    entered = server.clients.enter(opening(app), "ws")
    assert entered is not None
    server.hub.run(server.clients.close, "ann", None)
    eventually(lambda: is_gone(server))
    eventually(lambda: len(seen) % 2 == 0 and seen)
    # Comings and goings alternate, whatever failed.
    assert seen == ["chsk/uidport-open ann", "chsk/uidport-close ann"] * (len(seen) // 2)


def test_a_socket_that_fails_at_its_greeting_leaves_nobody(app: Flask, server: Worker) -> None:
    entered = server.clients.enter(opening(app), "ws")
    assert entered is not None
    with pytest.raises(Broken):
        server.hub.run(server.sockets.open, entered, Link(), b"")
    eventually(lambda: is_gone(server))


def test_a_poll_that_fails_once_its_client_is_in_leaves_nobody(app: Flask, server: Worker) -> None:
    entered = server.clients.enter(opening(app), "poll")
    assert entered is not None
    poller = Poller(server.polls, entered.connection)
    server.hub.run(server.clients.attach_poller, entered.connection, poller)
    eventually(lambda: is_gone(server))


def test_a_socket_that_comes_too_late_is_told_and_counted(app: Flask, server: Worker) -> None:
    late, latest = (
        server.clients.enter(opening(app), "ws"),
        server.clients.enter(opening(app), "ws"),
    )
    assert late is not None
    assert latest is not None
    for entered, code in ((late, 1013), (latest, 1012)):
        link = Quiet()
        if code == 1012:
            server.hub.run(server.end)
        server.hub.run(server.sockets.open, entered, link, b"")
        assert link.closed
        assert link.written[2:4] == code.to_bytes(2, "big")
        assert server.stats()[f"closed_{code}"] == 1

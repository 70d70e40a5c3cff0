"""For your own tests: a client in process, without a port and without sleeping.

Everything is real but the network: requests go through your application's views, checks,
handlers and the broker, by way of Flask's test client.

In ``conftest.py``: ``pytest_plugins = ["flask_chsk.testing"]``, and an ``app`` fixture. Then::

    def test_say(chsk_client):
        ann, bob = chsk_client(uid="ann"), chsk_client(uid="bob")
        assert ann.request(["chat/say", {"text": "hi"}]) == {"ok": True}
        assert ["chat/said", {"text": "hi"}] in bob.received
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

from flask import Flask
from flask.testing import FlaskClient

from . import session as s
from .errors import ChskError, ReplyError, ReplyTimeout, UsageError
from .event import assert_event
from .extension import State
from .hooks import CSRF_SESSION_KEY
from .security import RESUME_HEADER, SECRET_HEADER
from .values import Keyword
from .views import TEST_CLIENT

try:
    import pytest
except ImportError:  # the client works without it
    pytest = None  # type: ignore[assignment]

SETTLE = 10.0  # seconds after which handlers that still run fail the test


class Refusal(ChskError):
    """The application refused the test client; *status* is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class ChskTestClient:
    """A client of a channel socket, as ``chsk.test_client()`` makes it.

    :param flask_client: whose cookies it shares (a session that was logged in, say).
    :param uid: for applications that keep it in ``session["uid"]``.
    :raises Refusal: where the handshake is refused.
    """

    def __init__(
        self, state: State, flask_client: FlaskClient | None = None, uid: Any = None
    ) -> None:
        self._state = state
        self._client = state.app.test_client() if flask_client is None else flask_client
        self._composer = state.composer("edn", state.config)
        self._received: list[list[Any]] = []
        self._base = {"client-id": secrets.token_urlsafe(12), "packer": "edn", "v": "1"}
        self._cursor = ""
        self._headers = {SECRET_HEADER: secrets.token_urlsafe(16)}
        self._number = 0
        self.closed = False
        if uid is not None:
            hooks = state.hooks
            if hooks.user_id is not None or hasattr(state.app, "login_manager"):
                raise UsageError(
                    'uid= sets session["uid"], which this application does not use: log in'
                    " through a Flask client, and give that as flask_client="
                )
            with self._client.session_transaction() as session:
                session["uid"] = uid
                session.setdefault(CSRF_SESSION_KEY, secrets.token_urlsafe(24))
        body = self._get({"handshake?": "1"})[1]
        self.uid: str | None = body[0]
        self.handshake_data: Any = body[2]
        self._cursor = body[3]["cursor"]
        self._headers[RESUME_HEADER] = body[3]["resume"]
        self._settle()

    @property
    def client_id(self) -> str:
        """Its client id."""
        return self._base["client-id"]

    @property
    def received(self) -> list[list[Any]]:
        """Every event pushed so far, ``[id, data]``, in order."""
        self._settle()
        while not self.closed:
            pushes = self._poll()
            if not pushes:
                break
            for event in pushes:
                if event[0] == s.CLOSE:
                    self.closed = True
                self._received.append([event[0], event[1] if len(event) > 1 else None])
        return self._received

    def request(self, event: Any) -> Any:
        """Send *event* and return the handler's reply.

        :raises ReplyError: the handler raised, refused or is not there; with its status.
        :raises ReplyTimeout: it gave no reply in ``CHSK_REPLY_TIMEOUT`` seconds.
        """
        reply, _, third = self._post(event, True)
        if reply == s.ERROR:
            raise ReplyError(third["message"], third["status"])
        if reply in (s.TIMEOUT, s.CLOSED) and isinstance(reply, Keyword):
            raise ReplyTimeout(f"{event[0]}: {reply}")
        return reply

    def send(self, event: Any) -> None:
        """Send *event*; returns when its handlers are done."""
        self._post(event, None)
        self._settle()

    def close(self) -> None:
        """Leave, without a grace."""
        server = self._state.running()
        if server is not None:
            server.hub.run(server.close, self.uid, self.client_id, s.NORMAL)
            self._settle()
        self.closed = True

    def __enter__(self) -> ChskTestClient:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def _settle(self) -> None:
        server = self._state.running()
        if server is not None and server.dispatcher.idle().wait(SETTLE) is None:
            raise UsageError(f"handlers still run after {SETTLE:g} s")

    def _poll(self) -> list[Any]:
        self._number += 1
        value, _, third = self._read(
            self._client.get(
                self._state.config.path,
                query_string={
                    **self._base,
                    "cursor": self._cursor,
                    "n": str(self._number),
                },
                headers=self._headers,
                environ_overrides={TEST_CLIENT: True},
            )
        )
        if isinstance(third, str):
            epoch, _, offsets = third.partition(":")
            self._cursor = f"{epoch}:{sum(int(offset) for offset in offsets.split(','))}"
        return value if type(value) is list and type(value[0]) is list else []

    def _get(self, more: dict[str, str]) -> list[Any]:
        response = self._client.get(
            self._state.config.path,
            query_string={**self._base, **more},
            headers=self._headers,
            environ_overrides={TEST_CLIENT: True},
        )
        handshake: list[Any] = self._read(response)[0]
        return handshake

    def _post(self, event: Any, cb: Any) -> tuple[Any, Any, Any]:
        id, data = assert_event(event)
        message = self._composer.message([id, data], cb)
        response = self._client.post(
            self._state.config.path,
            data={**self._base, "ppstr": message},
            headers=self._headers,
            environ_overrides={TEST_CLIENT: True},
        )
        return self._read(response)

    def _read(self, response: Any) -> tuple[Any, Any, Any]:
        if response.status_code != 200:
            raise Refusal(response.status_code, response.get_data(as_text=True).strip())
        return self._composer.read(response.get_data(as_text=True))


def make_client(
    app: Flask, flask_client: FlaskClient | None = None, uid: Any = None
) -> ChskTestClient:
    """A test client of *app*'s channel socket."""
    return ChskTestClient(app.extensions["chsk"], flask_client, uid)


if pytest is not None:

    @pytest.fixture
    def chsk_client(app: Flask) -> Iterator[Callable[..., ChskTestClient]]:
        """Makes clients of the ``app`` fixture's channel socket; closes them in the end."""
        clients: list[ChskTestClient] = []

        def make(flask_client: FlaskClient | None = None, uid: Any = None) -> ChskTestClient:
            client = make_client(app, flask_client, uid)
            clients.append(client)
            return client

        yield make
        for client in clients:
            client.close()

"""For your own tests: a client in process, without a port and without sleeping.

Everything is real but the network: requests go through your application's views, checks,
handlers and the broker, by way of Flask's test client.

In ``conftest.py``: ``pytest_plugins = ["flask_chsk.testing"]``, and an ``app`` fixture. Then::

    def test_say(chsk_client):
        ann, bob = chsk_client(uid="ann"), chsk_client(uid="bob")
        assert ann.request(["chat/say", {"text": "hi"}]) == {"ok": True}
        assert ["chat/said", {"text": "hi"}] in bob.received

A client that answers ``chsk.ask``, while the test, or a view that it calls, waits for the answer::

    def test_delete(chsk_client, client):
        ann = chsk_client(uid="ann")

        @ann.on("page/confirm")
        def confirm(ev):
            return ev.data["what"] == "order 7"

        assert client.post("/orders/7/delete").status_code == 204
"""

from __future__ import annotations

import secrets
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from flask import Flask
from flask.testing import FlaskClient

from .errors import ChskError, ConfigError, ReplyError, ReplyTimeout, UsageError
from .logs import logger
from .plain import plain
from .protocol import session as s
from .protocol.event import Event, assert_event, assert_whole, is_event_id
from .security import RESUME_HEADER, SECRET_HEADER
from .state import State
from .values import Keyword
from .web.hooks import CSRF_SESSION_KEY
from .web.views import TEST_CLIENT

try:
    import pytest
except ImportError:  # the client works without it
    pytest = None  # type: ignore[assignment]

log = logger(__name__)

LOOK = 0.01  # seconds between looks whether something waits for a client with handlers
ALIVE = 1.0  # seconds after which such a client polls, so that it is not taken for gone
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
    :param headers: sent with each request, such as ``{"Authorization": "Bearer …"}``.
    :param cursor: of a page, as ``chsk.page_cursor()`` returned it in a view.
    :raises Refusal: where the handshake is refused.
    """

    def __init__(
        self,
        state: State,
        flask_client: FlaskClient | None = None,
        uid: Any = None,
        headers: Mapping[str, str] | None = None,
        cursor: str | None = None,
    ) -> None:
        self._state = state
        self._handlers: dict[str, Callable[[Event], Any]] = {}
        self._answering: threading.Thread | None = None
        self._polling = threading.RLock()
        self._cookie: str | None = None  # of the latest request
        self._client = state.app.test_client() if flask_client is None else flask_client
        self._composer = state.composer("edn", state.config)
        self._received: list[list[Any]] = []
        self._base = {"client-id": secrets.token_urlsafe(12), "packer": "edn", "v": "1"}
        self._cursor = ""
        self._headers = {**(headers or {}), SECRET_HEADER: secrets.token_urlsafe(16)}
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
        body = self._get({"handshake?": "1", "cursor": cursor or ""})[1]
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
        while not self.closed and self._take(self._client):
            pass
        return self._received

    def on(self, id: str, fn: Callable[[Event], Any] | None = None) -> Any:
        """Call a function with each event of *id*, as the pages' clients do; a decorator.

        It gets the event, with ``id`` and ``data``, in a thread of its own. What it returns answers
        ``chsk.ask``; what it raises is the error of that. ``"*"``: all other ids.
        """
        if fn is None:
            return lambda fn: self.on(id, fn) or fn
        if id != "*" and not is_event_id(id):
            raise ConfigError(f'an event id is namespaced, such as "page/confirm", not {id!r}')
        self._handlers[id] = plain(fn, f'on("{id}")', takes="ev")
        if self._answering is None:
            self._answering = threading.Thread(target=_answer, args=(weakref.ref(self),))
            self._answering.daemon = True
            self._answering.start()
        return None

    def request(self, event: Any, *more: NoReturn) -> Any:
        """Send *event* and return the handler's reply.

        :raises ReplyError: the handler raised, refused or is not there; with its status.
        :raises ReplyTimeout: it gave no reply in ``CHSK_REPLY_TIMEOUT`` seconds.
        """
        assert_whole("client.request({})", event, more)
        reply, _, third = self._post(event, True)
        if reply == s.ERROR:
            raise ReplyError(third["message"], third["status"])
        if reply in (s.TIMEOUT, s.CLOSED) and isinstance(reply, Keyword):
            raise ReplyTimeout(f"{event[0]}: {reply}")
        return reply

    def send(self, event: Any, *more: NoReturn) -> None:
        """Send *event*; returns when its handlers are done."""
        assert_whole("client.send({})", event, more)
        self._post(event, None)
        self._settle()

    def close(self) -> None:
        """Leave, without a grace."""
        server = self._state.running()
        if server is not None:
            server.hub.run(server.clients.close, self.uid, self.client_id, s.NORMAL)
            self._settle()
        self.closed = True
        if self._answering not in (None, threading.current_thread()):
            self._answering.join(SETTLE)

    def __enter__(self) -> ChskTestClient:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def _settle(self) -> None:
        server = self._state.running()
        until = time.monotonic() + SETTLE
        while server is not None and not server.hub.run(server.at_rest):
            if time.monotonic() > until:
                raise UsageError(f"handlers still run after {SETTLE:g} s")
            server.hub.waiter_here().wait(0.001)

    def _take(self, client: FlaskClient) -> bool:
        """Poll once, and handle what came; whether something did."""
        with self._polling:
            pushes = self._poll(client)
            events = [Event(event[0], event[1] if len(event) > 1 else None) for event in pushes]
            asked = [event for event in events if event.id == s.ASK]
            self._received += [[*event] for event in events if event.id != s.ASK]
            self.closed |= any(event.id == s.CLOSE for event in events)
        for event in events:
            fn = self._handlers.get(event.id) or self._handlers.get("*")
            if fn is not None and event not in asked:
                fn(event)
        for _, (id, asks) in asked:
            self._post([s.ANSWER, [id, *self._answer(*asks)]], None, client)
        return bool(pushes)

    def _answer(self, id: str, data: Any = None) -> list[Any]:
        """The answer to an ask: ``[value]``, or ``[None, error]``."""
        fn = self._handlers.get(id) or self._handlers.get("*")
        if fn is None:
            return [None, f'no handler for {id}: add @client.on("{id}")']
        try:
            return [fn(Event(Keyword(id), data))]
        except Exception as error:
            return [None, str(error)]

    def _waits(self) -> bool:
        """Whether something waits for the next poll."""
        server = self._state.running()
        known = None if server is None else server.registry.get(self.uid, self.client_id)
        return known is not None and (known.session.needs_replay or bool(known.session.outbox))

    def _poll(self, client: FlaskClient) -> list[Any]:
        self._number += 1
        value, _, third = self._read(
            client.get(
                self._state.config.path,
                query_string={
                    **self._base,
                    "cursor": self._cursor,
                    "n": str(self._number),
                },
                headers=self._sent(client),
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

    def _post(self, event: Any, cb: Any, client: FlaskClient | None = None) -> tuple[Any, Any, Any]:
        id, data = assert_event(event)
        message = self._composer.message([id, data], cb)
        client = client or self._client
        response = client.post(
            self._state.config.path,
            data={**self._base, "ppstr": message},
            headers=self._sent(client),
            environ_overrides={TEST_CLIENT: True},
        )
        return self._read(response)

    def _sent(self, client: FlaskClient) -> dict[str, str]:
        if client is self._client or not self._cookie:
            return self._headers
        return {**self._headers, "Cookie": self._cookie}

    def _read(self, response: Any) -> tuple[Any, Any, Any]:
        self._cookie = response.request.headers.get("Cookie")
        if response.status_code != 200:
            raise Refusal(response.status_code, response.get_data(as_text=True).strip())
        return self._composer.read(response.get_data(as_text=True))


def _answer(client_ref: weakref.ref[ChskTestClient]) -> None:
    """In a thread: handle what comes for a client, while the test waits for something."""
    wait = threading.Event().wait
    flask_client: FlaskClient | None = None
    polled = time.monotonic()
    while True:
        client = client_ref()
        if client is None or client.closed:
            return
        if client._waits() or time.monotonic() - polled > ALIVE:
            polled = time.monotonic()
            # One of its own: Flask's serves one thread.
            flask_client = flask_client or client._state.app.test_client(use_cookies=False)
            try:
                client._take(flask_client)
            except Exception:
                log.exception("error in a handler of the test client of uid %r", client.uid)
        del client
        wait(LOOK)


def make_client(
    app: Flask,
    flask_client: FlaskClient | None = None,
    uid: Any = None,
    headers: Mapping[str, str] | None = None,
    cursor: str | None = None,
) -> ChskTestClient:
    """A test client of *app*'s channel socket."""
    return ChskTestClient(app.extensions["chsk"], flask_client, uid, headers, cursor)


if pytest is not None:

    @pytest.fixture
    def chsk_client(app: Flask) -> Iterator[Callable[..., ChskTestClient]]:
        """Makes clients of the ``app`` fixture's channel socket; closes them in the end."""
        clients: list[ChskTestClient] = []

        def make(
            flask_client: FlaskClient | None = None,
            uid: Any = None,
            headers: Mapping[str, str] | None = None,
            cursor: str | None = None,
        ) -> ChskTestClient:
            client = make_client(app, flask_client, uid, headers, cursor)
            clients.append(client)
            return client

        yield make
        for client in clients:
            client.close()

"""What stands around a transport in its unit tests: HTTP, threads, an owner."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest
from urllib3.connection import HTTPConnection

from flask_chsk.client import ChannelSocket, engine
from flask_chsk.client.endpoint import Endpoint
from flask_chsk.client.http_client import Answer, HttpClient, NoAnswer
from flask_chsk.client.link import Link, LinkClosed, Outgoing
from flask_chsk.client.options import Credentials
from flask_chsk.client.policy import Options
from flask_chsk.client.session import ClientSession
from flask_chsk.client.waiting import ThreadGroup
from flask_chsk.packers import make
from flask_chsk.protocol.wire import WIRES, Composer

URL = "http://example.org/chsk"
PONG = '["pong" "ping"]'
HANDSHAKE = '[[:chsk/handshake ["ann" nil nil {:cursor "e1:1" :recovered nil :server "x"}]] nil]'


class Inline(ThreadGroup):
    """Runs what it starts at once, in the caller."""

    def start(self, name: str, fn: Callable[[], object]) -> None:
        fn()


class Scripted(HttpClient):
    """Answers requests with what a test says, in turn; an exception is raised."""

    def __init__(self, *answers: Answer | NoAnswer) -> None:
        super().__init__()
        self.answers = list(answers)
        self.asked: list[tuple[str, dict[str, str], float]] = []  # method, parameters, timeout

    def request(self, method: str, url: str, **how: Any) -> Answer:
        query = urlsplit(url).query
        if isinstance(how.get("body"), bytes) and "binary%3F" not in query:
            query += "&" + how["body"].decode()
        params = {name: values[-1] for name, values in parse_qs(query).items()}
        self.asked.append((method, params, how["timeout"]))
        answer = self.answers.pop(0)
        if isinstance(answer, NoAnswer):
            raise answer
        if how.get("begun") is not None and answer.status == 200:
            how["begun"]()
        return answer


class FarEnd:
    """The servers of all connections that are made: each says what a test wrote, in turn.

    Connections are pairs of sockets. An answer is said when the client begins to wait for it; None:
    nothing is said. *greeting*: what is there when a connection is made.
    """

    def __init__(self, *answers: bytes | None, greeting: bytes = b"") -> None:
        self.answers = list(answers)
        self.greeting = greeting
        self.connected: list[tuple[str, int]] = []  # each connection's host and port
        self.socks: list[socket.socket] = []
        far_end = self

        class Connection(HTTPConnection):
            def connect(self) -> None:
                self.sock, self.far = socket.socketpair()
                self.far.settimeout(60)
                self.far.sendall(far_end.greeting)
                far_end.connected.append((self.host, self.port))
                far_end.socks.append(self.far)

            def getresponse(self) -> Any:
                if answer := far_end.answers.pop(0):
                    self.far.sendall(answer)
                return super().getresponse()

        self.Connection = Connection

    def heard(self, number: int = -1) -> bytes:
        """What has arrived over a connection, until now."""
        data, sock = b"", self.socks[number]
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while more := sock.recv(65_536):
                data += more
        sock.settimeout(60)
        return data

    def close(self) -> None:
        for sock in self.socks:
            sock.close()


class Noted:
    """An owner that notes what transports report."""

    def __init__(self, words: dict[str, str] | None = None) -> None:
        self.told: list[Any] = []
        self.words = words or {}  # of messages
        self.polls = True

    def opened(self, link: Link) -> None:
        self.told.append("opened")

    def received(self, link: Link, data: Any) -> str | None:
        self.told.append(data)
        return self.words.get(data)

    def heard(self, link: Link) -> None:
        self.told.append("heard")

    def closed(self, link: Link, how: LinkClosed) -> None:
        self.told.append(how)

    def finished(self, transport: Any) -> None:
        self.told.append("finished")

    def may_poll(self) -> bool:
        return self.polls

    def post_answered(self, outgoing: Outgoing, data: Any) -> None:
        self.told.append((outgoing.name, data))

    def post_interrupted(self, outgoing: Outgoing) -> None:
        self.told.append((outgoing.name, "interrupted"))

    def post_failed(self, outgoing: Outgoing, reply: Any, details: Any = None) -> None:
        self.told.append((outgoing.name, reply, details))


class Bench:
    """One polling link, and all that is around it."""

    def __init__(self, *answers: Answer | NoAnswer, packer: str = "edn", **given: Any) -> None:
        self.session = ClientSession(
            Composer(make(packer), WIRES["1.21"]),
            Options(),
            random=lambda: 0.5,
            new_id=lambda: "id0",
        )
        self.http = Scripted(*answers)
        self.threads = Inline()
        self.lock = threading.RLock()
        credentials = Credentials(self.threads, given.pop("csrf_token", None), None)
        self.endpoint = Endpoint(
            "http://example.org/chsk",
            self.session,
            credentials,
            self.http,
            self.lock,
            25.0,
            given.pop("chsk_url", None),
            *(None, None, None),
        )
        self.owner = Noted(**given)
        self.link = Link("ajax", None)

    @property
    def parts(self) -> tuple[Any, ...]:
        """What a transport is made of."""
        return self.owner, self.link, self.endpoint, self.threads, self.lock


class NotedLink:
    """A transport that notes what it is told, and whether the lock was held."""

    made: ClassVar[list[NotedLink]] = []

    @classmethod
    def take_the_place_of_all(cls, monkeypatch: pytest.MonkeyPatch) -> None:
        """Clients that are made from now on have no other links."""
        monkeypatch.setattr(engine, "WebSocket", cls)
        monkeypatch.setattr(engine, "Polling", cls)
        cls.made = []

    def __init__(self, owner: Any, link: Link, endpoint: Any, threads: Any, lock: Any, *more: Any):
        self.link = link
        self.calls: list[Any] = []
        self.takes = True
        self._lock = lock
        NotedLink.made.append(self)

    def _note(self, call: Any) -> None:
        self.calls.append((call, self._held()))

    def _held(self) -> bool:
        """Whether this thread holds the lock; the clock's thread may hold it for a moment, too."""
        return bool(self._lock._is_owned())

    def start(self) -> None:
        self._note("start")

    def take(self, outgoing: Outgoing) -> bool:
        self._note(("take", outgoing.name))
        return self.takes

    def end(self, code: int) -> None:
        self._note(("end", code))

    def flush(self) -> None:
        self._note("flush")

    def restart(self) -> None:
        self._note("restart")

    def hurry(self) -> None:
        self._note("hurry")

    def cut(self) -> None:
        self._note("cut")

    def taken(self) -> list[Any]:
        calls, self.calls = self.calls, []
        return calls


def confirm(chsk: ChannelSocket) -> NotedLink:
    """Have the link on trial confirmed."""
    transport = NotedLink.made[-1]
    owner = chsk._engine
    owner.opened(transport.link)
    owner.received(transport.link, HANDSHAKE)
    owner.received(transport.link, PONG)
    assert chsk.state["open"]
    transport.calls.clear()
    return transport

"""What stands for Flask: requests become openings, as in ``web/views.py``, and go to the server.

The checks of headers are left out; what the server is asked, and in which order, is the same. A
request waits where an application may block: between "who is asked for" and who it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from flask_chsk import security
from flask_chsk.errors import Refused
from flask_chsk.packers import make
from flask_chsk.protocol.session import read_sized
from flask_chsk.protocol.wire import WIRES, Composer
from flask_chsk.server.connection import ANEW, Opening
from flask_chsk.server.worker import Worker
from flask_chsk.transports.link import Link
from flask_chsk.transports.longpoll import body

from .network import Answer, Call, Wire
from .runtime import SimHub

HEAD = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
KEY = b"the key of resume tokens"


@dataclass
class Request:
    """What a client's request says; *uid* is the user of its cookie when it was made."""

    uid: str | None
    client_id: str
    secret: str
    packer: str = "edn"
    resume: str | None = None
    cursor: str | None = None
    number: int | None = None
    handshake: bool = False
    data: str | bytes | None = None


class Front:
    """The views of one worker."""

    def __init__(self, hub: SimHub, server: Worker, dawdle: Callable[[], float]) -> None:
        """:param dawdle: seconds that the application takes for one step of a request."""
        self.server = server
        self.hub = self._hub = hub
        self._dawdle = dawdle
        self._composers: dict[str, Composer] = {}

    def composer(self, packer: str) -> Composer:
        if packer not in self._composers:
            self._composers[packer] = Composer(make(packer), WIRES["1.21"])
        return self._composers[packer]

    def websocket(self, request: Request, wire: Callable[[], Wire], call: Call) -> Answer:
        """*wire* makes the connection that the request's becomes."""
        server = self.server
        try:
            opening = self._open(request)
            entered = server.clients.enter(opening, "ws")
        except Refused as refused:
            return _refusal(refused)
        if entered is None:
            return _refusal(Refused(409, "this client has a newer connection", retry_after=1))
        self._wait()
        link = Link(self._hub.loop, wire())  # type: ignore[arg-type]
        link.write(HEAD)
        try:
            server.sockets.open(entered, link, b"")
        except BaseException:
            link.close()
            raise
        return Answer(101)

    def poll(self, request: Request, call: Call) -> Answer | Iterable[bytes]:
        server = self.server
        try:
            opening = self._open(request)
            answer = server.polls.get(opening, request.handshake)
        except Refused as refused:
            return _refusal(refused)
        if isinstance(answer, bytes):
            return Answer(200, answer)
        sock: Any = call
        return server.polls.parked(opening, answer, sock)

    def post(self, request: Request, call: Call) -> Answer | Iterable[bytes]:
        server = self.server
        assert request.data is not None
        try:
            opening = self._open(request)
            server.clients.check_may_act(opening)
            incoming, size = read_sized(opening.composer, request.data)
            answer = self._hub.run(server.receiver.posted, opening, incoming, size)
        except Refused as refused:
            return _refusal(refused)
        return Answer(200, body(answer)) if isinstance(answer, str | bytes) else answer

    def _open(self, request: Request) -> Opening:
        server = self.server
        server.ready()
        asked = server.clients.asked()
        self._wait()
        uid, client_id = request.uid, request.client_id
        digest = security.digest_of_secret(request.secret)
        began = security.read_resume_token([KEY], request.resume, uid, client_id, digest)
        return Opening(
            uid=uid,
            client_id=client_id,
            composer=self.composer(request.packer),
            v1=True,
            digest=digest,
            cursor=request.cursor,
            trusted=began is not None,
            began=began or ANEW,
            asked=asked,
            resume=partial(security.resume_token, KEY, uid, client_id, digest),
            number=request.number,
        )

    def _wait(self) -> None:
        seconds = self._dawdle()
        if seconds:
            self._hub.sleep(seconds)


class NoFront:
    """A proxy that finds no worker."""

    def __init__(self, hub: SimHub) -> None:
        self.hub = hub

    def serve(self, *args: object) -> Answer:
        return Answer(502, b"no worker")

    websocket = poll = post = serve


def _refusal(refused: Refused) -> Answer:
    return Answer(refused.status, str(refused).encode(), refused.retry_after)

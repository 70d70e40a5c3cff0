"""An application whose ``/echo`` sends back what it gets: raw bytes behind the 101, no frames."""

from __future__ import annotations

from flask import Flask, request, session
from werkzeug.wrappers import Response

from flask_chsk.errors import Refused
from flask_chsk.hub import Hub
from flask_chsk.transports.link import Link
from flask_chsk.transports.upgrade import VERSION, SwitchProtocols, check

app = Flask(__name__)
app.secret_key = "for tests"
hubs: list[Hub] = []
opened: list[Echo] = []  # those that are still open
popped: list[None] = []  # requests of /echo whose context has ended


class Echo:
    """Sends back what it receives, and does what some of it says."""

    def __init__(self, link: Link) -> None:
        self.link = link
        opened.append(self)

    def data_received(self, data: bytes) -> None:
        if data == b"close":
            self.link.write(b"bye")
            self.link.close_when_flushed(5)
        elif not self.link.write(data):
            self.link.pause()

    def link_writable(self) -> None:
        self.link.resume()

    def link_closed(self, error: Exception | None) -> None:
        opened.remove(self)


def open_echo(link: Link, data: bytes) -> None:
    link.start(Echo(link), data)


@app.get("/echo", websocket=True)
def echo() -> Response | tuple[str, int, list[tuple[str, str]]]:
    try:
        key = check(request.environ)
    except Refused as refusal:
        return str(refusal), refusal.status, [VERSION]
    if not hubs:
        hubs.append(Hub())
    session["seen"] = True  # a cookie, which must not leave with the 101
    return SwitchProtocols(open_echo, hubs[0], key, [("X-Chsk-Test", "yes")])


@app.teardown_request
def context_ended(error: BaseException | None) -> None:
    if request.path == "/echo":
        popped.append(None)


@app.get("/open")
def number_open() -> dict[str, int]:
    return {"open": len(opened), "popped": len(popped)}

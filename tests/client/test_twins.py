"""One table of scenarios, run on the Python client and on chsk.js: they do and tell the same.

Each step runs on both, then what both told since (states, handshakes, pushes, gaps) is compared,
in order.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any
from uuid import uuid4

import pytest

from flask_chsk.client import ChannelClosed, ChannelSocket, ReplyError, ReplyTimeout
from tests.client.conftest import TestServer
from tests.client.servers import Closing, Polled, Saying
from tests.process import ROOT, eventually, program

SCRIPT = ROOT / "flask_chsk/static/chsk.js"
OVER = [*product(("ws", "ajax", "auto"), ("edn", "json"))]
Step = tuple[Any, ...]


class Python:
    """The Python client, step by step."""

    def __init__(self, url: str, kind: str, packer: str, params: dict[str, str]) -> None:
        self.notes: list[Any] = []
        self.chsk = ChannelSocket(
            url, kind, packer, params=params, backoff=lambda attempt: 0.05, connect=False
        )
        self.chsk.watch(lambda old, new: self._note(new))
        for id in ("chsk/handshake", "chsk/gap", "test/pushed", "chsk/bad-package"):
            self.chsk.on(id, lambda ev: self.notes.append([ev.id, ev.data]))
        self.chsk.on("test/question", lambda ev: {"got": ev.data})
        self.chsk.connect()

    def _note(self, state: Any) -> None:
        close = state["last_close"]
        told = [close["reason"], close.get("code"), close.get("message")] if close else None
        names = ("status", "type", "open", "ever_opened", "first_open")
        note = [*(state[name] for name in names), told]
        if [note] != self.notes[-1:]:
            self.notes.append(note)

    def do(self, step: str, *args: Any) -> Any:
        if step == "until":
            return eventually(lambda: self.chsk.state["status"] == args[0]) and None
        if step == "heard":
            return eventually(lambda: len(self._pushed()) >= args[0]) and None
        if step == "told":
            time.sleep(0.05)  # handlers run beside us
            told, self.notes[:] = self.notes[:], []
            return json.loads(json.dumps(told))
        if step == "break":
            return self.chsk.break_connection()
        try:
            if step == "request":
                return self.chsk.request(args[0], args[1] / 1000)
            return getattr(self.chsk, step)(*args)
        except (ReplyTimeout, ChannelClosed) as error:
            return {"error": type(error).__name__, "status": None}
        except ReplyError as error:
            return {"error": "ReplyError", "status": error.status}

    def _pushed(self) -> list[Any]:
        return [note for note in self.notes if note[0] == "test/pushed"]

    def end(self) -> None:
        self.chsk.destroy()


class JavaScript:
    """chsk.js under node, step by step."""

    def __init__(self, url: str, kind: str, packer: str, params: dict[str, str]) -> None:
        node = [program("node"), "--no-warnings", "--experimental-websocket"]
        command = [*node, str(ROOT / "tests/client/twin.mjs"), str(SCRIPT), url, kind, packer]
        self._process = subprocess.Popen(
            [*command, json.dumps(params)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def do(self, *step: Any) -> Any:
        assert self._process.stdin and self._process.stdout
        print(json.dumps(step), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        assert line, "the script ended"
        return json.loads(line)

    def end(self) -> None:
        self._process.communicate(timeout=10)


class Twins:
    """Both clients, each with a user of its own."""

    def __init__(self, url: str, kind: str, packer: str) -> None:
        self.uids = [uuid4().hex, uuid4().hex]
        kinds = (Python, JavaScript)
        self.both = [
            make(url, kind, packer, {"uid": uid})
            for make, uid in zip(kinds, self.uids, strict=True)
        ]

    def do(self, *step: Any) -> Any:
        """What the step gave on both, which has to be the same."""
        python, javascript = (one.do(*step) for one in self.both)
        assert python == javascript, step
        return python

    def told(self) -> list[Any]:
        """What both told since, uids left out."""
        texts = [json.dumps(one.do("told")) for one in self.both]
        python, javascript = (
            json.loads(text.replace(uid, "UID")) for text, uid in zip(texts, self.uids, strict=True)
        )
        assert python == javascript
        assert isinstance(python, list)
        return python

    def end(self) -> None:
        for one in self.both:
            one.end()


@pytest.fixture
def twins() -> Iterator[Callable[..., Twins]]:
    made: list[Twins] = []

    def twins(url: str, kind: str, packer: str = "edn") -> Twins:
        made.append(Twins(url, kind, packer))
        return made[-1]

    yield twins
    for one in made:
        one.end()


@pytest.mark.parametrize(("kind", "packer"), OVER)
def test_a_life_is_told_the_same(
    twins: Callable[..., Twins], server: TestServer, kind: str, packer: str
) -> None:
    pair = twins(server.url, kind, packer)
    pair.do("until", "open")
    pair.told()
    assert pair.do("request", ["test/echo", {"a": [1, None, "é"]}], 5000) == {"a": [1, None, "é"]}
    assert pair.do("request", ["test/never"], 200) == {"error": "ReplyTimeout", "status": None}
    assert pair.do("request", ["test/fail"], 5000) == {"error": "ReplyError", "status": 418}
    assert pair.do("request", ["test/nobody"], 5000) == {"error": "ReplyError", "status": 404}
    for uid in pair.uids:
        assert server.post(f"ask/{uid}/question") == {"answer": {"got": {"n": 1}}}
    pair.do("break")
    pair.do("until", "open")
    pair.do("reconnect")
    pair.do("until", "open")
    assert pair.told() != []
    pair.do("disconnect")
    assert pair.do("request", ["test/echo", 1], 5000) == {"error": "ChannelClosed", "status": None}
    assert pair.do("send", ["test/echo", 1]) is False
    pair.do("connect")
    pair.do("until", "open")
    for uid in pair.uids:
        server.post(f"close/{uid}/1")
    pair.do("until", "waiting")
    pair.do("until", "open")
    for uid in pair.uids:
        server.post(f"close/{uid}/0")
    pair.do("until", "closed")
    pair.do("destroy")
    assert pair.told()[-1][0] == "destroyed"


@pytest.mark.parametrize("kind", ["ws", "ajax"])
@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_a_refusal_is_told_the_same(twins: Callable[..., Twins], kind: str, status: int) -> None:
    head = {"Content-Type": "text/plain", **({"Retry-After": "100"} if status == 503 else {})}
    with Polled(lambda method, params: (status, head, "no\n")) as server:
        pair = twins(server.url, kind)
        pair.do("until", "refused" if status < 500 and kind == "ajax" else "waiting")
        for one in pair.both:
            one.end()


@pytest.mark.parametrize("code", [1000, 1011, 1012, 1013, 4000, 4001, 4002, 4003, 4004, 4005])
def test_a_close_code_is_told_the_same(twins: Callable[..., Twins], code: int) -> None:
    with Closing(code, "spread=100" if code == 1012 else "because") as server:
        pair = twins(server.url, "ws")
        pair.do("until", "closed" if code in (1000, 4001, 4005) else "waiting")
        pair.do("destroy")
        pair.told()


def test_a_captive_portal_is_told_the_same(twins: Callable[..., Twins]) -> None:
    portal = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>"
    with Saying(portal) as server:
        pair = twins(server.url, "ajax")
        pair.do("until", "waiting")
        pair.do("destroy")
        pair.told()

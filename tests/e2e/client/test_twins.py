"""One table of scenarios, run on the Python client and on chsk.js: they do and tell the same.

Each step runs on both, then what both told since (states, handshakes, pushes, gaps) is compared,
in order.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from flask_chsk.client import ChannelClosed, ChannelSocket, ReplyError, ReplyTimeout
from tests.e2e.client.conftest import APP, TestServer
from tests.e2e.client.servers import Closing, Polled, Saying
from tests.e2e.proxy import Proxy
from tests.process import ROOT, WAIT, eventually, program
from tests.servers import running

SCRIPT = ROOT / "flask_chsk/static/chsk.js"
OVER = [*product(("ws", "ajax", "auto"), ("edn", "json", "transit", "msgpack"))]
HANDSHAKE = '[[:chsk/handshake ["ann" nil nil {:cursor "e1:1" :recovered nil :server "x"}]] nil]'
Step = tuple[Any, ...]


class Python:
    """The Python client, step by step."""

    def __init__(self, url: str, kind: str, packer: str, wait: float, uid: str) -> None:
        self.notes: list[Any] = []
        self.statuses = [""]  # that no step has waited for yet, behind the last one
        self.chsk = ChannelSocket(
            url, kind, packer, params={"uid": uid}, backoff=lambda attempt: wait, connect=False
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
        if note[0] != self.statuses[-1]:
            self.statuses.append(note[0])
        if [note] != self.notes[-1:]:
            self.notes.append(note)

    def do(self, step: str, *args: Any) -> Any:
        if step == "until":
            return eventually(lambda: self._was(args[0])) and None
        if step == "over":
            states = [True, args[0]]
            return (
                eventually(lambda: [*map(self.chsk.state.get, ("open", "type"))] == states) and None
            )
        if step == "heard":
            return eventually(lambda: len(self._pushed()) >= args[0]) and None
        if step == "told":
            told, self.notes[:] = self.notes[:], []
            return json.loads(json.dumps(told))
        if step == "break":
            return self.chsk.break_connection()
        if step == "late":
            at = self.chsk.state["udt_next_reconnect"]
            return at is not None and at / 1000 - time.time() > 50
        try:
            if step == "request":
                return self.chsk.request(args[0], args[1] / 1000)
            return getattr(self.chsk, step)(*args)
        except (ReplyTimeout, ChannelClosed) as error:
            return {"error": type(error).__name__, "status": None}
        except ReplyError as error:
            return {"error": "ReplyError", "status": error.status}

    def _was(self, status: str) -> bool:
        """Whether it was so since the last step that waited: "waiting" may be short."""
        if status not in self.statuses[1:]:
            return False
        del self.statuses[: self.statuses.index(status, 1)]
        return True

    def _pushed(self) -> list[Any]:
        return [note for note in self.notes if note[0] == "test/pushed"]

    def end(self) -> None:
        self.chsk.destroy()


class JavaScript:
    """chsk.js under node, step by step."""

    def __init__(self, url: str, kind: str, packer: str, wait: float, uid: str) -> None:
        node = [program("node"), "--no-warnings", "--experimental-websocket"]
        command = [*node, str(ROOT / "tests/e2e/client/twin.mjs"), str(SCRIPT), url, kind, packer]
        self._process = subprocess.Popen(
            [*command, str(wait * 1000), uid],
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
        self._process.communicate(timeout=WAIT)


class Twins:
    """Both clients, each with a user of its own."""

    def __init__(self, url: str, kind: str, packer: str, wait: float) -> None:
        self.uids = [uuid4().hex, uuid4().hex]
        self.both = [
            make(url, kind, packer, wait, uid)
            for make, uid in zip((Python, JavaScript), self.uids, strict=True)
        ]

    def do(self, *step: Any) -> Any:
        """What the step gave on both, which has to be the same."""
        python, javascript = (one.do(*step) for one in self.both)
        assert python == javascript, step
        return python

    def told(self, messages: bool = True) -> list[Any]:
        """What both told since, which has to be the same: with "UID" for their users, and the
        *messages* of cuts, of which a browser has none."""
        told: list[list[Any]] = [[], []]

        def same() -> bool:  # handlers run beside us
            for so_far, one in zip(told, self.both, strict=True):
                so_far += one.do("told")
            return cleaned(0) == cleaned(1)

        def cleaned(which: int) -> list[Any]:
            text = json.dumps(told[which]).replace(self.uids[which], "UID")
            return self._cleaned(json.loads(text), messages)

        with suppress(TimeoutError):
            eventually(same)
        assert cleaned(0) == cleaned(1)
        return cleaned(0)

    def _cleaned(self, told: list[Any], messages: bool) -> list[Any]:
        notes: list[Any] = []
        last = None
        for note in told:
            if len(note) == 6:  # a state; only what is new: trials in vain fall when they will
                if note[5] and not messages:
                    del note[5][1:]
                if note == last:
                    continue
                last = note
            notes.append(note)
        return notes

    def end(self) -> None:
        for one in self.both:
            one.end()


@pytest.fixture
def twins() -> Iterator[Callable[..., Twins]]:
    """``twins(url, kind)``: a pair that waits for so long between tries that a test sees one."""
    made: list[Twins] = []

    def twins(url: str, kind: str, packer: str = "edn", wait: float = 60.0) -> Twins:
        made.append(Twins(url, kind, packer, wait))
        return made[-1]

    yield twins
    for one in made:
        one.end()


@pytest.mark.parametrize(("kind", "packer"), OVER)
def test_a_life_is_told_the_same(
    twins: Callable[..., Twins], server: TestServer, kind: str, packer: str
) -> None:
    pair = twins(server.url, kind, packer, wait=0.05)
    pair.do("until", "open")
    pair.told()
    assert pair.do("request", ["test/echo", {"a": [1, None, "é"]}], 30_000) == {"a": [1, None, "é"]}
    assert pair.do("request", ["test/never"], 200) == {"error": "ReplyTimeout", "status": None}
    assert pair.do("request", ["test/late", 0.2], 50) == {"error": "ReplyTimeout", "status": None}
    assert pair.do("request", ["test/late", 0.3], 30_000) == "late"  # its own, not the other's
    assert pair.do("request", ["test/fail"], 30_000) == {"error": "ReplyError", "status": 418}
    assert pair.do("request", ["test/nobody"], 30_000) == {"error": "ReplyError", "status": 404}
    for uid in pair.uids:
        assert server.post(f"ask/{uid}/question") == {"answer": {"got": {"n": 1}}}
        server.post(f"say/{uid}/3?first=0")
    pair.do("heard", 3)
    assert pair.told() == [["test/pushed", number] for number in range(3)]
    pair.do("break")
    for uid in pair.uids:
        server.post(f"say/{uid}/3?first=3")
    pair.do("until", "open")
    pair.do("heard", 3)
    told = pair.told()
    assert told[-3:] == [["test/pushed", number] for number in range(3, 6)]
    assert "chsk/gap" not in [note[0] for note in told]
    pair.do("reconnect")
    pair.do("until", "open")
    assert pair.told() != []
    pair.do("disconnect")
    assert pair.do("request", ["test/echo", 1], 30_000) == {
        "error": "ChannelClosed",
        "status": None,
    }
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


@pytest.mark.parametrize("kind", ["ws", "ajax", "auto"])
def test_a_restart_of_the_server_is_told_the_same(
    twins: Callable[..., Twins], tmp_path: Path, kind: str
) -> None:
    with Proxy() as proxy:
        with running("gunicorn-gevent", APP, tmp_path / "one") as first:
            proxy.backends = [first.port]
            pair = twins(f"{proxy.url}/chsk", kind)
            pair.do("until", "open")
            pair.told()
            first.stop(signal.SIGKILL)  # it does not say within how many seconds to come back
            pair.do("until", "waiting")
        with running("gunicorn-gevent", APP, tmp_path / "two") as second:
            proxy.backends = [second.port]
            pair.do("reconnect")
            pair.do("until", "open")
            told = pair.told(messages=False)
            assert [note[0] for note in told if note[0] != "open"] == [
                *("waiting", "connecting", "chsk/handshake", "chsk/gap")
            ]
            assert pair.do("request", ["test/echo", 1], 30_000) == 1


@pytest.mark.parametrize("kind", ["ws", "ajax"])
def test_a_request_waits_for_the_connection_the_same(
    twins: Callable[..., Twins], server: TestServer, kind: str
) -> None:
    with Proxy() as proxy:
        pair = twins(f"{proxy.url}/chsk", kind, wait=0.3)
        in_vain = pair.do("request", ["test/echo", 1], 200)
        assert in_vain == {"error": "ReplyTimeout", "status": None}
        assert pair.do("send", ["test/echo", 1]) is False
        proxy.backends = [server.port]
        assert pair.do("request", ["test/echo", 2], 30_000) == 2
        pair.do("break")
        assert pair.do("request", ["test/echo", 3], 30_000) == 3


def test_fallback_and_return_are_told_the_same(
    twins: Callable[..., Twins], server: TestServer
) -> None:
    with Proxy(server.port) as proxy:
        pair = twins(f"{proxy.url}/chsk", "auto", wait=0.05)
        pair.do("over", "ws")
        pair.told()
        proxy.upgrades = "refuse"
        pair.do("break")
        pair.do("over", "ajax")
        for uid in pair.uids:
            server.post(f"say/{uid}/3?first=0")
        pair.do("heard", 3)
        assert pair.do("request", ["test/echo", 1], 30_000) == 1
        proxy.upgrades = "pass"
        pair.do("over", "ws")  # soon: WebSockets have worked here
        for uid in pair.uids:
            server.post(f"say/{uid}/3?first=3")
        pair.do("heard", 6)
        told = pair.told(messages=False)
    assert [note[1] for note in told if note[0] == "test/pushed"] == [*range(6)]
    assert "chsk/gap" not in [note[0] for note in told]


def test_behind_an_upgrade_that_hangs_both_tell_the_same(
    twins: Callable[..., Twins], server: TestServer
) -> None:
    with Proxy(server.port, upgrades="hang") as proxy:
        pair = twins(f"{proxy.url}/chsk", "auto")
        pair.do("over", "ajax")
        assert pair.do("request", ["test/echo", 1], 30_000) == 1
        assert [note[0] for note in pair.told()] == ["connecting", "open", "chsk/handshake"]
        assert proxy.upgraded == 4  # each tries anew once its polls are open


def test_a_websocket_that_is_slow_is_preferred_by_both(
    twins: Callable[..., Twins], server: TestServer
) -> None:
    with Proxy(server.port, ws_delay=1.5) as proxy:
        pair = twins(f"{proxy.url}/chsk", "auto")
        pair.do("over", "ws")
        assert pair.do("request", ["test/echo", 1], 30_000) == 1
        assert [note[0] for note in pair.told()] == ["connecting", "open", "chsk/handshake"]
        assert proxy.upgraded == 2


def test_behind_a_proxy_that_cuts_websockets_both_do_the_same(
    twins: Callable[..., Twins], server: TestServer
) -> None:
    with Proxy(server.port, ws_life=0.3) as proxy:
        pair = twins(f"{proxy.url}/chsk", "auto", wait=0.05)
        pair.do("over", "ajax")
        assert pair.do("request", ["test/echo", 1], 30_000) == 1
        assert proxy.upgraded <= 4


# What no page may see of a WebSocket's refusal, JavaScript cannot tell: so not over "ws".
@pytest.mark.parametrize("kind", ["auto", "ajax"])
@pytest.mark.parametrize("status", [401, 403, 413, 429, 500, 503])
def test_a_refusal_is_told_the_same(twins: Callable[..., Twins], kind: str, status: int) -> None:
    later = {"Retry-After": "100"} if status in (429, 503) else {}
    head = {"Content-Type": "text/plain", **later}
    with Polled(lambda method, params: (status, head, "no\n")) as server:
        pair = twins(server.url, kind)
        pair.do("until", "refused" if status in (401, 403) else "waiting")
        if later:
            assert pair.do("late") is True
        pair.do("destroy")
        if kind == "ajax":
            pair.told()


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([(413, {}, "too large\n")], {"error": "ReplyError", "status": 413}),
        ([(400, {}, "no message\n")], {"error": "ReplyError", "status": 400}),
        ([(503, {"Retry-After": "0"}, ""), (200, {}, "[:ok nil]")], "ok"),
        ([(429, {"Retry-After": "0"}, ""), (200, {}, "[:ok nil]")], "ok"),
        ([(403, {}, ""), (200, {}, "[:ok nil]")], "ok"),
        ([(200, {}, "[:chsk/error nil]")], {"error": "ReplyError", "status": None}),
        ([(200, {}, "<html>")], {"error": "ReplyError", "status": None}),
    ],
)
def test_what_becomes_of_a_post_is_told_the_same(
    twins: Callable[..., Twins], answers: list[Any], expected: Any
) -> None:
    posts: Counter[str] = Counter()

    def answer(method: str, params: dict[str, str]) -> Any:
        if method == "GET":
            return 200, {}, HANDSHAKE if "handshake?" in params else "[:chsk/timeout nil]"
        posts[params["client-id"]] += 1
        return answers[posts[params["client-id"]] - 1]

    with Polled(answer) as server:
        pair = twins(server.url, "ajax")
        pair.do("until", "open")
        assert pair.do("request", ["a/b", 1], 30_000) == expected
        pair.do("destroy")
    assert sorted(posts.values()) == [len(answers)] * 2


@pytest.mark.parametrize(
    "code", [1000, 1002, 1003, 1007, 1009, 1011, 1012, 1013, 4000, 4001, 4002, 4003, 4004, 4005]
)
def test_a_close_code_is_told_the_same(twins: Callable[..., Twins], code: int) -> None:
    with Closing(code, "spread=100" if code == 1012 else "because") as server:
        pair = twins(server.url, "ws")
        pair.do("until", "closed" if code in (1000, 4001, 4005) else "waiting")
        pair.do("destroy")
        pair.told()


def test_a_token_that_expired_is_told_the_same(twins: Callable[..., Twins]) -> None:
    with Closing(4005, "expired") as server:
        pair = twins(server.url, "ws")
        pair.do("until", "waiting")
        pair.do("destroy")
        pair.told()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n[1]",
        b"SSH-2.0-OpenSSH\r\n",
        b"\0" * 1000,
        b"",
    ],
    ids=["a captive portal", "no message", "no HTTP", "noise", "nothing"],
)
@pytest.mark.parametrize("kind", ["ws", "ajax"])
def test_what_is_no_channel_socket_is_told_the_same(
    twins: Callable[..., Twins], kind: str, answer: bytes
) -> None:
    with Saying(answer) as server:
        pair = twins(server.url, kind)
        pair.do("until", "waiting")
        told = pair.told(messages=False)
    assert {note[0] for note in told if len(note) == 6} == {"connecting", "waiting"}


def test_a_silent_server_is_told_the_same(twins: Callable[..., Twins]) -> None:
    with Saying(None) as server:
        pair = twins(server.url, "ws")
        pair.do("until", "waiting")
        pair.do("destroy")

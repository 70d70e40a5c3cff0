"""A connection ends with its token, and goes on with a fresh one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from flask_chsk.client import ChannelSocket
from tests.e2e.client.conftest import TestServer
from tests.process import ROOT, WAIT, eventually, program
from tests.servers import running

SCRIPT = ROOT / "flask_chsk/static/chsk.js"
PAGE = ROOT / "tests/e2e/client/tokens.mjs"
LIFETIME = 3.0  # seconds: enough to connect on a busy machine


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestServer]:
    log = tmp_path_factory.mktemp("tokens") / "log"
    env = {"LIFETIME": str(LIFETIME)}
    with running("gunicorn-gevent", "tests.e2e.apps.tokens:app", log, env) as process:
        yield TestServer(process)
        assert process.tracebacks == 0, process.log


class Bot:
    """The Python client, with tokens that the application gives out."""

    def __init__(self, server: TestServer, kind: Any, uid: str) -> None:
        self.asked: list[str] = []
        self.closes: list[str] = []
        self.items: list[int] = []
        self.stale = False  # whether it shows its last token again and again
        self.server, self.uid = server, uid
        self.chsk = ChannelSocket(server.url, kind, auth=self.auth, connect=False)
        self.chsk.on("test/item", lambda ev: self.items.append(ev.data))
        self.chsk.watch(self.note)
        self.chsk.connect()
        self.chsk.wait_open()

    def auth(self) -> str:
        if self.stale:
            self.asked.append(self.asked[-1])
        else:
            form = urlencode({"name": self.uid}).encode()
            with urlopen(f"http://127.0.0.1:{self.server.port}/token", form, WAIT) as answer:
                self.asked.append(json.load(answer)["token"])
        return self.asked[-1]

    def note(self, old: Any, new: Any) -> None:
        if new["last_close"] not in (None, old["last_close"]):
            self.closes.append(new["last_close"]["reason"])


@pytest.fixture
def bot(server: TestServer) -> Iterator[Callable[..., Bot]]:
    bots: list[Bot] = []

    def bot(kind: str, uid: str) -> Bot:
        bots.append(Bot(server, kind, uid))
        return bots[-1]

    yield bot
    for one in bots:
        one.chsk.destroy()


@pytest.mark.parametrize("kind", ["ws", "ajax"])
def test_it_goes_on_with_a_fresh_token_and_misses_nothing(
    server: TestServer, bot: Callable[..., Bot], kind: str
) -> None:
    one = bot(kind, uid := f"on-{kind}")
    sent = 0

    def send_until_it_asks_again() -> bool:
        nonlocal sent
        assert server.post(f"send/{uid}/{sent}")["offset"] is not None
        sent += 1
        return len(one.asked) > 1

    eventually(send_until_it_asks_again)
    eventually(lambda: len(one.items) == sent)
    assert one.items == [*range(sent)]
    assert kind == "ajax" or "expired" in one.closes  # between two polls: 401
    assert server.post(f"presence/{uid}") == ["chsk/uidport-open"]
    assert one.chsk.request(["test/echo", 7], timeout=WAIT) == 7


def test_it_gives_up_where_no_fresh_token_comes(bot: Callable[..., Bot]) -> None:
    one = bot("ws", "off")
    one.stale = True
    eventually(lambda: one.chsk.state["status"] == "refused")
    assert one.chsk.state["last_close"]["status"] == 401
    assert one.asked.count(one.asked[-1]) == 3  # the one it had, after the close, after the 401


@pytest.mark.parametrize("kind", ["ws", "ajax"])
def test_a_page_goes_on_with_a_fresh_token_and_misses_nothing(
    server: TestServer, kind: str
) -> None:
    node = [program("node"), "--no-warnings", "--experimental-websocket"]
    site = f"http://127.0.0.1:{server.port}"
    command = [*node, str(PAGE), str(SCRIPT), site, kind, uid := f"page-{kind}"]
    page = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert page.stdout is not None
    heard: list[Any] = []
    sent = 0
    for line in page.stdout:
        heard.append(json.loads(line))
        if heard[-1] == ["open"]:
            server.post(f"send/{uid}/{sent}")
            sent += 1
        items = [what[1] for what in heard if what[0] == "item"]
        if sent == 2 and len(items) == 2:
            break
    page.communicate(timeout=WAIT)
    assert items == [0, 1]
    assert heard.count(["asked"]) >= 2
    assert kind == "ajax" or ["closed", "expired", 4005] in heard
    assert server.post(f"presence/{uid}") == ["chsk/uidport-open"]

"""Who may act for a client id: every request, by everybody, in every process, one answer.

A client stands at one worker; a request in its name comes to the same one, or to another that
shares its Redis.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable
from typing import Any

import pytest
import websocket

from flask_chsk.security import RESUME_HEADER, SECRET_HEADER
from tests.e2e.wire.conftest import Client, Wire
from tests.e2e.wire.test_refusals import ask
from tests.process import WAIT

KINDS = ("user", "anonymous, ours", "anonymous, Sente's")
SHOWN = ("its own", "another's", "none", "not v=1")
REQUESTS = ("websocket", "handshake", "poll", "post", "keyed post")


def expected(kind: str, shown: str) -> int:
    """The status of a request: 200 stands for 101, too."""
    if shown == "none":
        return 400
    if kind == "user" or shown == "its own":
        return 200
    if kind == "anonymous, Sente's":
        return 200 if shown == "not v=1" else 409
    return 409


@pytest.fixture(scope="module")
def alone(serve: Callable[..., Wire]) -> Wire:
    return serve(max_clients_per_uid=1000)


@pytest.fixture(scope="module")
def pair(serve: Callable[..., Wire], redis_url: str) -> tuple[Wire, Wire]:
    url = f"{redis_url}?prefix=identity{secrets.token_hex(4)}"
    config: dict[str, Any] = {"broker_url": url, "max_clients_per_uid": 1000}
    return serve(**config), serve(**config)


def stands(wire: Wire, kind: str, over: str) -> Client:
    """A client of this kind, open."""
    peer = wire.peer("ann" if kind == "user" else "", v="" if "Sente" in kind else "1")
    if over == "websocket":
        peer.open()
    else:
        peer.hello()
    return peer


def answered(wire: Wire, victim: Client, request: str, shown: str) -> tuple[int, str]:
    """A stranger's request in the name of *victim*, with all that a log of URLs tells."""
    params = {**victim.params, "cursor": victim.cursor, "v": "1"}
    headers = {RESUME_HEADER: victim.resume, SECRET_HEADER: victim.secret}
    if shown == "another's":
        headers[SECRET_HEADER] = secrets.token_urlsafe(16)
    elif shown == "none":
        del headers[SECRET_HEADER]
    elif shown == "not v=1":
        headers.clear()
        del params["v"]
    params = {name: value for name, value in params.items() if value}
    if request == "websocket":
        try:
            websocket.create_connection(
                f"ws://127.0.0.1:{wire.port}/chsk?{'&'.join(map('='.join, params.items()))}",
                timeout=WAIT,
                header=[f"{name}: {value}" for name, value in headers.items()],
            ).shutdown()
        except websocket.WebSocketBadStatusException as refused:
            return refused.status_code, ""
        return 200, ""
    if request in ("handshake", "poll"):
        if request == "handshake":
            params["handshake?"] = "1"
        else:
            wire.do("/send", to=params.get("uid", ""), count=1)  # so that no poll has to wait
        return ask(wire, "GET", params, headers)[:2]
    key = ' {:key "k"}' if request == "keyed post" else ""
    params["ppstr"] = f"[[:test/echo :stranger] :ajax{key}]"
    return ask(wire, "POST", params, headers, "")[:2]


CASES = [
    ("alone", "alone", "memory"),
    ("here", "here", "redis, same worker"),
    ("here", "there", "redis, other worker"),
]


@pytest.mark.parametrize(("at", "to"), [case[:2] for case in CASES], ids=[c[2] for c in CASES])
@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        (kind, shown)
        for kind, shown in itertools.product(KINDS, SHOWN)
        if (kind, shown) != ("anonymous, Sente's", "its own")  # they have none
    ],
)
def test_a_request_in_a_clients_name(
    request: pytest.FixtureRequest, kind: str, shown: str, at: str, to: str
) -> None:
    if at == "alone":
        here = there = request.getfixturevalue("alone")
    else:
        here, there = request.getfixturevalue("pair")
        there = here if to == "here" else there
    got = {}
    for over, asked in itertools.product(("websocket", "polls"), REQUESTS):
        victim = stands(here, kind, over)
        if over == "websocket":
            victim.say("[:test/echo :mine]", '"k1" {:key "k"}')
            victim.read()
        got[over, asked], text = answered(there, victim, asked, shown)
        status = got[over, asked]
        if status != 200 and over == "websocket":
            # Nothing of the victim's was touched, and what is sent to it reaches it.
            victim.say("[:test/echo :here]", '"k2"')
            while victim.read()[1] != "k2":
                """Events that were sent to all are its own, too."""
        if asked == "keyed post" and shown != "its own":
            assert ":mine" not in text  # the reply that was kept is the victim's
        victim.cut()
    assert got == dict.fromkeys(got, expected(kind, shown))

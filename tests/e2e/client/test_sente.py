"""Sente's functions and options, by their names."""

from __future__ import annotations

from collections.abc import Iterator
from queue import Queue
from typing import Any

import pytest

from flask_chsk import client
from flask_chsk.client import (
    RecvQueue,
    chsk_destroy,
    chsk_reconnect,
    chsk_send,
    default_chsk_url,
    make_channel_socket,
)
from flask_chsk.errors import ConfigError
from flask_chsk.values import Keyword
from tests.e2e.client.conftest import TestServer
from tests.process import WAIT, eventually


@pytest.fixture
def parts(server: TestServer) -> Iterator[client.Parts]:
    made = make_channel_socket(server.url, {"type": Keyword("ws"), "ws-kalive-ms": 20000})
    made.chsk.wait_open()
    yield made
    chsk_destroy(made.chsk)


def lp_timeout(chsk: client.ChannelSocket) -> float:
    """Seconds that it waits for the end of a POST."""
    return chsk._engine._endpoint.post_timeout


def test_a_channel_socket_is_a_map_of_parts(parts: client.Parts) -> None:
    assert list(parts) == ["ch_recv", "send_fn", "state", "chsk"]
    assert parts["state"]["open"] is True
    replies: Queue[Any] = Queue()
    assert parts["send_fn"](["test/echo", 1], WAIT, replies.put_nowait) is True
    assert replies.get(timeout=WAIT) == 1
    with pytest.raises(KeyError):
        parts["nonsense"]


def test_chsk_send_has_three_forms(parts: client.Parts) -> None:
    replies: Queue[Any] = Queue()
    assert chsk_send(parts.chsk, ["test/note", ["seed", 1]]) is True
    assert chsk_send(parts.chsk, ["test/echo", 2], WAIT, replies) is True
    assert chsk_send(parts.chsk, ["test/echo", 3], {"timeout-ms": 30_000, "cb": replies}) is True
    assert [replies.get(timeout=WAIT) for _ in range(2)] == [
        [Keyword("test/echo.cb"), 2],
        [Keyword("test/echo.cb"), 3],
    ]
    with pytest.raises(ConfigError, match=r"not \['callback'\]"):
        chsk_send(parts.chsk, ["test/echo"], {"callback": print})


def test_chsk_reconnect_opens_again(parts: client.Parts) -> None:
    chsk_reconnect(parts.chsk)
    eventually(lambda: parts.state["open"] and not parts.state["first_open"])
    assert parts.state["last_close"]["reason"] == "requested-reconnect"


def test_options_may_be_spelt_as_the_seed_does(server: TestServer) -> None:
    asked: list[Any] = []

    def url(path: str, location: Any, websocket: bool) -> str:
        asked.append((path, location["search"], websocket))
        return default_chsk_url(path, location, websocket)

    queue = RecvQueue(3)
    opts = {
        "type": "ajax",
        "recv-buf-or-n": queue,
        "lp-timeout-ms": 3000,
        "chsk-url-fn": url,
        "packer": "json",
        "client-id": "me",
        "ajax-opts": {"headers": {"X-A": "b"}},
        "wrap-recv-evs?": False,
    }
    made = make_channel_socket(server.url + "?a=1", opts)
    try:
        made.chsk.wait_open()
        assert (made.ch_recv, made.chsk.client_id, lp_timeout(made.chsk)) == (queue, "me", 3.0)
        assert asked[0] == ("/chsk", "?a=1", False)
    finally:
        made.chsk.destroy()
    assert queue.dropped == len(["state", "state", "handshake", "state", "state"]) - 3


def test_deprecated_spellings_warn(server: TestServer) -> None:
    with pytest.warns(DeprecationWarning) as warned:
        made = make_channel_socket(
            server.url, {"connect": False}, {"client-uuid": "me", "lp-kalive-ms": 1000}
        )
    assert [str(one.message) for one in warned] == [
        "give all options in one mapping",
        "client_uuid is now client_id",
    ]
    assert (made.chsk.client_id, lp_timeout(made.chsk)) == ("me", 1.0)

"""Flask-Login, Flask-WTF and pydantic in the handlers of a WebSocket, under real servers."""

from __future__ import annotations

import http.client
from datetime import datetime, timezone
from pathlib import Path

import pytest

from tests.peer import Peer
from tests.process import WAIT
from tests.servers import running


def sign_in(port: int, browser: str) -> tuple[str, str]:
    """The cookie and the CSRF token of *browser*."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT)
    connection.request("POST", "/login", headers={"User-Agent": browser})
    answer = connection.getresponse()
    token = answer.read().decode()
    cookie = answer.headers["Set-Cookie"].partition(";")[0]
    connection.close()
    return cookie, token


@pytest.mark.parametrize("kind", ["gunicorn-gevent", "gunicorn-gthread"])
def test_handlers_work_as_views_do(kind: str, tmp_path: Path) -> None:
    app = "tests.e2e.servers.login_app:app"
    with running(kind, app, tmp_path / "log", {"PYTHONPATH": "."}) as server:
        cookie, token = sign_in(server.port, "one")

        def opened(browser: str) -> Peer:
            peer = Peer(server.port, v="1", **{"csrf-token": token})
            peer.open([f"Cookie: {cookie}", f"User-Agent: {browser}"])
            return peer

        same, other = opened("one"), opened("another")
        moment = datetime(2026, 1, 1, tzinfo=timezone.utc)
        for peer, fresh in ((same, True), (other, False), (same, True), (other, False)):
            assert peer.ask("[:order/add {:count 1}]") == ["ann", fresh, moment]
            [[path, words]] = peer.ask("[:order/add {:count 0}]")
            assert (path, words) == (["count"], "Input should be greater than 0")
        assert same.ask("[:order/pay]") == "paid"
        assert other.ask("[:order/pay]") == "chsk/error"
        if kind == "gunicorn-gevent":
            assert same.ask("[:order/later]") == "later"
            assert same.events(1) == [["order/done", ["/chsk", "ann", "ann"]]]
        for peer in (same, other):
            peer.cut()
        assert server.tracebacks == 0, server.log

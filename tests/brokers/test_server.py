"""What a server makes of a broker that others use, too."""

from __future__ import annotations

import time
from typing import Any

import pytest
from flask import Flask, request

from flask_chsk import Chsk
from flask_chsk.brokers import redis as module
from flask_chsk.security import SECRET_HEADER
from flask_chsk.session import CLOSE, SIGNED_OUT
from tests.process import eventually


def test_a_wrong_clock_is_told_by_health_and_stats(
    redis_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    monkeypatch.setattr(module.time, "time", lambda: real() - 25 * 3600)
    app = Flask(__name__)
    app.secret_key = "of the test"
    Chsk(app, broker_url=f"{redis_url}?prefix={prefix}", csrf=False, health=True)
    answer = app.test_client().get("/chsk/health")
    assert (answer.status_code, answer.text) == (
        200,
        "ok\nthis host's clock is 90000 s behind that of Redis\n",
    )
    server = app.extensions["chsk"].server()
    assert server.stats()["broker_clock_ahead"] == -90_000
    server.hub.run(server.retire)


def test_who_is_signed_out_while_they_are_let_in_is_not_served(redis_url: str, prefix: str) -> None:
    app = Flask(__name__)
    app.secret_key = "for tests"
    chsk = Chsk(app, broker_url=f"{redis_url}?prefix={prefix}", csrf=False)
    chsk.user_id(lambda: request.args.get("uid"))
    server = app.extensions["chsk"].server()
    attach = server.broker.attach

    def attach_and_be_signed_out(*args: Any, **more: Any) -> Any:
        arrival = attach(*args, **more)
        offset = server.send("ann", [CLOSE, {"code": SIGNED_OUT, "reason": "signed out"}])
        eventually(lambda: server.hub.run(server.broker.watermark) >= offset)
        return arrival

    ask = "/chsk?client-id=c1&uid=ann&v=1&handshake?=1"
    server.broker.attach = attach_and_be_signed_out
    shown = {SECRET_HEADER: "s" * 22}
    assert "chsk/handshake" not in app.test_client().get(ask, headers=shown).text
    eventually(lambda: not len(server.registry))
    server.broker.attach = attach
    assert "chsk/handshake" in app.test_client().get(ask, headers=shown).text
    server.hub.run(server.retire)

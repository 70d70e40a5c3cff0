"""What an identity that has expired opens at any worker: nothing, with whatever else is shown."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from flask import Flask, request

from flask_chsk import Chsk, Identity
from tests.integration.brokers.conftest import Pair
from tests.integration.brokers.pages import Page


def application(url: str) -> Flask:
    app = Flask(__name__)
    app.secret_key = "for tests"
    chsk = Chsk(app, broker_url=url, csrf=False)
    app.extensions["send"] = chsk.bind(app).send

    @chsk.user_id
    def user_id() -> Identity:
        left = float(request.values.get("left", 3600))
        return Identity(request.values["uid"], time.time() + left)

    return app


@pytest.fixture
def workers(pair: Callable[[Callable[[str], Flask]], Pair]) -> Pair:
    return pair(application)


def expire(worker: Flask) -> None:
    """Let two hours pass for this worker's clients."""
    server = worker.extensions["chsk"].worker()
    server.hub.run(server.clients.expiries.sweep, server.hub.now() + 7200)


def test_a_client_goes_on_at_any_worker_with_a_fresh_identity(workers: Pair) -> None:
    here, there = workers
    ann = Page(here, "ann", "a1")
    here.extensions["send"]("ann", ["a/b", 1])
    expire(here)
    there.extensions["send"]("ann", ["a/b", 2])
    ann.connect(there)
    assert ann.recovered is True
    assert ann.until(["a/b", 2]) == [["a/b", 1], ["a/b", 2]]


def test_a_resume_token_opens_nothing_without_it(workers: Pair) -> None:
    here, there = workers
    ann = Page(here, "ann", "a1")
    here.extensions["send"]("ann", ["a/b", 1])
    expire(here)
    for worker in (here, there):
        for more in ({"handshake?": "1"}, {"n": "1"}):
            answer = ann.get(worker, {**more, "left": "-1"})
            assert (answer.status_code, "expired" in answer.text) == (401, True)
        assert ann.post(worker, "[:a/b 1]", {"left": "-1"}).status_code == 401


def test_another_user_gets_nothing_by_it(workers: Pair) -> None:
    here, there = workers
    ann = Page(here, "ann", "a1")
    here.extensions["send"]("ann", ["a/b", 1])
    expire(here)
    ann.params["uid"] = "bob"
    ann.connect(there)
    assert not ann.recovered
    there.extensions["send"]("bob", ["b/c", 1])
    assert ann.until(["b/c", 1]) == [["b/c", 1]]

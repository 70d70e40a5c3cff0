"""What is kept for one application, before and without a server."""

from __future__ import annotations

import gc
import logging
import sys
from typing import Any

import pytest
from flask import Flask, abort, current_app, g
from werkzeug.exceptions import HTTPException

from flask_chsk import ALL_USERS_WITHOUT_UID, Chsk
from flask_chsk.errors import BadEvent, BrokerUnavailable, PackError, Refused
from flask_chsk.figures import AT_START
from flask_chsk.protocol.event import Event
from flask_chsk.security import resume_key
from flask_chsk.state import State


def new_app(secret_key: str | None = "secret") -> Flask:
    app = Flask("shop")
    app.secret_key = secret_key
    KEPT.append(app)
    return app


def state_of(secret_key: str | None = "secret", **config: Any) -> State:
    app = new_app(secret_key)
    Chsk(app, **config)
    state: State = app.extensions["chsk"]
    return state


KEPT: list[Flask] = []  # a state does not keep its application


@pytest.fixture(autouse=True)
def let_go() -> Any:
    yield
    KEPT.clear()


def test_it_does_not_keep_its_application() -> None:
    state = state_of()
    assert state.is_alive and state.app.name == "shop"
    KEPT.clear()
    gc.collect()
    assert not state.is_alive


def test_nothing_runs_before_it_is_needed() -> None:
    state = state_of()
    assert (state.running(), state.stats()) == (None, AT_START)


def test_a_send_before_the_first_request_reaches_nobody_and_warns_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    state = state_of()
    with caplog.at_level(logging.WARNING):
        assert [state.sending(), state.sending()] == [None, None]
    [record] = caplog.records
    assert record.name == "flask_chsk.state"
    assert "this process serves nobody yet" in record.getMessage()


def test_resume_tokens_are_signed_with_the_secret_key_and_read_with_its_fallbacks() -> None:
    state = state_of("new")
    state.app.config["SECRET_KEY_FALLBACKS"] = ["old", "older"]
    assert state.resume_keys == [resume_key(key) for key in ("new", "old", "older")]


def test_without_a_secret_key_each_process_has_a_key_of_its_own() -> None:
    one, other = state_of(None, csrf=False), state_of(None, csrf=False)
    assert one.resume_keys == one.resume_keys != other.resume_keys


def test_a_composer_is_made_once_for_each_packer_that_is_offered() -> None:
    state = state_of(packers=("edn", "json"))
    edn = state.composer("edn", state.config)
    assert state.composer("edn", state.config) is edn
    assert state.composer("json", state.config).packer.name == "json"
    with pytest.raises(Refused, match="unknown packer: this server speaks edn, json") as refused:
        state.composer("transit", state.config)
    assert refused.value.status == 400


def test_an_event_has_to_suit_one_packer_that_is_offered() -> None:
    state_of(packers=("edn", "json")).check_event(["a/x", {"when": [{1: 2}]}])
    only_json = state_of(packer="json", packers=("json",))
    with pytest.raises(PackError, match="CHSK_PACKERS offers json, which cannot carry it"):
        only_json.check_event(["a/x", {"when": [{1: 2}]}])


def http_error(status: int) -> HTTPException:
    with pytest.raises(HTTPException) as raised:
        abort(status, "not yours")
    return raised.value


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (http_error(403), (403, "not yours")),
        (BrokerUnavailable("Redis is away at 10.0.0.1"), (503, "try again later")),
        (KeyError("secret"), (500, "the handler failed")),
    ],
)
def test_a_client_learns_of_http_errors_and_no_details_of_others(
    error: Exception, told: tuple[int, str]
) -> None:
    assert state_of().explain(error) == told


def test_in_a_child_the_server_is_the_parents() -> None:
    state = state_of()
    state.serve({"SERVER_PORT": "5000"})
    state._shares_listener = True  # as a child of a gevent worker has it
    with pytest.raises(Refused, match="this process was forked by a worker") as refused:
        state.serve({"SERVER_PORT": "5000"})
    assert (refused.value.status, refused.value.retry_after) == (503, 1)


def test_refusals_are_counted_by_status() -> None:
    state = state_of()
    for status in (401, 403, 401, 451):
        state.count_refusal(status)
    assert state.stats() == {**AT_START, "refused_401": 2, "refused_403": 1, "refused_451": 1}


def test_an_error_in_a_hook_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    state = state_of()
    state.run_plain(lambda: 1 // 0)
    [record] = caplog.records
    assert record.exc_info is not None and "error in" in record.getMessage()


# Nobody is there ---------------------------------------------------------------------------


def test_a_send_in_a_process_that_serves_nobody_tells_absent() -> None:
    chsk, told = Chsk(new_app()), []
    chsk.absent(lambda uid, event: told.append((uid, event)))
    assert chsk.send(7, ["a/b", 1]) is None
    assert told == [("7", Event("a/b", 1))]
    chsk.send("ann", ["a/b"], client_id="c1")
    chsk.send(ALL_USERS_WITHOUT_UID, ["a/b"])
    with pytest.raises(BadEvent):
        chsk.send("ann", ["nonsense"])
    assert len(told) == 1


def test_absent_runs_in_an_application_context_of_its_own() -> None:
    app = new_app()
    chsk, seen = Chsk(app), []
    chsk.absent(lambda uid, event: seen.append((current_app.name, "mine" in g)))
    chsk.send("ann", ["a/b"])
    with app.app_context():
        g.mine = True
        chsk.send("ann", ["a/b"])
    assert seen == [("shop", False)] * 2


def test_an_error_of_absent_is_logged_and_the_send_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    chsk = Chsk(new_app())
    chsk.absent(lambda uid, event: 1 // 0)
    with caplog.at_level(logging.ERROR):
        assert chsk.send("ann", ["order/shipped", 1]) is None
    [record] = caplog.records
    assert record.exc_info is not None
    assert record.getMessage() == "error in @chsk.absent, of order/shipped to uid 'ann'"


def test_an_exit_in_absent_is_an_error_of_absent(caplog: pytest.LogCaptureFixture) -> None:
    chsk = Chsk(new_app())
    chsk.absent(lambda uid, event: sys.exit("no mail server"))
    assert chsk.send("ann", ["order/shipped", 7]) is None
    assert "error in @chsk.absent, of order/shipped to uid 'ann'" in caplog.text


def test_what_absent_itself_sends_is_not_told_again() -> None:
    chsk, told = Chsk(new_app()), []

    @chsk.absent
    def absent(uid: str, event: Event) -> None:
        told.append(uid)
        chsk.send("admin", ["user/absent", uid])

    chsk.send("ann", ["a/b"])
    chsk.send("bob", ["a/b"])
    assert told == ["ann", "bob"]

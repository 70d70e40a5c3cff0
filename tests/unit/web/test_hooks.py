"""What an application answers about a request, and what becomes of an answer that is none."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from flask import Flask, Response, abort, redirect, render_template_string
from flask_login import AnonymousUserMixin, UserMixin
from werkzeug.wrappers import Response as BaseResponse

from flask_chsk import (
    Chsk,
    ConfigError,
    Handlers,
    Identity,
    PackError,
    Reply,
    UsageError,
    uid_connected,
)
from flask_chsk.errors import ReplyError
from flask_chsk.testing import Refusal
from flask_chsk.web.views import TEST_CLIENT


@pytest.fixture
def app() -> Flask:
    app = Flask(__name__)
    app.secret_key = "secret"
    app.testing = True  # what a hook raises reaches the test
    return app


@pytest.fixture
def chsk(app: Flask) -> Chsk:
    return Chsk(app)


async def a_coroutine_function(*_: Any) -> bool:
    return True


def a_generator_function(*_: Any) -> Any:
    yield True


class Callable_:
    async def __call__(self, *_: Any) -> bool:
        return True


# authorize -------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [True, 1, "ann", ["ann"], UserMixin()])
def test_what_is_true_lets_in(chsk: Chsk, answer: object) -> None:
    chsk.authorize(lambda: answer)
    assert chsk.test_client().uid is None


@pytest.mark.parametrize(
    "answer",
    [
        None,
        0,
        "",
        [],
        {},
        AnonymousUserMixin(),
        Response("no", 403),
        BaseResponse("no", 403),
        redirect("/login"),
        ("no", 403),
        (True,),
        "".isdigit,  # not called
        AnonymousUserMixin.get_id,
    ],
    ids=repr,
)
def test_what_is_not_true_refuses_and_the_log_says_what_to_return(
    chsk: Chsk, answer: object, caplog: pytest.LogCaptureFixture
) -> None:
    chsk.authorize(lambda: answer)
    with pytest.raises(Refusal, match=r"^401: not authorized") as refused:
        chsk.test_client()
    assert refused.value.status == 401
    assert f"authorize returned {answer!a}: return True to let in" in caplog.messages


def test_a_check_that_falls_off_its_end_refuses(
    chsk: Chsk, caplog: pytest.LogCaptureFixture
) -> None:
    @chsk.authorize
    def check() -> None:
        pass

    with pytest.raises(Refusal, match="401"):
        chsk.test_client()
    assert "authorize returned None: return True to let in" in caplog.messages


@pytest.mark.parametrize("fn", [a_coroutine_function, a_generator_function])
def test_a_call_that_did_not_run_refuses(
    chsk: Chsk, fn: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    chsk.authorize(lambda: fn())
    with pytest.raises(Refusal, match="401"):
        chsk.test_client()
    assert any(m.startswith("authorize returned <") for m in caplog.messages)


def test_false_needs_no_advice(chsk: Chsk, caplog: pytest.LogCaptureFixture) -> None:
    chsk.authorize(lambda: False)
    with pytest.raises(Refusal, match="401"):
        chsk.test_client()
    assert not [m for m in caplog.messages if m.startswith("authorize returned")]


def test_a_long_answer_is_cut_in_the_log(chsk: Chsk, caplog: pytest.LogCaptureFixture) -> None:
    chsk.authorize(lambda: ("\x1b[31m" + "x" * 10_000,))
    with pytest.raises(Refusal, match="401"):
        chsk.test_client()
    [said] = [m for m in caplog.messages if m.startswith("authorize")]
    assert len(said) < 200 and "\x1b" not in said


# Registration ----------------------------------------------------------------------------

HOOKS = "user_id handshake_data csrf_token authorize reject pack_default".split()
REGISTER: dict[str, Callable[[Chsk, Any], object]] = {
    **{f"@chsk.{name}": lambda chsk, fn, name=name: getattr(chsk, name)(fn) for name in HOOKS},
    "@on": lambda chsk, fn: chsk.on("a/b")(fn),
    "parse of a/b": lambda chsk, fn: chsk.on("a/b", parse=fn),
    "@before_event": lambda chsk, fn: chsk.before_event(fn),
    "@after_event": lambda chsk, fn: chsk.after_event(fn),
    "@errorhandler": lambda chsk, fn: chsk.errorhandler(ValueError)(fn),
    "chsk.watch": lambda chsk, fn: chsk.watch(fn),
    "chsk.start_router": lambda chsk, fn: chsk.start_router(fn),
}


@pytest.mark.parametrize("role", REGISTER)
@pytest.mark.parametrize(
    ("fn", "why"),
    [
        (a_coroutine_function, "is async"),
        (functools.partial(a_coroutine_function, 1), "is async"),
        (Callable_(), "is async"),
        (Callable_().__call__, "is async"),
        (a_generator_function, "has a yield"),
        (None, "takes a function, not None"),
    ],
)
def test_what_no_call_runs_is_refused_at_registration(
    chsk: Chsk, role: str, fn: Any, why: str
) -> None:
    if role == "parse of a/b" and fn is None:
        pytest.skip("None is its default")
    with pytest.raises(ConfigError) as refused:
        REGISTER[role](chsk, fn)
    message = str(refused.value)
    assert message.startswith(role) and why in message
    assert fn is None or "plain function" in message


def test_classes_and_objects_that_can_be_called_are_registered(chsk: Chsk) -> None:
    class Plain:
        def __call__(self, *_: Any) -> Any:
            return True

    chsk.authorize(Plain())
    chsk.on("a/number", parse=int)(lambda ev: ev.data)
    assert chsk.test_client().request(["a/number", "7"]) == 7


def test_an_async_receiver_of_a_signal_is_named_in_the_log(
    app: Flask, chsk: Chsk, caplog: pytest.LogCaptureFixture
) -> None:
    async def came(sender: Flask, uid: str) -> None: ...

    with uid_connected.connected_to(came, app):
        chsk.test_client(uid="ann")
    [error] = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert error.exc_info is not None
    assert "is async and would never run" in str(error.exc_info[1])


def test_an_error_handler_is_for_exceptions_not_for_statuses() -> None:
    with pytest.raises(ConfigError, match=r"not 404: .*NotFound"):
        Handlers().errorhandler(404)  # type: ignore[arg-type]


# What they return ------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [True, 1.5, ["ann"], UserMixin(), b"ann"], ids=repr)
def test_a_uid_that_is_none_names_the_hook(chsk: Chsk, answer: object) -> None:
    chsk.user_id(lambda: answer)
    with pytest.raises(UsageError, match=r"^@chsk\.user_id is .*: it has to be a str, an int"):
        chsk.test_client()


@pytest.mark.parametrize("shown", [float, int, lambda at: datetime.fromtimestamp(at, timezone.utc)])
def test_an_identity_may_expire(chsk: Chsk, shown: Callable[[float], Any]) -> None:
    chsk.user_id(lambda: Identity(7, shown(time.time() + 60)))
    assert chsk.test_client().uid == "7"
    chsk.user_id(lambda: Identity(7, shown(time.time())))
    with pytest.raises(Refusal, match=r"^401: the identity of this request has expired"):
        chsk.test_client()


def test_an_identity_may_hold_for_ever(chsk: Chsk) -> None:
    chsk.user_id(lambda: Identity(7))
    assert chsk.test_client().uid == "7"


def test_nobody_known_may_expire(chsk: Chsk) -> None:
    chsk.user_id(lambda: Identity(None, time.time() + 60))
    assert chsk.test_client().uid is None


@pytest.mark.parametrize(
    "expires_at",
    [
        "2026-07-01",
        True,
        -1,
        float("nan"),
        datetime(2026, 7, 1),
        1_782_864_000_000,  # milliseconds
        timedelta(minutes=15),
    ],
    ids=repr,
)
def test_a_time_that_is_none_is_refused_by_name(chsk: Chsk, expires_at: Any) -> None:
    chsk.user_id(lambda: Identity("ann", expires_at))
    with pytest.raises(UsageError, match=r"^expires_at of the Identity of @chsk\.user_id is"):
        chsk.test_client()


@pytest.mark.parametrize("answer", [("ann", 1e9), Identity(["ann"], 1e9)], ids=repr)
def test_only_an_identity_has_an_expiry(chsk: Chsk, answer: Any) -> None:
    chsk.user_id(lambda: answer)
    with pytest.raises(UsageError, match="a str, an int or a UUID, an Identity of one"):
        chsk.test_client()


@pytest.mark.parametrize("answer", [None, ""])
def test_nobody_known_is_an_anonymous_client(chsk: Chsk, answer: object) -> None:
    chsk.user_id(lambda: answer)
    assert chsk.test_client().uid is None


@pytest.mark.parametrize("hook", ["user_id", "handshake_data", "reject", "csrf_token"])
def test_a_coroutine_is_no_answer(app: Flask, chsk: Chsk, hook: str) -> None:
    getattr(chsk, hook)(lambda: a_coroutine_function())
    with pytest.raises(UsageError, match=rf"^@chsk\.{hook} (returned|is) <coroutine"):
        app.test_client().get(
            "/chsk?client-id=x&handshake%3F=1", headers={"X-CSRF-Token": "any"}
        ) if hook == "csrf_token" else chsk.test_client()


def test_no_csrf_token_refuses(app: Flask, chsk: Chsk) -> None:
    chsk.csrf_token(lambda: None)
    answer = app.test_client().get("/chsk?client-id=x", headers={"X-CSRF-Token": "None"})
    assert (answer.status_code, answer.text[:13]) == (403, "no CSRF token")


@pytest.mark.parametrize("answer", [7, b"token", True])
def test_a_csrf_token_is_a_str(app: Flask, chsk: Chsk, answer: Any) -> None:
    chsk.csrf_token(lambda: answer)
    with pytest.raises(UsageError, match=r"@chsk\.csrf_token returned .*: it has to return a str"):
        app.test_client().get("/chsk?client-id=x", headers={"X-CSRF-Token": "7"})


@pytest.mark.parametrize("answer", [None, ""])
def test_a_page_is_not_made_without_its_token(app: Flask, chsk: Chsk, answer: Any) -> None:
    chsk.csrf_token(lambda: answer)
    with app.test_request_context(), pytest.raises(UsageError, match="returned nothing for a page"):
        render_template_string("{{ chsk_script() }}")


def test_a_default_that_falls_off_its_end_packs_nothing(chsk: Chsk) -> None:
    class Price: ...

    chsk.pack_default(lambda value: None)
    chsk.test_client(uid="ann")
    with pytest.raises(PackError, match=r"Price: pack_default returned None"):
        chsk.send("ann", ["a/b", {"price": Price()}])


class Colour: ...


@pytest.mark.parametrize("packer", ["edn", "json"])
def test_a_default_that_is_registered_last_packs_replies_too(
    app: Flask, chsk: Chsk, packer: str
) -> None:
    chsk.handshake_data(Colour)
    chsk.on("a/colour")(lambda ev: Colour())
    chsk.pack_default(lambda value: "red")
    assert chsk.send("ann", ["a/colour", Colour()]) is None  # before there is any client
    ann = chsk.test_client(uid="ann")
    assert (ann.handshake_data, ann.request(["a/colour"])) == ("red", "red")
    chsk.pack_default(lambda value: "blue")
    chsk.send("ann", ["a/colour", Colour()])
    assert ann.received == [["a/colour", "blue"]]
    query = f"/chsk?client-id=x&handshake%3F=1&packer={packer}"
    answer = app.test_client().get(query, environ_overrides={TEST_CLIENT: True})
    assert '"blue"' in answer.text


def test_an_after_function_that_forgets_its_return_is_named(chsk: Chsk) -> None:
    @chsk.after_event
    def note(ev: Any, value: Any) -> None:
        pass

    chsk.on("a/value")(lambda ev: ev.data)
    ann = chsk.test_client(uid="ann")
    with pytest.raises(ReplyError, match="the handler failed"):
        ann.request(["a/value", 1])
    assert ann.request(["a/value", None]) is None


def test_an_after_function_may_mean_none(chsk: Chsk) -> None:
    @chsk.after_event
    def nothing(ev: Any, value: Any) -> None:
        raise Reply(None)

    chsk.on("a/value")(lambda ev: ev.data)
    assert chsk.test_client(uid="ann").request(["a/value", 1]) is None


# What they raise -------------------------------------------------------------------------


@pytest.mark.parametrize("hook", ["user_id", "handshake_data", "authorize", "reject"])
def test_an_abort_refuses_in_plain_words(app: Flask, chsk: Chsk, hook: str) -> None:
    getattr(chsk, hook)(lambda: abort(418, "only tea"))
    app.register_error_handler(418, lambda error: ("<h1>Teapot</h1>", 418))
    with pytest.raises(Refusal) as refused:
        chsk.test_client()
    assert str(refused.value) == "418: only tea"


def test_an_abort_with_a_response_is_that_response(app: Flask, chsk: Chsk) -> None:
    chsk.authorize(lambda: abort(Response("elsewhere", 403)))
    with pytest.raises(Refusal, match=r"^403: elsewhere"):
        chsk.test_client()


@pytest.mark.parametrize("hook", ["user_id", "handshake_data", "authorize", "reject"])
def test_another_error_lets_nobody_in_and_is_flasks_to_report(
    app: Flask, chsk: Chsk, hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    app.testing = False
    getattr(chsk, hook)(lambda: 1 / 0)
    with pytest.raises(Refusal) as refused:
        chsk.test_client()
    assert refused.value.status == 500
    assert any(r.exc_info and r.exc_info[0] is ZeroDivisionError for r in caplog.records)
    assert chsk.stats().get("clients", 0) == 0


def test_reject_takes_any_response(app: Flask, chsk: Chsk) -> None:
    chsk.reject(lambda: BaseResponse("later", 503))
    answer = app.test_client().get("/chsk")
    assert (answer.status_code, answer.text) == (503, "later")

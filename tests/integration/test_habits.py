"""What people do without thinking: it works, or says what to do."""

from __future__ import annotations

import functools
import json
import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from pydantic import BaseModel

from flask_chsk import Chsk, ConfigError, PackError
from flask_chsk.web.views import TEST_CLIENT


def new_app(**config: Any) -> Flask:
    app = Flask(__name__)
    app.secret_key = "secret"
    app.config.update(config)
    return app


@pytest.fixture
def app() -> Flask:
    return new_app()


@pytest.fixture
def chsk(app: Flask) -> Chsk:
    return Chsk(app)


# Signatures ------------------------------------------------------------------------------


class View:
    def say(self, ev: Any) -> None: ...

    def say_twice(self, ev: Any, data: Any) -> None: ...


def nothing() -> None: ...


def event_and_data(ev: Any, data: Any) -> None: ...


def by_keyword(ev: Any, *, data: Any) -> None: ...


@pytest.mark.parametrize(
    ("fn", "why"),
    [
        (nothing, "nothing() is called as nothing(ev): write def nothing(ev)"),
        (
            event_and_data,
            "event_and_data(ev: 'Any', data: 'Any') is called as event_and_data(ev): write def"
            " event_and_data(ev)",
        ),
        (
            by_keyword,
            "by_keyword(ev: 'Any', *, data: 'Any') is called as by_keyword(ev): write def"
            " by_keyword(ev)",
        ),
        (
            View.say,
            "View.say(self, ev: 'Any') is called as say(ev): register the method of an object, such"
            " as obj.say, outside of its class",
        ),
        (
            View().say_twice,
            "View.say_twice(ev: 'Any', data: 'Any') is called as say_twice(ev): write def"
            " say_twice(ev)",
        ),
    ],
)
def test_a_handler_that_cannot_be_called_is_refused_where_it_is_registered(
    chsk: Chsk, fn: Callable[..., None], why: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        chsk.on("chat/say")(fn)
    assert str(refused.value) == f'@on("chat/say"): {why}'
    assert "chat/say" not in chsk._router.handlers


@pytest.mark.parametrize(
    "fn",
    [
        View().say,
        lambda ev: None,
        lambda ev, more=1: None,
        lambda *args: None,
        functools.partial(event_and_data, data=1),
        print,
    ],
)
def test_what_can_be_called_with_an_event_is_registered(chsk: Chsk, fn: Any) -> None:
    chsk.on("chat/say")(fn)
    assert chsk._router.handlers["chat/say"].fn is fn


WRONG: dict[str, tuple[Callable[[Chsk, Any], Any], str]] = {
    "@before_event": (lambda chsk, fn: chsk.before_event(fn), "ev"),
    "@after_event": (lambda chsk, fn: chsk.after_event(fn), "ev, value"),
    "@errorhandler(ValueError)": (lambda chsk, fn: chsk.errorhandler(ValueError)(fn), "ev, error"),
    "parse of a/b": (lambda chsk, fn: chsk.on("a/b", parse=fn), "data"),
    "@chsk.user_id": (lambda chsk, fn: chsk.user_id(fn), ""),
    "@chsk.authorize": (lambda chsk, fn: chsk.authorize(fn), ""),
    "@chsk.reject": (lambda chsk, fn: chsk.reject(fn), ""),
    "@chsk.csrf_token": (lambda chsk, fn: chsk.csrf_token(fn), ""),
    "@chsk.handshake_data": (lambda chsk, fn: chsk.handshake_data(fn), ""),
    "@chsk.pack_default": (lambda chsk, fn: chsk.pack_default(fn), "value"),
    "chsk.watch()": (lambda chsk, fn: chsk.watch(fn), "old, new"),
    "chsk.start_router()": (lambda chsk, fn: chsk.start_router(fn), "ev"),
}


@pytest.mark.parametrize("role", WRONG)
def test_every_hook_names_the_parameters_that_it_is_called_with(chsk: Chsk, role: str) -> None:
    register, takes = WRONG[role]

    def hook(a: int, b: int, c: int) -> None: ...

    with pytest.raises(ConfigError, match=re.escape(f"write def hook({takes})")) as refused:
        register(chsk, hook)
    assert str(refused.value).startswith(f"{role}: ")


def test_models_and_types_parse(chsk: Chsk) -> None:
    class Say(BaseModel):
        text: str

    for number, parse in enumerate([Say.model_validate, Say.model_validate_json, int, dict, str]):
        chsk.on(f"a/b{number}", parse=parse)(lambda ev: None)


# A process that serves nobody ------------------------------------------------------------

SENDS: dict[str, Callable[[Chsk], object]] = {
    "send": lambda chsk: chsk.send("ann", ["a/b", 1]),
    "broadcast": lambda chsk: chsk.broadcast(["a/b", 1]),
    "publish": lambda chsk: chsk.publish("room", ["a/b", 1]),
    "join": lambda chsk: chsk.join("ann", "room"),
    "close": lambda chsk: chsk.close("ann"),
    "connected_uids": lambda chsk: chsk.connected_uids,
    "members": lambda chsk: chsk.members("room"),
}


@pytest.mark.parametrize("what", SENDS)
def test_a_task_or_a_shell_is_told_once_that_it_serves_nobody(
    app: Flask, chsk: Chsk, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    with app.app_context():
        SENDS[what](chsk)
        SENDS[what](chsk)
    (record,) = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert record.getMessage() == (
        "this process serves nobody yet, and CHSK_BROKER_URL=memory:// does not reach the clients"
        " of another one: to send from a task, a cron job or a shell, set CHSK_BROKER_URL=redis://…"
        " here and in the workers, or use flask_chsk.publisher"
    )


def test_views_and_tests_are_not_told_so(
    app: Flask, chsk: Chsk, caplog: pytest.LogCaptureFixture
) -> None:
    @app.get("/")
    def view() -> str:
        chsk.broadcast(["a/b"])
        return f"{len(chsk.connected_uids.any)}"

    assert app.test_client().get("/").text == "0"
    with chsk.test_client(uid="ann") as ann:
        chsk.send("ann", ["a/b", 1])
        assert ann.received == [["a/b", 1]]
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


# Values that a receiver cannot read ------------------------------------------------------

NAN = float("nan")


@pytest.mark.parametrize("clients", [0, 1])
@pytest.mark.parametrize(
    ("offered", "value", "why"),
    [
        (
            ["json"],
            {"x": [{1: "a"}]},
            'event[1]["x"][0]: key 1: a key that is no string: 1 (CHSK_PACKERS offers json, which'
            " cannot carry it)",
        ),
        (
            ["json"],
            [0, NAN],
            "event[1][1]: Out of range float values are not JSON compliant (CHSK_PACKERS offers"
            " json, which cannot carry it)",
        ),
        (
            ["msgpack"],
            2**70,
            "event[1]: an integer past 64 bits, which MessagePack has not (CHSK_PACKERS offers"
            " msgpack, which cannot carry it)",
        ),
        (
            ["edn", "json"],
            b"ab",
            "event[1]: bytes, which EDN has not: use another packer, or base64 (CHSK_PACKERS offers"
            " edn, json, which cannot carry it)",
        ),
    ],
)
def test_what_no_packer_offered_can_carry_is_refused_at_the_sender(
    app: Flask, offered: list[str], value: Any, why: str, clients: int
) -> None:
    chsk = Chsk(app, packer=offered[0], packers=[*offered])
    if clients:
        app.test_client().get(
            f"/chsk?client-id=abcdefgh&handshake?=1&packer={offered[0]}",
            environ_overrides={TEST_CLIENT: True},
        )
        assert chsk.stats()["clients"] == 1
    for send in (chsk.broadcast, lambda event: chsk.send("ann", event)):
        with pytest.raises(PackError) as refused:
            send(["a/b", value])
        assert str(refused.value).replace("compliant: nan", "compliant") == why  # Python 3.12


def test_what_one_receiver_cannot_read_is_logged_once_with_its_id(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    chsk = Chsk(app, packers=["edn", "json"], csrf=False)
    client = app.test_client()
    with client.session_transaction() as session:
        session["uid"] = "ann"
    url = "/chsk?client-id=abcdefgh&packer=json"
    client.get(f"{url}&handshake?=1", environ_overrides={TEST_CLIENT: True})
    for id in ("a/b", "a/b", "a/c"):
        chsk.send("ann", [id, {1: 2}])
    answer = client.get(url, environ_overrides={TEST_CLIENT: True})
    assert json.loads(answer.text)[0] == [["chsk/unpackable", id] for id in ("a/b", "a/b", "a/c")]
    assert [one.getMessage() for one in caplog.records if "unpackable" in one.getMessage()] == [
        f"clients whose packer is json hear chsk/unpackable in place of {id}: its data: key 1: a"
        " key that is no string: 1"
        for id in ("a/b", "a/c")
    ]

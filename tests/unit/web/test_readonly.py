"""The session in a handler: it is read, and keys of libraries change for one event."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, Request, session
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface

from flask_chsk import Chsk, ReplyError
from flask_chsk.errors import UsageError
from flask_chsk.web.readonly import ReadOnlySession


class Opened(SecureCookieSessionInterface):
    """Counts how often a session is opened."""

    times = 0

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        self.times += 1
        return SecureCookieSession({"uid": "ann", "cart": [1]})


def bare(app: Flask) -> ReadOnlySession:
    return ReadOnlySession(app, Request({"wsgi.input": io.BytesIO()}))


def test_keys_of_libraries_hold_for_one_event(
    app: Flask, chsk: Chsk, caplog: pytest.LogCaptureFixture
) -> None:
    @chsk.on("a/b")
    def handler(ev: Any) -> Any:
        before = dict(session)
        session["_fresh"] = False
        session.permanent = True
        session.setdefault("_state", 1)
        session["csrf_token"] = "token"
        after = dict(session)
        session.pop("_fresh")
        return [before, after, sorted(session), len(session), session.pop("_none", 5)]

    ann = chsk.test_client(uid="ann")
    before, after, keys, length, none = ann.request(["a/b"])
    assert set(before) == {"uid", "_chsk_csrf"}
    new = {"_fresh": False, "_permanent": True, "_state": 1, "csrf_token": "token"}
    assert after == {**before, **new}
    assert (keys, length, none) == (sorted(set(after) - {"_fresh"}), 5, 5)
    assert ann.request(["a/b"])[0] == before
    told = [one.getMessage() for one in caplog.records if one.name == "flask_chsk.web.readonly"]
    assert [one.partition(" was")[0] for one in told] == [
        "session['_state']",
        "session['csrf_token']",
    ]


@pytest.mark.parametrize(
    "change",
    [
        lambda: session.__setitem__("uid", "bob"),
        lambda: session.pop("uid"),
        lambda: session.setdefault("cart", []),
        lambda: session.update(cart=[]),
        lambda: session.clear(),
        lambda: session.__setitem__("_fresh", True),
    ],
)
def test_other_keys_raise(
    chsk: Chsk, change: Callable[[], object], caplog: pytest.LogCaptureFixture
) -> None:
    chsk.on("a/b")(lambda ev: change())
    with pytest.raises(ReplyError, match="the handler failed"):
        chsk.test_client(uid="ann").request(["a/b"])
    assert "cannot be changed in a channel socket handler" in caplog.text


def test_the_attributes_of_a_session_on_the_server_are_read(app: Flask) -> None:
    class Stored(SecureCookieSession):
        sid = "1234"

    class Interface(SecureCookieSessionInterface):
        session_class = Stored

    app.session_interface = Interface()
    read = ReadOnlySession(app, Request({"wsgi.input": io.BytesIO()}))
    assert read.sid == "1234"
    with pytest.raises(AttributeError):
        _ = read.pid


def test_a_session_is_opened_when_it_is_first_read(app: Flask) -> None:
    interface = app.session_interface = Opened()
    read = bare(app)
    assert interface.times == 0
    assert (read["uid"], read.get("none"), "cart" in read, len(read)) == ("ann", None, True, 2)
    assert interface.times == 1


def test_a_session_that_is_forgotten_is_opened_anew(app: Flask) -> None:
    interface = app.session_interface = Opened()
    read = bare(app)
    read["_state"] = 1
    read.forget()
    assert dict(read) == {"uid": "ann", "cart": [1]}
    assert interface.times == 2


def test_an_application_without_a_secret_key_has_an_empty_session(app: Flask) -> None:
    app.secret_key = None
    assert dict(bare(app)) == {}


def test_a_change_does_not_reach_the_session_that_was_opened(app: Flask) -> None:
    app.session_interface = Opened()
    read = bare(app)
    opened = read._open()
    read["_state"] = 1
    assert (read["_state"], dict(opened)) == (1, {"uid": "ann", "cart": [1]})
    assert not read.modified


def test_a_session_that_takes_another_has_its_changes_and_not_those_that_follow(
    app: Flask,
) -> None:
    app.session_interface = Opened()
    one, other = bare(app), bare(app)
    one["_state"] = 1
    other.take(one)
    one["_state"] = 2
    assert (other["_state"], other["uid"]) == (1, "ann")


def test_a_key_that_is_there_has_its_value_by_setdefault(app: Flask) -> None:
    app.session_interface = Opened()
    assert bare(app).setdefault("uid", "bob") == "ann"
    with pytest.raises(UsageError, match="Change it in an ordinary route"):
        bare(app).setdefault("other", "bob")


def test_the_field_of_flask_wtfs_token_may_have_another_name(app: Flask) -> None:
    app.config["WTF_CSRF_FIELD_NAME"] = "my_token"
    read = bare(app)
    read["my_token"] = "token"
    with pytest.raises(UsageError):
        read["csrf_token"] = "token"

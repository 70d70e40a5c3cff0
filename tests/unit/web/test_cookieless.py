"""No answer of the channel socket sets a cookie or saves a session; the log says so once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from flask import (
    Flask,
    Response,
    abort,
    after_this_request,
    flash,
    request,
    session,
)
from flask.sessions import SessionInterface, SessionMixin
from flask.testing import FlaskClient
from flask_login import LoginManager, UserMixin, current_user, login_user

from flask_chsk import Chsk
from flask_chsk.web.views import TEST_CLIENT

OURS = {TEST_CLIENT: True}
QUERY = "/chsk?client-id=x&packer=edn"
HANDSHAKE = f"{QUERY}&handshake%3F=1"


@pytest.fixture
def app() -> Flask:
    app = Flask(__name__)
    app.secret_key = "secret"
    app.testing = True
    app.add_url_rule("/page", "page", lambda: "a page")
    return app


@pytest.fixture
def chsk(app: Flask) -> Chsk:
    chsk = Chsk(app, allowed_origins=["https://other.example"], health=True)
    chsk.on("a/echo")(lambda ev: ev.data)
    return chsk


@pytest.fixture
def browser(app: Flask, chsk: Chsk) -> FlaskClient:
    return app.test_client()


class Stored(dict[str, Any], SessionMixin):
    """A session on the server; *modified* is true always, as Flask's mixin has it."""


class Store(SessionInterface):
    """Sessions in a dict, as simple applications keep them."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {}
        self.saved: list[str] = []

    def open_session(self, app: Flask, request: Any) -> Stored:
        return Stored(deepcopy(self.kept.get(request.cookies.get("sid", ""), {})))

    def save_session(self, app: Flask, session: Any, response: Response) -> None:
        self.saved.append(request.path)
        self.kept["1"] = dict(session)
        response.set_cookie("sid", "1")


def answers(browser: FlaskClient) -> Iterator[tuple[str, Response]]:
    """One answer of each kind, with its name."""

    def get(query: str, **more: Any) -> Any:
        return browser.get(query, **{"environ_overrides": OURS, **more})

    yield "handshake", get(HANDSHAKE)
    yield "poll", get(QUERY)
    said = {"client-id": "x", "ppstr": "[[:a/echo 7] :ajax]"}
    yield "reply", browser.post("/chsk", data=said, environ_overrides=OURS)
    yield (
        "no reply",
        browser.post("/chsk", data={**said, "ppstr": "[[:a/echo 7] nil]"}, environ_overrides=OURS),
    )
    yield "refused", get("/chsk")
    yield "no CSRF token", browser.get(HANDSHAKE)
    yield "no upgrade", browser.get(HANDSHAKE, headers={"Connection": "Upgrade", "Upgrade": "x"})
    yield "method", browser.put("/chsk")
    origin = {"Origin": "https://other.example"}
    yield "preflight", browser.options("/chsk", headers=origin)
    yield "preflight refused", browser.options("/chsk", headers={"Origin": "https://evil.example"})
    yield "health", browser.get("/chsk/health")
    yield "script", browser.get("/chsk/static/chsk.js")


def check(browser: FlaskClient) -> None:
    cookies = {}
    for name, answer in answers(browser):
        cookies[name] = answer.headers.getlist("Set-Cookie")
        answer.close()
    assert cookies == {name: [] for name in cookies}


def writes(app: Flask, *keys: str) -> None:
    @app.before_request
    def write() -> None:
        for key in keys:
            session[key] = time.time()


# What sets cookies -----------------------------------------------------------------------


def test_a_session_that_is_written_before_each_request(app: Flask, browser: FlaskClient) -> None:
    writes(app, "seen")
    check(browser)
    assert browser.get("/page").headers["Set-Cookie"].startswith("session=")
    check(browser)  # and where there is a session already


def test_a_permanent_session(app: Flask, browser: FlaskClient) -> None:
    @app.before_request
    def permanent() -> None:
        session.permanent = True

    check(browser)
    assert browser.get("/page").headers["Set-Cookie"].startswith("session=")
    check(browser)


def test_a_session_that_is_emptied(app: Flask, browser: FlaskClient) -> None:
    with browser.session_transaction() as before:
        before["uid"] = "ann"
    app.before_request(lambda: session.clear())
    check(browser)
    assert browser.get("/page").headers["Set-Cookie"].startswith("session=;")


def test_a_session_on_the_server_is_not_saved(app: Flask, browser: FlaskClient) -> None:
    store = app.session_interface = Store()
    writes(app, "seen")
    check(browser)
    assert store.saved == []
    browser.get("/page")
    check(browser)
    assert store.saved == ["/page"]


def test_cookies_of_after_request_functions(app: Flask, chsk: Chsk, browser: FlaskClient) -> None:
    @app.after_request
    def mark(response: Response) -> Response:
        response.set_cookie("mark", "1")
        return response

    app.after_request_funcs[None].insert(0, mark)  # one that is called after ours

    @chsk.authorize
    def authorize() -> bool:
        after_this_request(mark)
        return True

    check(browser)
    assert browser.get("/page").headers.getlist("Set-Cookie") == ["mark=1; Path=/"] * 2


def test_a_cookie_that_a_subclass_sets_at_the_very_end(app: Flask, browser: FlaskClient) -> None:
    process = app.process_response

    def mark(*args: Any) -> Response:  # Flask 3.2 gives the context, too
        response = process(*args)
        response.set_cookie("mark", "1")
        return response

    app.process_response = mark  # type: ignore[method-assign,assignment]
    check(browser)
    assert browser.get("/page").headers["Set-Cookie"] == "mark=1; Path=/"


def test_an_answer_of_the_application_itself(app: Flask, chsk: Chsk, browser: FlaskClient) -> None:
    refusal = Response("later", 503)
    refusal.set_cookie("mark", "1")
    chsk.reject(lambda: refusal)
    check(browser)


def test_a_login_wall_and_an_error_page(app: Flask, browser: FlaskClient) -> None:
    writes(app, "seen")

    @app.before_request
    def wall() -> Any:
        if "wall" in request.args:
            return "sign in first", 403
        if "error" in request.args:
            abort(500)
        return None

    for query in ("wall", "error"):
        answer = browser.get(f"{QUERY}&{query}")
        assert (answer.status_code // 100 >= 4, answer.headers.getlist("Set-Cookie")) == (True, [])
        assert answer.headers["Cache-Control"] == "no-store"


def test_what_a_hook_raises(app: Flask, chsk: Chsk, browser: FlaskClient) -> None:
    app.testing = False
    writes(app, "seen")
    chsk.authorize(lambda: 1 / 0)
    answer = browser.get(HANDSHAKE, environ_overrides=OURS)
    assert (answer.status_code, answer.headers.getlist("Set-Cookie")) == (500, [])


def test_flask_logins_remember_me(app: Flask, browser: FlaskClient) -> None:
    app.config["REMEMBER_COOKIE_REFRESH_EACH_REQUEST"] = True
    LoginManager(app).user_loader(_User)

    @app.before_request
    def load() -> None:
        assert current_user.get_id() or True  # which looks it up

    app.add_url_rule("/login", "login", lambda: str(login_user(_User("ann"), remember=True)))
    browser.get("/login")
    browser.delete_cookie("session")  # the user comes back by the other cookie
    answer = browser.get(HANDSHAKE, environ_overrides=OURS)
    assert '"ann"' in answer.text
    check(browser)
    assert [
        cookie.partition("=")[0] for cookie in browser.get("/page").headers.getlist("Set-Cookie")
    ] == ["remember_token", "session"]


class _User(UserMixin):
    def __init__(self, id: str) -> None:
        self.id = id


def test_another_path_of_the_same_application(app: Flask, chsk: Chsk, browser: FlaskClient) -> None:
    chsk.init_app(app, path="/old", wire="1.18")
    writes(app, "seen")
    answer = browser.get("/old?client-id=x&handshake%3F=1", environ_overrides=OURS)
    assert (answer.status_code, answer.headers.getlist("Set-Cookie")) == (200, [])
    assert "Set-Cookie" in browser.get("/older").headers


# What holds ------------------------------------------------------------------------------


def test_a_change_holds_for_its_request(app: Flask, chsk: Chsk, browser: FlaskClient) -> None:
    seen: list[Any] = []

    @chsk.authorize
    def authorize() -> bool:
        session["uid"] = "ann"
        return True

    app.teardown_request(lambda error: seen.append(session.get("uid")))
    assert '"ann"' in browser.get(HANDSHAKE, environ_overrides=OURS).text
    assert seen == ["ann"]
    with browser:
        browser.get(HANDSHAKE, environ_overrides=OURS)
        assert session["uid"] == "ann"
    assert browser.get_cookie("session") is None


def test_ordinary_routes_keep_their_sessions(app: Flask, browser: FlaskClient) -> None:
    @app.get("/sign-in")
    def sign_in() -> str:
        session["uid"] = "ann"
        return ""

    browser.get("/sign-in")
    assert '"ann"' in browser.get(HANDSHAKE, environ_overrides=OURS).text


def test_an_answer_that_an_error_page_takes_the_place_of(app: Flask, browser: FlaskClient) -> None:
    """An after_request function fails: Flask makes another answer, and calls all of them again."""
    app.testing = False
    writes(app, "seen")
    failed: list[int] = []

    def fail(response: Response) -> Response:
        if not failed:
            failed.append(1)
            raise ZeroDivisionError
        return response

    app.after_request_funcs[None].insert(0, fail)
    answer = browser.get(HANDSHAKE, environ_overrides=OURS)
    assert (answer.status_code, answer.headers.getlist("Set-Cookie")) == (500, [])


# What the log says -----------------------------------------------------------------------


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "flask_chsk.web.cookieless"]


def test_one_warning_names_the_key_and_the_remedy(
    app: Flask, browser: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    writes(app, "seen")
    for _ in range(3):
        check(browser)
    [said] = told(caplog)
    assert said.startswith("session['seen'] was changed in a request of the channel socket: ")
    assert said.endswith("Change the session in an ordinary route.")


@pytest.mark.parametrize("interface", ["cookie", "server"])
def test_each_key_is_named(
    app: Flask, browser: FlaskClient, interface: str, caplog: pytest.LogCaptureFixture
) -> None:
    if interface == "server":
        app.session_interface = Store()

    @app.get("/fill")
    def fill() -> str:
        session.update(gone=1, nested={"a": 1}, kept=1)
        return ""

    @app.before_request
    def change() -> None:
        if request.path == "/chsk":
            session["new"] = 1
            session.pop("gone", None)
            session["nested"]["a"] = 2
            session["kept"] = 1
            session.permanent = True
            flash("hello")

    browser.get("/fill")
    browser.get(HANDSHAKE, environ_overrides=OURS)
    assert sorted(said.partition(" ")[0] for said in told(caplog)) == [
        "session['_flashes']",
        "session['gone']",
        "session['nested']",
        "session['new']",
    ]


def test_a_session_that_is_only_read_is_no_matter(
    app: Flask, browser: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    app.session_interface = Store()  # whose sessions always say that they are modified

    @app.before_request
    def permanent() -> None:
        session.permanent = True

    check(browser)
    assert told(caplog) == []


def test_a_cookie_that_is_not_sent_is_named_once(
    app: Flask, browser: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    @app.after_request
    def mark(response: Response) -> Response:
        response.set_cookie("mark", "worth-stealing")
        return response

    check(browser)
    [said] = told(caplog)
    assert said.startswith("the cookie 'mark' was set in a request of the channel socket: ")
    assert "worth-stealing" not in said


def test_an_application_without_a_secret_key_has_no_session(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    app.secret_key = None
    Chsk(app, csrf=False)
    answer = app.test_client().get(HANDSHAKE, environ_overrides=OURS)
    assert (answer.status_code, answer.headers.getlist("Set-Cookie")) == (200, [])
    assert told(caplog) == []

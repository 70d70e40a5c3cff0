"""The contexts of handlers: both shapes that Flask gives them, and what libraries do in them."""

from __future__ import annotations

import gc
import queue
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest
from flask import (
    Flask,
    Response,
    after_this_request,
    copy_current_request_context,
    flash,
    g,
    get_flashed_messages,
    request,
    session,
    stream_with_context,
    url_for,
)
from flask.testing import FlaskClient
from flask_login import (
    LoginManager,
    UserMixin,
    confirm_login,
    current_user,
    fresh_login_required,
    login_required,
    login_user,
    logout_user,
)
from flask_wtf.csrf import CSRFProtect, generate_csrf

from flask_chsk import Chsk, ReplyError
from flask_chsk.testing import ChskTestClient
from flask_chsk.web import contexts
from flask_chsk.web.contexts import HandshakeRequest, PostRequest

PACKAGE = Path(__file__).parents[3] / "flask_chsk"


# Contexts of events ------------------------------------------------------------------------


def test_a_handler_sees_the_route_of_its_connection(app: Flask, chsk: Chsk) -> None:
    @app.get("/page")
    def page() -> str:
        return ""

    @chsk.on("a/where")
    def where(ev: Any) -> Any:
        return [request.endpoint, request.blueprint, request.view_args, url_for("page")]

    assert chsk.test_client().request(["a/where"]) == ["chsk.post", "chsk", {}, "/page"]


@pytest.mark.parametrize("kept", [HandshakeRequest, PostRequest])
def test_nothing_of_an_event_is_left_for_the_next(app: Flask, kept: type[HandshakeRequest]) -> None:
    environ = app.test_request_context("/").request.environ
    handshake = kept(environ)
    for _ in range(3):
        with handshake.context(app):
            assert (list(g), dict(session)) == ([], {})
            g.seen = True
            flash("hi")
            assert get_flashed_messages() == ["hi"]

            @after_this_request
            def never(response: Any) -> Any:
                return response


def test_requests_with_the_same_headers_share_their_names(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contexts, "_SHARED", shared := {})
    monkeypatch.setattr(contexts, "_MOST_SHARED", 2)
    for number in range(4):  # two sets of headers enter the table, two come too late
        for _ in range(2):
            headers = {f"X-Header-{number}": "1", "X-User": f"ann {number}"}
            environ = app.test_request_context("/a?b=c", headers=headers).request.environ
            kept = HandshakeRequest(environ)
            with kept.context(app):
                assert request.full_path == "/a?b=c"
                assert {**request.headers} == {"Host": "localhost", **headers}
    assert len(shared) == 2


def test_names_of_many_bytes_are_not_shared(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts, "_SHARED", shared := {})
    headers = {f"X-Header-{number:0100}": "1" for number in range(50)}
    kept = HandshakeRequest(app.test_request_context("/", headers=headers).request.environ)
    with kept.context(app):
        assert len([*request.headers]) == 51
    assert shared == {}


def test_an_idle_connection_holds_nothing_of_its_last_event(app: Flask) -> None:
    class Row:
        """What a handler got from a database."""

    handshake = HandshakeRequest(app.test_request_context("/").request.environ)
    with handshake.context(app):
        g.row = session["_row"] = row = Row()
        gone = weakref.ref(row)
    del row
    gc.collect()
    assert gone() is None


def test_an_error_of_a_teardown_function_leaves_the_connection_usable(
    app: Flask, chsk: Chsk
) -> None:
    handshake = HandshakeRequest(app.test_request_context("/").request.environ)

    @app.teardown_request
    def fail(error: BaseException | None) -> None:
        raise OSError("the database is away")

    for _ in range(2):
        with pytest.raises(Exception, match=r"away|teardown"), handshake.context(app):
            assert "seen" not in g
            g.seen = True


def test_a_context_that_is_entered_is_not_shared(app: Flask) -> None:
    handshake = HandshakeRequest(app.test_request_context("/").request.environ)
    with handshake.context(app) as outer:
        g.seen = True
        with handshake.context(app) as inner:
            assert inner is not outer
            assert inner.request is outer.request
            if "seen" in g:  # Flask 3.1 pushes no second application context
                assert not hasattr(inner, "g")


def test_streams_run_in_the_context_of_the_event(app: Flask, chsk: Chsk) -> None:
    @chsk.on("a/stream")
    def stream(ev: Any) -> Any:
        def lines() -> Any:
            yield session["uid"]
            yield request.path

        return app.response_class(stream_with_context(lines()), mimetype="text/plain")

    ann = chsk.test_client(uid="ann")
    assert ann.request(["a/stream"])["body"] == "ann/chsk"


def test_after_this_request_changes_a_response_that_a_handler_returns(
    app: Flask, chsk: Chsk
) -> None:
    @chsk.on("a/view")
    def view(ev: Any) -> Any:
        @after_this_request
        def first(response: Response) -> Response:
            response.headers["X-Foo"] = "Parachute"
            return response

        @after_this_request
        def second(response: Response) -> Response:
            return app.make_response(
                (f"{response.get_data(as_text=True)}, {response.headers['X-Foo']}", 201)
            )

        return app.make_response("hi")

    ann = chsk.test_client(uid="ann")
    for _ in range(2):
        answer = ann.request(["a/view"])
        assert (answer["status"], answer["body"]) == (201, "hi, Parachute")


def test_copy_current_request_context_for_a_thread(chsk: Chsk) -> None:
    go, done = threading.Event(), queue.Queue[Any]()

    @chsk.on("a/begin")
    def begin(ev: Any) -> Any:
        session["_mine"] = ev.data

        @copy_current_request_context
        def later() -> None:
            go.wait(60)
            done.put([request.path, session["uid"], session["_mine"], "seen" in g])

        g.seen = True
        threading.Thread(target=later).start()
        return session["uid"]

    ann = chsk.test_client(uid="ann")
    assert [ann.request(["a/begin", n]) for n in range(2)] == ["ann", "ann"]
    go.set()
    told = sorted(done.get(timeout=60) for _ in range(2))
    assert told == [["/chsk", "ann", 0, False], ["/chsk", "ann", 1, False]]


def test_copy_current_request_context_for_greenlets(chsk: Chsk) -> None:
    @chsk.on("a/begin")
    def begin(ev: Any) -> Any:
        @copy_current_request_context
        def beside() -> Any:
            gevent.sleep(0)
            return [request.path, session["uid"]]

        return [one.get(timeout=60) for one in [gevent.spawn(beside)]]

    assert chsk.test_client(uid="ann").request(["a/begin"]) == [["/chsk", "ann"]]


def test_a_copied_function_may_be_called_in_the_handler(chsk: Chsk) -> None:
    @chsk.on("a/begin")
    def begin(ev: Any) -> Any:
        return [copy_current_request_context(lambda: session["uid"])(), session["uid"]]

    assert chsk.test_client(uid="ann").request(["a/begin"]) == ["ann", "ann"]


def test_contexts_around_the_test_client_are_no_handlers(app: Flask, chsk: Chsk) -> None:
    app.add_url_rule("/page", "page", lambda: "")
    chsk.on("a/b")(lambda ev: ["seen" in g, request.path, session.get("uid")])
    with app.test_client() as browser:
        browser.get("/page")  # its context stays until the block ends
        g.seen = True
        ann = chsk.test_client(browser, uid="ann")
        assert ann.request(["a/b"]) == [False, "/chsk", "ann"]
    with app.test_request_context("/other"):
        g.seen = True
        assert ann.request(["a/b"]) == [False, "/chsk", "ann"]
        assert chsk.send("ann", ["a/b"]) is not None


# Flask-Login and Flask-WTF -------------------------------------------------------------------


class User(UserMixin):
    def __init__(self, id: str) -> None:
        self.id = id


@pytest.fixture
def login(app: Flask, chsk: Chsk) -> LoginManager:
    manager = LoginManager(app)
    manager.user_loader(User)

    @app.post("/login")
    def login() -> str:
        login_user(User("ann"), remember="remember" in request.args)
        return ""

    @app.get("/login")
    def login_page() -> str:
        return "please sign in"

    @chsk.on("a/me")
    @login_required
    def me(ev: Any) -> Any:
        return [current_user.get_id(), session["_fresh"]]

    @chsk.on("a/fresh")
    @fresh_login_required
    def fresh(ev: Any) -> Any:
        return current_user.get_id()

    return manager


def signed_in(app: Flask, chsk: Chsk, path: str = "/login") -> tuple[FlaskClient, ChskTestClient]:
    browser = app.test_client()
    browser.post(path)
    return browser, chsk.test_client(browser)


def test_basic_protection_makes_the_session_stale(
    app: Flask, chsk: Chsk, login: LoginManager
) -> None:
    login.session_protection = "basic"
    browser, ann = signed_in(app, chsk)
    assert ann.request(["a/me"]) == ["ann", True]
    assert ann.request(["a/fresh"]) == "ann"
    browser.environ_base["REMOTE_ADDR"] = "192.0.2.7"
    assert [ann.request(["a/me"]) for _ in range(2)] == [["ann", False]] * 2
    with pytest.raises(ReplyError) as refused:
        ann.request(["a/fresh"])
    assert refused.value.status == 401
    browser.environ_base["REMOTE_ADDR"] = "127.0.0.1"
    assert ann.request(["a/me"]) == ["ann", True]


def test_strong_protection_makes_the_user_anonymous(
    app: Flask, chsk: Chsk, login: LoginManager
) -> None:
    login.session_protection = "strong"
    chsk.user_id(lambda: session.get("_user_id"))  # else the POST is refused: it has no user
    browser, ann = signed_in(app, chsk)
    browser.environ_base["HTTP_USER_AGENT"] = "another browser"
    with pytest.raises(ReplyError) as refused:
        ann.request(["a/me"])
    assert refused.value.status == 401


def test_a_login_wall_answers_a_poll_with_401(app: Flask, chsk: Chsk, login: LoginManager) -> None:
    login.login_view = "login_page"

    @app.before_request
    def wall() -> Any:
        if not current_user.is_authenticated and request.endpoint != "login":
            return login.unauthorized()
        return None

    query = {"client-id": "x", "handshake?": "1"}
    assert app.test_client().get("/chsk", query_string=query).status_code == 401
    assert app.test_client().get("/other").status_code in (302, 303)  # since Flask 3.2
    assert signed_in(app, chsk)[1].request(["a/me"]) == ["ann", True]


def test_a_remembered_user_is_known_in_handlers(
    app: Flask, chsk: Chsk, login: LoginManager
) -> None:
    browser = app.test_client()
    browser.post("/login?remember=1")
    browser.delete_cookie("session")
    ann = chsk.test_client(browser)
    assert ann.request(["a/me"]) == ["ann", False]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda: login_user(User("bob")), "session['_fresh'] cannot be changed"),
        (lambda: confirm_login(), "session['_fresh'] cannot be changed"),
        (lambda: logout_user(), "session['_user_id'] was changed in a handler"),
    ],
)
def test_signing_in_and_out_in_a_handler_is_told(
    app: Flask,
    chsk: Chsk,
    login: LoginManager,
    change: Callable[[], object],
    words: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    chsk.on("a/change")(lambda ev: change() and None)
    _, ann = signed_in(app, chsk)
    ann.send(["a/change"])
    assert ann.request(["a/me"]) == ["ann", True]
    assert words in caplog.text


def test_a_token_that_a_handler_makes_holds_for_its_event(app: Flask, chsk: Chsk) -> None:
    CSRFProtect(app)
    chsk.csrf_token(lambda: "token")
    chsk.on("a/token")(lambda ev: [len(generate_csrf()) > 40, len(session["csrf_token"])])
    assert chsk.test_client(uid="ann").request(["a/token"]) == [True, 40]

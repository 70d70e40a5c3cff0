"""What other extensions are told of the channel sockets, whichever is initialised first."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from flask import Blueprint, Flask
from flask_login import LoginManager, login_required
from flask_wtf.csrf import CSRFProtect, generate_csrf

from flask_chsk import Chsk, ReplyError
from flask_chsk.web.neighbours import Neighbours


@pytest.fixture
def app() -> Flask:
    app = Flask(__name__)
    app.secret_key = "secret"
    return app


@pytest.mark.parametrize("login_view", [None, "login_page"])
@pytest.mark.parametrize("in_session", [False, True])
@pytest.mark.parametrize("first", ["chsk", "login"])
def test_whoever_is_not_signed_in_gets_401(
    app: Flask, login_view: str | None, in_session: bool, first: str
) -> None:
    manager = LoginManager()
    if first == "login":
        manager.init_app(app)
    chsk = Chsk(app)
    if first == "chsk":
        manager.init_app(app)
    manager.user_loader(lambda id: None)
    manager.login_view = login_view
    app.config["USE_SESSION_FOR_NEXT"] = in_session
    app.add_url_rule("/login", "login_page", lambda: "please sign in")
    chsk.on("a/me")(login_required(lambda ev: "not reached"))
    with pytest.raises(ReplyError) as refused:
        chsk.test_client().request(["a/me"])
    assert refused.value.status == 401


@pytest.mark.parametrize("first", ["chsk", "csrf"])
def test_flask_wtf_exempts_us_whichever_comes_first(app: Flask, first: str) -> None:
    if first == "csrf":
        CSRFProtect(app)
    chsk = Chsk(app)
    if first == "chsk":
        CSRFProtect(app)
    app.config["WTF_CSRF_TIME_LIMIT"] = -1  # every token is too old for Flask-WTF
    chsk.init_app(app, path="/second")
    chsk.on("a/token")(lambda ev: bool(generate_csrf()))

    @app.get("/token")
    def token() -> str:
        return str(generate_csrf())

    @app.post("/form")
    def form() -> str:
        return ""

    browser = app.test_client()
    headers = {"X-CSRF-Token": browser.get("/token").text}
    event = {"client-id": "x", "ppstr": "[[:a/token] :ajax-cb]"}
    for path in ("/chsk", "/second"):
        posted = browser.post(path, data=event, headers=headers)
        assert posted.status_code == 200, posted.text
    assert browser.post("/form", headers=headers).status_code == 400


def test_neighbours_are_told_of_each_blueprint_once(app: Flask) -> None:
    exempt: list[str] = []
    views: dict[str, Any] = {"own": "own_login"}
    app.extensions["csrf"] = SimpleNamespace(exempt=lambda blueprint: exempt.append(blueprint.name))
    app.login_manager = SimpleNamespace(blueprint_login_views=views)  # type: ignore[attr-defined]
    neighbours = Neighbours(app)
    neighbours.blueprints += [Blueprint("chsk", __name__), Blueprint("own", __name__)]
    for _ in range(2):
        app.test_client().get("/")
    assert exempt == ["chsk", "own"]
    assert views == {"chsk": None, "own": "own_login"}  # what the application chose stays


def test_an_application_without_neighbours_tells_nobody(app: Flask) -> None:
    neighbours = Neighbours(app)
    neighbours.blueprints.append(Blueprint("chsk", __name__))
    assert app.test_client().get("/").status_code == 404

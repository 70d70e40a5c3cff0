"""Whether a view runs, and when its response has ended."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from flask import Flask, Response, send_file

from flask_chsk import Chsk
from flask_chsk.web.cookieless import Cookieless
from flask_chsk.web.responding import after_response, responds

SERVED = {"SERVER_SOFTWARE": "a WSGI server"}


@pytest.fixture
def app() -> Flask:
    app = Flask(__name__)
    app.secret_key = "for tests"
    return app


@pytest.fixture
def cookieless(app: Flask) -> Cookieless:
    cookieless = Cookieless(app)
    cookieless.paths.add("/chsk")
    return cookieless


# Whether a view runs -----------------------------------------------------------------------


def test_a_view_under_a_server_responds(app: Flask, cookieless: Cookieless) -> None:
    with app.test_request_context("/page", environ_overrides=SERVED):
        assert responds(cookieless)


def test_outside_of_a_request_nothing_responds(app: Flask, cookieless: Cookieless) -> None:
    assert not responds(cookieless)
    with app.app_context():
        assert not responds(cookieless)


def test_without_a_server_nothing_is_sent(app: Flask, cookieless: Cookieless) -> None:
    with app.test_request_context("/page"):
        assert not responds(cookieless)


def test_a_request_of_the_channel_socket_is_no_view(app: Flask, cookieless: Cookieless) -> None:
    with app.test_request_context("/chsk", environ_overrides=SERVED):
        assert not responds(cookieless)


def test_a_handler_has_no_response(app: Flask, cookieless: Cookieless) -> None:
    chsk = Chsk(app)
    chsk.on("a/b")(lambda ev: responds(Cookieless(Flask("other"))))
    assert chsk.test_client().request(["a/b"]) is False


# When it has ended -------------------------------------------------------------------------


def ended_by(app: Flask, respond: Callable[[], Response]) -> list[str]:
    """What happens, in order, where a view gives a response and it is read and closed."""
    order: list[str] = []

    @app.get("/page")
    def page() -> Response:
        after_response(lambda: order.append("ended"))
        order.append("view")
        return respond()

    answer = app.test_client().get("/page", buffered=False)
    for _ in answer.response:
        order.append("part")
    answer.close()
    return order


def test_it_has_ended_after_its_last_part(app: Flask) -> None:
    assert ended_by(app, lambda: Response(iter(["a", "b"]))) == ["view", "part", "part", "ended"]


def test_a_file_that_is_passed_through_ends_too(app: Flask) -> None:
    order = ended_by(app, lambda: send_file(io.BytesIO(b"abc"), mimetype="text/plain"))
    assert (order[0], order[-1], order.count("ended")) == ("view", "ended", 1)


def test_a_response_that_is_given_up_has_ended(app: Flask) -> None:
    ended: list[int] = []

    @app.get("/page")
    def page() -> Response:
        after_response(lambda: ended.append(1))
        return Response(iter(["a", "b"]))

    answer = app.test_client().get("/page", buffered=False)
    assert ended == []
    answer.close()
    assert ended == [1]


def test_a_view_that_fails_has_ended_with_its_error_page(app: Flask) -> None:
    ended: list[int] = []

    @app.get("/page")
    def page() -> str:
        after_response(lambda: ended.append(1))
        raise ZeroDivisionError

    answer = app.test_client().get("/page")
    answer.close()
    assert answer.status_code == 500
    assert ended == [1]

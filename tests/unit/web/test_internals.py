"""What is used of Flask beyond its documentation, in both shapes that Flask gives it."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask, Response, session

from flask_chsk.web import internals as flask_internals
from flask_chsk.web.contexts import EventContext
from flask_chsk.web.internals import UnroutedContext, call_last, current_context, swap_session

PACKAGE = Path(__file__).parents[3] / "flask_chsk"


class Split:
    """The state of a RequestContext of Flask 3.1."""

    def __init__(self, app: Any, environ: Any, request: Any = None, session: Any = None) -> None:
        self.app, self.request, self.session = app, request, session
        self.environ = environ
        self.flashes: Any = None
        self._after_request_functions: list[Any] = []
        self._cv_tokens: list[Any] = []

    def push(self) -> None:
        self._cv_tokens.append("token")


class Merged:
    """The state of an AppContext of Flask 3.2."""

    def __init__(self, app: Any, *, request: Any = None, session: Any = None) -> None:
        self.app, self._request, self._session = app, request, session
        self.g = app.app_ctx_globals_class()
        self._flashes: Any = None
        self._after_request_functions: list[Any] = []
        self._cv_token: Any = None

    @classmethod
    def from_environ(cls, app: Any, environ: Any, /) -> Any:
        raise NotImplementedError

    def push(self) -> None:
        self._cv_token = "token"


class InSplit(UnroutedContext, Split):
    pass


class InMerged(UnroutedContext, Merged):
    pass


@pytest.fixture(params=[InSplit, InMerged], ids=["Flask 3.1", "Flask 3.2"])
def context(request: pytest.FixtureRequest) -> Any:
    fake: Any = SimpleNamespace(app_ctx_globals_class=SimpleNamespace)
    return request.param(fake, SimpleNamespace(environ={"a": "b"}), "session")


def test_a_context_holds_its_request_and_session_in_either_shape(context: Any) -> None:
    kept = vars(context)
    assert kept.get("request", kept.get("_request")).environ == {"a": "b"}
    assert kept.get("session", kept.get("_session")) == "session"
    assert kept.get("environ", {"a": "b"}) == {"a": "b"}


def test_a_context_knows_that_it_is_pushed_in_either_shape(context: Any) -> None:
    assert not context.entered
    context.push()
    assert context.entered


def test_a_renewed_context_is_as_new_in_either_shape(context: Any) -> None:
    def state() -> dict[str, Any]:
        return {name: value for name, value in vars(context).items() if "_cv_" not in name}

    new = {name: repr(value) for name, value in state().items()}
    context._after_request_functions.append(print)
    for name in ("flashes", "_flashes"):
        if name in vars(context):
            setattr(context, name, [("message", "hi")])
    if "g" in vars(context):
        context.g.seen = True
    context.renew()
    assert {name: repr(value) for name, value in state().items()} == new


@pytest.mark.parametrize("name", ["session", "_session"], ids=["before Flask 3.1.3", "since"])
@pytest.mark.parametrize("proxy", ["request_ctx", "app_ctx"], ids=["Flask 3.1", "Flask 3.2"])
def test_a_session_is_swapped_in_any_shape(
    name: str, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = SimpleNamespace(**{name: "before"})
    local = SimpleNamespace(_get_current_object=lambda: context)
    monkeypatch.setattr(flask_internals, "_GLOBALS", {proxy: local})
    swap: Callable[[Any], Any] = flask_internals.swap_session
    assert swap("after") == "before"
    assert vars(context) == {name: "after"}


def test_no_other_module_uses_internals_of_flask() -> None:
    private = {"request_ctx", "app_ctx", "RequestContext", "AppContext", "after_request_funcs"}
    private |= {"before_request_funcs", "teardown_request_funcs", "flashes", "_flashes"}
    private |= {"_cv_tokens", "_cv_token", "_after_request_functions"}
    for path in PACKAGE.rglob("*.py"):
        if path.name == "internals.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = {getattr(node, "id", None), getattr(node, "attr", None)}
            if isinstance(node, ast.ImportFrom):
                names |= {alias.name for alias in node.names}
                assert node.module not in ("flask.ctx", "flask.globals"), path
            assert not names & private, f"{path.name}: {names & private}"


def test_an_event_context_is_one() -> None:
    assert issubclass(EventContext, UnroutedContext)


def test_the_current_context_is_that_of_the_request() -> None:
    with Flask(__name__).test_request_context("/here"):
        assert current_context().request.path == "/here"


def test_without_a_request_there_is_no_current_context() -> None:
    with pytest.raises(RuntimeError):
        current_context()


def test_a_session_that_is_swapped_is_the_requests() -> None:
    app = Flask(__name__)
    app.secret_key = "for tests"
    with app.test_request_context():
        other = app.session_interface.make_null_session(app)
        before = swap_session(other)
        assert session._get_current_object() is other  # type: ignore[attr-defined]
        assert swap_session(before) is other


def test_what_is_called_last_sees_what_all_others_did() -> None:
    app = Flask(__name__)
    order: list[str] = []

    def after(name: str) -> Callable[[Response], Response]:
        def note(response: Response) -> Response:
            order.append(name)
            return response

        return note

    app.after_request(after("before it"))
    call_last(app, after("last"))
    app.after_request(after("after it"))
    app.test_client().get("/")
    assert sorted(order[:2]) == ["after it", "before it"]
    assert order[2:] == ["last"]

"""The mistakes that docs/troubleshooting.rst explains are found, and nothing else is."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytest
from flask import Flask

from flask_chsk import Chsk, doctor
from flask_chsk.config import Config
from flask_chsk.doctor import Answer, Verdict, examine, judge, judge_plain, probe
from flask_chsk.errors import BrokerUnavailable
from flask_chsk.inspector import RedisFacts

KEY = "0123456789abcdef" * 4
REDIS = "redis://127.0.0.1:1/0"
OPEN = {"plain": Answer(400, "no client-id: add one"), "poll": Answer(200), "ws": Answer(101)}


class Inspector:
    """In place of the inspector: a Redis in order, with two workers."""

    error: Exception | None = None
    facts = RedisFacts("7.0", "noeviction", 0.0)
    ahead = 0.0
    workers: dict[str, Any] = {"w1": {"clients": 2}, "w2": {"clients": 1}}  # noqa: RUF012

    def __init__(self, url: str) -> None:
        if self.error is not None:
            raise self.error

    def __enter__(self) -> Inspector:
        return self

    def __exit__(self, *args: object) -> None: ...

    def redis(self) -> RedisFacts:
        return self.facts._replace(clock=time.time() + self.ahead)

    def ask(self, what: str) -> dict[str, Any]:
        return self.workers


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "Inspector", Inspector)


def examined(handler: bool = True, **config: Any) -> list[Verdict]:
    """What is found of an application that is not in order."""
    app = Flask(__name__)
    app.config.update({"SECRET_KEY": KEY, **config})
    chsk = Chsk(app)
    if handler:
        chsk.on("a/b")(lambda ev: None)
    return [one for one in examine(app) if one.level != "ok"]


def probed(
    monkeypatch: pytest.MonkeyPatch, url: str = "https://a", secure: bool = False, **answers: Any
) -> list[Verdict]:
    """What is found of a site that gives *answers*, and else the right ones."""

    def ask(url: str, path: str, headers: dict[str, str] | None = None) -> Answer:
        kind = "plain" if headers is None else "ws" if "Upgrade" in headers else "poll"
        answer: Answer = answers.get(kind, OPEN[kind])
        return answer

    monkeypatch.setattr(doctor, "_ask", ask)
    return [one for one in probe(url, Config(), secure) if one.level != "ok"]


# no false alarm ----------------------------------------------------------------------------


def test_nothing_is_found_where_all_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    assert examined() == examined(CHSK_BROKER_URL=REDIS) == probed(monkeypatch) == []


def test_who_is_refused_for_want_of_a_user_got_through(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = Answer(401, "not authorized: sign in first")
    assert probed(monkeypatch, poll=refused, ws=refused) == []


# twenty mistakes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "level", "words"),
    [
        ({"SECRET_KEY": None}, "error", "app.secret_key is not set"),
        ({"SECRET_KEY": "change me"}, "warn", "app.secret_key is short"),
        ({"handler": False}, "warn", "no handler is registered"),
        ({"CHSK_CSRF": False}, "warn", "CHSK_CSRF is off"),
        ({"CHSK_ALLOWED_ORIGINS": "*"}, "warn", "any site's pages may connect"),
        ({"CHSK_ALLOW_UNSHARED": True}, "warn", "CHSK_ALLOW_UNSHARED"),
    ],
)
def test_a_mistake_in_the_application_is_named(
    config: dict[str, Any], level: str, words: str
) -> None:
    [found] = examined(**config)
    assert found.level == level and words in found.text


@pytest.mark.parametrize(
    ("redis", "level", "words"),
    [
        ({"error": BrokerUnavailable("Redis at x is away: refused")}, "error", "is away"),
        ({"error": ImportError("pip install 'flask-chsk[redis]'")}, "error", "pip install"),
        ({"facts": RedisFacts("7", "allkeys-lru", 0)}, "error", "maxmemory-policy allkeys-lru"),
        ({"ahead": 300.0}, "warn", "-300 s off that of Redis"),
        ({"workers": {}}, "warn", "no worker serves at this Redis"),
        ({"workers": {"w1": None}}, "warn", "worker w1 does not answer"),
    ],
)
def test_a_mistake_of_the_broker_is_named(
    redis: dict[str, Any], level: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in redis.items():
        monkeypatch.setattr(Inspector, name, value)
    [found] = examined(CHSK_BROKER_URL=REDIS)
    assert found.level == level and words in found.text


@pytest.mark.parametrize(
    ("answers", "level", "words"),
    [
        ({"plain": Answer(error="Connection refused")}, "error", "no answer: Connection refused"),
        ({"plain": Answer(302, location="/login")}, "error", "a redirect to /login: exempt it"),
        ({"plain": Answer(404)}, "error", "nothing is at /chsk: is CHSK_PATH another"),
        ({"plain": Answer(502)}, "error", "does not reach the application"),
        ({"plain": Answer(200, "hello")}, "error", "something else answers"),
        ({"plain": OPEN["plain"]._replace(server="Werkzeug/3")}, "warn", "for development"),
        ({"poll": Answer(501, "no long-polling here: …")}, "error", "no long-polling here"),
        ({"poll": Answer(503, "several workers share no broker")}, "error", "share no broker"),
        ({"poll": Answer(500)}, "error", "its log says why"),
        ({"poll": Answer(429)}, "warn", "too many requests"),
        ({"ws": Answer(400, "… does a proxy drop it?")}, "warn", "pages use long-polling"),
        ({"ws": Answer(200)}, "warn", "the proxy drops the Upgrade"),
        ({"ws": Answer(403, "Origin https://a is not http://b")}, "error", "(ProxyFix"),
        ({"ws": Answer(error="it opens, and nothing comes through")}, "error", "nothing comes"),
        ({"url": "http://a", "secure": True}, "error", "SESSION_COOKIE_SECURE is on"),
    ],
)
def test_a_mistake_on_the_way_is_named(
    answers: dict[str, Any], level: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    [found] = probed(monkeypatch, **answers)
    assert found.level == level and words in found.text


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(400), "is the scheme https?"),
        (Answer(403), "by a proxy, it seems"),
        (Answer(418), "with status 418"),
    ],
)
def test_other_answers_are_named_by_their_status(answer: Answer, words: str) -> None:
    found = judge_plain(answer, "/chsk")
    assert found.level == "error" and words in found.text


@pytest.mark.parametrize("status", [403, 409, 418, 504])
def test_other_refusals_are_named_by_their_status(status: int) -> None:
    found = judge("WebSocket", Answer(status, "because"))
    assert found.level == "error" and str(status) in found.text


# the command -------------------------------------------------------------------------------


def run(*args: str) -> Any:
    app = Flask(__name__)
    app.secret_key = KEY
    Chsk(app).on("a/b")(lambda ev: None)
    return app.test_cli_runner().invoke(args=["chsk", "doctor", *args])


def test_the_status_says_whether_an_error_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = run()
    assert ran.exit_code == 0
    python = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    assert ran.output.startswith("ok    Flask-Chsk ") and python in ran.output
    monkeypatch.setattr(doctor, "_ask", lambda *args: Answer(error="refused"))
    ran = run("http://127.0.0.1:1")
    assert (ran.exit_code, ran.output.splitlines()[-1]) == (1, "error no answer: refused")


def test_a_url_has_a_scheme() -> None:
    assert run("example.org").exit_code == 2

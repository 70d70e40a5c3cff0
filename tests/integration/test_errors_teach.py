"""Frequent mistakes, and the whole message that each gets: it says what to do."""

from __future__ import annotations

import datetime as dt
import logging
import socket
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, after_this_request, render_template_string, session
from flask_login import LoginManager

from flask_chsk import Chsk
from flask_chsk.errors import ReplyError
from flask_chsk.publisher import Publisher
from flask_chsk.server import dispatch
from flask_chsk.web import contexts, views


class Case:
    """An application, and what its log says."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "flask_chsk")
        self.app = self.new_app()
        self._caplog = caplog
        self._chsk: Chsk | None = None

    @staticmethod
    def new_app(**config: Any) -> Flask:
        app = Flask("shop")
        app.secret_key = "secret"
        app.config.update(config)
        return app

    @property
    def chsk(self) -> Chsk:
        if self._chsk is None:
            self._chsk = Chsk(self.app)
        return self._chsk

    @property
    def log(self) -> list[str]:
        """What was logged, each line with its level."""
        return [f"{one.levelname}: {one.getMessage()}" for one in self._caplog.records]

    def get(self, *, headers: Any = None, packer: str = "edn", **environ: Any) -> str:
        """A handshake over Ajax: status and body."""
        return self._shown(
            self.app.test_client().get(
                f"/chsk?client-id=abcdefgh&handshake?=1&packer={packer}",
                headers=headers,
                environ_overrides=environ,
            )
        )

    def post(self) -> str:
        """A POST without a token: status and body."""
        form = {"client-id": "abcdefgh", "ppstr": "[[:a/b 1] nil]"}
        return self._shown(self.app.test_client().post("/chsk", data=form))

    @staticmethod
    def _shown(response: Any) -> str:
        return f"{response.status_code} {response.text}".strip()

    def request(self, handler: Callable[[Any], Any], id: str = "shop/buy") -> list[str]:
        """What a client hears whose event *handler* takes, then the log."""
        self.chsk.on("shop/buy")(handler)
        try:
            self.chsk.test_client(uid="ann").request([id])
        except ReplyError as error:
            return [f"{error.status} {error}", *self.log]
        return self.log


Mistake = Callable[[Case], Any]
MISTAKES: list[tuple[str, Mistake, list[str]]] = []


def mistake(*message: str) -> Callable[[Mistake], Mistake]:
    """A mistake, and what it is answered with: the exception, the response, lines of the log."""

    def add(fn: Mistake) -> Mistake:
        MISTAKES.append((fn.__name__, fn, [*message]))
        return fn

    return add


# Setting up ------------------------------------------------------------------------------


@mistake(
    (
        "ConfigError: the CSRF token lives in the session, which needs app.secret_key: set"
        " it, or CHSK_CSRF = False"
    ),
)
def no_secret_key(case: Case) -> object:
    app = Flask("shop")
    Chsk(app)
    with app.test_request_context():
        return render_template_string("{{ chsk_script() }}")


@mistake(
    (
        "ConfigError: CHSK_BROKER_URL is shared by several processes, and each would sign"
        " the tokens of its clients with a random key of its own: set app.secret_key, the"
        " same in all of them, before chsk.init_app(app)"
    ),
)
def no_secret_key_and_several_workers(case: Case) -> object:
    return Chsk(Flask("shop"), csrf=False, broker_url="redis://localhost/0")


@mistake(
    (
        "ConfigError: this application has a Chsk already: import that one where you need it"
        " (with several applications: one Chsk(), and chsk.init_app(app) for each)"
    ),
)
def two_chsk_objects(case: Case) -> object:
    Chsk(case.app)
    return Chsk(case.app)


@mistake(
    "UsageError: no application yet: call chsk.init_app(app) first",
)
def send_before_init_app(case: Case) -> object:
    return Chsk().broadcast(["shop/open", None])


@mistake(
    "ConfigError: unknown setting CHSK_PAKCERS: did you mean CHSK_PACKERS?",
)
def unknown_setting(case: Case) -> object:
    return Chsk(case.new_app(CHSK_PAKCERS=["edn"]))


@mistake(
    (
        "ConfigError: CHSK_LP_TIMEOUT must be seconds from 0.1 to 55 (clients give a poll up"
        " at 60), not '20'"
    ),
)
def setting_of_another_type(case: Case) -> object:
    return Chsk(case.new_app(CHSK_LP_TIMEOUT="20"))


@mistake(
    (
        "ConfigError: no packer 'protobuf': there are edn, json, transit, msgpack, gzip, and"
        " each but gzip with gzip- before its name; one of your own goes by its name once"
        " flask_chsk.packers.custom.register() has it, which comes before chsk.init_app(app)"
    ),
)
def unknown_packer(case: Case) -> object:
    return Chsk(case.app, packers=["edn", "protobuf"])


@mistake(
    ("ConfigError: CHSK_BROKER_URL localhost:… is not known; use memory:// or redis://host:6379/0"),
)
def broker_url_without_a_scheme(case: Case) -> object:
    return Chsk(case.app, broker_url="localhost:6379")


@mistake(
    (
        "ConfigError: a publisher needs the redis://… that the workers have as"
        " CHSK_BROKER_URL, not memory://"
    ),
)
def publisher_of_one_process(case: Case) -> object:
    return Publisher("memory://")


@mistake(
    (
        "503 several workers share no broker, so events would reach some clients only: set"
        " CHSK_BROKER_URL=redis://… or run one worker (CHSK_ALLOW_UNSHARED=True overrides)"
    ),
)
def many_workers_without_a_broker(case: Case) -> object:
    Chsk(case.app, csrf=False)
    return case.get(**{"wsgi.multiprocess": True})


@mistake(
    (
        "501 no long-polling here: this server handles one request at a time, so one waiting"
        " poll would block it. Run gunicorn -k gevent, or -k gthread --threads 100"
        " (WebSockets work as it is)"
    ),
)
def sync_worker(case: Case) -> object:
    Chsk(case.app)
    with socket.socket() as sock:
        return case.get(**{"gunicorn.socket": sock, "wsgi.multithread": False})


# Handlers --------------------------------------------------------------------------------


@mistake(
    "ConfigError: an event id is namespaced, such as \"chat/say\", not 'say'",
)
def id_without_namespace(case: Case) -> object:
    return case.chsk.on("say")(lambda ev: None)


@mistake(
    (
        'ConfigError: on() takes an event id: @chsk.on("chat/say"), not'
        " 'on_without_an_id.<locals>.say'"
    ),
)
def on_without_an_id(case: Case) -> object:
    @case.chsk.on
    def say(ev: Any) -> None: ...

    return say


@mistake(
    (
        'ConfigError: @on("chat/say"): handler_with_event_and_data.<locals>.say(ev, data) is'
        " called as say(ev): write def say(ev)"
    ),
)
def handler_with_event_and_data(case: Case) -> object:
    def say(ev, data):  # type: ignore[no-untyped-def]
        ...

    return case.chsk.on("chat/say")(say)


@mistake(
    (
        'ConfigError: @on("chat/say"): handler_without_arguments.<locals>.say() is called as'
        " say(ev): write def say(ev)"
    ),
)
def handler_without_arguments(case: Case) -> object:
    def say():  # type: ignore[no-untyped-def]
        ...

    return case.chsk.on("chat/say")(say)


@mistake(
    (
        'ConfigError: @on("chat/say"): async_handler.<locals>.say is async and would never'
        " run: write a plain function (def): under gevent it runs concurrently, and it may"
        " block"
    ),
)
def async_handler(case: Case) -> object:
    async def say(ev: Any) -> None: ...

    return case.chsk.on("chat/say")(say)


@mistake(
    (
        "ConfigError: 'chat/say' has a handler already:"
        " two_handlers_of_one_id.<locals>.<lambda>; define it once, outside of create_app(),"
        " or make one Chsk for each application"
    ),
)
def two_handlers_of_one_id(case: Case) -> object:
    case.chsk.on("chat/say")(lambda ev: 1)
    return case.chsk.on("chat/say")(lambda ev: 2)


@mistake(
    (
        "ConfigError: errorhandler() takes a class of exceptions, not 404: for a status take"
        " its class, such as werkzeug.exceptions.NotFound"
    ),
)
def errorhandler_of_a_status(case: Case) -> object:
    return case.chsk.errorhandler(404)  # type: ignore[arg-type]


@mistake(
    "404 no handler for shop/bye",
    "INFO: uid 'ann' connected",
    (
        "WARNING: no handler for shop/bye (from uid 'ann'): add @chsk.on('shop/bye');"
        " handlers there are: shop/buy"
    ),
)
def event_that_no_handler_takes(case: Case) -> object:
    return case.request(lambda ev: None, id="shop/bye")


@mistake(
    "500 the handler failed",
    "INFO: uid 'ann' connected",
    (
        "ERROR: handler of shop/buy failed, uid 'ann': its reply[\"in\"]: object of type"
        " timedelta: pass its total_seconds()"
    ),
)
def reply_that_cannot_be_packed(case: Case) -> object:
    return case.request(lambda ev: {"in": dt.timedelta(seconds=5)})


@mistake(
    "500 the handler failed",
    "INFO: uid 'ann' connected",
    "ERROR: handler of shop/buy failed, uid 'ann'",
    (
        "session['cart'] cannot be changed in a channel socket handler: no response carries"
        " the cookie. Change it in an ordinary route, then call chsk.reconnect() in the page"
    ),
)
def session_written_in_a_handler(case: Case) -> object:
    def buy(ev: Any) -> None:
        session["cart"] = []

    error = case.request(buy)
    return [*error, str(case._caplog.records[-1].exc_info[1])]  # type: ignore[index]


@mistake(
    "500 the handler failed",
    "INFO: uid 'ann' connected",
    "ERROR: handler of shop/buy failed, uid 'ann'",
    (
        "@after_event after_event_without_return.<locals>.<lambda> returned None in place of"
        " the reply to shop/buy: return the value, or raise Reply(None)"
    ),
)
def after_event_without_return(case: Case) -> object:
    case.chsk.after_event(lambda ev, value: None)
    error = case.request(lambda ev: "bought")
    return [*error, str(case._caplog.records[-1].exc_info[1])]  # type: ignore[index]


@mistake(
    "{Keyword('ok'): True}",
    "INFO: uid 'ann' connected",
    (
        "WARNING: after_this_request(after_this_request_in_a_handler.<locals>.add_cookie): not"
        " called, since the handler of shop/buy returns no response; do it in the handler, or"
        " change the reply in @chsk.after_event"
    ),
)
def after_this_request_in_a_handler(case: Case) -> object:
    def add_cookie(response: Any) -> Any:
        response.set_cookie("bought", "1")
        return response

    def buy(ev: Any) -> object:
        after_this_request(add_cookie)
        return {"ok": True}

    case.chsk.on("shop/buy")(buy)
    reply = case.chsk.test_client(uid="ann").request(["shop/buy"])
    return [str(reply), *case.log]


# Sending ---------------------------------------------------------------------------------


@mistake(
    (
        "AttributeError: 'Chsk' object has no attribute 'emit': use chsk.send(uid,"
        ' ["chat/said", data]), or chsk.broadcast(["chat/said", data]) to all'
    ),
)
def emit(case: Case) -> object:
    return case.chsk.emit("said", {"text": "hi"})  # type: ignore[attr-defined]


@mistake(
    ("AttributeError: 'Chsk' object has no attribute 'join_room': use chsk.join(uid, topic)"),
)
def join_room(case: Case) -> object:
    return case.chsk.join_room("kitchen")  # type: ignore[attr-defined]


@mistake(
    "BadEvent: an event is one argument, [\"chat/said\", data], not 'chat/said'",
)
def event_that_is_a_string(case: Case) -> object:
    return case.chsk.broadcast("chat/said")


@mistake(
    (
        'BadEvent: an event is one argument: chsk.send(uid, ["chat/said", data]); what follows'
        " it is given by name"
    ),
)
def send_with_three_arguments(case: Case) -> object:
    return case.chsk.send("ann", "chat/said", {"text": "hi"})  # type: ignore[arg-type]


@mistake(
    (
        'BadEvent: an event is one argument: chsk.broadcast(["chat/said", data]); what follows'
        " it is given by name"
    ),
)
def broadcast_with_two_arguments(case: Case) -> object:
    return case.chsk.broadcast("chat/said", {"text": "hi"})  # type: ignore[arg-type]


@mistake(
    (
        'BadEvent: an event is one argument: chsk.publish(topic, ["chat/said", data]); what'
        " follows it is given by name"
    ),
)
def publish_with_three_arguments(case: Case) -> object:
    return case.chsk.publish("kitchen", "chat/said", {"text": "hi"})  # type: ignore[arg-type]


@mistake(
    "BadEvent: an event is one argument, [\"page/confirm\", data], not 'page/confirm'",
)
def ask_with_three_arguments(case: Case) -> object:
    return case.chsk.ask("ann", "page/confirm", {"text": "Sure?"})  # type: ignore[arg-type]


@mistake(
    (
        'BadEvent: an event is one argument: chsk.send(uid, ["ns/name", data]); what follows'
        " it is given by name"
    ),
)
def client_id_that_is_not_named(case: Case) -> object:
    return case.chsk.send("ann", ["chat/said", "hi"], "abcdefgh")  # type: ignore[arg-type]


@mistake(
    "500 the handler failed",
    "INFO: uid 'ann' connected",
    "ERROR: handler of shop/buy failed, uid 'ann'",
    'an event is one argument: ev.push(["chat/said", data]); what follows it is given by name',
)
def push_with_two_arguments(case: Case) -> object:
    error = case.request(lambda ev: ev.push("chat/said", {"text": "hi"}))
    return [*error, str(case._caplog.records[-1].exc_info[1])]  # type: ignore[index]


@mistake(
    (
        'BadEvent: an event is one argument: publisher.send(uid, ["chat/said", data]); what'
        " follows it is given by name"
    ),
)
def publisher_with_three_arguments(case: Case) -> object:
    publisher = Publisher("redis://127.0.0.1:1")
    return publisher.send("ann", "chat/said", {"text": "hi"})  # type: ignore[arg-type]


@mistake(
    (
        'BadEvent: an event is one argument: client.request(["shop/buy", data]); what follows'
        " it is given by name"
    ),
)
def request_of_a_test_client_with_two_arguments(case: Case) -> object:
    client = case.chsk.test_client(uid="ann")
    return client.request("shop/buy", {"count": 1})  # type: ignore[arg-type]


@mistake(
    "BadEvent: an event id is namespaced, such as \"chat/say\", not 'said'",
)
def event_without_namespace(case: Case) -> object:
    return case.chsk.broadcast(["said", "hi"])


@mistake(
    (
        "BadEvent: an event has an id and at most one datum, not 3 elements: ['chat/said',"
        ' \'ann\', \'hi\']; put several into a dict, ["chat/said", {"who": …, "text": …}]'
    ),
)
def event_with_two_data(case: Case) -> object:
    return case.chsk.broadcast(["chat/said", "ann", "hi"])


@mistake(
    (
        'PackError: event[1]["paid"][0]: object of type object: pass what it is made of, or'
        " register a pack_default"
    ),
)
def value_that_cannot_be_packed(case: Case) -> object:
    return case.chsk.broadcast(["shop/order", {"paid": [object()]}])


@mistake(
    (
        'PackError: event[1]["at"]: naive datetime; give it a zone, as'
        ' datetime.now(timezone.utc) does, or set CHSK_NAIVE_DATETIMES, such as to "UTC"'
    ),
)
def datetime_without_a_zone(case: Case) -> object:
    return case.chsk.broadcast(["shop/order", {"at": dt.datetime(2026, 1, 2)}])


@mistake(
    "UsageError: a uid is a str, int or UUID, not <Flask 'ann'>: pass its id",
)
def user_object_as_uid(case: Case) -> object:
    return case.chsk.send(Flask("ann"), ["a/b", 1])


@mistake(
    "INFO: uid 'ann' connected",
    "INFO: nothing was sent to uid 'Ann', who is not connected; in this process: ['ann']",
)
def user_who_is_not_there(case: Case) -> object:
    case.chsk.test_client(uid="ann")
    case.chsk.send("Ann", ["a/b", 1])
    return case.log


@mistake(
    (
        "UsageError: a uid is a str, int or UUID, not None; ALL_USERS_WITHOUT_UID addresses"
        " anonymous clients"
    ),
)
def topic_of_an_anonymous_client(case: Case) -> object:
    return case.chsk.join(None, "kitchen")


@mistake(
    (
        "WARNING: this process serves nobody yet, and CHSK_BROKER_URL=memory:// does not"
        " reach the clients of another one: to send from a task, a cron job or a shell, set"
        " CHSK_BROKER_URL=redis://… here and in the workers, or use flask_chsk.publisher"
    ),
)
def send_in_a_task(case: Case) -> object:
    case.chsk.broadcast(["a/b", 1])
    return case.log


# Requests --------------------------------------------------------------------------------


@mistake(
    (
        "403 Origin https://app.example.org is not http://localhost: add it to"
        " CHSK_ALLOWED_ORIGINS if it is yours"
    ),
    (
        "WARNING: GET /chsk refused with 403: Origin https://app.example.org is not"
        " http://localhost: add it to CHSK_ALLOWED_ORIGINS if it is yours"
    ),
)
def page_of_another_origin(case: Case) -> object:
    Chsk(case.app)
    return [case.get(headers={"Origin": "https://app.example.org"}), *case.log]


@mistake(
    (
        "403 no CSRF token in this session: render {{ chsk_script() }} in the page first and"
        " keep its cookie, send a bearer token instead of cookies, or set CHSK_CSRF = False"
    ),
    (
        "WARNING: POST /chsk refused with 403: no CSRF token in this session: render {{"
        " chsk_script() }} in the page first and keep its cookie, send a bearer token instead"
        " of cookies, or set CHSK_CSRF = False"
    ),
)
def missing_token(case: Case) -> object:
    Chsk(case.app)
    return [case.post(), *case.log]


@mistake(
    "400 unknown packer: this server speaks edn, json (CHSK_PACKERS)",
)
def packer_that_is_not_offered(case: Case) -> object:
    Chsk(case.app)
    return case.get(packer="msgpack")


@mistake(
    "401 not authorized: sign in first",
    "WARNING: authorize returned None: return True to let in",
    "WARNING: GET /chsk refused with 401: not authorized: sign in first",
)
def authorize_that_returns_nothing(case: Case) -> object:
    chsk = Chsk(case.app, csrf=False)
    chsk.authorize(lambda: None)
    return [case.get(), *case.log]


@mistake(
    (
        "UsageError: @chsk.user_id is {'id': 7}: it has to be a str, an int or a UUID, an"
        " Identity of one, or None for a visitor who is nobody known"
    ),
)
def user_id_that_returns_a_user(case: Case) -> object:
    chsk = Chsk(case.app, csrf=False)
    case.app.testing = True
    chsk.user_id(lambda: {"id": 7})
    return case.get()


# Tests -----------------------------------------------------------------------------------


@mistake(
    (
        'UsageError: uid= sets session["uid"], which this application does not use: log in'
        " through a Flask client, and give that as flask_client="
    ),
)
def uid_of_a_test_client_beside_flask_login(case: Case) -> object:
    LoginManager(case.app)
    return case.chsk.test_client(uid="ann")


@pytest.fixture
def case(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Case:
    for module in (contexts, views, dispatch):  # what another test just logged is new here
        monkeypatch.setattr(module.rate_limited, "_kinds", {})
    return Case(caplog)


@pytest.mark.parametrize(
    ("wrong", "message"), [one[1:] for one in MISTAKES], ids=[one[0] for one in MISTAKES]
)
def test_a_mistake_is_answered_with_what_to_do(
    case: Case, wrong: Mistake, message: list[str]
) -> None:
    try:
        said = wrong(case)
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    assert (said if isinstance(said, list) else [said]) == message

"""The extension object among applications, contexts and Flask's other extensions."""

from __future__ import annotations

import gc
import json
import logging
import re
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from datetime import datetime, timezone
from functools import partial
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from flask import (
    Flask,
    Response,
    current_app,
    flash,
    g,
    get_flashed_messages,
    jsonify,
    redirect,
    render_template_string,
    session,
    url_for,
)
from flask_login import LoginManager, UserMixin, login_user, logout_user
from flask_sqlalchemy import SQLAlchemy
from flask_wtf.csrf import CSRFProtect
from pydantic import BaseModel, Field, ValidationError, field_validator

from flask_chsk import (
    ALL_USERS_WITHOUT_UID,
    BadEvent,
    Chsk,
    ConfigError,
    Handlers,
    NoClient,
    PackError,
    UsageError,
    uid_connected,
    uid_disconnected,
)
from flask_chsk.errors import ReplyError
from flask_chsk.packers.edn import EdnPacker
from flask_chsk.security import RESUME_HEADER, SECRET_HEADER
from flask_chsk.testing import Refusal
from tests.process import eventually


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


# Applications ----------------------------------------------------------------------------


def test_the_only_application_is_meant_outside_a_context(app: Flask, chsk: Chsk) -> None:
    ann = chsk.test_client(uid="ann")
    assert chsk.send("ann", ["a/b", 1]) is not None
    assert ann.received == [["a/b", 1]]


def test_of_two_applications_one_has_to_be_named() -> None:
    chsk = Chsk()
    one, two = new_app(), new_app()
    chsk.init_app(one)
    chsk.init_app(two)
    with pytest.raises(UsageError, match=r"2 applications .* chsk\.bind\(app\)"):
        chsk.send("ann", ["a/b"])
    with two.app_context():
        ann = chsk.test_client(uid="ann")
    assert chsk.bind(one).send("ann", ["a/b", 1]) is None
    assert chsk.bind(two).send("ann", ["a/b", 2]) is not None
    assert ann.received == [["a/b", 2]]


def test_the_error_names_the_applications_and_what_to_do() -> None:
    chsk = Chsk()
    alive = [new_app(), new_app()]
    for app in alive:
        chsk.init_app(app)
    gone = new_app()
    chsk.init_app(gone)
    del gone
    with pytest.raises(UsageError) as error:
        chsk.broadcast(["a/b"])
    assert str(error.value) == (
        "2 applications use this Chsk and none is current: tests.unit.test_extension,"
        " tests.unit.test_extension. Call it in a view or a handler, within app.app_context(), or"
        " as chsk.bind(app).send(…). In a test: with app.app_context() around the call, or an app"
        " fixture with scope='session'"
    )


def test_an_application_of_the_test_before_is_not_alive() -> None:
    chsk = Chsk()

    def create_app() -> Flask:
        app = new_app()
        chsk.init_app(app)
        app.itself = app  # type: ignore[attr-defined]
        return app

    for n in range(3):
        app = create_app()
        ann = chsk.test_client(app.test_client(), uid="ann")
        assert chsk.broadcast(["a/b", n]) is not None
        assert ann.received == [["a/b", n]]
        del app, ann


def test_before_init_app_the_remedy_is_named() -> None:
    with pytest.raises(UsageError, match=r"init_app"):
        Chsk().send("ann", ["a/b"])
    with pytest.raises(UsageError, match=r"init_app"):
        Chsk().bind(new_app())


def test_an_application_is_let_go() -> None:
    chsk = Chsk()
    app = new_app()
    chsk.init_app(app)
    gone = weakref.ref(app)
    del app
    gc.collect()
    assert gone() is None


def test_a_second_path_is_another_door_to_the_same_clients(app: Flask, chsk: Chsk) -> None:
    chsk.init_app(app, path="/old", wire="1.18")
    response = app.test_client().get(
        "/old?client-id=x&handshake%3F=1", environ_overrides={"flask_chsk.test_client": True}
    )
    assert response.text == "[[:chsk/handshake [:sente/nil-uid nil]]]"
    with pytest.raises(ConfigError, match="'/old' is taken"):
        chsk.init_app(app, path="/old")
    with pytest.raises(ConfigError, match="has a Chsk already"):
        Chsk(app, path="/third")


def test_each_path_speaks_its_generation_of_the_wire(app: Flask) -> None:
    chsk = Chsk(app, csrf=False)
    for wire in ("1.18", "1.17", "1.0"):
        chsk.init_app(app, path=f"/{wire}", wire=wire)
    browser = app.test_client()

    def get(path: str) -> str:
        query = {"client-id": f"client-{paths.index(path)}"}
        ours = {"flask_chsk.test_client": True}
        return browser.get(path, query_string=query, environ_overrides=ours).text

    paths = ["/chsk", "/1.18", "/1.17", "/1.0"]
    assert [get(path) for path in paths] == [
        "[[:chsk/handshake [:sente/nil-uid nil nil]] nil]",
        "[[:chsk/handshake [:sente/nil-uid nil]]]",
        "+[[:chsk/handshake [:taoensso.sente/nil-uid nil]]]",
        "-[:chsk/handshake [:taoensso.sente/nil-uid nil]]",
    ]
    chsk.broadcast(["a/b", 1])
    assert [get(path) for path in paths] == [
        "[[[:a/b 1]] nil]",
        "[[[:a/b 1]]]",
        "+[[[:a/b 1]]]",
        "-[[:a/b 1]]",
    ]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"CHSK_PTAH": "/x"}, "unknown setting CHSK_PTAH: did you mean CHSK_PATH?"),
        ({"CHSK_LP_TIMEOUT": 60}, "CHSK_LP_TIMEOUT must be seconds from 0.1 to 55"),
        ({"CHSK_ALLOWED_ORIGINS": ["example.org"]}, "'example.org' is no origin"),
        ({"CHSK_PACKER": "yaml"}, "CHSK_PACKER 'yaml' is not in CHSK_PACKERS"),
        ({"CHSK_PACKERS": ["edn", "yaml"]}, "no packer 'yaml'"),
        ({"CHSK_MAX_OUTBOX_BYTES": 4096}, "at least twice CHSK_MAX_MESSAGE_BYTES"),
    ],
)
def test_a_setting_that_cannot_work_is_named(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        Chsk(new_app(**config))


# Sending ---------------------------------------------------------------------------------


def test_uids_are_str_int_or_uuid(chsk: Chsk) -> None:
    seven = chsk.test_client(uid="7")
    chsk.send(7, ["a/b"])
    assert seven.received == [["a/b", None]]
    assert chsk.send(UUID(int=1), ["a/b"]) is None
    for wrong in (None, True, 1.5, b"x", "", "x" * 256):
        with pytest.raises(UsageError):
            chsk.send(wrong, ["a/b"])


def test_anonymous_clients_are_addressed_together(chsk: Chsk) -> None:
    one, two, ann = chsk.test_client(), chsk.test_client(), chsk.test_client(uid="ann")
    chsk.send(ALL_USERS_WITHOUT_UID, ["a/b", 1])
    assert (one.received, two.received, ann.received) == ([["a/b", 1]], [["a/b", 1]], [])


def test_one_client_of_a_user_is_addressed(chsk: Chsk) -> None:
    one, two = chsk.test_client(uid="ann"), chsk.test_client(uid="ann")
    chsk.send("ann", ["a/b", 1], client_id=two.client_id)
    assert (one.received, two.received) == ([], [["a/b", 1]])


def test_what_cannot_be_sent_raises_in_the_caller_with_its_path(chsk: Chsk) -> None:
    for _ in range(2):  # before anybody connected, and after
        with pytest.raises(PackError, match=re.escape('event[1]["when"][1]: object')):
            chsk.send("ann", ["a/b", {"when": [1, object()]}])
        with pytest.raises(BadEvent, match="namespaced"):
            chsk.broadcast(["said", 1])
        with pytest.raises(BadEvent, match="chsk namespace"):
            chsk.send("ann", ["chsk/handshake", 1])
        with pytest.raises(PackError, match="more than half of CHSK_MAX_OUTBOX_BYTES"):
            chsk.publish("room/1", ["a/b", "x" * (4 * 1024 * 1024)])
        with pytest.raises(UsageError, match="exclude= takes the event message"):
            chsk.broadcast(["a/b"], exclude="c1")  # type: ignore[arg-type]
        chsk.test_client(uid="ann")


def test_what_is_changed_after_send_was_sent_unchanged(chsk: Chsk) -> None:
    ann = chsk.test_client(uid="ann")
    data = [1]
    chsk.send("ann", ["a/b", data])
    data.append(2)
    assert ann.received == [["a/b", [1]]]


def test_the_first_drop_to_an_unknown_uid_says_who_is_there(
    chsk: Chsk, caplog: pytest.LogCaptureFixture
) -> None:
    chsk.test_client(uid="ann")
    with caplog.at_level(logging.INFO, "flask_chsk"):
        chsk.send("Ann", ["a/b"])
        chsk.send("Ann", ["a/b"])
    said = [m for m in caplog.messages if m.startswith("nothing")]
    assert len(said) == 1
    assert "'Ann'" in said[0] and "['ann']" in said[0]


def test_topics_reach_their_members_from_joining_on(chsk: Chsk) -> None:
    ann, bob = chsk.test_client(uid="ann"), chsk.test_client(uid="bob")
    chsk.publish("news", ["news/item", 0])
    assert chsk.join("ann", "news") and not chsk.join("ann", "news")
    chsk.join("cec", "news")
    chsk.publish("news", ["news/item", 1])
    cec = chsk.test_client(uid="cec")
    chsk.publish("news", ["news/item", 2])
    assert chsk.members("news") == {"ann", "cec"}
    assert chsk.leave("ann", "news") and not chsk.leave("ann", "news")
    chsk.publish("news", ["news/item", 3])
    assert [event[1] for event in ann.received] == [1, 2]
    assert bob.received == []
    assert [event[1] for event in cec.received] == [2, 3]


def test_close_tells_the_client(chsk: Chsk) -> None:
    ann = chsk.test_client(uid="ann")
    chsk.close("ann", reconnect=False)
    assert ann.received == [["chsk/close", {"code": 4005, "reason": "signed out"}]]
    assert ann.closed
    assert chsk.connected_uids.any == frozenset()


def test_nobody_to_ask(chsk: Chsk) -> None:
    with pytest.raises(NoClient):
        chsk.ask("nobody", ["a/b"])


def test_signals_and_watchers_tell_who_came(app: Flask, chsk: Chsk) -> None:
    told: list[Any] = []

    def came(sender: Flask, uid: str) -> None:
        told.append(("came", sender.name, uid))

    def went(sender: Flask, uid: str) -> None:
        told.append(("went", sender.name, uid))

    uid_connected.connect(came, app)
    uid_disconnected.connect(went, app)
    undo = chsk.watch(lambda old, new: told.append((sorted(old.any), sorted(new.any))))
    ann = chsk.test_client(uid="ann")
    assert chsk.connected_uids.ajax == {"ann"}
    ann.close()
    undo()
    chsk.test_client(uid="bob").close()
    name = app.name
    assert told == [
        ("came", name, "ann"),
        ([], ["ann"]),
        ("went", name, "ann"),
        (["ann"], []),
        ("came", name, "bob"),
        ("went", name, "bob"),
    ]


# After a commit --------------------------------------------------------------------------


@pytest.fixture
def db(app: Flask) -> Iterator[SQLAlchemy]:
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
    db = SQLAlchemy(app)
    with app.app_context():
        yield db
        db.engine.dispose()


def test_events_of_a_transaction_arrive_in_order_after_its_commit(
    app: Flask, chsk: Chsk, db: SQLAlchemy
) -> None:
    ann, other = chsk.test_client(uid="ann"), chsk.test_client(uid="ann")
    bob = chsk.test_client(uid="bob")
    chsk.join("ann", "news")
    bound, session = chsk.bind(app), db.session
    assert chsk.send("ann", ["a/b", 1], after_commit=session) is None
    assert chsk.broadcast(["a/b", 2], after_commit=session) is None
    assert chsk.publish("news", ["a/b", 3], after_commit=session) is None
    with session.begin_nested() as savepoint:
        bound.broadcast(["a/b", 4], after_commit=session)
        savepoint.rollback()
    bound.send("ann", ["a/b", 5], client_id=ann.client_id, flush=True, after_commit=session)
    assert ann.received == other.received == bob.received == []
    session.commit()
    assert [event[1] for event in ann.received] == [1, 2, 3, 5]
    assert [event[1] for event in other.received] == [1, 2, 3]
    assert [event[1] for event in bob.received] == [2]


def test_a_handler_sends_to_the_others_after_its_commit(
    app: Flask, chsk: Chsk, db: SQLAlchemy
) -> None:
    @chsk.on("doc/edit")
    def edit(ev: Any) -> None:
        chsk.broadcast(["doc/edited", ev.data], exclude=ev, after_commit=db.session)
        ev.send("bob", ["doc/read", ev.data], after_commit=db.session)
        if ev.data == "good":
            db.session.commit()

    ann, bob = chsk.test_client(uid="ann"), chsk.test_client(uid="bob")
    ann.send(["doc/edit", "bad"])  # the end of the handler's context rolls back
    ann.send(["doc/edit", "good"])
    assert ann.received == []
    assert bob.received == [["doc/edited", "good"], ["doc/read", "good"]]


def test_who_connects_before_the_commit_gets_the_event(chsk: Chsk, db: SQLAlchemy) -> None:
    chsk.send("ann", ["a/b", 1], after_commit=db.session)
    ann = chsk.test_client(uid="ann")
    db.session.commit()
    assert ann.received == [["a/b", 1]]


def test_an_event_that_cannot_be_sent_is_refused_before_the_commit(
    chsk: Chsk, db: SQLAlchemy
) -> None:
    calls: list[tuple[type[Exception], Callable[..., Any]]] = [
        (PackError, partial(chsk.send, "ann", ["a/b", object()])),
        (BadEvent, partial(chsk.broadcast, ["nonsense"])),
        (UsageError, partial(chsk.send, None, ["a/b"])),
        (UsageError, partial(chsk.publish, "", ["a/b"])),
    ]
    for error, call in calls:
        with pytest.raises(error):
            call(after_commit=db.session)
    with pytest.raises(UsageError, match=r"such as db\.session"):
        chsk.send("ann", ["a/b"], after_commit=db)  # type: ignore[arg-type]


def test_the_function_for_absent_users_is_called_after_the_commit(
    chsk: Chsk, db: SQLAlchemy
) -> None:
    absent: list[Any] = []

    @chsk.absent
    def mail(uid: str, event: Any) -> None:
        absent.append((uid, *event))

    for end in (db.session.rollback, db.session.commit):
        chsk.send("ann", ["a/b", end.__name__], after_commit=db.session)
        assert absent == []
        end()
    assert absent == [("ann", "a/b", "commit")]


# Handlers --------------------------------------------------------------------------------


def test_a_context_variable_ends_with_its_event(app: Flask, chsk: Chsk) -> None:
    tenant: ContextVar[str | None] = ContextVar("tenant", default=None)

    @app.before_request
    def name_the_tenant() -> None:
        tenant.set("of a request")

    @chsk.on("a/b")
    def ab(ev: Any) -> str | None:
        found = tenant.get()
        tenant.set(f"of an event of {ev.uid}")
        return found

    found = []

    def unhandled(ev: Any) -> None:
        found.append(tenant.get())
        tenant.set(f"of {ev.id} in {current_app.name}")

    stop = chsk.start_router(unhandled)
    clients = [chsk.test_client(uid=uid) for uid in ("ann", "bob")] * 2
    assert [client.request(["a/b"]) for client in clients] == [None] * 4
    for client in clients:
        client.send(["a/unhandled"])
    eventually(lambda: len(found) == 4)
    assert found == [None] * 4
    stop()


def test_handlers_in_modules_get_their_prefix(chsk: Chsk) -> None:
    chat = Handlers("chat")
    order: list[str] = []

    @chat.before_event
    def before(ev: Any) -> None:
        order.append("before")

    @chat.on("say")
    def say(ev: Any) -> Any:
        order.append(ev.id)
        return 1

    @chat.after_event
    def after(ev: Any, value: Any) -> Any:
        order.append("after")
        return value + 1

    @chsk.on("*")
    def rest(ev: Any) -> Any:
        return f"rest {ev.id}"

    chsk.register(chat)
    ann = chsk.test_client(uid="ann")
    assert ann.request(["chat/say"]) == 2
    assert ann.request(["other/thing"]) == "rest other/thing"
    assert order == ["before", "chat/say", "after"]


def test_an_error_handlers_value_is_the_reply(chsk: Chsk) -> None:
    @chsk.errorhandler(LookupError)
    def missing(ev: Any, error: LookupError) -> Any:
        return {"missing": str(error.args[0])}

    @chsk.on("a/b")
    def handler(ev: Any) -> Any:
        raise KeyError("x")

    assert chsk.test_client().request(["a/b"]) == {"missing": "x"}


def test_a_failing_handler_is_logged_once_with_id_and_uid(
    chsk: Chsk, caplog: pytest.LogCaptureFixture
) -> None:
    @chsk.on("a/b")
    def handler(ev: Any) -> Any:
        raise ZeroDivisionError

    with pytest.raises(ReplyError):
        chsk.test_client(uid="ann").request(["a/b"])
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage() for record in errors] == ["handler of a/b failed, uid 'ann'"]
    assert errors[0].exc_info is not None


def test_parse_is_pydantics(chsk: Chsk) -> None:
    class Say(BaseModel):
        text: str
        to: int = 0

    @chsk.on("chat/say", parse=Say.model_validate)
    def say(ev: Any) -> Any:
        return [type(ev.data).__name__, ev.data.text, ev.data.to]

    ann = chsk.test_client(uid="ann")
    assert ann.request(["chat/say", {"text": "hi"}]) == ["Say", "hi", 0]
    with pytest.raises(ReplyError, match=r"1 validation error for Say text Field required") as no:
        ann.request(["chat/say", {}])
    assert no.value.status == 400


def test_the_errors_of_a_form_are_the_reply(app: Flask, chsk: Chsk) -> None:
    class Say(BaseModel):
        text: str = Field(min_length=1)
        to: int = 0

        @field_validator("text")
        @classmethod
        def clean(cls, text: str) -> str:
            if "spam" in text:
                raise ValueError("no spam")
            return text

    @chsk.on("chat/say", parse=Say.model_validate)
    def say(ev: Any) -> Any:
        return {"ok": True}

    @chsk.errorhandler(ValidationError)
    def invalid(ev: Any, error: ValidationError) -> Any:
        assert current_app == app
        return {"errors": error.errors()}

    ann = chsk.test_client(uid="ann")
    assert ann.request(["chat/say", {"text": "hi"}]) == {"ok": True}
    wrong = ann.request(["chat/say", {"text": "", "to": "x"}])["errors"]
    assert [(one["type"], one["loc"], one["input"]) for one in wrong] == [
        ("string_too_short", ["text"], ""),
        ("int_parsing", ["to"], "x"),
    ]
    [wrong] = ann.request(["chat/say", {"text": "spam"}])["errors"]
    assert (wrong["msg"], wrong["ctx"]) == ("Value error, no spam", {"error": "no spam"})
    assert chsk.stats()["refused_by_parse"] == 0


def test_contexts_live_as_long_as_an_event(
    app: Flask, chsk: Chsk, caplog: pytest.LogCaptureFixture
) -> None:
    torn: list[Any] = []

    @app.teardown_appcontext
    def teardown(error: BaseException | None) -> None:
        torn.append(g.get("n"))

    @chsk.on("a/b")
    def handler(ev: Any) -> Any:
        g.n = g.get("n", 0) + ev.data
        flash("x")
        return [g.n, get_flashed_messages()]

    ann = chsk.test_client(uid="ann")
    torn.clear()
    assert [ann.request(["a/b", 1]) for _ in range(2)] == [[1, ["x"]]] * 2
    assert torn.count(1) == 2
    assert "session['_flashes'] was changed in a handler" in caplog.text


def test_the_session_is_for_reading(chsk: Chsk, caplog: pytest.LogCaptureFixture) -> None:
    @chsk.on("a/read")
    def read(ev: Any) -> Any:
        return [session["uid"], session.get("none"), "uid" in session]

    @chsk.on("a/write")
    def write(ev: Any) -> Any:
        session["uid"] = "other"

    ann = chsk.test_client(uid="ann")
    assert ann.request(["a/read"]) == ["ann", None, True]
    with pytest.raises(ReplyError):
        ann.request(["a/write"])
    assert "Change it in an ordinary route, then call chsk.reconnect()" in caplog.text


def test_a_response_travels_as_status_headers_and_body(app: Flask, chsk: Chsk) -> None:
    @app.get("/orders")
    def orders() -> Response:
        return jsonify([{"id": 7}])

    @chsk.on("orders/list")
    def orders_event(ev: Any) -> Response:
        return app.make_response(orders())

    @chsk.on("orders/text")
    def text(ev: Any) -> Response:
        return app.make_response(("né", 418, {"X-A": "b"}))

    ann = chsk.test_client()
    listed = ann.request(["orders/list"])
    assert (listed["status"], listed["body"]) == (200, [{"id": 7}])
    assert listed["headers"]["content-type"] == "application/json"
    told = ann.request(["orders/text"])
    assert (told["status"], told["body"], told["headers"]["x-a"]) == (418, "né", "b")


def test_what_a_view_returns_is_made_a_response_by_make_response(app: Flask, chsk: Chsk) -> None:
    app.add_url_rule("/orders", "orders", lambda: "")
    returned: dict[str, Callable[[], Any]] = {
        "tuple": lambda: ({"id": 7}, 201),
        "made": lambda: app.make_response(({"id": 7}, 201)),
        "jsonify": lambda: jsonify(id=7),
        "redirect": lambda: redirect(url_for("orders")),
    }
    chsk.on("a/b")(lambda ev: returned[ev.data]())
    ann = chsk.test_client()
    assert ann.request(["a/b", "tuple"]) == [{"id": 7}, 201]
    made = ann.request(["a/b", "made"])
    assert (made["status"], made["body"]) == (201, {"id": 7})
    assert ann.request(["a/b", "jsonify"])["body"] == {"id": 7}
    moved = ann.request(["a/b", "redirect"])
    assert moved["status"] in (302, 303)  # since Flask 3.2
    assert moved["headers"]["location"] == "/orders"


def test_ch_recv_takes_what_no_handler_took(chsk: Chsk) -> None:
    taken: list[Any] = []
    stop = chsk.start_router(lambda ev: taken.append(ev.reply(ev.data)))
    try:
        assert chsk.test_client().request(["any/thing", 5]) == 5
    finally:
        stop()
    assert taken == [True]


def test_pack_default_makes_values_packable(chsk: Chsk) -> None:
    @chsk.pack_default
    def default(value: Any) -> Any:
        return {"complex": [value.real, value.imag]}

    ann = chsk.test_client(uid="ann")
    chsk.send("ann", ["a/b", 1 + 2j])
    assert ann.received == [["a/b", {"complex": [1.0, 2.0]}]]


@pytest.mark.parametrize("packer", ["edn", "json", "transit", "msgpack", "gzip"])
def test_datetimes_without_a_zone_are_in_the_zone_of_the_setting(packer: str) -> None:
    noon = datetime(2026, 7, 1, 12)
    app = new_app(CHSK_NAIVE_DATETIMES="Europe/Berlin", CHSK_PACKERS=[packer], CHSK_PACKER=packer)
    chsk = Chsk(app)
    packed: Any = app.extensions["chsk"].composer(packer, app.extensions["chsk"].config).packer
    zoned = noon.replace(tzinfo=ZoneInfo("Europe/Berlin"))
    assert packed.pack({"at": noon}) == packed.pack({"at": zoned})
    with pytest.raises(PackError, match=r"^data: object of type complex: pass what it is made of"):
        packed.pack(1j)

    @chsk.pack_default
    def default(value: Any) -> Any:
        return [value.real, value.imag]

    packed = app.extensions["chsk"].composer(packer, app.extensions["chsk"].config).packer
    assert packed.pack([noon, 1j]) == packed.pack([zoned, [0.0, 1.0]])


def test_datetimes_of_a_database_reach_clients(chsk: Chsk) -> None:
    noon = datetime(2026, 7, 1, 12)
    chsk.on("a/b")(lambda ev: noon)
    ann = chsk.test_client(uid="ann")
    with pytest.raises(PackError, match="CHSK_NAIVE_DATETIMES"):
        chsk.send("ann", ["a/b", noon])

    @chsk.pack_default
    def default(value: Any) -> Any:
        if isinstance(value, datetime):
            return value.replace(tzinfo=timezone.utc)
        raise TypeError(value)

    chsk.send("ann", ["a/b", noon])
    assert ann.received == [["a/b", noon.replace(tzinfo=timezone.utc)]]
    assert ann.request(["a/b"]) == noon.replace(tzinfo=timezone.utc)


# Among other extensions ----------------------------------------------------------------------


def test_flask_logins_user_is_the_uid() -> None:
    class User(UserMixin):
        def __init__(self, id: str) -> None:
            self.id = id

    app = new_app()
    login_manager = LoginManager(app)
    login_manager.user_loader(User)

    @app.post("/login/<name>")
    def login(name: str) -> str:
        login_user(User(name))
        return ""

    @app.post("/logout")
    def logout() -> str:
        logout_user()
        return ""

    chsk = Chsk(app)

    @chsk.on("who/am-i")
    def who(ev: Any) -> Any:
        from flask_login import current_user

        return [ev.uid, current_user.get_id()]

    browser = app.test_client()
    assert chsk.test_client(browser).uid is None
    browser.post("/login/ann")
    ann = chsk.test_client(browser)
    assert ann.uid == "ann"
    assert ann.request(["who/am-i"]) == ["ann", "ann"]
    with pytest.raises(UsageError, match="log in"):
        chsk.test_client(uid="ann")


def test_flask_wtfs_token_is_ours_and_our_views_are_not_its() -> None:
    app = new_app()
    CSRFProtect(app)
    chsk = Chsk(app)

    @app.get("/")
    def index() -> str:
        return render_template_string("{{ chsk_script() }}")

    browser = app.test_client()
    token = re.findall('data-csrf-token="([^"]+)"', browser.get("/").text)[0]
    query = "client-id=x&handshake%3F=1"
    assert browser.get(f"/chsk?{query}", headers={"X-CSRF-Token": token}).status_code == 200
    refused = browser.get(f"/chsk?{query}", headers={"X-CSRF-Token": "wrong"})
    assert refused.status_code == 403
    posted = browser.post(
        "/chsk", data={"client-id": "x", "ppstr": "[[:a/b] nil]"}, headers={"X-CSRF-Token": token}
    )
    assert (posted.status_code, posted.text) == (200, "[:chsk/dummy-cb-200 nil]")
    assert chsk.stats()["refused_403"] == 1


def test_flask_wtfs_token_outlives_a_change_of_the_secret_key() -> None:
    app = new_app()
    CSRFProtect(app)
    Chsk(app)
    app.add_url_rule("/", "index", lambda: render_template_string("{{ chsk_script() }}"))
    browser = app.test_client()
    token = re.findall('data-csrf-token="([^"]+)"', browser.get("/").text)[0]
    app.config["SECRET_KEY_FALLBACKS"] = [app.secret_key]
    app.secret_key = "new"
    answer = browser.get("/chsk?client-id=x", headers={"X-CSRF-Token": token})
    assert (answer.status_code, "chsk/handshake" in answer.text) == (200, True)
    app.config["SECRET_KEY_FALLBACKS"] = []
    assert browser.get("/chsk?client-id=x", headers={"X-CSRF-Token": token}).status_code == 403


def test_a_resume_token_outlives_a_change_of_the_secret_key() -> None:
    app = new_app()
    chsk = Chsk(app, csrf=False)
    chsk.user_id(lambda: "ann")
    browser = app.test_client()
    shown = {SECRET_HEADER: "s" * 22}

    def shake(cursor: str = "") -> Any:
        url = f"/chsk?client-id=x&v=1&handshake%3F=1&cursor={cursor}"
        return EdnPacker().unpack(browser.get(url, headers=shown).text)[0][1][3]

    first = shake()
    shown[RESUME_HEADER] = first["resume"]
    app.config["SECRET_KEY_FALLBACKS"] = ["secret"]
    app.secret_key = "new"
    second = shake(first["cursor"])
    assert second["recovered"] is True
    app.config["SECRET_KEY_FALLBACKS"] = []
    assert shake(first["cursor"])["recovered"] is False
    shown[RESUME_HEADER] = second["resume"]  # was made anew, with the new key
    assert shake(second["cursor"])["recovered"] is True


@pytest.mark.parametrize("broker", ["redis://127.0.0.1:1/0", "memory://"])
def test_a_shared_broker_needs_a_secret_key_that_is_shared_too(broker: str) -> None:
    app = Flask(__name__)
    if broker == "memory://":
        Chsk(app, csrf=False, broker_url=broker)
    else:
        with pytest.raises(ConfigError, match=r"app\.secret_key, the same in all of them"):
            Chsk(app, csrf=False, broker_url=broker)


def test_the_script_is_external_and_respects_a_sub_path(app: Flask, chsk: Chsk) -> None:
    @app.get("/")
    def index() -> str:
        return render_template_string("{{ chsk_script() }}")

    browser = app.test_client()
    page = browser.get("/", environ_overrides={"SCRIPT_NAME": "/sub"}).text
    assert 'data-path="/sub/chsk"' in page
    assert '<script type="module" src="/sub/chsk/static/chsk.js"></script>' in page
    assert re.search(r"<script[^>]*>[^<]", page) is None
    with browser.get("/chsk/static/chsk.js") as served:
        assert served.status_code == 200
        assert served.mimetype in ("text/javascript", "application/javascript")
    with app.test_request_context():
        assert url_for("chsk.poll") == "/chsk"


def test_a_page_of_another_client_gets_the_token_alone(app: Flask, chsk: Chsk) -> None:
    @app.get("/")
    def index() -> str:
        return render_template_string("{{ chsk_csrf_token() }}")

    @app.get("/chsk-token")
    def for_a_page_of_another_server() -> str:
        return chsk.page_csrf_token()

    browser = app.test_client()
    token = browser.get("/").text
    assert browser.get("/chsk-token").text == token
    answer = browser.get("/chsk?client-id=x", headers={"X-CSRF-Token": token})
    assert answer.text == "[[:chsk/handshake [:sente/nil-uid nil nil]] nil]"


def test_without_a_secret_key_the_remedy_is_named() -> None:
    app = Flask(__name__)
    Chsk(app)

    @app.get("/")
    def index() -> str:
        return render_template_string("{{ chsk_script() }}")

    app.testing = True
    with pytest.raises(ConfigError, match=r"app\.secret_key"):
        app.test_client().get("/")


def test_csrf_is_asked_of_every_kind_of_request(app: Flask, chsk: Chsk) -> None:
    browser = app.test_client()
    refused = browser.get("/chsk?client-id=x")
    assert (refused.status_code, refused.text[:31]) == (403, "no CSRF token in this session: ")
    with browser.session_transaction() as opened:
        opened["_chsk_csrf"] = "right"
    for request in (
        lambda **more: browser.get("/chsk?client-id=x", **more),
        lambda **more: browser.post("/chsk", data={"client-id": "x", "ppstr": "[[:a/b]]"}, **more),
    ):
        assert request().text.startswith("CSRF token missing")
        assert request(headers={"X-CSRF-Token": "wrong"}).text.startswith("CSRF token is not")
        assert request(headers={"X-CSRF-Token": "right"}).status_code != 403


def test_a_bearer_without_cookies_needs_no_csrf_token(app: Flask, chsk: Chsk) -> None:
    from flask import request

    @chsk.user_id
    def user_id() -> Any:
        auth = request.authorization
        return auth.token if auth is not None and auth.type == "bearer" else None

    browser = app.test_client()
    headers = {"Authorization": "Bearer ann"}
    answer = browser.get("/chsk?client-id=x&handshake%3F=1", headers=headers)
    assert answer.text == '[[:chsk/handshake ["ann" nil nil]] nil]'
    browser.set_cookie("session", "any")
    assert browser.get("/chsk?client-id=x", headers=headers).status_code == 403


def test_reject_comes_first_and_may_answer_itself(app: Flask, chsk: Chsk) -> None:
    chsk.reject(lambda: Response("later", 503))
    answer = app.test_client().get("/chsk")
    assert (answer.status_code, answer.text) == (503, "later")
    chsk.reject(lambda: "not from there")
    answer = app.test_client().get("/chsk")
    assert (answer.status_code, answer.text) == (403, "not from there\n")


def test_handshake_data_is_the_hooks(chsk: Chsk) -> None:
    chsk.handshake_data(lambda: {"theme": "dark"})
    assert chsk.test_client().handshake_data == {"theme": "dark"}


def test_an_unauthorized_client_is_refused(chsk: Chsk) -> None:
    chsk.authorize(lambda: False)
    with pytest.raises(Refusal) as refused:
        chsk.test_client()
    assert refused.value.status == 401


def test_the_json_packer_is_negotiated(app: Flask, chsk: Chsk) -> None:
    answer = app.test_client().get(
        "/chsk?client-id=x&packer=json&handshake%3F=1",
        environ_overrides={"flask_chsk.test_client": True},
    )
    assert answer.mimetype == "application/json"
    assert json.loads(answer.text) == [["chsk/handshake", ["sente/nil-uid", None, None]], None]
    unknown = app.test_client().get("/chsk?client-id=x&packer=yaml")
    assert (unknown.status_code, unknown.text) == (
        400,
        "unknown packer: this server speaks edn, json (CHSK_PACKERS)\n",
    )


def test_a_poll_whose_answer_the_application_replaces_is_over(app: Flask) -> None:
    chsk = Chsk(app, csrf=False, close_grace_ajax=0.1)

    @app.after_request
    def replace(response: Response) -> Response:
        return Response("something else") if response.is_streamed else response

    client = app.test_client()
    client.get("/chsk?client-id=a&handshake%3F=1")
    assert client.get("/chsk?client-id=a").text == "something else"
    assert chsk.stats()["parked"] == 0
    eventually(lambda: chsk.stats()["clients"] == 0)


def test_refusals_in_the_words_of_the_application_are_counted_and_logged_too(
    app: Flask, chsk: Chsk, caplog: pytest.LogCaptureFixture
) -> None:
    chsk.reject(lambda: Response("not here", 451))
    for _ in range(3):
        assert app.test_client().get("/chsk?client-id=a").text == "not here"
    assert chsk.stats()["refused_451"] == 3
    words = "GET /chsk refused with 451: the application's own answer"
    assert caplog.messages.count(words) == 1


def test_every_answer_says_nosniff(app: Flask) -> None:
    Chsk(app, health=True)
    client = app.test_client()
    answers = [
        client.get("/chsk"),
        client.get("/chsk?client-id=a&handshake%3F=1"),
        client.post("/chsk"),
        client.put("/chsk"),
        client.options("/chsk"),
        client.options("/chsk", headers={"Origin": "https://elsewhere.example"}),
        client.get("/chsk/health"),
        client.get("/chsk/static/chsk.js"),
        client.get("/chsk/static/nothing.js"),
    ]
    for answer in answers:
        assert answer.headers["X-Content-Type-Options"] == "nosniff", answer.request.url
        answer.close()


def test_flask_chsk_config_prints_every_setting(app: Flask, chsk: Chsk) -> None:
    printed = app.test_cli_runner().invoke(args=["chsk", "config"]).output
    assert "CHSK_PATH = '/chsk'\n" in printed
    assert "CHSK_WS_KALIVE = 25.0\n" in printed

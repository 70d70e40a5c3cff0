"""Which handler takes an event, and what surrounds it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest

from flask_chsk.errors import ConfigError, PackError, UsageError
from flask_chsk.protocol.event import Event
from flask_chsk.protocol.uids import ALL_USERS_WITHOUT_UID
from flask_chsk.server.router import (
    Channel,
    EventMessage,
    Handlers,
    RefusedByParse,
    Reply,
    is_event_msg,
)
from flask_chsk.values import Keyword


class Back(Channel):
    """The way back to a client, with a memory."""

    def __init__(self, wants_reply: bool = True) -> None:
        self.wants_reply = wants_reply
        self.replies: list[Any] = []
        self.pushed: list[Any] = []

    def reply(self, value: Any) -> bool:
        if isinstance(value, Unpackable):
            raise PackError("reply: no")
        self.replies.append(value)
        return True

    def push(self, event: Any) -> int | None:
        self.pushed.append(event)
        return 7

    def send(self, uid: Any, event: Any, **options: Any) -> int | None:
        self.pushed.append((uid, event, options))
        return 8

    @property
    def connected_uids(self) -> Any:
        return "those"


class Unpackable:
    """No packer knows it."""


def message(id: str = "chat/say", data: Any = None, channel: Channel | None = None) -> EventMessage:
    return EventMessage(Event(Keyword(id), data), "ann", "c1", channel)


def run(handlers: Handlers, id: str = "chat/say", data: Any = None) -> Any:
    router = handlers._router
    handler = router.find(id)
    assert handler is not None
    return router.run(handler, message(id, data))


# Finding --------------------------------------------------------------------------------


def test_a_handler_takes_its_very_id_and_the_star_takes_the_rest() -> None:
    handlers = Handlers()
    handlers.on("chat/say")(lambda ev: "say")
    assert handlers._router.find("chat/other") is None
    handlers.on("*")(lambda ev: "rest")
    assert [run(handlers, id) for id in ("chat/say", "chat/other", "chsk/bad-event")] == [
        "say",
        "rest",
        "rest",
    ]


def test_the_star_does_not_take_keep_alive() -> None:
    handlers = Handlers()
    handlers.on("*")(lambda ev: "rest")
    assert handlers._router.find("chsk/ws-ping") is handlers._router.find("chsk/ws-pong") is None
    handlers.on("chsk/ws-ping")(lambda ev: "ping")
    assert run(handlers, "chsk/ws-ping") == "ping"


@pytest.mark.parametrize("id", ["say", "", "chat/", "/say", "chat/say ", "a b/c", ":chat/say", 7])
def test_what_is_no_id_is_refused_where_it_is_written(id: Any) -> None:
    with pytest.raises(ConfigError, match="chat/say"):
        Handlers().on(id)


def test_an_id_has_one_handler() -> None:
    handlers = Handlers()

    @handlers.on("chat/say")
    def first(ev: EventMessage) -> None: ...

    with pytest.raises(ConfigError, match=r"'chat/say' has a handler already: .*first"):
        handlers.on("chat/say")(lambda ev: None)


def test_on_gives_the_function_back() -> None:
    def say(ev: EventMessage) -> None: ...

    assert Handlers().on("chat/say", concurrent=True, parse=int)(say) is say


def test_options_are_kept_with_the_handler() -> None:
    handlers = Handlers()
    handlers.on("chat/say", concurrent=True, parse=int)(lambda ev: None)
    handler = handlers._router.find("chat/say")
    assert handler is not None
    assert (handler.concurrent, handler.parse) == (True, int)


# Around ---------------------------------------------------------------------------------


def test_before_handler_after_in_the_order_of_flask() -> None:
    handlers, order = Handlers(), list[str]()

    def note(name: str, value: Any = None) -> Callable[..., Any]:
        def fn(ev: EventMessage, *given: Any) -> Any:
            order.append(name)
            return (*given, value) if given else value

        return fn

    handlers.before_event(note("before 1"))
    handlers.before_event(note("before 2"))
    handlers.after_event(note("after 1", 1))
    handlers.after_event(note("after 2", 2))
    handlers.on("chat/say")(note("handler", "reply"))
    assert run(handlers) == (("reply", 2), 1)
    assert order == ["before 1", "before 2", "handler", "after 2", "after 1"]


def test_what_before_answers_is_the_reply() -> None:
    handlers, ran = Handlers(), list[str]()
    handlers.before_event(lambda ev: "no" if ev.uid == "ann" else None)
    handlers.before_event(lambda ev: ran.append("second"))
    handlers.on("chat/say")(lambda ev: ran.append("handler"))
    assert run(handlers) == "no"
    assert ran == []


def test_a_raised_reply_is_the_reply() -> None:
    handlers = Handlers()

    @handlers.on("chat/say")
    def say(ev: EventMessage) -> None:
        raise Reply({"early": True})

    assert run(handlers) == {"early": True}
    assert Reply().value is None


def test_an_error_goes_to_the_nearest_of_its_handlers() -> None:
    handlers = Handlers()

    @handlers.on("chat/say")
    def say(ev: EventMessage) -> None:
        raise ev.data

    handlers.errorhandler(LookupError)(lambda ev, error: f"lookup {error.args[0]}")
    handlers.errorhandler(KeyError)(lambda ev, error: f"key {error.args[0]}")
    assert run(handlers, data=KeyError(1)) == "key 1"
    assert run(handlers, data=IndexError(2)) == "lookup 2"
    with pytest.raises(ZeroDivisionError):
        run(handlers, data=ZeroDivisionError())


def test_what_an_error_handler_raises_is_raised() -> None:
    handlers = Handlers()

    @handlers.on("chat/say")
    @handlers.errorhandler(ValueError)
    def fails(ev: EventMessage, error: object = None) -> None:
        raise ValueError("again")

    with pytest.raises(ValueError, match="again"):
        run(handlers)


# Modules --------------------------------------------------------------------------------


def test_a_module_prefixes_its_ids() -> None:
    chat, handlers = Handlers("chat"), Handlers()
    chat.on("say")(lambda ev: "say")
    chat.on("other/id")(lambda ev: "other")
    handlers.register(chat)
    assert list(handlers._router.handlers) == ["chat/say", "other/id"]


@pytest.mark.parametrize("prefix", ["", "a b", "a/b ", ":a"])
def test_a_prefix_is_a_namespace(prefix: str) -> None:
    with pytest.raises(ConfigError, match="prefix"):
        Handlers(prefix)


def test_what_surrounds_a_modules_handlers_surrounds_no_others() -> None:
    chat, handlers, order = Handlers("chat"), Handlers(), list[str]()
    chat.before_event(lambda ev: order.append("chat's"))
    chat.errorhandler(ZeroDivisionError)(lambda ev, error: "chat's")
    chat.on("say")(lambda ev: 1 / 0)
    handlers.before_event(lambda ev: order.append("all's"))
    handlers.on("other/id")(lambda ev: 1 / 0)
    handlers.register(chat)
    assert run(handlers, "chat/say") == "chat's"
    assert order == ["all's", "chat's"]
    with pytest.raises(ZeroDivisionError):
        run(handlers, "other/id")


def test_a_module_keeps_a_handlers_options() -> None:
    chat, handlers = Handlers("chat"), Handlers()
    chat.before_event(lambda ev: None)
    chat.on("say", concurrent=True, parse=int)(lambda ev: None)
    handlers.register(chat)
    handler = handlers._router.find("chat/say")
    assert handler is not None
    assert (handler.concurrent, handler.parse) == (True, int)


def test_two_modules_cannot_take_one_id() -> None:
    first, second, handlers = Handlers("chat"), Handlers("chat"), Handlers()
    for each in (first, second):
        each.on("say")(lambda ev: None)
    handlers.register(first)
    with pytest.raises(ConfigError, match="has a handler already"):
        handlers.register(second)


# Event messages -------------------------------------------------------------------------


def test_an_event_message_says_what_came_and_from_whom() -> None:
    ev = message("chat/say", {"a": 1})
    assert (ev.id, ev.data, ev.event, ev.uid, ev.client_id, ev.request) == (
        "chat/say",
        {"a": 1},
        Event(Keyword("chat/say"), {"a": 1}),
        "ann",
        "c1",
        None,
    )
    assert repr(ev) == "<EventMessage chat/say uid='ann' client_id='c1'>"
    assert is_event_msg(ev) and not is_event_msg(["chat/say", 1])


def test_a_reply_is_given_once() -> None:
    back = Back()
    ev = message(channel=back)
    assert ev.wants_reply
    assert [ev.reply(1), ev.reply(2), ev.wants_reply] == [True, False, False]
    assert back.replies == [1]


def test_who_did_not_ask_gets_no_reply() -> None:
    back = Back(wants_reply=False)
    assert not message(channel=back).reply(1)
    assert not message().reply(1)
    assert back.replies == []


def test_a_reply_that_cannot_be_packed_leaves_the_question_open() -> None:
    ev = message(channel=Back())
    with pytest.raises(PackError):
        ev.reply(Unpackable())
    assert ev.wants_reply


def test_an_event_message_sends() -> None:
    back = Back()
    ev = message(channel=back)
    assert ev.push(["a/b", 1]) == 7
    assert ev.send("bob", ["c/d"], flush=True) == 8
    assert back.pushed == [["a/b", 1], ("bob", ["c/d"], {"flush": True})]
    assert ev.connected_uids == "those"


def test_an_event_message_takes_the_same_uids_as_the_extension() -> None:
    back = Back()
    ev = message(channel=back)
    ev.send(7, ["c/d"])
    ev.send(ALL_USERS_WITHOUT_UID, ["c/d"])
    assert back.pushed == [("7", ["c/d"], {}), (None, ["c/d"], {})]
    with pytest.raises(UsageError, match="a uid is"):
        ev.send(None, ["c/d"])


def test_defer_keeps_the_reply_open() -> None:
    ev = message(channel=Back())
    assert not ev.deferred
    ev.defer()
    assert ev.deferred and ev.wants_reply


# Checked data --------------------------------------------------------------------------------


def test_what_parse_raises_goes_to_the_nearest_error_handler() -> None:
    chat, chsk = Handlers("chat"), Handlers()

    @chat.on("say", parse=int)
    @chsk.on("a/b", parse=int)
    def say(ev: Any) -> Any:
        return ev.data

    @chsk.errorhandler(ValueError)
    def outer(ev: Any, error: ValueError) -> Any:
        return ["outer", ev.data, str(error)[:7]]

    chsk.register(chat)
    assert [run(chsk, "a/b", "7"), run(chsk, data="7")] == [7, 7]
    assert run(chsk, "a/b", "x") == run(chsk, data="x") == ["outer", "x", "invalid"]
    chat.errorhandler(Exception)(lambda ev, error: "inner")
    assert run(chsk, data="x") == "inner"
    assert run(chsk, "a/b", "x") == ["outer", "x", "invalid"]


def test_what_no_error_handler_takes_was_refused_by_parse() -> None:
    handlers = Handlers()
    handlers.on("a/b", parse=int)(print)
    handlers.errorhandler(TypeError)(lambda ev, error: "not a number")
    assert run(handlers, "a/b", None) == "not a number"
    with pytest.raises(RefusedByParse) as refused:
        run(handlers, "a/b", "x")
    assert isinstance(refused.value.__cause__, ValueError)


def test_parse_may_reply() -> None:
    def parse(data: Any) -> Any:
        raise Reply(["no", data])

    handlers = Handlers()
    handlers.on("a/b", parse=parse)(print)
    assert run(handlers, "a/b", 1) == ["no", 1]


# Registered again ----------------------------------------------------------------------------


def test_the_same_function_may_be_registered_again() -> None:
    chat, chsk = Handlers("chat"), Handlers()
    seen = []

    @chat.on("say", parse=int)
    def say(ev: Any) -> Any:
        return ev.data

    @chat.before_event
    def before(ev: Any) -> None:
        seen.append(ev.data)

    for _ in range(2):
        chsk.register(chat)
        chat.on("say", parse=int)(say)
    assert run(chsk, data="7") == 7
    assert seen == [7]


def test_another_function_or_another_check_is_no_second_registration() -> None:
    chsk = Handlers()

    def say(ev: Any) -> Any:
        return ev.data

    chsk.on("chat/say")(say)
    for taken in (
        lambda: chsk.on("chat/say", parse=int)(say),
        lambda: chsk.on("chat/say", concurrent=True)(say),
        lambda: chsk.on("chat/say")(lambda ev: None),
        lambda: chsk.on("chat/say")(wraps(say)(lambda ev: None)),
    ):
        with pytest.raises(ConfigError, match=r"'chat/say' has a handler already: .*say"):
            taken()
    other = Handlers("chat")
    other.on("say")(say)
    with pytest.raises(ConfigError, match="'chat/say' has a handler already"):
        chsk.register(other)


def test_a_function_that_create_app_defines_again_is_told_where_to_go() -> None:
    chsk = Handlers()

    def create_app() -> None:
        @chsk.on("chat/say")
        def say(ev: Any) -> None: ...

    create_app()
    with pytest.raises(
        ConfigError, match=r"define it once, outside of create_app\(\), or make one"
    ):
        create_app()


def test_what_a_module_gets_after_its_registration_holds() -> None:
    chat, chsk = Handlers("chat"), Handlers()
    chat.on("say")(lambda ev: ev.data)
    chsk.register(chat)
    chat.after_event(lambda ev, value: value + 1)
    assert run(chsk, data=1) == 2

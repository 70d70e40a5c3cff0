"""The program: what it prints, how it ends, and which options its channel socket gets."""

from __future__ import annotations

import io
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from flask_chsk.client import ChannelClosed, EventMsg
from flask_chsk.client import __main__ as module
from flask_chsk.client.__main__ import DONE, FAILED, LATE, REFUSED, USAGE, main, pairs, read
from flask_chsk.errors import BadEvent, ConfigError
from flask_chsk.protocol.event import Event, as_event
from flask_chsk.protocol.session import CLOSED, ERROR, GAP, TIMEOUT
from flask_chsk.values import Keyword

URL = "http://example.org/chsk"
NEW: dict[str, Any] = {"status": "connecting", "open": False}
OPEN: dict[str, Any] = {"status": "open", "open": True, "type": "ws", "uid": "ann"}
SHUT: dict[str, Any] = {"status": "closed", "open": False}


class Channel:
    """A channel socket that does what a test says when it is opened, and when something is sent."""

    made: ClassVar[list[Channel]] = []
    opens: ClassVar[Callable[[Channel], object]]
    replies: ClassVar[Callable[[Channel, Any], object]]

    def __init__(self, *args: Any, **options: Any) -> None:
        self.args, self.options = args, options
        self.handlers: dict[str, Callable[[EventMsg], object]] = {}
        self.sent: list[tuple[Any, float]] = []
        self.destroyed = False
        Channel.made.append(self)

    def __str__(self) -> str:
        return "<ChannelSocket closed>"

    def on(self, id: str, fn: Callable[[EventMsg], object]) -> None:
        self.handlers[id] = fn

    def watch(self, fn: Callable[[Any, Any], object]) -> None:
        self.changed = fn

    def connect(self) -> None: ...

    def wait_open(self, timeout: float) -> None:
        self.waited = timeout
        type(self).opens(self)

    def push(self, *event: Any) -> None:
        self.handlers["*"](EventMsg(as_event(list(event))))

    def send(self, event: Event, timeout: float, cb: Callable[[Any], object]) -> None:
        self.sent.append((event, timeout))
        reply = type(self).replies(self, event)
        if reply is not None:
            cb(reply)

    def destroy(self) -> None:
        self.destroyed = True


@pytest.fixture(autouse=True)
def channel(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Channel]]:
    monkeypatch.setattr(module, "ChannelSocket", Channel)
    monkeypatch.setattr(module.sys, "stdin", io.StringIO(""))
    Channel.made = []
    Channel.opens = staticmethod(lambda chsk: chsk.changed(NEW, OPEN))  # type: ignore[assignment]
    Channel.replies = staticmethod(lambda chsk, event: event[1])  # type: ignore[assignment]
    yield Channel
    assert [one.destroyed for one in Channel.made] == [True] * len(Channel.made)


Capture = pytest.CaptureFixture[str]


# What is typed -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "event"),
    [
        ('[:chat/say {:text "hi"}]', ("chat/say", {"text": "hi"})),
        ('["chat/say", {"text": null}]', ("chat/say", {"text": None})),
        ("[:chat/say]", ("chat/say", None)),
        ("[:chat/say]\n", ("chat/say", None)),
        ('["chat/say" 1]', ("chat/say", 1)),
    ],
)
def test_an_event_is_typed_in_edn_or_json(text: str, event: tuple[str, Any]) -> None:
    assert read(text) == event
    assert type(read(text).id) is Keyword


@pytest.mark.parametrize("text", ["", "hi", "[]", "[:say]", "[:chat/say", '"chat/say"'])
def test_what_is_no_event_is_refused(text: str) -> None:
    with pytest.raises(BadEvent):
        read(text)


def test_pairs_have_their_sign() -> None:
    assert pairs(["A: b:c", "D:"], ":") == {"A": "b:c", "D": ""}
    with pytest.raises(ConfigError, match="'a': expected NAME=VALUE"):
        pairs(["a"], "=")


# Options -----------------------------------------------------------------------------------


def test_options_become_those_of_the_channel_socket() -> None:
    options = "--type ajax --packer json --csrf-token t --auth b --cookie a=1 --param p=2".split()
    assert main([URL, "[:a/b 1]", "--once", *options, "--header", "X-One: 1"]) == DONE
    [chsk] = Channel.made
    assert chsk.args == (URL, "ajax", "json")
    assert chsk.options == {
        "csrf_token": "t",
        "auth": "b",
        "headers": {"X-One": "1"},
        "cookies": {"a": "1"},
        "params": {"p": "2"},
        "ssl_context": None,
        "connect": False,
    }
    assert (chsk.waited, chsk.sent) == (10.0, [(("a/b", 1), 10.0)])


def test_certificates_are_verified_unless_it_is_told_not_to() -> None:
    main([URL, "[:a/b 1]", "--once", "--insecure", "--timeout", "3"])
    [chsk] = Channel.made
    assert chsk.options["ssl_context"].verify_mode is ssl.CERT_NONE
    assert (chsk.waited, chsk.sent[0][1]) == (3.0, 3.0)


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["--header", "x"], ["[:a/b 1]", "--cookie", "x"]]
)
def test_a_mistake_in_the_arguments_is_said(arguments: list[str], capsys: Capture) -> None:
    assert main([URL, *arguments]) == USAGE
    assert (capsys.readouterr().out, Channel.made) == ("", [])


def test_an_unknown_packer_is_a_mistake(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise ConfigError("no packer yaml")

    monkeypatch.setattr(module, "ChannelSocket", refuse)
    assert main([URL, "--packer", "yaml"]) == USAGE
    assert capsys.readouterr().err == "no packer yaml\n"


# Ends --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "code", "printed"),
    [
        ({"a": [1, None]}, DONE, "[:a/b.cb {:a [1 nil]}]\n"),
        (ERROR, FAILED, "[:a/b.cb :chsk/error]\n"),
        (TIMEOUT, LATE, "[:a/b.cb :chsk/timeout]\n"),
        (CLOSED, REFUSED, "[:a/b.cb :chsk/closed]\n"),
    ],
)
def test_once_with_an_event_its_reply_ends_it(
    reply: Any, code: int, printed: str, capsys: Capture
) -> None:
    Channel.replies = staticmethod(lambda chsk, event: reply)  # type: ignore[assignment]
    assert main([URL, "[:a/b]", "--once"]) == code
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == (printed, "open over ws, uid 'ann'\n")


def test_once_without_an_event_a_push_ends_it(capsys: Capture) -> None:
    def opens(chsk: Channel) -> None:
        chsk.push("chsk/state", {})
        chsk.push("a/b")
        chsk.push("a/c", 1)

    Channel.opens = staticmethod(opens)  # type: ignore[assignment]
    assert main([URL, "--once"]) == DONE
    assert capsys.readouterr().out == "[:a/b]\n[:a/c 1]\n"


def test_once_it_waits_for_as_long_as_it_is_told(capsys: Capture) -> None:
    assert main([URL, "--once", "--timeout", "0.01"]) == LATE
    assert "no event came" in capsys.readouterr().err


def test_a_connection_that_does_not_open_ends_it(capsys: Capture) -> None:
    def opens(chsk: Channel) -> None:
        raise ChannelClosed("not open: waiting")

    Channel.opens = staticmethod(opens)  # type: ignore[assignment]
    assert main([URL, "[:a/b 1]"]) == REFUSED
    assert (capsys.readouterr().err, Channel.made[0].sent) == ("not open: waiting\n", [])


def test_a_connection_that_closes_for_good_ends_it(capsys: Capture) -> None:
    def opens(chsk: Channel) -> None:
        chsk.changed(NEW, OPEN)
        chsk.changed(OPEN, {**OPEN, "uid": "bob"})
        chsk.changed(OPEN, SHUT)

    Channel.opens = staticmethod(opens)  # type: ignore[assignment]
    assert main([URL]) == REFUSED
    assert capsys.readouterr().err == "open over ws, uid 'ann'\n<ChannelSocket closed>\n"


def test_an_interrupt_ends_it_as_a_shell_expects() -> None:
    def opens(chsk: Channel) -> None:
        raise KeyboardInterrupt

    Channel.opens = staticmethod(opens)  # type: ignore[assignment]
    assert main([URL]) == 130


# The terminal ------------------------------------------------------------------------------


def test_each_line_is_sent_and_a_bad_one_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    typed = '\n[:a/b 1]\nnonsense\n["a/end"]\n'
    monkeypatch.setattr(module.sys, "stdin", io.StringIO(typed))

    def replies(chsk: Channel, event: Any) -> Any:
        if event[0] == "a/end":
            chsk.changed(OPEN, SHUT)
        return event[1]

    Channel.replies = staticmethod(replies)  # type: ignore[assignment]
    assert main([URL]) == REFUSED
    captured = capsys.readouterr()
    assert [event for event, _ in Channel.made[0].sent] == [("a/b", 1), ("a/end", None)]
    assert captured.out == "[:a/b.cb 1]\n"
    assert captured.err.splitlines()[1].startswith("an event is ")


def test_missed_events_are_said(capsys: Capture) -> None:
    def opens(chsk: Channel) -> None:
        chsk.handlers[GAP](EventMsg(as_event(["chsk/gap"])))
        chsk.changed(OPEN, SHUT)

    Channel.opens = staticmethod(opens)  # type: ignore[assignment]
    main([URL])
    assert "events were missed\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("packer", "printed"),
    [
        ("edn", '[:a/b "\\u001b[2J\\u202e"]\n'),
        ("json", '["a/b","\\u001b[2J\\u202e"]\n'),
        ("msgpack", '[:a/b "\\u001b[2J\\u202e"]\n'),
    ],
)
def test_a_terminal_obeys_no_text_of_a_server(packer: str, printed: str, capsys: Capture) -> None:
    Channel.opens = staticmethod(  # type: ignore[assignment]
        lambda chsk: chsk.push("a/b", "\x1b[2J\u202e")
    )
    assert main([URL, "--once", "--packer", packer]) == DONE
    assert capsys.readouterr().out == printed


def test_a_thread_that_reads_keeps_no_process_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    daemons: list[bool] = []

    class Reader(threading.Thread):
        def start(self) -> None:
            daemons.append(self.daemon)

    monkeypatch.setattr(module.threading, "Thread", Reader)
    Channel.opens = staticmethod(lambda chsk: chsk.changed(OPEN, SHUT))  # type: ignore[assignment]
    main([URL])
    assert daemons == [True]

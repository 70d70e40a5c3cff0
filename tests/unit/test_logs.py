"""What the log shows of a peer's words: one printable line, whatever they are."""

from __future__ import annotations

import ast
import logging
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from traceback import format_exception
from typing import Any

import pytest
from flask import Flask, abort
from pydantic import BaseModel

from flask_chsk import Chsk, ConfigError
from flask_chsk.errors import BrokerUnavailable, ReplyError
from flask_chsk.logs import RateLimitedLogger, logger
from flask_chsk.publisher import Publisher
from flask_chsk.server import dispatch
from flask_chsk.server.close_log import REPLACED, CloseLog
from flask_chsk.server.trace import Trace

PACKAGE = Path(__file__).parents[2] / "flask_chsk"
# A command to the terminal, in 7 and in 8 bits; text that runs backwards; a forged line.
HOSTILE = "a\x1b[2J\x9b31m\u202e\r\n2024-01-01 INFO forged\ud800\x00\u2028"


class Model(BaseModel):
    """What the data of an event is to be."""

    text: str


class Lines(logging.Handler):
    """What a plain handler writes: of one thread, or of all."""

    def __init__(self, thread: int | None) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("LOG %(levelname)s %(message)s"))
        self.written: list[str] = []
        self._thread = thread

    def emit(self, record: logging.LogRecord) -> None:
        if self._thread in (None, record.thread):
            self.written.append(self.format(record))


@pytest.fixture
def lines() -> Iterator[Lines]:
    """What the test itself logs: workers of other tests may still live, and log as they end."""
    yield from listening(threading.get_ident())


@pytest.fixture
def all_lines() -> Iterator[Lines]:
    """What any thread logs."""
    yield from listening(None)


def listening(thread: int | None) -> Iterator[Lines]:
    handler, root = Lines(thread), logging.getLogger("flask_chsk")
    root.addHandler(handler)
    dispatch.rate_limited._kinds.clear()  # what other tests logged within the minute
    level = root.level
    root.setLevel(logging.DEBUG)
    yield handler
    root.setLevel(level)
    root.removeHandler(handler)


log = logger("flask_chsk.test")


# Records --------------------------------------------------------------------------------


def test_a_record_is_one_printable_line(lines: Lines) -> None:
    log.warning("%s of %r did %d: %s", HOSTILE, HOSTILE, 3, ValueError(HOSTILE))
    assert len(lines.written) == 1
    assert lines.written[0].isprintable()
    assert "3: a\\x1b[2J" in lines.written[0]


def test_a_record_is_short(lines: Lines) -> None:
    log.warning("%s %r", "x" * 1_000_000, ["y" * 1_000_000])
    assert len(lines.written[0]) < 2000


def test_a_value_that_cannot_be_shown_does_not_break_the_log(lines: Lines) -> None:
    class Broken:
        def __repr__(self) -> str:
            raise ValueError

    log.warning("%s", Broken())
    assert lines.written == ["LOG WARNING <Broken>"]


def test_no_line_of_a_traceback_passes_for_a_record(lines: Lines) -> None:
    try:
        try:
            raise ValueError(f"{HOSTILE}\nLOG ERROR forged")
        except ValueError as error:
            error.__notes__ = ["LOG ERROR noted", HOSTILE]  # as add_note() of 3.11 does
            raise KeyError("x" * 100_000) from error
    except KeyError:
        log.exception("handler failed")
    [written] = lines.written
    assert all(line.isprintable() for line in written.split("\n"))
    assert [line for line in written.split("\n") if line.startswith("LOG")] == [
        "LOG ERROR handler failed"
    ]
    assert "    LOG ERROR forged" in written
    assert written.count("Traceback (most recent call last):") == 2
    assert len(written) < 10_000


def test_every_module_logs_by_such_a_logger() -> None:
    """And no message of a record is made of words that came: they are its arguments."""
    for path in PACKAGE.rglob("*.py"):
        if path.name == "logs.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner = ast.unparse(node.func.value)
            assert (owner, node.func.attr) != ("logging", "getLogger"), path
            if owner in ("log", "rate_limited"):
                words = node.args[: 3 if node.func.attr == "log" else 1 + (owner == "rate_limited")]
                assert not isinstance(words[-1], ast.JoinedStr), ast.unparse(node)


# RateLimitedLogger ------------------------------------------------------------------------


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_each_kind_has_one_line_a_minute(lines: Lines) -> None:
    clock = Clock()
    rate_limited = RateLimitedLogger(log, clock)
    for _ in range(5):
        rate_limited.warning("a", "%s", "a")
        rate_limited.log(logging.INFO, "b", "b")
    clock.now = 60.0
    rate_limited.warning("a", "%s", "a")
    assert lines.written == [
        "LOG WARNING a",
        "LOG INFO b",
        "LOG WARNING a (and 4 more like it)",
    ]


def test_kinds_that_a_peer_makes_up_share_a_line(lines: Lines) -> None:
    clock = Clock()
    rate_limited = RateLimitedLogger(log, clock)
    for number in range(10_000):
        rate_limited.warning(f"kind {number}", "%d", number)
    assert len(lines.written) == RateLimitedLogger.KINDS + 1
    clock.now = 60.0
    rate_limited.warning("new", "new")
    assert lines.written[-1] == "LOG WARNING new"


# Closes ---------------------------------------------------------------------------------


def test_each_close_is_counted_and_each_kind_told_once(lines: Lines) -> None:
    counters: Counter[str] = Counter()
    closes = CloseLog(counters, Trace())
    for uid in ("ann", HOSTILE):
        closes.note(uid, "a1", 4002, "too slow")
        closes.note(uid, "a1", 4005, "signed out")
        closes.note(uid, "a1", 1013, REPLACED)
        closes.note(uid, "a1", 1013, "too much is arriving")
    assert counters == {"closed_4002": 2, "closed_4005": 2, "closed_1013": 4}
    assert [line for line in lines.written if not line.startswith("LOG DEBUG")] == [
        "LOG WARNING a connection of uid 'ann' was closed with 4002: too slow",
        "LOG INFO a connection of uid 'ann' was closed with 4005: signed out",
        f"LOG INFO a connection of uid 'ann' was closed with 1013: {REPLACED}",
        "LOG WARNING a connection of uid 'ann' was closed with 1013: too much is arriving",
    ]


# An application ---------------------------------------------------------------------------

WORDS = HOSTILE.replace("\ud800", "")


def test_no_place_that_logs_shows_a_peers_words_as_they_came(all_lines: Lines) -> None:
    lines = all_lines
    app = Flask(__name__)
    app.secret_key = "for tests"
    chsk = Chsk(app)

    @chsk.on("test/raise")
    def raises(ev: Any) -> None:
        raise ValueError(ev.data)

    @chsk.on("test/abort")
    def aborts(ev: Any) -> None:
        abort(403, ev.data)

    @chsk.on("test/broker")
    def has_no_broker(ev: Any) -> None:
        raise BrokerUnavailable(ev.data)

    @chsk.on("test/reply")
    def replies(ev: Any) -> Any:
        return {ev.data: object()}

    @chsk.on("chsk/uidport-open")
    @chsk.on("chsk/uidport-close")
    def presence(ev: Any) -> None: ...

    @chsk.on("*", parse=Model.model_validate)
    def parsed(ev: Any) -> None: ...

    def watch(old: Any, new: Any) -> None:
        raise ValueError(new)

    with app.app_context():
        chsk.watch(watch)
    peer = chsk.test_client(uid=WORDS)
    for id in ("test/raise", "test/abort", "test/broker", "test/reply", "any/\x1b\u202e\x9bid"):
        with pytest.raises(ReplyError):
            peer.request([id, WORDS])
    chsk.send(f"nobody {WORDS}", ["a/b"])
    chsk.close(WORDS)
    client = app.test_client()
    client.get("/chsk?client-id=a", headers={"Origin": "https://\x9b\u202eforged"})
    client.get("/chsk", query_string={"client-id": WORDS})
    client.get("/chsk", query_string={"client-id": "a", "packer": WORDS})
    client.post("/chsk", query_string={"client-id": "a"}, data={"ppstr": WORDS})
    peer.close()
    shown = [line for text in lines.written for line in text.split("\n")]
    assert [line for line in shown if not line.isprintable()] == []
    assert [line for line in shown if line.startswith("2024")] == []
    loggers = "\n".join(lines.written)
    for expected in ("test/raise", "test/abort", "test/broker", "test/reply", "any/", "nobody"):
        assert expected in loggers
    warned = [line for line in shown if line.startswith("LOG WARNING parse")]
    assert warned == [
        f"LOG WARNING parse of any/\\x1b\\u202e\\x9bid refused what uid {WORDS!r} sent:"
        " ValidationError (more at DEBUG)"
    ]


def test_settings_are_printed_without_the_brokers_password(lines: Lines) -> None:
    app = Flask(__name__)
    app.secret_key = "for tests"
    app.config["CHSK_BROKER_URL"] = "redis://ann:swordfish@localhost/0?password=swordfish"
    Chsk(app)
    printed = app.test_cli_runner().invoke(args=["chsk", "config"]).output
    assert "CHSK_BROKER_URL = 'redis://ann:***@localhost/0?password=***'" in printed
    assert "swordfish" not in printed
    assert "swordfish" not in repr(app.extensions["chsk"].config)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:sword/fish@localhost/0",
        "redis://:sword#fish@localhost/0",
        "redis://localhost:swordfish/0",
        "redis://:swordfish@[localhost/0",
        "redis://:swordfish@localhost/zero",
        "redis://:swordfish@localhost/0?health_check_interval=swordfish",
        "redis://:swordfish@localhost/0?unknown=1",
        "ann:swordfish@localhost",
        "swordfish",
        b"redis://:swordfish@localhost/0",
    ],
)
def test_no_error_about_the_broker_shows_its_password(url: Any) -> None:
    app = Flask(__name__)
    app.secret_key = "for tests"
    app.config["CHSK_BROKER_URL"] = url
    with pytest.raises(ConfigError, match="CHSK_BROKER_URL") as refused:
        Chsk(app)
    said = "".join(format_exception(refused.value))
    assert "fish" not in said.replace(repr(url), "")
    if isinstance(url, str) and not url.startswith("redis:"):
        with pytest.raises(ConfigError) as refused:
            Publisher(url)
        assert "fish" not in str(refused.value)

"""``flask chsk …``: what is printed and sent; ``serve`` is in test_serving.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from flask_chsk import Chsk, ConnectedUids
from flask_chsk.cli import commands
from flask_chsk.errors import BrokerUnavailable
from flask_chsk.inspector import Line
from tests.process import ROOT

URL = "redis://ann:swordfish@127.0.0.1:1/0"


class Publisher:
    """In place of the publisher: notes what is sent."""

    sent: list[tuple[str, Any]]
    offset: int | None
    error: Exception | None
    options: tuple[str, int]

    def __init__(self, url: str, *, max_bytes: int) -> None:
        type(self).options = (url, max_bytes)

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *args: object) -> None: ...

    def send(self, uid: str, event: Any, client_id: str | None) -> int | None:
        if self.error is not None:
            raise self.error
        self.sent.append((uid if client_id is None else f"{uid} {client_id}", event))
        return self.offset

    def broadcast(self, event: Any) -> int | None:
        self.sent.append(("everybody", event))
        return self.offset

    def publish(self, topic: str, event: Any) -> int | None:
        self.sent.append((topic, event))
        return self.offset

    def close(self, uid: str, client_id: str | None, reconnect: bool) -> None:
        self.sent.append((uid, [client_id, reconnect]))


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> type[Publisher]:
    Publisher.sent, Publisher.offset, Publisher.error = [], 7, None
    monkeypatch.setattr("flask_chsk.cli.Publisher", Publisher)
    return Publisher


def run(*args: str, **config: Any) -> Result:
    """What ``flask chsk`` says with *args*."""
    app = Flask(__name__)
    app.secret_key = "for tests"
    app.config.update(config)
    Chsk(app)
    return app.test_cli_runner().invoke(args=["chsk", *args])


def test_every_setting_is_printed() -> None:
    ran = run("config", CHSK_WS_KALIVE=20.0)
    assert ran.exit_code == 0
    lines = ran.output.splitlines()
    assert "CHSK_WS_KALIVE = 20.0" in lines
    assert "CHSK_PATH = '/chsk'" in lines
    assert all(line.startswith("CHSK_") and " = " in line for line in lines)


def test_no_password_is_printed() -> None:
    ran = run("config", CHSK_BROKER_URL=URL)
    assert "CHSK_BROKER_URL = 'redis://ann:***@127.0.0.1:1/0'" in ran.output
    assert "swordfish" not in ran.output


@pytest.mark.parametrize(
    ("written", "event"),
    [
        ("[:order/shipped 7]", ["order/shipped", 7]),
        ('["order/shipped", {"id": 7}]', ["order/shipped", {"id": 7}]),
        ('[:order/shipped "zoë"]', ["order/shipped", "zoë"]),
        ("[:order/shipped]", ["order/shipped"]),
    ],
)
def test_an_event_is_sent_and_its_offset_printed(
    publisher: type[Publisher], written: str, event: Any
) -> None:
    ran = run("send", "ann", written)
    assert (ran.exit_code, ran.output) == (0, "7\n")
    assert publisher.sent == [("ann", event)]


@pytest.mark.parametrize(
    ("words", "sent", "said"),
    [
        (["send", "ann", "[:a/b 1]", "--client-id", "c1"], ("ann c1", ["a/b", 1]), "7\n"),
        (["broadcast", "[:a/b 1]"], ("everybody", ["a/b", 1]), "7\n"),
        (["publish", "room/1", "[:a/b 1]"], ("room/1", ["a/b", 1]), "7\n"),
        (["close", "ann"], ("ann", [None, True]), ""),
        (["close", "ann", "--client-id", "c1", "--sign-out"], ("ann", ["c1", False]), ""),
    ],
)
def test_what_a_publisher_does_is_a_command(
    publisher: type[Publisher], words: list[str], sent: Any, said: str
) -> None:
    ran = run(*words)
    assert (ran.exit_code, ran.output, publisher.sent) == (0, said, [sent])


def test_it_goes_by_the_broker_of_the_application(publisher: type[Publisher]) -> None:
    run("send", "ann", "[:a/b]", CHSK_BROKER_URL=URL, CHSK_MAX_OUTBOX_BYTES=2 * 1024 * 1024)
    assert publisher.options == (URL, 1024 * 1024)


def test_a_user_who_is_not_connected_is_an_error(publisher: type[Publisher]) -> None:
    publisher.offset = None
    ran = run("send", "ann\x1b", "[:a/b]")
    assert ran.exit_code == 1
    assert "ann\\x1b is not connected: nothing was sent" in ran.output


def test_what_is_neither_edn_nor_json_is_named(publisher: type[Publisher]) -> None:
    ran = run("send", "ann", "[:a/b")
    assert ran.exit_code == 2
    assert "EVENT" in ran.output and "not EDN" in ran.output
    assert publisher.sent == []


def test_a_broker_that_is_away_is_an_error_of_one_line(publisher: type[Publisher]) -> None:
    publisher.error = BrokerUnavailable("Redis is\naway")
    ran = run("send", "ann", "[:a/b]")
    assert (ran.exit_code, ran.output) == (1, "Error: Redis is\\naway\n")


def test_an_application_of_one_process_is_told_what_it_needs() -> None:
    ran = run("send", "ann", "[:a/b]")
    assert ran.exit_code == 1
    assert "CHSK_BROKER_URL" in ran.output


# what shows --------------------------------------------------------------------------------


class Inspector:
    """In place of the inspector: two workers answer, and one does not."""

    found: dict[str, Any]
    asked: list[Any]

    def __init__(self, url: str) -> None: ...

    def __enter__(self) -> Inspector:
        return self

    def __exit__(self, *args: object) -> None: ...

    def uids(self) -> ConnectedUids:
        ws, ajax = frozenset({"bob", "ann\x1b"}), frozenset({"bob"})
        return ConnectedUids(ws, ajax, ws | ajax)

    def ask(self, what: str, uid: str | None = None) -> dict[str, Any]:
        self.asked.append((what, uid))
        return self.found

    def tail(self, **wanted: Any) -> Iterator[Line | str]:
        self.asked.append(wanted)
        yield "worker abcd1234 is shown"
        yield Line("abcd1234", 0.0, "in uid 'ann' chat/say", "{'text': 'hi'}")
        yield Line("abcd1234", 0.5, "gone uid 'ann'", None)


@pytest.fixture
def inspector(monkeypatch: pytest.MonkeyPatch) -> type[Inspector]:
    Inspector.asked = []
    monkeypatch.setattr("flask_chsk.cli.Inspector", Inspector)
    return Inspector


def test_the_users_who_are_connected_are_listed(inspector: type[Inspector]) -> None:
    assert run("uids").output == "ann\\x1b  ws\nbob  ws ajax\n"


def test_the_clients_of_a_user_are_listed(inspector: type[Inspector]) -> None:
    one = {"client_id": "c1", "state": "ws", "packer": "edn", "ours": True, "waiting": 3}
    inspector.found = {"w1": [one], "w2": [], "w3": None}
    ran = run("clients", "ann")
    assert ran.output == "w1  c1  ws  edn  3\nworker w3 did not answer\n"
    assert inspector.asked == [("clients", "ann")]


def test_topics_are_counted_over_all_workers(inspector: type[Inspector]) -> None:
    inspector.found = {"w1": {"room/1": 2, "a": 1}, "w2": {"room/1": 1}}
    assert run("topics").output == "a  1\nroom/1  3\n"


def test_stats_are_those_of_all_workers_together_or_of_each(inspector: type[Inspector]) -> None:
    inspector.found = {"w1": {"clients": 2, "asks": 0}, "w2": {"clients": 1}}
    assert run("stats").output == "asks = 0\nclients = 3\n"
    shown = "worker w1\n  asks = 0\n  clients = 2\nworker w2\n  clients = 1\n"
    assert run("stats", "--all-workers").output == shown


def test_that_nobody_serves_is_said(inspector: type[Inspector]) -> None:
    inspector.found = {}
    assert run("stats").output == "no worker serves\n"


def test_a_tail_shows_what_happens(inspector: type[Inspector]) -> None:
    lines = run("tail", "--uid", "ann", "--id", "chat/say", "--payload").output.splitlines()
    wanted = {"uid": "ann", "topic": None, "event": "chat/say", "payload": True}
    assert inspector.asked == [wanted]
    assert lines[0] == "* worker abcd1234 is shown"
    assert lines[1].endswith(".000 abcd in uid 'ann' chat/say  {'text': 'hi'}")
    assert lines[2].endswith(".500 abcd gone uid 'ann'")


@pytest.mark.parametrize("command", ["uids", "clients", "topics", "stats", "tail"])
def test_what_shows_needs_a_broker_that_other_processes_reach(command: str) -> None:
    ran = run(command)
    assert ran.exit_code == 1
    assert "CHSK_BROKER_URL is redis://" in ran.output


def test_the_guide_lists_every_command() -> None:
    listed = (ROOT / "docs/cli.rst").read_text(encoding="utf-8")
    for name, command in commands.commands.items():
        assert f"flask chsk {name}" in listed
        for parameter in command.params if name != "serve" else []:
            for option in (*parameter.opts, *parameter.secondary_opts):
                assert not option.startswith("-") or option in listed, (name, option)

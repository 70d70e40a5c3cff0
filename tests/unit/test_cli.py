"""``flask chsk …``: settings are printed, and an event is sent."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from flask_chsk import Chsk
from flask_chsk.errors import BrokerUnavailable

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

    def send(self, uid: str, event: Any) -> int | None:
        if self.error is not None:
            raise self.error
        self.sent.append((uid, event))
        return self.offset


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

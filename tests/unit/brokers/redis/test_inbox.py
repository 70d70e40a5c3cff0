"""Answers to a question of a process that is no worker, over a connection of its own."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import ConnectionError as ConnectionLost

from flask_chsk.brokers.redis.inbox import Inbox
from flask_chsk.errors import BrokerUnavailable
from tests.unit.server.fakes import FakeHub

CONFIRMED = [b"subscribe", b"chsk:0:w:me", 1]


class Redis:
    """One connection; its messages are laid ready, an error among them is raised."""

    base = "chsk:0:"
    where = "there"

    def __init__(self, *messages: Any) -> None:
        self.messages = [*messages]
        self.sent: list[tuple[Any, ...]] = []
        self.closed = 0
        self.wire = self
        self.runtime = FakeHub()

    def connect(self) -> Redis:
        return self

    def send_command(self, *command: Any) -> None:
        self.sent.append(command)

    def can_read(self, seconds: float) -> bool:
        return bool(self.messages)

    def read_response(self) -> Any:
        message = self.messages.pop(0)
        if isinstance(message, Exception):
            raise message
        return message

    def close(self) -> None:
        self.closed += 1


def inbox(redis: Any) -> Inbox:
    return Inbox(redis, "me")


def told(text: str, schema: int = 1, kind: str = "T") -> list[bytes]:
    return [b"message", b"chsk:0:w:me", f"{schema} {kind} {text}".encode()]


def test_it_hears_what_is_told() -> None:
    redis = Redis(CONFIRMED, told("one"), told("zwei ü"))
    with inbox(redis) as open_:
        assert redis.sent == [("SUBSCRIBE", b"chsk:0:w:me")]
        assert [open_.next(1.0), open_.next(1.0), open_.next(0.0)] == ["one", "zwei ü", None]
        assert redis.closed == 0
    assert redis.closed == 1


def test_it_ignores_all_else() -> None:
    redis = Redis(CONFIRMED, told("probe", kind="P"), told("of later", schema=3), told("one"))
    with inbox(redis) as open_:
        assert open_.next(1.0) == "one"


@pytest.mark.parametrize("messages", [[], [ConnectionLost("cut")]])
def test_a_subscription_that_is_not_confirmed_is_an_error(messages: list[Any]) -> None:
    redis = Redis(*messages)
    with pytest.raises(BrokerUnavailable, match=r"^Redis at there: (it did not confirm|cut)"):
        inbox(redis).__enter__()
    assert redis.closed == 1


def test_a_cut_while_somebody_waits_is_an_error() -> None:
    redis = Redis(CONFIRMED, ConnectionLost("cut"))
    with pytest.raises(BrokerUnavailable, match=r"^Redis at there: cut$"), inbox(redis) as open_:
        open_.next(1.0)
    assert redis.closed == 1

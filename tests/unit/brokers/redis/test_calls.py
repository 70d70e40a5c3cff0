"""Calls of scripts: each answered, failed or unknown. The Redis is a list of answers."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import ConnectionError as Cut
from redis.exceptions import NoScriptError, ResponseError

from flask_chsk.brokers.redis.calls import (
    AWAY,
    FRESH,
    IDLE,
    Address,
    Greeting,
    Redis,
    address_of,
)
from flask_chsk.brokers.redis.scripts import HELLO, Script
from flask_chsk.errors import BrokerUnavailable, ConfigError, PublishUnknown
from tests.unit.server.fakes import FakeHub


class Server(FakeHub):
    """What Redis answers: greetings by itself, to other scripts what a test has laid ready.

    It is the runtime, too, whose clock a test sets.
    """

    def __init__(self) -> None:
        super().__init__()
        self.epoch = "e1"
        self.away = False
        self.answers: list[Any] = []
        self.asked: list[list[str]] = []  # arguments behind the key, of scripts but the greeting
        self.wires: list[Wire] = []
        self.stale = False

    def answer(self, args: list[str], hello: bool) -> Any:
        if hello:
            return [self.epoch.encode(), 5, b"noeviction", b"run", 0, 0]
        self.asked.append(args)
        return self.answers.pop(0)


class Wire:
    """A connection of redis-py."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.open = False
        self.waiting: list[Any] = []

    def connect(self) -> None:
        if self.server.away:
            raise Cut("refused")
        self.open = True
        self.server.wires.append(self)

    def disconnect(self) -> None:
        self.open = False

    def can_read(self, timeout: float) -> bool:
        return self.server.stale

    def send_packed_command(self, parts: list[bytes]) -> None:
        words = b"".join(parts).decode().split("\r\n")[2::2]
        self.waiting.append(self.server.answer(words[4:], words[1] == HELLO.sha))

    def send_command(self, *words: Any) -> None:
        assert words[0] == "EVAL"
        self.waiting.append(self.server.answer([str(word) for word in words[4:]], False))

    def read_response(self) -> Any:
        answer = self.waiting.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def greeted() -> list[Greeting]:
    return []


@pytest.fixture
def redis(server: Server, greeted: list[Greeting]) -> Redis:
    address = Address("chsk:0:", "127.0.0.1", lambda: Wire(server))
    return Redis(address, server, greeted=greeted.append)


SCRIPT = Script("return 1")


# URLs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "base", "where"),
    [
        ("redis://host:6379/3", "chsk:3:", "host"),
        ("redis://host", "chsk:0:", "host"),
        ("rediss://host/1?prefix=mine", "mine:1:", "host"),
        ("unix:///run/redis?db=2", "chsk:2:", "/run/redis"),
    ],
)
def test_a_url_says_where_the_keys_are(url: str, base: str, where: str) -> None:
    address = address_of(url)
    assert (address.base, address.where) == (base, where)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:swordfish@host:port/0",
        "redis://:swordfish@host/zero",
        "redis://:swordfish@[host/0",
        "redis://:swordfish@host/0?health_check_interval=often",
        "redis://:swordfish@host/0?unknown=1",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match="CHSK_BROKER_URL cannot be used") as refused:
        address_of(url)
    assert "swordfish" not in str(refused.value)


# Connections -------------------------------------------------------------------------------


def test_a_connection_is_greeted_before_it_is_used(
    redis: Redis, server: Server, greeted: list[Greeting]
) -> None:
    server.answers = [b"one"]
    assert redis.call(SCRIPT, "a", 1) == b"one"
    assert greeted == [Greeting("e1", 5, "noeviction", "run", 0, 0)]
    assert (redis.epoch, server.asked) == ("e1", [["a", "1"]])


def test_a_connection_that_rests_is_used_again(redis: Redis, server: Server) -> None:
    server.answers = [1, 2, 3]
    assert [redis.call(SCRIPT) for _ in range(3)] == [1, 2, 3]
    assert len(server.wires) == 1


@pytest.mark.parametrize("why", ["closed at the other end", "rested for long", "another epoch"])
def test_a_connection_that_may_not_stand_is_not_used_again(
    redis: Redis, server: Server, why: str
) -> None:
    server.answers = [1, 2]
    redis.call(SCRIPT)
    if why == "closed at the other end":
        server.stale = True
        server.time += 2 * FRESH
    elif why == "rested for long":
        server.time += IDLE
    else:
        redis.turn_to("e2")
        server.epoch = "e2"
    assert redis.call(SCRIPT) == 2
    assert [wire.open for wire in server.wires] == [False, True]


def test_while_redis_is_away_calls_fail_at_once(redis: Redis, server: Server) -> None:
    server.away = True
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1 is away: refused"):
        redis.call(SCRIPT)
    server.away, server.answers = False, [1]
    with pytest.raises(BrokerUnavailable, match="is away"):
        redis.call(SCRIPT)
    assert server.wires == []
    server.time += AWAY
    assert redis.call(SCRIPT) == 1


def test_connections_that_are_closed_are_made_anew(redis: Redis, server: Server) -> None:
    server.answers = [1, 2]
    redis.call(SCRIPT)
    redis.close()
    assert not server.wires[0].open
    assert redis.call(SCRIPT) == 2


# Calls -------------------------------------------------------------------------------------


def test_a_script_that_redis_does_not_know_is_sent_whole(redis: Redis, server: Server) -> None:
    server.answers = [NoScriptError("unknown"), 7]
    assert redis.call(SCRIPT, "a") == 7
    assert server.asked == [["a"], ["a"]]


def test_a_call_whose_answer_was_lost_is_repeated_once(redis: Redis, server: Server) -> None:
    server.answers = [Cut("cut"), 7]
    assert redis.call(SCRIPT) == 7
    server.answers = [Cut("cut"), Cut("cut again")]
    with pytest.raises(BrokerUnavailable, match="cut again"):
        redis.call(SCRIPT)
    assert [wire.open for wire in server.wires if wire.open] == []


def test_what_redis_refuses_is_not_repeated(redis: Redis, server: Server) -> None:
    server.answers = [ResponseError("OOM command not allowed"), 7]
    with pytest.raises(BrokerUnavailable, match="refuses: OOM"):
        redis.call(SCRIPT)
    assert redis.call(SCRIPT) == 7
    assert len(server.wires) == 1  # which is as good as before


def test_a_replica_is_left(redis: Redis, server: Server) -> None:
    server.answers = [ResponseError("READONLY You can't write against a read only replica."), 7]
    with pytest.raises(BrokerUnavailable):
        redis.call(SCRIPT)
    assert redis.call(SCRIPT) == 7
    assert [wire.open for wire in server.wires] == [False, True]


@pytest.mark.parametrize("word", ["NOEPOCH the counter is gone", "SCHEMA 9 9"])
@pytest.mark.parametrize("call", ["call", "publish"])
def test_a_redis_that_lost_its_counter_is_greeted_anew(
    redis: Redis, server: Server, greeted: list[Greeting], call: str, word: str
) -> None:
    server.answers = [ResponseError(word), 7]
    redis.connect()
    server.epoch = "e2"
    assert getattr(redis, call)(SCRIPT, "a") == 7
    assert redis.epoch == greeted[-1].epoch == "e2"
    assert server.asked[0] == server.asked[1]


# Publishing --------------------------------------------------------------------------------


def test_each_publish_of_a_connection_has_its_number(redis: Redis, server: Server) -> None:
    server.answers = [1, 2]
    redis.publish(SCRIPT, b"x")
    redis.publish(SCRIPT, b"x")
    (text, slot, one), (_, again, two) = server.asked
    assert (text, slot, one, two) == ("x", again, "1", "2")


def test_a_publish_whose_answer_was_lost_is_asked_for_by_its_number(
    redis: Redis, server: Server
) -> None:
    server.answers = [Cut("cut"), 7]
    assert redis.publish(SCRIPT, b"x") == 7
    assert server.asked[0] == server.asked[1]


def test_whether_it_happened_is_unknown_where_redis_stays_away(
    redis: Redis, server: Server
) -> None:
    server.answers = [Cut("cut"), Cut("cut")]
    with pytest.raises(PublishUnknown, match="may have been sent"):
        redis.publish(SCRIPT, b"x")


def test_whether_it_happened_is_unknown_where_redis_began_anew(
    redis: Redis, server: Server
) -> None:
    server.answers = [1, Cut("cut")]
    redis.publish(SCRIPT, b"x")
    server.epoch = "e2"
    with pytest.raises(PublishUnknown):
        redis.publish(SCRIPT, b"x")
    assert len(server.asked) == 2  # another Redis does not know the number


def test_what_was_refused_did_not_happen(redis: Redis, server: Server) -> None:
    server.answers = [ResponseError("OOM command not allowed")]
    with pytest.raises(BrokerUnavailable):
        redis.publish(SCRIPT, b"x")
    assert len(server.asked) == 1


# Epochs ------------------------------------------------------------------------------------


def test_an_epoch_that_is_over_stays_over(redis: Redis) -> None:
    for epoch in ("e1", "e1", "e2", "e1"):
        redis.turn_to(epoch)
    assert (redis.epoch, redis.past) == ("e2", {"e1"})

"""The scripts by themselves, run by a model of Redis whose clock a test sets."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import ResponseError

from flask_chsk.brokers.redis import scripts
from flask_chsk.brokers.redis.schema import SCHEMA
from flask_chsk.brokers.redis.scripts import Script
from tests.redis_model import Model

WINDOW = 120.0  # seconds
LIMITS = (16, 10_000, int(WINDOW * 1000))
LEASE = 9000  # ms
ANN = "u:ann"


class Redis:
    """A model, in which the worker ``w1`` has begun an epoch."""

    def __init__(self) -> None:
        self.time = 1_700_000_000.0
        self.model = Model(lambda: self.time)
        self.greet()

    def call(self, script: Script, *args: Any) -> Any:
        return self.model.call(script, *args)

    def greet(
        self,
        worker: str = "w1",
        over: str = "",
        was: str = "",
        known: int = 0,
        close_kept: int = 10_000,
    ) -> str:
        """A worker connects; the epoch."""
        self.fresh = f"e{self.time:.0f}"
        limits = LIMITS if worker else ("", "", "")
        ours = (worker, known, close_kept)
        answer = self.call(scripts.HELLO, self.fresh, *limits, over, was, *ours)
        self.epoch: str = answer[0].decode()
        self.offset = int(answer[1])
        return self.epoch

    def attach(
        self,
        uid: str,
        id: str,
        token: str,
        worker: str = "w1",
        kind: str = "ws",
        *,
        digest: str = ".",
        silent: int = 0,
    ) -> Any:
        args = (uid, id, token, worker, kind, 1, LEASE, 8, "", digest, silent)
        return self.call(scripts.ATTACH, *args)

    def publish(self, channel: str, event: str, pubsub: str = "", number: int = 0) -> int | None:
        self.number = number or getattr(self, "number", 0) + 1
        args = (channel, pubsub or channel, event, "", 0, "slot", self.number)
        answer = self.call(scripts.PUBLISH, *args)
        return None if answer is None else int(answer)

    def since(self, cursor: int, *channels: str, size: int = 1 << 18) -> Any:
        """The events after a cursor; None where some may be missing."""
        args = [one for channel in channels for one in (channel, 0)]
        _, _, _, complete, *rest = self.call(scripts.SINCE, cursor, size, *args)
        return [entry[3].decode() for entry in rest[0]] if complete else None

    def lease(self, worker: str = "w1", limits: tuple[int, ...] = LIMITS) -> list[Any]:
        answer: list[Any] = self.call(scripts.LEASE, worker, LEASE, *limits)
        return answer

    def keys(self, kind: str) -> list[str]:
        """The names of the keys of one kind."""
        head = f"chsk:0:{kind}:".encode()
        return [key.decode() for key in self.model.data if key.startswith(head)]


@pytest.fixture
def redis() -> Redis:
    return Redis()


# Epochs ------------------------------------------------------------------------------------


def test_an_epoch_is_the_same_for_all_who_connect(redis: Redis) -> None:
    epoch = redis.epoch
    redis.time += 1
    assert redis.greet("w2") == epoch


def test_a_restart_and_deleted_keys_begin_another(redis: Redis) -> None:
    before = redis.epoch
    redis.time += 1
    redis.model.run_id = "run2"
    assert redis.greet() == redis.fresh != before
    redis.time += 1
    redis.model.do("FLUSHALL")
    assert redis.greet() == redis.fresh


def test_offsets_of_a_new_epoch_are_above_what_a_worker_knows(redis: Redis) -> None:
    redis.model.do("FLUSHALL")
    known = redis.offset + 10**9
    redis.greet(known=known)
    assert redis.offset > known


def test_without_a_counter_no_script_does_anything(redis: Redis) -> None:
    redis.model.do("FLUSHALL")
    with pytest.raises(ResponseError, match="NOEPOCH"):
        redis.publish("*", "[:a/b]")
    assert redis.model.data == {}


def test_evicted_keys_begin_another_epoch(redis: Redis) -> None:
    redis.model.evicted = 1
    with pytest.raises(ResponseError, match="NOEPOCH"):
        redis.lease()
    before = redis.epoch
    redis.time += 1
    assert redis.greet() != before


def test_a_schema_that_is_no_neighbour_is_refused(redis: Redis) -> None:
    strange = f"{SCHEMA + 2} {SCHEMA + 2}"
    redis.model.do("HSET", "chsk:0:m", "span", strange)
    with pytest.raises(ResponseError, match=f"SCHEMA {strange}"):
        redis.publish("*", "[:a/b]")


# Offsets -----------------------------------------------------------------------------------


def test_offsets_are_the_time_and_rise_where_it_stands_still(redis: Redis) -> None:
    first, second = (redis.publish("*", "[:a/b]") for _ in range(2))
    assert first is not None and second == first + 2
    redis.time += 1
    assert redis.publish("*", "[:a/b]") == int(redis.time * 1e6)


def test_a_clock_that_goes_back_takes_no_event_out_of_the_window(redis: Redis) -> None:
    cursor = redis.publish("*", "[:a/b 1]")
    redis.time -= 24 * 3600
    later = redis.publish("*", "[:a/b 2]")
    assert cursor is not None and later is not None and later > cursor
    redis.time += WINDOW / 2
    assert redis.since(cursor, "*") == ["[:a/b 2]"]


def test_a_publish_that_is_repeated_has_its_first_offset(redis: Redis) -> None:
    first = redis.publish("*", "[:a/b 1]", number=7)
    assert redis.publish("*", "[:a/b 1]", number=7) == first
    assert redis.since(redis.offset, "*") == ["[:a/b 1]"]


# History -----------------------------------------------------------------------------------


def test_events_above_the_limit_go_the_oldest_first(redis: Redis) -> None:
    offsets = [redis.publish("*", f"[:a/b {n}]") or 0 for n in range(40)]
    assert redis.since(offsets[-17], "*") == [f"[:a/b {n}]" for n in range(24, 40)]
    assert redis.since(offsets[10], "*") is None
    assert redis.model.do("XLEN", "chsk:0:s:*") <= 18  # an eighth above


def test_bytes_above_the_limit_go_too(redis: Redis) -> None:
    cursor = redis.publish("*", "[:a/b]")
    for _ in range(3):
        redis.publish("*", "x" * 4000)
    assert redis.model.do("XLEN", "chsk:0:s:*") == 2
    assert cursor is not None and redis.since(cursor, "*") is None


def test_a_page_ends_where_all_channels_were_read(redis: Redis) -> None:
    cursor = redis.offset
    for number in range(6):
        redis.publish(f"t:{number % 2}", f"[:a/b {number}]")
    _, end, more, complete, out = redis.call(scripts.SINCE, cursor, 10, "t:0", 0, "t:1", 0)
    assert (more, complete) == (1, 1)
    read = [entry for entry in out if int(entry[1]) <= int(end)]
    assert [entry[3] for entry in read] == [b"[:a/b 0]", b"[:a/b 2]", b"[:a/b 1]"]


@pytest.mark.parametrize("lost", ["s:t:news", "h:t:news", "both"])
def test_history_that_was_lost_is_incomplete(redis: Redis, lost: str) -> None:
    cursor = redis.offset
    redis.publish("t:news", "[:a/b]")
    keys = ("s:t:news", "h:t:news") if lost == "both" else (lost,)
    redis.model.do("DEL", *(f"chsk:0:{key}" for key in keys))
    assert redis.since(cursor, "t:news") is None


def test_channels_that_were_quiet_for_long_are_forgotten(redis: Redis) -> None:
    cursor = redis.publish("t:news", "[:a/b]") or 0
    redis.time += 2 * WINDOW
    redis.lease()
    assert redis.keys("s") == redis.keys("h") == []
    assert redis.since(cursor - 1, "t:news") is None
    assert redis.since(int(redis.time * 1e6) - 1, "t:news") == []


# Clients -----------------------------------------------------------------------------------


def test_a_client_is_let_in_and_goes(redis: Redis) -> None:
    answer = redis.attach("ann", "c1", "t1")
    assert (answer[0], answer[2], answer[3]) == (b"in", 1, 0)
    assert redis.attach("ann", "c2", "t2")[2] == 0  # not her first
    assert redis.call(scripts.DETACH, "ann", "c1", "t1") == 0
    assert redis.call(scripts.DETACH, "ann", "c2", "another") == 0
    assert int(redis.call(scripts.DETACH, "ann", "c2", "t2")) > int(answer[1])
    assert redis.keys("c") == []


def test_events_for_who_went_are_kept_for_the_window(redis: Redis) -> None:
    redis.time += WINDOW  # the epoch began a while ago
    assert redis.publish(ANN, "[:a/b]") is None
    redis.attach("ann", "c1", "t1")
    redis.call(scripts.DETACH, "ann", "c1", "t1")
    assert redis.publish(ANN, "[:a/b]") is not None
    redis.time += WINDOW
    assert redis.publish(ANN, "[:a/b]") is None


def test_clients_of_a_worker_that_died_are_signed_off_in_parts(redis: Redis) -> None:
    redis.time += WINDOW
    redis.lease("w1")
    redis.lease("w2")
    for number in range(3):
        redis.attach(f"user{number}", "c1", "t", worker="w2")
    redis.time += LEASE / 1000 - 1
    redis.lease("w1")
    redis.time += 2
    assert redis.lease("w1")[4] == 1  # one is dead
    more, *gone = redis.call(scripts.REAP, 2)
    assert (more, gone[::2]) == (1, [b"user0", b"user1"])
    more, *gone = redis.call(scripts.REAP, 2)
    assert (more, gone[::2]) == (0, [b"user2"])
    assert redis.lease("w2")[2] == -1  # it lives after all, and is told


def test_whoever_was_there_before_the_epoch_comes_back_in_silence(redis: Redis) -> None:
    assert redis.attach("ann", "c1", "t1", silent=1)[2] == 0
    assert redis.attach("ben", "c1", "t1")[2] == 1
    ended = redis.attach("ben", "c2", "t2", silent=1)[-2]
    assert ended == redis.model.do("HGET", "chsk:0:m", "began")


def test_another_secret_lets_no_anonymous_client_in(redis: Redis) -> None:
    redis.attach("", "c1", "t1", digest="d1")
    assert redis.attach("", "c1", "t2", digest="d2") == [b"held"]
    assert redis.call(scripts.HOLDER, "", "c1") == b"d1"


@pytest.mark.parametrize(("seconds", "hears"), [(59.9, True), (60.1, False)])
def test_a_close_is_kept_for_the_next_poll_as_long_as_any_worker_waits_for_it(
    redis: Redis, seconds: float, hears: bool
) -> None:
    redis.greet("w2", close_kept=60_000)
    redis.greet("w3", close_kept=10_000)
    redis.attach("ann", "c1", "t1", kind="ajax", digest="d")
    redis.publish(ANN, "[:chsk/close]", "*")
    redis.time += seconds
    answer = redis.attach("ann", "c1", "t2", kind="poll", digest="d")
    assert (answer[:2] == [b"closed", b"[:chsk/close]"]) is hears


# Memberships -------------------------------------------------------------------------------


def test_memberships_of_who_is_absent_end_in_a_day(redis: Redis) -> None:
    redis.time += WINDOW
    assert redis.call(scripts.JOIN, "ann", "news", "[:chsk/joined]", 9, 0) == 1
    assert redis.call(scripts.MEMBERS, "news") == [b"ann"]
    redis.time += 24 * 3600 + 1
    redis.lease()
    assert redis.call(scripts.MEMBERS, "news") == []
    assert redis.keys("j") == redis.keys("k") == []


def test_a_user_is_in_so_many_topics(redis: Redis) -> None:
    assert redis.call(scripts.JOIN, "ann", "news", "[:chsk/joined]", 1, 0) == 1
    assert redis.call(scripts.JOIN, "ann", "chat", "[:chsk/joined]", 1, 0) == -1


# Keyed sends -------------------------------------------------------------------------------


def claim(redis: Redis, client: str, key: str, token: str = "w1", most: int = 10_000) -> Any:
    return redis.call(scripts.CLAIM, client, key, token, 2, most)


def test_the_last_sends_of_a_client_are_remembered(redis: Redis) -> None:
    for key in ("k1", "k2", "k3"):
        assert claim(redis, "c1", key) is None
    assert claim(redis, "c1", "k3", "w2") == b"?w1"
    assert claim(redis, "c1", "k2", "w2") == b"?w1"
    assert claim(redis, "c1", "k1", "w2") is None


def test_replies_weigh_and_the_oldest_clients_are_forgotten(redis: Redis) -> None:
    claim(redis, "c1", "k")
    redis.time += 1
    claim(redis, "c2", "k")
    assert redis.call(scripts.KEEP_REPLY, "c2", "k", "x" * 2000, 2000) == 1
    assert redis.keys("y") == []
    assert redis.model.do("HGETALL", "chsk:0:yb") == [b"", b"0"]


# Limits ------------------------------------------------------------------------------------


def test_the_smallest_limits_of_the_living_hold(redis: Redis) -> None:
    assert redis.lease("w2", (4, 5000, 60_000))[-3:] == [4, 5000, 60_000]
    assert redis.lease("w1")[-3:] == [4, 5000, 60_000]
    cursor = redis.publish("*", "[:a/b]") or 0
    redis.call(scripts.RETIRE, "w2", 0)
    assert redis.lease("w1")[-3:] == list(LIMITS)
    assert redis.since(cursor - 1, "*") is None  # of a shorter window some may be gone


# Names -------------------------------------------------------------------------------------


def test_the_scripts_are_known_by_name() -> None:
    found = [one for one in vars(scripts).values() if isinstance(one, scripts.Script)]
    assert len({one.sha for one in found}) == len(found)

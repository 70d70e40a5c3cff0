"""Nothing that was lost is called recovered, however it was lost: of both brokers.

Redis' own clock cannot be set here. Its past is modelled by what it left behind: keys that expired
are deleted, a counter that is ahead of the clock is one whose clock went back.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import redis

from flask_chsk.brokers.contract import EVERYONE, Broker, topic_channel, user_channel
from flask_chsk.brokers.redis.epoch import AHEAD
from flask_chsk.hub import Hub
from tests.integration.brokers.conftest import Ears
from tests.process import Redis, eventually

ANN = user_channel("ann")
HOUR = 3600 * 10**6  # microseconds
PAGE = 1 << 20

Start = Callable[..., Ears]


class Keys:
    """The keys of one test's broker, as somebody finds them who goes round it."""

    def __init__(self, url: str, prefix: str) -> None:
        self.client = redis.Redis.from_url(url, decode_responses=True)
        self.base = f"{prefix}:0:"

    def delete(self, *names: str) -> None:
        self.client.delete(*[self.base + name for name in names])

    def expire(self, channel: str) -> None:
        """What the end of its time does to a history."""
        self.delete(f"s:{channel}", f"h:{channel}")

    def move_clock(self, by: int) -> None:
        """As if Redis' clock had been set since: forward by *by* microseconds, or back."""
        if by > 0:
            self.client.hincrby(f"{self.base}m", "shift", by)
        else:
            self.client.hincrby(f"{self.base}m", "o", -by)


@pytest.fixture
def keys(redis_url: str, prefix: str) -> Keys:
    return Keys(redis_url, prefix)


@pytest.fixture
def broker(start: Start, redis_url: str) -> Broker:
    broker = start(redis_url).broker
    broker.ready()
    return broker


def publish(broker: Broker, channel: str, *numbers: int) -> list[int]:
    offsets = [broker.publish(channel, f"[:a/b {number}]") for number in numbers]
    assert None not in offsets
    return offsets  # type: ignore[return-value]


LOSSES: dict[str, Callable[[Keys, str, list[int]], object]] = {
    "history expired": lambda keys, channel, offsets: keys.expire(channel),
    "stream deleted": lambda keys, channel, offsets: keys.delete(f"s:{channel}"),
    "hash deleted": lambda keys, channel, offsets: keys.delete(f"h:{channel}"),
    "stream trimmed": lambda keys, channel, offsets: keys.client.xtrim(
        f"{keys.base}s:{channel}", 2, approximate=False
    ),
    "first event deleted": lambda keys, channel, offsets: keys.client.xdel(
        f"{keys.base}s:{channel}", f"{offsets[0]}-0"
    ),
    "event deleted in the middle": lambda keys, channel, offsets: keys.client.xdel(
        f"{keys.base}s:{channel}", f"{offsets[2]}-0"
    ),
    "last event deleted": lambda keys, channel, offsets: keys.client.xdel(
        f"{keys.base}s:{channel}", f"{offsets[-1]}-0"
    ),
    "index deleted": lambda keys, channel, offsets: keys.delete("hs"),
    "index and history deleted": lambda keys, channel, offsets: (
        keys.delete("hs"),
        keys.expire(channel),
    ),
}


@pytest.mark.parametrize("more", [False, True], ids=["", "and then there was another event"])
@pytest.mark.parametrize("channel", [ANN, EVERYONE, topic_channel("news"), "c:1:ann"])
@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_lost_is_never_called_complete(
    broker: Broker, keys: Keys, loss: str, channel: str, more: bool
) -> None:
    broker.clients.attach("ann", "1")
    [cursor] = publish(broker, EVERYONE, 0)
    offsets = publish(broker, channel, *range(5))
    LOSSES[loss](keys, channel, offsets)
    if more:
        publish(broker, channel, 5)
    page = broker.since({channel: 0}, cursor, PAGE)
    assert (page.complete, page.pushes) == (False, ())
    [now] = publish(broker, channel, 6)
    publish(broker, channel, 7)
    assert [push.text for push in broker.since({channel: 0}, now, PAGE).pushes] == ["[:a/b 7]"]


def test_a_window_that_is_raised_makes_whole_nothing_that_an_earlier_one_let_go(
    start: Start, redis_url: str, keys: Keys
) -> None:
    old = start(redis_url, recovery_seconds=1).broker
    old.ready()
    old.clients.attach("ann", "1")
    [cursor] = publish(old, EVERYONE, 0)
    publish(old, ANN, 1)
    keys.expire(ANN)
    old.retire(0.0)
    new = start(redis_url, recovery_seconds=300).broker
    new.ready()
    assert not new.since({ANN: 0, EVERYONE: 0}, cursor, PAGE).complete
    new.clients.attach("ann", "1")
    [cursor] = publish(new, EVERYONE, 2)
    publish(new, ANN, 3)
    assert new.since({ANN: 0, EVERYONE: 0}, cursor, PAGE).complete


@pytest.mark.parametrize("step", [-24 * HOUR, 24 * HOUR], ids=["back", "forward"])
def test_a_clock_of_redis_that_is_set_hides_no_event(broker: Broker, keys: Keys, step: int) -> None:
    broker.clients.attach("ann", "1")
    [cursor] = publish(broker, ANN, 1)
    keys.move_clock(step)
    [after] = publish(broker, ANN, 2)
    publish(broker, ANN, 3)
    page = broker.since({ANN: 0}, after, PAGE)
    assert [push.text for push in page.pushes] == ["[:a/b 3]"]
    keys.expire(ANN)
    for known in (cursor, after):
        assert not broker.since({ANN: 0}, known, PAGE).complete


def test_after_a_clock_went_back_cursors_grow_old_and_histories_end(
    start: Start, redis_url: str, keys: Keys
) -> None:
    broker = start(redis_url, recovery_seconds=60).broker
    broker.ready()
    keys.move_clock(-24 * HOUR)
    broker.clients.attach("ann", "1")
    [cursor] = publish(broker, ANN, 1)
    assert broker.since({ANN: 0}, cursor, PAGE).complete
    keys.move_clock(61 * 10**6)
    assert not broker.since({ANN: 0}, cursor, PAGE).complete
    keys.move_clock(200 * 10**6)
    publish(broker, EVERYONE, 2)
    assert keys.client.exists(f"{keys.base}s:{ANN}") == 0
    assert keys.client.zscore(f"{keys.base}hs", ANN) is None


def test_the_memory_brokers_time_is_nobodys_to_set(
    start: Start, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = start("memory://").broker
    broker.clients.attach("ann", "1")
    [cursor] = publish(broker, ANN, 1)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    publish(broker, ANN, 2)
    hub.run(broker.sweep)
    assert [push.text for push in broker.since({ANN: 0}, cursor, PAGE).pushes] == ["[:a/b 2]"]


@pytest.mark.usefixtures("hasty")
def test_processes_that_differ_go_by_the_smallest_and_say_so(
    start: Start, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    small = start(redis_url, recovery_events=4, recovery_seconds=60)
    large = start(redis_url, recovery_events=64, recovery_seconds=120)
    for ears in (small, large):
        ears.broker.ready()
    large.broker.clients.attach("ann", "1")
    offsets = publish(large.broker, ANN, *range(10))
    assert not large.broker.since({ANN: 0}, offsets[4], PAGE).complete
    assert large.broker.since({ANN: 0}, offsets[5], PAGE).complete
    eventually(large.broker.note)
    assert "CHSK_RECOVERY_EVENTS is 64 here and 4 in another process" in large.broker.note()
    assert "CHSK_RECOVERY_SECONDS is 120 here and 60 in another process" in caplog.text
    assert not small.broker.note()
    small.broker.retire(0.0)
    small.broker.stop()
    eventually(lambda: not large.broker.note())
    assert not large.broker.since({ANN: 0}, offsets[5], PAGE).complete  # the one gap for it
    offsets = publish(large.broker, ANN, *range(10))
    assert large.broker.since({ANN: 0}, offsets[0], PAGE).complete


@pytest.mark.usefixtures("hasty")
def test_keys_that_redis_evicted_are_a_new_epoch(
    start: Start, start_redis: Callable[..., Redis]
) -> None:
    server = start_redis()
    one = start(server.url)
    one.broker.ready()
    epoch = one.broker.epoch
    admin = redis.Redis.from_url(server.url)
    admin.config_set("maxmemory-policy", "allkeys-random")
    admin.set("somebody's", "x" * 1_000_000)
    admin.config_set("maxmemory", admin.info("memory")["used_memory"] - 500_000)
    eventually(lambda: admin.info("stats")["evicted_keys"])
    admin.config_set("maxmemory", 0)
    eventually(lambda: one.broker.epoch != epoch)
    eventually(lambda: "noeviction" in one.broker.health())


# clocks --------------------------------------------------------------------------------------


def test_a_host_whose_clock_is_wrong_hears_everything_and_says_so_once(
    start: Start,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 25 * 3600)
    one = start(redis_url)
    one.broker.ready()
    one.broker.clients.attach("ann", "1")
    publish(one.broker, ANN, 1, 2, 3)
    assert one.texts(3) == ["[:a/b 1]", "[:a/b 2]", "[:a/b 3]"]
    assert one.broker.stats()["broker_clock_ahead"] == -90_000
    assert not one.broker.health()
    assert one.broker.note() == "this host's clock is 90000 s behind that of Redis"
    assert caplog.text.count("this host's clock") == 1


@pytest.mark.parametrize("ahead", [10**7, 2 * HOUR, 8 * 10**15], ids=["10 s", "2 h", "2 centuries"])
def test_an_offset_that_redis_never_gave_makes_nothing_look_old(
    start: Start, redis_url: str, ahead: int
) -> None:
    one = start(redis_url)
    one.broker.ready()
    one.broker.clients.attach("ann", "1")
    base = one.broker._redis.base  # type: ignore[attr-defined]
    absurd = f"{one.broker.epoch} {one.watermark() + ahead} 5 0 8 0\nu:ann[:a/b 0]"
    if ahead > AHEAD * 1e6:
        redis.Redis.from_url(redis_url).publish(f"{base}u:ann", absurd)
    publish(one.broker, ANN, 1)
    assert one.texts(1) == ["[:a/b 1]"]
    if ahead > AHEAD * 1e6:
        one.wait("lapsed")  # clients ask history, which has it if it is true


def test_events_after_redis_clock_jumped_ahead_are_read_from_history_and_then_heard(
    start: Start, redis_url: str, keys: Keys
) -> None:
    one = start(redis_url)
    one.broker.ready()
    one.broker.clients.attach("ann", "1")
    publish(one.broker, ANN, 0)
    one.texts(1)
    before = one.happened.count(("lapsed",))
    keys.move_clock(2 * HOUR)
    offsets = publish(one.broker, ANN, 1, 2)
    eventually(lambda: one.happened.count(("lapsed",)) > before)
    page = one.broker.since({ANN: 0}, offsets[0], PAGE)
    assert [push.text for push in page.pushes] == ["[:a/b 2]"]
    publish(one.broker, ANN, 3)
    eventually(lambda: one.heard[-1].text == "[:a/b 3]")


def test_an_epoch_that_redis_never_had_is_asked_about_and_changes_nothing(
    start: Start, redis_url: str
) -> None:
    one = start(redis_url)
    one.broker.ready()
    one.broker.clients.attach("ann", "1")
    epoch, base = one.broker.epoch, one.broker._redis.base  # type: ignore[attr-defined]
    admin = redis.Redis.from_url(redis_url)
    admin.publish(f"{base}u:ann", f"beef {one.watermark() + 9} 5 0 8 0\nu:ann[:a/b 0]")
    admin.publish(f"{base}*", f"E beef {one.watermark() + 9} run")
    publish(one.broker, ANN, 1)
    assert one.texts(1) == ["[:a/b 1]"]
    assert one.broker.epoch == epoch

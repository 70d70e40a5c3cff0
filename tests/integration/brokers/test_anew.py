"""Who is there, and who is a member, after Redis began anew under processes that went on."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import redis

from flask_chsk.brokers.contract import topic_channel, user_channel
from flask_chsk.errors import UsageError
from flask_chsk.publisher import Publisher
from tests.integration.brokers.conftest import Ears
from tests.integration.brokers.test_redis import attached
from tests.process import Redis, eventually

ANN = user_channel("ann")
NEWS = topic_channel("news")
Start = Callable[..., Ears]


class Emptied:
    """Two processes whose Redis is emptied, and what handlers were told of ann."""

    def __init__(self, start: Start, server: Redis) -> None:
        self.server = server
        self.one, self.two = start(server.url), start(server.url)
        for ears in (self.one, self.two):
            ears.broker.ready()
        self.told: list[tuple[int, bool]] = []

    def come(self, ears: Ears, client: str, silent: str = "") -> str:
        """*silent*: the token of its opening in the epoch before."""
        arrival = ears.broker.clients.attach(
            "ann", client, "ws", True, silent or None, silent=bool(silent)
        )
        assert arrival is not None
        if arrival.first:
            self.told.append((arrival.generation, True))
        return arrival.token

    def go(self, ears: Ears, client: str, token: str) -> None:
        generation = ears.broker.clients.detach("ann", client, token)
        if generation:
            self.told.append((generation, False))

    def empty(self) -> None:
        epoch = self.one.broker.epoch
        redis.Redis.from_url(self.server.url).flushall()
        self.one.broker.topics.members("news")  # whatever is asked first
        for ears in (self.one, self.two):
            eventually(lambda ears=ears: ears.broker.epoch != epoch)

    def history(self) -> list[str]:
        """Comings and goings in the order of their generations; twice the same is shown."""
        for ears in (self.one, self.two):
            ears.hub.run(lambda: None)
        told = sorted([*self.told, *self.one.told_of, *self.two.told_of])
        assert all(a[0] != b[0] for a, b in pairwise(told))
        return ["came" if came else "went" for _, came in told]


@pytest.fixture
def emptied(start: Start, start_redis: Callable[..., Redis]) -> Emptied:
    return Emptied(start, start_redis())


def test_who_stayed_did_not_come_again(emptied: Emptied) -> None:
    one, two = emptied.one, emptied.two
    here, there = emptied.come(one, "1"), emptied.come(two, "2")
    emptied.empty()
    here = emptied.come(one, "1", silent=here)
    there = emptied.come(two, "2", silent=there)
    assert emptied.history() == ["came"]
    assert one.broker.clients.connected().any == {"ann"}
    emptied.go(one, "1", here)
    emptied.go(two, "2", there)
    assert emptied.history() == ["came", "went"]


def test_who_left_meanwhile_is_told_to_have_gone(emptied: Emptied) -> None:
    here = emptied.come(emptied.one, "1")
    emptied.empty()
    emptied.go(emptied.one, "1", emptied.come(emptied.one, "1", silent=here))
    assert emptied.history() == ["came", "went"]
    emptied.go(emptied.two, "2", emptied.come(emptied.two, "2"))
    assert emptied.history() == ["came", "went"] * 2


@pytest.mark.parametrize("goes", [False, True])
@pytest.mark.parametrize("hops", [False, True])
def test_who_is_seen_elsewhere_first_went_and_came(
    emptied: Emptied, hops: bool, goes: bool
) -> None:
    one, two = emptied.one, emptied.two
    here, other = emptied.come(one, "1"), emptied.come(one, "3")
    emptied.empty()
    there = emptied.come(two, "1" if hops else "2")
    if goes:
        emptied.go(two, "1" if hops else "2", there)
    if hops and not goes:
        assert one.broker.clients.attach("ann", "1", "ws", True, here, silent=True) is None
    else:
        emptied.come(one, "1", silent=here)
    emptied.come(one, "3", silent=other)
    told = ["came", "went"] * (2 + goes)
    assert emptied.history() == told[:-1]
    if not goes:
        emptied.go(two, "1" if hops else "2", there)
    if goes or not hops:
        emptied.go(one, "1", here)
    emptied.go(one, "3", other)
    assert emptied.history() == told


def test_who_went_before_another_process_spoke_of_them_came_and_went(emptied: Emptied) -> None:
    here, there = emptied.come(emptied.one, "1"), emptied.come(emptied.two, "2")
    emptied.empty()
    emptied.go(emptied.one, "1", emptied.come(emptied.one, "1", silent=here))
    there = emptied.come(emptied.two, "2", silent=there)
    assert emptied.history() == ["came", "went", "came"]
    emptied.go(emptied.two, "2", there)
    assert emptied.history() == ["came", "went"] * 2


@pytest.mark.parametrize("seen", ["nowhere", "elsewhere", "elsewhere and no more"])
def test_whose_only_process_has_no_client_of_theirs_any_more_went(
    emptied: Emptied, seen: str
) -> None:
    one, two = emptied.one, emptied.two
    emptied.come(one, "1")
    emptied.empty()
    there = emptied.come(two, "1") if seen != "nowhere" else ""
    if seen == "elsewhere and no more":
        emptied.go(two, "1", there)
    for ears in (one, two):  # which had them before, one after the other
        if generation := ears.broker.clients.was_here("ann"):
            emptied.told.append((generation, False))
    told = {"nowhere": 2, "elsewhere": 3, "elsewhere and no more": 4}[seen]
    assert emptied.history() == (["came", "went"] * 2)[:told]
    if seen == "nowhere":
        emptied.come(one, "2")
        assert emptied.history() == ["came", "went", "came"]


def test_what_a_restored_redis_says_of_clients_is_over(
    start: Start, start_redis: Callable[..., Redis]
) -> None:
    """It was written before bob went; nobody lets him in again."""
    server = start_redis()
    one = start(server.url)
    one.broker.ready()
    ann, bob = attached(one.broker, "ann", "1"), attached(one.broker, "bob", "1")
    one.broker.topics.join("bob", "news")
    admin = redis.Redis.from_url(server.url)
    kept = {key: admin.dump(key) for key in admin.scan_iter()}
    assert one.broker.clients.detach("bob", "1", bob.token)
    admin.flushall()
    for key, value in kept.items():
        admin.restore(key, 0, value)
    admin.hset(_counter(admin), "run", "another")
    epoch = one.broker.epoch
    admin.client_kill_filter(_type="normal", skipme=True)
    admin.client_kill_filter(_type="pubsub")
    eventually(lambda: one.broker.epoch != epoch)
    eventually(lambda: not one.broker.health())
    assert one.broker.clients.connected().any == set()
    again = one.broker.clients.attach("ann", "1", "ws", True, ann.token, silent=True)
    assert again is not None
    assert not again.first
    assert one.broker.clients.connected().any == {"ann"}
    assert attached(one.broker, "bob", "1").first
    assert one.broker.topics.members("news") == {"bob"}


def _counter(admin: redis.Redis) -> bytes:
    return next(key for key in admin.scan_iter() if key.endswith(b":m"))


def test_generations_rise_over_an_epoch_though_the_clock_went_back(emptied: Emptied) -> None:
    one = emptied.one
    admin = redis.Redis.from_url(emptied.server.url)
    admin.hincrby(_counter(admin), "o", 3600 * 10**6)  # as if the clock had been an hour ahead
    last = one.broker.publish("*", "[:a/b 1]") or 0
    eventually(lambda: one.watermark() >= last)
    here = emptied.come(one, "1")
    last = one.broker.publish("*", "[:a/b 1]") or 0
    eventually(lambda: one.watermark() >= last)
    emptied.empty()
    emptied.go(one, "1", emptied.come(one, "1", silent=here))
    assert emptied.history() == ["came", "went"]


def test_what_a_publisher_sends_first_is_kept_for_who_is_there(emptied: Emptied) -> None:
    emptied.come(emptied.one, "1")
    prefix = emptied.one.broker._redis.base.partition(":")[0]  # type: ignore[attr-defined]
    redis.Redis.from_url(emptied.server.url).flushall()
    with Publisher(f"{emptied.server.url}?prefix={prefix}") as publisher:
        assert publisher.send("ann", ["a/b", 1]) is not None
    assert emptied.one.texts(1) == ["[:a/b 1]"]


# topics --------------------------------------------------------------------------------------


def test_a_membership_of_before_is_one_since_the_epoch_began(emptied: Emptied) -> None:
    one, two = emptied.one, emptied.two
    here = emptied.come(one, "1")
    one.broker.topics.join("ann", "news")
    emptied.empty()
    page = one.broker.since({"*": 0}, one.watermark(), 1000)
    assert page.complete
    began = page.end
    missed = one.broker.publish(NEWS, "[:a/b 1]") or 0
    assert one.broker.topics.rejoin("ann", "news")
    arrival = one.broker.clients.attach("ann", "1", "ws", True, here, silent=True)
    assert arrival is not None
    assert arrival.topics["news"] <= began < missed
    assert two.broker.topics.members("news") == {"ann"}


def test_who_is_at_another_process_by_then_is_told_since_when_they_are_a_member(
    emptied: Emptied,
) -> None:
    one, two = emptied.one, emptied.two
    emptied.come(one, "1")
    one.broker.topics.join("ann", "news")
    emptied.empty()
    there = attached(two.broker, "ann", "2")
    assert (dict(there.topics), there.whole) == ({}, False)  # which says nothing
    assert one.broker.topics.rejoin("ann", "news")
    [text] = two.texts(1)
    assert text.startswith('[:chsk/joined ["news" ')
    since = int(text.split()[-1].rstrip("]"))
    assert since < there.offset


def test_joining_anew_does_not_hide_that_they_were_a_member(emptied: Emptied) -> None:
    one, two = emptied.one, emptied.two
    emptied.come(one, "1")
    one.broker.topics.join("ann", "news")
    emptied.empty()
    between = two.broker.publish(NEWS, "[:a/b 1]") or 0
    assert two.broker.topics.join("ann", "news")
    assert one.broker.topics.rejoin("ann", "news")
    assert attached(two.broker, "ann", "2").topics["news"] < between


def test_who_left_and_joined_anew_is_a_member_since_then(emptied: Emptied) -> None:
    one, two = emptied.one, emptied.two
    emptied.come(one, "1")
    one.broker.topics.join("ann", "news")
    emptied.empty()
    assert two.broker.topics.leave("ann", "news")  # though this Redis never heard of it
    assert not two.broker.topics.leave("ann", "news")
    between = two.broker.publish(NEWS, "[:a/b 1]") or 0
    assert two.broker.topics.join("ann", "news")
    assert one.broker.topics.rejoin("ann", "news")
    assert attached(two.broker, "ann", "2").topics["news"] > between


def test_a_process_that_comes_too_late_restores_no_membership(emptied: Emptied) -> None:
    one = emptied.one
    emptied.come(one, "1")
    one.broker.topics.join("ann", "news")
    emptied.empty()
    admin = redis.Redis.from_url(emptied.server.url)
    admin.hincrby(_counter(admin), "shift", 121 * 10**6)  # the window is over
    assert not one.broker.topics.rejoin("ann", "news")
    assert one.broker.topics.members("news") == set()


def test_topics_that_are_too_many_are_not_restored(emptied: Emptied) -> None:
    one = emptied.one
    for number in range(100):
        one.broker.topics.join("ann", f"topic-{number}")
    emptied.empty()
    for number in range(100):
        one.broker.topics.join("ann", f"other-{number}")
    with pytest.raises(UsageError, match="100 topics"):
        one.broker.topics.rejoin("ann", "topic-1")

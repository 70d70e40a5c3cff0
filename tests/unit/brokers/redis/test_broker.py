"""The Redis broker of two workers, on a simulated hub over a model of Redis."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flask_chsk.brokers.contract import EVERYONE, topic_channel, user_channel
from flask_chsk.brokers.redis import scripts
from flask_chsk.brokers.redis.broker import RedisBroker
from flask_chsk.brokers.redis.lease import LEASE
from flask_chsk.config import Config
from flask_chsk.errors import BrokerUnavailable, ConfigError, PublishUnknown, Refused, UsageError
from tests.sim.redis import RedisNetwork
from tests.sim.runtime import SimHub
from tests.unit.brokers.redis.scene import Ears

ANN = user_channel("ann")
PAGE = 1 << 18


class Worker:
    """A broker as its worker sees it: each call is a greenlet's, and runs until it ends."""

    def __init__(self, network: RedisNetwork, **config: Any) -> None:
        self.hub = network.hub
        self.ears: Any = Ears()
        self.broker = RedisBroker(Config(**config), network.address())
        self.broker.start(self.hub, self.ears)  # type: ignore[arg-type]

    def begin(self, method: str, *args: Any, **more: Any) -> Callable[[], Any]:
        """Begin a call; the function gives its result, or raises what it raised."""
        ended: list[tuple[Any, BaseException | None]] = []

        def call() -> None:
            try:
                ended.append((getattr(self.broker, method)(*args, **more), None))
            except Exception as error:
                ended.append((None, error))

        self.hub.spawn(call)

        def result() -> Any:
            for _ in range(100):
                if ended:
                    break
                self.hub.loop.run(0.1)
            [(value, error)] = ended
            if error is not None:
                raise error
            return value

        return result

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return lambda *args, **more: self.begin(method, *args, **more)()

    def heard(self) -> list[Any]:
        """What the listener was told since the last time."""
        self.hub.loop.run(0.1)
        told: list[Any] = self.ears.heard()
        return told

    def die(self) -> None:
        """End without a word to Redis."""
        self.broker.stop()


@pytest.fixture
def network() -> RedisNetwork:
    hub = SimHub(random.Random(1))
    return RedisNetwork(hub, lambda: 0.0001)


@pytest.fixture
def start(network: RedisNetwork) -> Iterator[Callable[..., Worker]]:
    """``start(**config)``: a worker that knows the epoch."""
    started: list[Worker] = []

    def start(**config: Any) -> Worker:
        worker = Worker(network, **config)
        started.append(worker)
        worker.ready()
        worker.heard()
        return worker

    yield start
    for worker in started:
        worker.broker.stop()
    network.cut()
    network.hub.loop.run(5.0)  # the subscribers end


@pytest.fixture
def worker(start: Callable[..., Worker]) -> Worker:
    return start()


@pytest.fixture
def other(worker: Worker, start: Callable[..., Worker]) -> Worker:
    return start()


def events(told: list[Any]) -> list[str]:
    """The texts of the events among what a listener was told."""
    return [one[1] for one in told if one[0] in (ANN, EVERYONE)]


# Life --------------------------------------------------------------------------------------


def test_a_broker_has_its_name_and_epoch_once_it_is_started(worker: Worker) -> None:
    assert worker.broker.name
    assert worker.broker.epoch
    assert (worker.broker.health(), worker.broker.note()) == ("", "")


def test_without_redis_nobody_is_kept_waiting(network: RedisNetwork) -> None:
    network.away = True
    worker = Worker(network)
    with pytest.raises(BrokerUnavailable, match="is away: refused"):
        worker.ready()
    assert "is away" in worker.broker.health()
    network.away = False
    network.hub.loop.run(5.0)
    assert worker.ready() is None
    worker.die()


def test_a_redis_that_may_drop_keys_is_refused(network: RedisNetwork) -> None:
    network.model.policy = "allkeys-lru"
    worker = Worker(network)
    with pytest.raises(ConfigError, match="noeviction"):
        worker.ready()
    worker.die()


def test_clients_of_a_worker_that_retires_are_gone_for_the_others(
    worker: Worker, other: Worker
) -> None:
    worker.attach("ann", "c1")
    other.heard()
    worker.retire(1.0)
    worker.die()
    worker.hub.loop.run(2 * LEASE)
    assert [one for one in other.heard() if one[:3] == ("user_presence_changed", "ann", False)]
    assert other.connected().any == set()


# Events ------------------------------------------------------------------------------------


def test_an_event_is_heard_by_the_worker_of_its_user(worker: Worker, other: Worker) -> None:
    worker.attach("ann", "c1")
    offset = other.publish(ANN, "[:a/b 1]")
    assert worker.heard()[-1] == (ANN, "[:a/b 1]", offset)
    assert other.heard() == []
    assert worker.broker.watermark() == offset


def test_an_event_for_who_is_not_there_has_no_offset(worker: Worker) -> None:
    assert worker.publish(ANN, "[:a/b 1]") is None


def test_a_close_is_heard_by_all_whoever_is_there(worker: Worker, other: Worker) -> None:
    worker.listen()
    offset = other.publish(ANN, "[:chsk/close {}]")
    assert (ANN, "[:chsk/close {}]", offset) in worker.heard()


def test_history_is_what_followed_a_cursor(worker: Worker) -> None:
    first = worker.attach("ann", "c1").offset
    second, third = (worker.publish(ANN, f"[:a/b {n}]") for n in (2, 3))
    page = worker.since({ANN: 0}, first, PAGE)
    assert [push.offset for push in page.pushes] == [second, third]
    assert (page.complete, page.more) == (True, False)
    page = worker.since({ANN: 0}, first, 5)
    assert [push.offset for push in page.pushes] == [second]
    assert (page.end, page.more) == (second, True)
    assert not worker.since({ANN: 0}, 5, PAGE).complete


def test_a_publish_whose_answer_is_lost_happens_once(worker: Worker, network: RedisNetwork) -> None:
    worker.attach("ann", "c1")
    network.latency = lambda: 0.01
    result = worker.begin("publish", ANN, "[:a/b 1]")
    network.hub.loop.run(0.015)  # it has arrived, and the answer is on its way
    network.cut()
    offset = result()
    page = worker.since({ANN: 0}, offset - 2, PAGE)
    assert [push.offset for push in page.pushes] == [offset]


def test_whether_an_event_was_sent_is_unknown_where_redis_stays_away(
    worker: Worker, network: RedisNetwork
) -> None:
    worker.attach("ann", "c1")
    network.latency = lambda: 0.01
    result = worker.begin("publish", ANN, "[:a/b 1]")
    network.hub.loop.run(0.005)
    network.away = True
    network.cut()
    with pytest.raises(PublishUnknown):
        result()


def test_a_cut_is_told_and_what_was_missed_is_in_history(
    worker: Worker, other: Worker, network: RedisNetwork
) -> None:
    cursor = worker.attach("ann", "c1").offset
    worker.heard()
    network.away = True
    network.cut()
    network.hub.loop.run(0.01)
    assert worker.broker.deaf
    network.away = False
    offset = None
    while offset is None:
        network.hub.loop.run(0.5)
        offset = other.publish(ANN, "[:a/b 1]")
    network.hub.loop.run(5.0)
    assert ("resync_required",) in worker.heard()
    assert not worker.broker.deaf
    page = worker.since({ANN: 0}, cursor, PAGE)
    assert [push.offset for push in page.pushes] == [offset]


def test_a_redis_that_restarts_empty_is_a_new_epoch(worker: Worker, network: RedisNetwork) -> None:
    cursor = worker.attach("ann", "c1").offset
    before = worker.broker.epoch
    network.restart()
    network.hub.loop.run(5.0)
    assert worker.broker.epoch != before
    told = [one[0] for one in worker.heard()]
    assert "reset" in told and "reattach" in told
    assert not worker.since({ANN: 0}, cursor, PAGE).complete


# Clients -----------------------------------------------------------------------------------


def test_a_client_that_goes_to_another_worker_is_told_to_the_first(
    worker: Worker, other: Worker
) -> None:
    first = worker.attach("ann", "c1", v1=True)
    worker.heard()
    second = other.attach("ann", "c1", v1=True)
    assert (first.first, second.first, second.known) == (True, False, True)
    assert ("client_taken_over", "ann", "c1", first.token) in worker.heard()
    assert worker.detach("ann", "c1", first.token) == 0
    assert other.detach("ann", "c1", second.token) > second.generation


def test_an_anonymous_client_belongs_to_who_has_its_secret(worker: Worker) -> None:
    worker.attach(None, "c1", digest="secret")
    assert worker.holder(None, "c1") == "secret"
    assert worker.holder(None, "c2") is None
    with pytest.raises(Refused):
        worker.attach(None, "c1", digest="another")


def test_a_user_has_so_many_clients(start: Callable[..., Worker]) -> None:
    worker = start(max_clients_per_uid=2)
    for id in ("c1", "c2"):
        worker.attach("ann", id)
    with pytest.raises(Refused, match="2 clients already"):
        worker.attach("ann", "c3")


def test_a_poll_learns_of_the_close_that_it_missed(worker: Worker) -> None:
    worker.attach("ann", "c1", "ajax", True, digest="d")
    worker.publish("c:c1:ann", "[:chsk/close {}]")
    assert worker.attach("ann", "c1", "poll", True, digest="d").farewell == "[:chsk/close {}]"


def test_a_late_poll_changes_nothing_and_a_websocket_begins_with_a_trial(worker: Worker) -> None:
    worker.attach("ann", "c1", "ws", True)
    assert worker.attach("ann", "c1", "poll", True) is None
    worker.attach("ann", "c2", "ajax", True)
    assert worker.attach("ann", "c2", "try", True).trial


def test_a_client_without_a_cursor_is_served_by_one_worker(worker: Worker, other: Worker) -> None:
    first = worker.attach("ann", "c1", "ajax")
    assert worker.take("ann", "c1", first.token, 7)
    second = other.attach("ann", "c1", "ajax")
    assert second.cursor == 7
    assert not worker.take("ann", "c1", first.token, 8)


def test_who_is_connected_and_how_is_known_everywhere(worker: Worker, other: Worker) -> None:
    other.watch()
    worker.attach("ann", "c1", "ws", True)
    worker.attach("ben", "c2", "ajax")
    assert other.heard() == [("changed",), ("changed",)]
    connected = other.connected()
    assert (connected.ws, connected.ajax) == ({"ann"}, {"ben"})
    assert (other.clients("ann"), other.clients("ben")) == ({"c1"}, set())


# Topics, keyed sends, words ----------------------------------------------------------------


def test_a_membership_is_told_and_ends(worker: Worker, other: Worker) -> None:
    worker.attach("ann", "c1")
    worker.heard()
    assert [other.join("ann", "news") for _ in range(2)] == [True, False]
    assert events(worker.heard()) == ['[:chsk/joined "news"]']
    assert other.members("news") == {"ann"}
    assert list(worker.attach("ann", "c2").topics) == ["news"]
    assert [other.leave("ann", "news") for _ in range(2)] == [True, False]
    assert events(worker.heard()) == ['[:chsk/left "news"]']


def test_members_hear_what_is_published_to_a_topic(worker: Worker, other: Worker) -> None:
    other.join("ann", "news")
    worker.attach("ann", "c1")
    worker.heard()
    offset = other.publish(topic_channel("news"), "[:a/b 1]")
    assert worker.heard() == [("t:news", "[:a/b 1]", offset)]


def test_a_user_is_in_so_many_topics(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_chsk.brokers.redis.commands.MAX_TOPICS", 1)
    worker.join("ann", "news")
    with pytest.raises(UsageError, match="1 topics already"):
        worker.join("ann", "chat")


def test_a_membership_from_before_an_epoch_is_one_again(
    worker: Worker, network: RedisNetwork
) -> None:
    network.restart()
    network.hub.loop.run(5.0)
    assert worker.rejoin("ann", "news")
    assert worker.members("news") == {"ann"}
    worker.leave("ann", "news")
    assert worker.rejoin("ann", "news")  # it was told already
    assert worker.members("news") == set()


def test_a_user_who_went_while_redis_was_away_has_a_closing(
    worker: Worker, network: RedisNetwork
) -> None:
    network.restart()
    network.hub.loop.run(5.0)
    assert worker.was_here("ann") > 0
    assert worker.was_here("ann") == 0


def test_a_keyed_send_belongs_to_one_worker(worker: Worker, other: Worker) -> None:
    assert worker.claim("c1:ann", "k", "w1") is None
    assert other.claim("c1:ann", "k", "w2") == ""
    worker.settle("c1:ann", "k", "[:done]")
    assert other.claim("c1:ann", "k", "w2") == "[:done]"


def test_a_word_reaches_one_worker(worker: Worker, other: Worker) -> None:
    other.tell(worker.broker.name, "zoë")
    assert worker.heard() == [("on_worker_message", "zoë")]
    assert other.heard() == []


# What is shown -----------------------------------------------------------------------------


def test_counters_and_gauges_are_shown(worker: Worker) -> None:
    worker.attach("ann", "c1")
    stats = worker.broker.stats()
    assert stats["subscriptions"] == 3  # its own, everyone's, ann's
    assert stats["broker_clock_ahead"] == 0


def test_a_channel_without_clients_is_heard_for_a_while(worker: Worker) -> None:
    arrival = worker.attach("ann", "c1")
    worker.detach("ann", "c1", arrival.token)
    worker.broker.unused(ANN)
    worker.hub.loop.run(60.0)
    worker.broker.sweep()
    worker.hub.loop.run(1.0)
    assert worker.broker.stats()["subscriptions"] == 2


def test_a_client_that_cannot_be_heard_is_not_let_in(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.join("ann", "news")
    hear = worker.broker._subscription.hear

    def deaf_to_topics(names: Any) -> None:
        if "t:news" in names:
            raise BrokerUnavailable("no")
        hear(names)

    monkeypatch.setattr(worker.broker._subscription, "hear", deaf_to_topics)
    with pytest.raises(BrokerUnavailable):
        worker.attach("ann", "c1")
    assert worker.connected().any == set()
    assert [one[2] for one in worker.heard() if one[0] == "user_presence_changed"] == [True, False]


def test_the_scripts_are_known_by_name() -> None:
    found = [one for one in vars(scripts).values() if isinstance(one, scripts.Script)]
    assert len({one.sha for one in found}) == len(found)

"""The broker of one process, in which all the parts are."""

from __future__ import annotations

import threading
from typing import Any

from flask_chsk.brokers.contract import ANONYMOUS, EVERYONE, client_channel
from flask_chsk.brokers.memory.broker import MemoryBroker
from flask_chsk.config import Config
from flask_chsk.hub import Hub
from tests.unit.brokers.memory.scene import ANN, START, Broker, Told


def test_each_broker_has_an_epoch_of_its_own() -> None:
    assert Broker().epoch != Broker().epoch


def test_an_absent_user_gets_nothing_and_costs_nothing() -> None:
    broker = Broker()
    assert broker.publish(ANN, "[:a/b]") is None
    assert broker.publish(client_channel("ann", "c"), "[:a/b]") is None
    assert broker.publish(client_channel(None, "c"), "[:a/b]") is None
    assert broker.told.pushes == []
    assert broker._journal._histories == {}


def test_broadcasts_are_kept_whoever_is_there() -> None:
    broker = Broker()
    assert broker.publish(EVERYONE, "[:a/b]") and broker.publish(ANONYMOUS, "[:a/b]")


def test_threads_publish_in_one_order() -> None:
    hub: Any = Hub()
    hub.wall = lambda: START
    broker = MemoryBroker(Config())
    told = Told()
    broker.start(hub, told)
    given: dict[int, list[int]] = {}

    def publish(thread: int) -> None:
        given[thread] = [broker.publish(EVERYONE, f"[:a/b {thread}]") or 0 for _ in range(200)]

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    hub.run(lambda: None)  # after all that was handed over before
    assert told.offsets == list(range(told.offsets[0], told.offsets[0] + 1600, 2))
    assert sorted(offset for each in given.values() for offset in each) == told.offsets
    assert all(each == sorted(each) for each in given.values())


def test_there_is_nothing_to_wait_for_and_nothing_to_report() -> None:
    broker = Broker()
    broker.ready()
    broker.listen()
    broker.retire(1.0)
    broker.unused(ANN)
    assert (broker.health(), broker.note(), broker.stats()) == ("", "", {})
    broker.stop()


def test_a_word_reaches_the_only_worker() -> None:
    broker = Broker()
    said: list[str] = []
    broker.told.on_worker_message = said.append  # type: ignore[method-assign]
    broker.tell("another", "lost")
    broker.tell(broker.name, "hello")
    assert said == ["hello"]

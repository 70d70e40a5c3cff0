"""Redis begins anew under a cluster whose clients stay: nothing is missing without a gap."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster.anew import FAULTS, GAP, TOPIC, WAYS, Fickle, Listener, faults, storm
from tests.e2e.cluster.storm import PATIENCE, comings, presence
from tests.e2e.cluster.test_cluster import Cluster, start_cluster
from tests.process import eventually


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Fickle]:
    redis = Fickle(tmp_path)
    yield redis
    redis.stop()


@pytest.fixture
def cluster(tmp_path: Path, redis: Fickle) -> Iterator[Cluster]:
    cluster = start_cluster(tmp_path, redis, LP_TIMEOUT="5", CLOSE_GRACE="10")  # type: ignore[arg-type]
    yield cluster
    cluster.stop()


@pytest.fixture
def listeners(cluster: Cluster) -> Iterator[list[Listener]]:
    listeners = []
    for n in range(40):
        listeners.append(Listener(cluster.proxy.url, f"user-{n}", ("ws", "ajax")[n % 2]))
    for one in listeners:
        one.chsk.wait_open(30)
        cluster.post(f"/join/{one.uid}/{TOPIC}")
    yield listeners
    for one in listeners:
        one.chsk.destroy()


def test_what_is_published_as_redis_is_emptied_reaches_all_members(
    cluster: Cluster, redis: Fickle, listeners: list[Listener]
) -> None:
    cluster.post(f"/publish/{TOPIC}/0")
    eventually(lambda: all(one.log == [0] for one in listeners))
    redis.empty()
    numbers = list(range(1, 101))
    for number in numbers:
        assert cluster.post(f"/publish/{TOPIC}/{number}")["offset"]
        time.sleep(0.01)

    def all_hear_the_next() -> bool:  # one whose process learnt late has the gap behind the last
        number = numbers[-1] + 1
        numbers.append(number)
        assert cluster.post(f"/publish/{TOPIC}/{number}")["offset"]
        with contextlib.suppress(TimeoutError):
            eventually(lambda: all(one.log[-1] == number for one in listeners), 10.0)
        return all(one.log[-1] == number for one in listeners)

    eventually(all_hear_the_next, PATIENCE)
    wanted = {number: number for number in [0, *numbers]}
    assert [dict(+faults(one.log, wanted)) for one in listeners] == [{}] * len(listeners)
    assert all(GAP in one.log for one in listeners)
    # Who did not change the process heard all of it, behind the gap. A poll may reach one that has
    # yet to learn of the new epoch, or that its client is a member: that is told once more.
    stayed = [one.log for one in listeners if one.type == "ws"]
    assert sorted(log.count(GAP) for log in stayed)[len(stayed) // 2] == 1
    assert sum(log == [0, GAP, *numbers] for log in stayed) >= len(stayed) // 2


def test_nothing_is_missing_without_a_gap_however_redis_begins_anew(
    cluster: Cluster, redis: Fickle, listeners: list[Listener]
) -> None:
    came = storm(cluster.proxy.url, redis, listeners, tuple(WAYS), 0.0)
    came += presence(cluster, listeners, PATIENCE)  # type: ignore[arg-type]
    came += comings(cluster)
    looked_for = (*FAULTS, "wrongly_present", "wrongly_absent", "told_twice", "not_alternating")
    assert {what: came[what] for what in looked_for if came[what]} == {}, came
    assert came["epochs"] == len(WAYS)
    assert came["heard"] > came["wanted"] // 2
    assert threading.active_count() < 200


@pytest.mark.parametrize(
    ("log", "found"),
    [
        ([1, 2, 3], {}),
        ([1, GAP, 3], {}),
        ([GAP, 3], {}),
        ([1, GAP], {}),
        ([1, 3], {"lost": 1}),
        ([GAP, 1, 3], {"lost": 1}),
        ([1, 3, GAP], {}),
        ([1, 3, *range(100, 200), GAP], {"lost": 1}),
        ([1, GAP, 2, 2, 3], {"repeated": 1}),
        ([1, GAP, 3, 2], {"reordered": 1}),
    ],
)
def test_the_checker_knows_what_a_client_was_told(log: list[int], found: dict[str, int]) -> None:
    assert dict(+faults(log, {1: 10, 2: 20, 3: 30})) == found

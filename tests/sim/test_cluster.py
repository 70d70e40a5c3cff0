"""Histories of several workers over one Redis, one for each seed."""

from __future__ import annotations

import pytest

from .cluster import Cluster
from .seeds import Seeds
from .world import play

SEEDS = Seeds("cluster", count=40, steps=100, block=10)


@pytest.mark.parametrize("first", SEEDS.firsts())
def test_every_history_keeps_the_promises(first: int) -> None:
    SEEDS.play(first, Cluster)


def test_one_seed_makes_one_history() -> None:
    assert play(3, range(60), Cluster).lines == play(3, range(60), Cluster).lines


def test_histories_have_what_they_are_for() -> None:
    lines = [line for seed in range(30) for line in play(seed, range(100), Cluster).lines]
    for words in (
        "got event",
        "is told of a gap while it is open",
        "recovered: True",
        "recovered: False",
        "as the reply to send",
        "drains",
        "is killed",
        "stalls",
        "Redis is slow",
        "Redis is away",
        "connections to Redis are cut",
        "Redis restarts, with nothing in it",
        "fails over",
        "ended with BrokerUnavailable",
        "went",
    ):
        assert any(words in line for line in lines), words

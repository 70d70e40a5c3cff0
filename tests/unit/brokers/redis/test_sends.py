"""Sends that their clients may repeat, as Redis keeps them."""

from __future__ import annotations

from tests.unit.brokers.redis.workers import Worker


def test_a_keyed_send_belongs_to_one_worker(worker: Worker, other: Worker) -> None:
    assert worker.claim("c1:ann", "k", "w1") is None
    assert other.claim("c1:ann", "k", "w2") == ""
    worker.keep_reply("c1:ann", "k", "[:done]")
    assert other.claim("c1:ann", "k", "w2") == "[:done]"

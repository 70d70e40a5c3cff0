"""Sends that their clients may repeat."""

from __future__ import annotations

import pytest

from flask_chsk.brokers.contract import KEYS
from tests.unit.brokers.memory.scene import Broker


def test_keyed_sends_are_remembered_for_longer_than_clients_repeat_them() -> None:
    broker = Broker(recovery_seconds=1)
    assert broker.sends.claim("tab:ann", "key", "one") is None
    broker.time += 110
    broker.sweep()
    assert broker.sends.claim("tab:ann", "key", "two") == ""
    broker.time += 121
    broker.sweep()
    assert broker.sends.claim("tab:ann", "key", "three") is None


def test_the_last_sends_of_a_client_are_remembered() -> None:
    broker = Broker()
    for number in range(KEYS + 1):
        assert broker.sends.claim("tab:ann", f"key {number}", "one") is None
    assert broker.sends.claim("tab:ann", f"key {KEYS}", "two") == ""
    assert broker.sends.claim("tab:ann", "key 1", "two") == ""
    assert broker.sends.claim("tab:ann", "key 0", "two") is None


def test_a_reply_is_given_to_who_repeats_the_send() -> None:
    broker = Broker()
    broker.sends.claim("tab:ann", "key", "one")
    assert broker.sends.claim("tab:ann", "key", "one") is None  # it asks again
    broker.sends.keep_reply("tab:ann", "key", "[:done]")
    broker.sends.keep_reply("tab:ann", "unknown", "[:lost]")
    assert broker.sends.claim("tab:ann", "key", "one") == "[:done]"


def test_the_oldest_clients_are_forgotten_where_replies_are_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flask_chsk.brokers.memory.sends.KEPT_BYTES", 1000)
    broker = Broker()
    for client in ("tab:ann", "tab:ben"):
        broker.sends.claim(client, "key", "one")
    broker.sends.keep_reply("tab:ben", "key", "x" * 700)
    assert broker.sends.claim("tab:ben", "key", "two") == "x" * 700
    assert broker.sends.claim("tab:ann", "key", "two") is None

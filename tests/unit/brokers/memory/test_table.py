"""Who is there, and for whom events are kept besides."""

from __future__ import annotations

from flask_chsk.brokers.memory.table import Client, ClientTable

HERE = Client("t", "ws", True, "d", None)


def test_events_are_for_who_is_there() -> None:
    table = ClientTable()
    table.put("ann", "c1", HERE)
    table.put(None, "c2", HERE)
    there = ("u:ann", "c:c1:ann", "c:c2", "t:news", "*", "-")
    assert all(table.is_there(channel, 0.0) for channel in there)
    assert not any(table.is_there(channel, 0.0) for channel in ("u:ben", "c:c2:ann", "c:c1"))
    assert table.kinds() == {("ann", "ws")}


def test_events_are_kept_for_a_while_for_who_went() -> None:
    table = ClientTable()
    table.put("ann", "c1", HERE)
    table.put("ann", "c2", HERE)
    table.remove("ann", "c1", 10.0)
    assert table.is_there("c:c1:ann", 9.0) and not table.is_there("c:c1:ann", 10.0)
    table.remove("ann", "c2", 20.0)
    assert table.of("ann") == {}
    assert table.is_there("u:ann", 19.0) and not table.is_there("u:ann", 20.0)


def test_events_are_kept_for_who_is_expected() -> None:
    table = ClientTable()
    table.expect("ann", 10.0)
    table.expect("ann", 5.0)
    assert table.is_there("u:ann", 9.0) and not table.is_there("u:ann", 10.0)


def test_what_is_past_its_time_is_forgotten() -> None:
    table = ClientTable()
    table.expect("ann", 10.0)
    table.put("ben", "c1", HERE)
    table.remove("ben", "c1", 10.0)
    table.sweep(10.0)
    assert table._grace == table._expected == {}

"""Clients, and the users that come and go with them."""

from __future__ import annotations

from flask_chsk.brokers.contract import client_channel
from tests.unit.brokers.memory.scene import ANN, WINDOW, Broker, offsets, read


def test_a_user_comes_with_the_first_client_and_goes_with_the_last() -> None:
    broker = Broker()
    one, two = broker.clients.attach("ann", "c1"), broker.clients.attach("ann", "c2")
    assert (one.first, two.first) == (True, False)
    assert not broker.clients.detach("ann", "c1", one.token)
    assert broker.clients.detach("ann", "c2", two.token)
    assert broker.clients.attach("ann", "c1").first


def test_a_late_end_of_an_older_opening_disturbs_nothing() -> None:
    broker = Broker()
    old, new = broker.clients.attach("ann", "c"), broker.clients.attach("ann", "c")
    assert (old.first, new.first) == (True, False)
    assert not broker.clients.detach("ann", "c", old.token)
    assert broker.publish(ANN, "[:a/b]") is not None
    assert broker.clients.detach("ann", "c", new.token)
    assert not broker.clients.detach("ann", "c", new.token)


def test_for_a_user_who_just_left_events_are_kept_for_the_window() -> None:
    broker = Broker()
    token = broker.clients.attach("ann", "c").token
    cursor = broker.watermark()
    broker.clients.detach("ann", "c", token)
    offset = broker.publish(ANN, "[:a/b]")
    assert offsets(read(broker, ANN, cursor=cursor)) == [offset]
    broker.time += WINDOW
    assert broker.publish(ANN, "[:a/b]") is None


def test_one_client_has_a_channel_of_its_own() -> None:
    broker = Broker()
    broker.clients.attach("ann", "c1")
    broker.clients.attach(None, "c3")
    assert broker.publish(client_channel("ann", "c1"), "[:a/b]") is not None
    assert broker.publish(client_channel("ann", "c2"), "[:a/b]") is None
    assert broker.publish(client_channel(None, "c1"), "[:a/b]") is None
    assert broker.publish(client_channel(None, "c3"), "[:a/b]") is not None

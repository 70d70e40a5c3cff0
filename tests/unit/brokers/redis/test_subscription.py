"""What a worker's subscription hears, and what it is to hear; without a connection."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from flask_chsk.brokers.redis.schema import SCHEMA
from flask_chsk.brokers.redis.subscription import LINGER, Subscription
from flask_chsk.errors import BrokerUnavailable
from tests.unit.brokers.redis.scene import Scene

INBOX = "w:w1"
FOREIGN = SCHEMA + 2


class Wire:
    """A connection's socket, which notes what is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, set[str]]] = []

    def send_command(self, command: str, *names: bytes) -> None:
        self.sent.append((command, {name.decode().removeprefix("chsk:0:") for name in names}))


class Heard(Scene):
    """A subscription of the worker ``w1``, connected and in epoch ``e1``."""

    def __init__(self) -> None:
        super().__init__()
        self.subscription = Subscription(
            self.hub, self.redis, self.epoch, self.ears, self.counters, "w1"
        )
        self.wire = Wire()
        self.connection: Any = SimpleNamespace(wire=self.wire, run="run1", epoch="e1")
        self.enter("e1", 100)
        self.begin()

    def begin(self) -> list[Any]:
        """Connect; what the listener is told."""
        self.subscription._begin(self.connection)
        self.subscription._flush()
        return self.ears.heard()

    def arrive(self, name: str, data: bytes, schema: int = SCHEMA) -> list[Any]:
        """A message comes; what the listener is told."""
        head = b"" if name == "!" else b"%d " % schema
        self.subscription._arrived([[b"message", f"chsk:0:{name}".encode(), head + data]])
        return self.ears.heard()

    def confirm(self, *names: str) -> None:
        """Redis confirms subscriptions."""
        self.subscription._arrived([[b"subscribe", f"chsk:0:{name}".encode(), 1] for name in names])

    def sent(self) -> list[tuple[str, set[str]]]:
        """What was sent since the last time."""
        self.hub.work()
        sent, self.wire.sent = self.wire.sent, []
        return sent


def event(offset: int, epoch: str = "e1", channel: bytes = b"u:ann") -> bytes:
    text = b"[:a/b 1]"
    return b"%b %d %d 0 %d 0\n%b%b" % (
        epoch.encode(), offset, len(channel), len(text), channel, text,
    )  # fmt: skip


@pytest.fixture
def scene() -> Heard:
    return Heard()


# What is to be heard -----------------------------------------------------------------------


def test_a_new_connection_subscribes_to_the_workers_own_channel_and_to_everyones(
    scene: Heard,
) -> None:
    assert scene.sent() == [("SUBSCRIBE", {INBOX, "*"})]


def test_a_connection_anew_subscribes_to_all_and_has_history_read(scene: Heard) -> None:
    with pytest.raises(BrokerUnavailable):
        scene.subscription.hear(["u:ann"])
    scene.sent()
    assert scene.begin() == [("resync_required",)]
    assert scene.sent() == [("SUBSCRIBE", {INBOX, "*", "u:ann"})]


def test_a_name_that_is_not_confirmed_counts_as_away(scene: Heard) -> None:
    scene.sent()
    with pytest.raises(BrokerUnavailable, match="did not confirm"):
        scene.subscription.hear(["u:ann"])
    assert scene.sent() == [("SUBSCRIBE", {"u:ann"})]


def test_a_name_that_is_confirmed_is_heard_at_once(scene: Heard) -> None:
    with pytest.raises(BrokerUnavailable):
        scene.subscription.hear(["u:ann"])
    scene.confirm("u:ann")
    scene.sent()
    scene.subscription.hear(["u:ann"])
    assert scene.sent() == []


def test_who_waits_for_names_is_woken_by_the_last(scene: Heard) -> None:
    waiter = scene.hub.waiter()
    scene.subscription._want({"u:ann", "t:news"}, waiter)
    scene.confirm("u:ann")
    assert waiter.value is None
    scene.confirm("t:news")
    assert waiter.value is True


def test_without_a_connection_nothing_is_waited_for(scene: Heard) -> None:
    scene.subscription._lost("cut")
    with pytest.raises(BrokerUnavailable, match="cut"):
        scene.subscription.hear(["u:ann"])
    assert scene.counters["subscriptions_lost"] == 1


def test_a_cut_confirms_nothing_any_longer_and_counts_once(scene: Heard) -> None:
    scene.confirm(INBOX, "*")
    assert scene.subscription.confirmed == {INBOX, "*"}
    scene.subscription._lost("cut")
    scene.subscription._lost("still cut")
    assert scene.subscription.confirmed == set()
    assert scene.counters["subscriptions_lost"] == 1


def hear(scene: Heard, name: str) -> None:
    scene.subscription._want({name}, scene.hub.waiter())
    scene.subscription._flush()
    scene.confirm(name)
    scene.sent()


def test_a_subscription_outlives_its_last_client_for_a_while(scene: Heard) -> None:
    hear(scene, "u:ann")
    scene.ears.needed = {"u:ann"}
    scene.hub.time += 2 * LINGER
    scene.subscription.sweep()
    scene.ears.needed = set()
    scene.subscription.unused("c:c1:ann")  # a client of ann
    scene.hub.time += LINGER / 2
    scene.subscription.sweep()
    assert scene.sent() == []
    scene.hub.time += LINGER / 2
    scene.subscription.sweep()
    assert scene.sent() == [("UNSUBSCRIBE", {"u:ann"})]
    assert "u:ann" not in scene.subscription.confirmed


def test_a_subscription_that_is_needed_again_stays(scene: Heard) -> None:
    hear(scene, "u:ann")
    scene.subscription.unused("u:ann")
    scene.ears.needed = {"u:ann"}
    scene.hub.time += 2 * LINGER
    scene.subscription.sweep()
    assert scene.sent() == []


def test_a_name_for_which_nobody_was_let_in_is_heard_no_more(scene: Heard) -> None:
    hear(scene, "u:ann")
    scene.hub.time += LINGER
    scene.subscription.sweep()
    assert scene.sent() == [("UNSUBSCRIBE", {"u:ann"})]


def test_everyones_channel_is_always_heard(scene: Heard) -> None:
    scene.sent()
    scene.subscription.unused("*")
    scene.subscription.unused("u:stranger")
    scene.hub.time += 2 * LINGER
    scene.subscription.sweep()
    assert scene.sent() == []


# Events ------------------------------------------------------------------------------------


def test_an_event_is_delivered_once(scene: Heard) -> None:
    assert scene.arrive("u:ann", event(101)) == [("u:ann", "[:a/b 1]", 101)]
    assert scene.arrive("u:ann", event(101)) == []
    assert scene.counters["repeated"] == 1
    assert scene.epoch.offset == 101


def test_an_event_of_another_epoch_is_let_go_and_redis_is_asked(scene: Heard) -> None:
    assert scene.arrive("u:ann", event(101, epoch="e2")) == []
    assert (scene.asked, scene.epoch.offset) == ([1], 100)


def test_an_event_from_far_ahead_is_doubted(scene: Heard) -> None:
    assert scene.arrive("u:ann", event(10**15)) == []
    assert scene.counters["doubted"] == 1
    assert scene.arrive("u:ann", event(101)) == [("u:ann", "[:a/b 1]", 101)]


@pytest.mark.parametrize("data", [b"", b"nonsense", event(101)[:-1], event(101) + b"x"])
def test_a_malformed_message_is_counted_and_the_next_is_delivered(
    scene: Heard, data: bytes
) -> None:
    assert scene.arrive("u:ann", data) == []
    assert scene.counters["malformed"] == 1
    assert scene.arrive("u:ann", event(101)) == [("u:ann", "[:a/b 1]", 101)]


def test_a_message_without_a_schema_is_malformed(scene: Heard) -> None:
    scene.subscription._arrived([[b"message", b"chsk:0:u:ann", b"x"], [b"message"], [None, 7]])
    assert (scene.ears.heard(), scene.counters["malformed"]) == ([], 3)


def test_a_message_of_a_foreign_schema_is_counted_as_such(scene: Heard) -> None:
    assert scene.arrive("u:ann", event(101), FOREIGN) == []
    assert (scene.counters["foreign"], scene.counters["malformed"]) == (1, 0)


def test_an_error_of_the_listener_does_not_end_the_subscription(
    scene: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(scene.ears, "deliver", lambda push: 1 / 0)
        scene.arrive("u:ann", event(101))
    assert scene.counters["malformed"] == 0
    assert scene.arrive("u:ann", event(102)) == [("u:ann", "[:a/b 1]", 102)]


# Words -------------------------------------------------------------------------------------


def test_that_users_came_or_went_is_told(scene: Heard) -> None:
    assert scene.arrive("!", b"") == [("changed",)]


def test_a_probe_says_how_far_the_counter_was(scene: Heard) -> None:
    assert scene.arrive(INBOX, b"P e1 150") == []
    assert scene.epoch.offset == 150
    scene.arrive(INBOX, b"P e1 120 and what a later version adds")
    assert scene.epoch.offset == 150


def test_a_probe_of_another_epoch_has_redis_asked(scene: Heard) -> None:
    scene.arrive(INBOX, b"P e2 150")
    assert (scene.epoch.offset, scene.asked) == (100, [1])


@pytest.mark.parametrize(
    ("field", "client"),
    [("c1", (None, "c1")), ("c1:ann", ("ann", "c1")), ("c1:a:b zoë", ("a:b zoë", "c1"))],
)
def test_a_client_that_another_process_let_in_is_told(
    scene: Heard, field: str, client: tuple[str | None, str]
) -> None:
    told = scene.arrive(INBOX, f"R token {field}".encode())
    assert told == [("client_taken_over", *client, "token")]


def test_what_another_process_says_is_told(scene: Heard) -> None:
    assert scene.arrive(INBOX, "T zoë says".encode()) == [("on_worker_message", "zoë says")]


def test_an_unknown_word_is_malformed_unless_a_neighbouring_schema_has_it(scene: Heard) -> None:
    assert scene.arrive(INBOX, b"X ?", SCHEMA + 1) == []
    assert scene.counters["malformed"] == 0
    assert scene.arrive(INBOX, b"X ?") == []
    assert scene.counters["malformed"] == 1


def test_a_new_epoch_of_the_same_redis_is_entered(scene: Heard) -> None:
    told = scene.arrive("*", b"E e2 700 run1")
    assert told == [("reset", 700), ("reattach", True)]
    assert (scene.epoch.name, scene.connection.epoch) == ("e2", "e2")


def test_a_new_epoch_that_another_redis_told_of_is_asked_for(scene: Heard) -> None:
    assert scene.arrive("*", b"E e2 700 run2") == []
    assert (scene.epoch.name, scene.asked) == ("e1", [1])

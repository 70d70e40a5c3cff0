"""The memory broker: rising offsets, complete cursors, histories within their limits, presence.

The clock is turned by hand, backwards too. A naive model, a list of all that was ever published,
judges what the broker calls complete.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_chsk.brokers import (
    ANONYMOUS,
    EVERYONE,
    MAX_TOPICS,
    Page,
    client_channel,
    topic_channel,
    user_channel,
)
from flask_chsk.brokers.memory import MemoryBroker
from flask_chsk.config import Config
from flask_chsk.errors import UsageError
from flask_chsk.hub import Hub
from flask_chsk.protocol.push import Push

ANN = user_channel("ann")
WINDOW = 120.0
START = 1_700_000_000.0


class Here:
    """A hub that the caller is on."""

    wall: Callable[[], float]

    def token(self, size: int) -> str:
        return secrets.token_hex(size)

    def call(self, fn: Callable[..., object], *args: Any) -> None:
        fn(*args)

    def native_lock(self) -> Any:
        return threading.Lock()


class Later(Here):
    """A hub that is busy until :meth:`turn`."""

    def __init__(self) -> None:
        self.calls: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    def call(self, fn: Callable[..., object], *args: Any) -> None:
        self.calls.append((fn, args))

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for fn, args in calls:
            fn(*args)


@dataclass
class Told:
    """Whom the broker tells."""

    pushes: list[Push] = field(default_factory=list)
    on_push: Callable[[Push], object] = lambda push: None

    def deliver(self, push: Push) -> None:
        self.pushes.append(push)
        self.on_push(push)

    # Nothing else is ever told by the broker of one process.

    def client_taken_over(self, uid: str | None, client_id: str, token: str) -> None:
        raise AssertionError("released")

    def user_presence_changed(self, uid: str, online: bool, generation: int) -> None:
        raise AssertionError("presence")

    def reset(self, since: int) -> None:
        raise AssertionError("reset")

    def resync_required(self) -> None:
        raise AssertionError("lapsed")

    def reattach(self, quiet: bool) -> None:
        raise AssertionError("reattach")

    def needs(self, name: str) -> bool:
        raise AssertionError("needs")

    def on_worker_message(self, text: str) -> None:
        raise AssertionError("told")

    def changed(self) -> None:
        raise AssertionError("changed")

    @property
    def offsets(self) -> list[int]:
        return [push.offset for push in self.pushes]


class Broker(MemoryBroker):
    """A memory broker with its clock and its listener at hand."""

    def __init__(self, hub: Any = None, **config: Any) -> None:
        self.time = START
        super().__init__(Config.of({}, **config))
        self.told = Told()
        hub = hub or Here()
        hub.wall = lambda: self.time
        self.start(hub, self.told)


def read(broker: Broker, *channels: str, cursor: int, page_bytes: int = 10**6) -> Page:
    return broker.since(dict.fromkeys(channels, 0), cursor, page_bytes)


def offsets(page: Page) -> list[int]:
    return [push.offset for push in page.pushes]


# Offsets --------------------------------------------------------------------------------


def test_an_offset_is_the_time_in_microseconds() -> None:
    broker = Broker()
    assert broker.publish(EVERYONE, "[:a/b 1]") == int(START * 1e6)
    broker.time += 1.5
    assert broker.publish(EVERYONE, "[:a/b 2]") == int(START * 1e6) + 1_500_000


def test_offsets_rise_whatever_the_clock_does() -> None:
    broker = Broker()
    given: list[int | None] = []
    for step in (0.0, 0.0, -3600.0, 5.0, 7200.0, -1.0):
        broker.time += step
        given.append(broker.publish(EVERYONE, "[:a/b]"))
    assert given == broker.told.offsets == sorted(set(broker.told.offsets))
    assert broker.watermark() >= broker.told.offsets[-1]


def test_each_broker_has_an_epoch_of_its_own() -> None:
    assert Broker().epoch != Broker().epoch


def test_an_event_knows_the_one_before_it_in_its_channel() -> None:
    broker = Broker()
    broker.attach("ann", "c")
    first = broker.publish(ANN, "[:a/b 1]")
    broker.publish(EVERYONE, "[:a/b 2]")
    broker.publish(ANN, "[:a/b 3]")
    assert [push.before for push in broker.told.pushes] == [0, 0, first]


def test_a_delivery_that_publishes_comes_after_itself() -> None:
    broker = Broker()
    seen: list[tuple[str, int]] = []

    def on_push(push: Push) -> None:
        seen.append((push.text, len(seen)))
        if push.text == "[:a/b 1]":
            broker.publish(EVERYONE, "[:a/b 2]")
            seen.append(("published", len(seen)))

    broker.told.on_push = on_push
    broker.publish(EVERYONE, "[:a/b 1]")
    assert [text for text, _ in seen] == ["[:a/b 1]", "published", "[:a/b 2]"]
    assert broker.told.offsets == sorted(broker.told.offsets)


def test_a_delivery_that_fails_holds_back_no_other() -> None:
    broker = Broker()

    def on_push(push: Push) -> None:
        if push.text == "[:a/b 1]":
            raise ZeroDivisionError

    broker.told.on_push = on_push
    with pytest.raises(ZeroDivisionError):
        broker.publish(EVERYONE, "[:a/b 1]")
    broker.publish(EVERYONE, "[:a/b 2]")
    assert [push.text for push in broker.told.pushes] == ["[:a/b 1]", "[:a/b 2]"]


def test_what_is_not_delivered_yet_is_above_the_watermark() -> None:
    hub = Later()
    broker = Broker(hub)
    before = broker.watermark()
    broker.time += 1
    offset = broker.publish(EVERYONE, "[:a/b]")
    assert broker.watermark() == before
    hub.turn()
    assert offset is not None and broker.watermark() >= offset


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
    assert told.offsets == list(range(told.offsets[0], told.offsets[0] + 800))
    assert sorted(offset for each in given.values() for offset in each) == told.offsets
    assert all(each == sorted(each) for each in given.values())


# History --------------------------------------------------------------------------------


def test_history_gives_what_followed_a_cursor_in_order_over_all_channels() -> None:
    broker = Broker()
    broker.attach("ann", "c")
    cursor = broker.watermark()
    given = [broker.publish(channel, "[:a/b]") for channel in (ANN, EVERYONE, ANN, ANONYMOUS)]
    page = read(broker, EVERYONE, ANN, cursor=cursor)
    assert (offsets(page), page.end, page.more, page.complete) == (given[:3], given[3], False, True)


def test_history_comes_in_pages_that_lead_on() -> None:
    broker = Broker()
    cursor = broker.watermark()
    given = [broker.publish(EVERYONE, "x" * 100) for _ in range(5)]
    got: list[list[int]] = []
    more = True
    while more:
        page = read(broker, EVERYONE, cursor=cursor, page_bytes=250)
        cursor, more = page.end, page.more
        got.append(offsets(page))
    assert got == [given[:2], given[2:4], given[4:]]


def test_an_event_larger_than_a_page_is_a_page() -> None:
    broker = Broker()
    cursor = broker.watermark()
    given = [broker.publish(EVERYONE, "x" * 100) for _ in range(2)]
    assert offsets(read(broker, EVERYONE, cursor=cursor, page_bytes=10)) == given[:1]


def test_history_keeps_so_many_events() -> None:
    broker = Broker(recovery_events=3)
    cursor = broker.watermark()
    given = [broker.publish(EVERYONE, "[:a/b]") or 0 for _ in range(5)]
    assert not read(broker, EVERYONE, cursor=cursor).complete
    assert not read(broker, EVERYONE, cursor=given[0]).complete
    assert offsets(read(broker, EVERYONE, cursor=given[1])) == given[2:]
    assert read(broker, ANN, cursor=cursor).complete  # another channel lacks nothing


def test_history_keeps_so_many_bytes() -> None:
    broker = Broker(recovery_bytes=250)
    given = [broker.publish(EVERYONE, "x" * 100) or 0 for _ in range(4)]
    assert not read(broker, EVERYONE, cursor=given[0]).complete
    assert offsets(read(broker, EVERYONE, cursor=given[1])) == given[2:]
    broker.publish(EVERYONE, "x" * 300)
    assert not read(broker, EVERYONE, cursor=given[3]).complete


def test_history_keeps_for_so_long() -> None:
    broker = Broker()
    cursor = broker.watermark()
    first = broker.publish(EVERYONE, "[:a/b 1]")
    broker.time += WINDOW - 1
    second = broker.publish(EVERYONE, "[:a/b 2]")
    broker.sweep()
    assert offsets(read(broker, EVERYONE, cursor=cursor)) == [first, second]
    broker.time += 2
    broker.sweep()
    assert first is not None
    assert not read(broker, EVERYONE, cursor=first - 1).complete
    assert not read(broker, EVERYONE, cursor=first).complete  # its age alone says so
    broker.time += WINDOW
    broker.sweep()
    assert broker._histories == {}


def test_a_cursor_of_the_future_is_not_complete() -> None:
    broker = Broker()
    assert not read(broker, EVERYONE, cursor=broker.watermark() + 1).complete


def test_a_history_that_was_forgotten_is_not_taken_for_an_empty_one() -> None:
    """The clock goes back an hour, so offsets and cursors are an hour ahead of it."""
    broker = Broker()
    cursor = broker.watermark()
    broker.time -= 3600
    broker.publish(EVERYONE, "[:a/b]")
    broker.time += WINDOW + 1
    broker.sweep()
    assert not read(broker, EVERYONE, cursor=cursor).complete
    assert read(broker, EVERYONE, cursor=broker.watermark()).complete


Step = tuple[str, Any]
CHANNELS = st.sampled_from(["*", "t:x", "t:y"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.tuples(CHANNELS, st.sampled_from([10, 100, 400]))),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 1e-6, 1.0, 50.0, 119.0, 121.0])),
        st.tuples(st.just("step"), st.sampled_from([-3600.0, -50.0, -1.0, 3600.0])),
        st.tuples(st.just("sweep"), st.none()),
        st.tuples(st.just("watermark"), st.none()),
    ),
    max_size=30,
)


@given(STEPS, st.data())
def test_what_is_called_complete_is_complete(steps: list[Step], data: st.DataObject) -> None:
    broker = Broker(recovery_events=4, recovery_bytes=1000)
    everything: list[Push] = broker.told.pushes  # which nobody trims
    cursors, stepped = [broker.watermark()], False
    for step, what in steps:
        if step == "publish":
            channel, size = what
            cursors.append(broker.publish(channel, "x" * size) or 0)
        elif step == "sweep":
            broker.sweep()
        elif step == "watermark":
            cursors.append(broker.watermark())
        else:
            broker.time += what
            stepped = stepped or step == "step"
    cursor = data.draw(st.sampled_from(cursors)) + data.draw(st.sampled_from([-1, 0, 0, 0, 1]))
    joined = data.draw(st.sampled_from([0, *cursors]))
    channels = {"*": 0, "t:x": joined}

    owed = [push for push in everything if push.offset > max(cursor, channels.get(push.channel, 0))]
    owed = [push for push in owed if push.channel in channels]
    got: list[Push] = []
    page = broker.since(channels, cursor, 150)
    complete = page.complete
    while page.more:
        got += page.pushes
        page = broker.since(channels, page.end, 150)
        assert page.complete or not complete
    got += page.pushes
    if complete:
        assert got == owed
        assert page.end >= max([cursor, *(push.offset for push in owed)])
        return
    assert got == []
    kept = all(
        len(mine := [push for push in owed if push.channel == channel]) <= 4
        and sum(push.size for push in mine) <= 1000
        for channel in channels
    )
    fresh = cursor >= (broker.time - WINDOW) * 1e6 and all(
        push.time >= broker.time - WINDOW for push in owed
    )
    future = cursor > broker._last
    assert stepped or future or not (kept and fresh), "what could be given was not"


# Presence -------------------------------------------------------------------------------


def test_a_user_comes_with_the_first_client_and_goes_with_the_last() -> None:
    broker = Broker()
    one, two = broker.attach("ann", "c1"), broker.attach("ann", "c2")
    assert (one.first, two.first) == (True, False)
    assert not broker.detach("ann", "c1", one.token)
    assert broker.detach("ann", "c2", two.token)
    assert broker.attach("ann", "c1").first


def test_a_late_end_of_an_older_opening_disturbs_nothing() -> None:
    broker = Broker()
    old, new = broker.attach("ann", "c"), broker.attach("ann", "c")
    assert (old.first, new.first) == (True, False)
    assert not broker.detach("ann", "c", old.token)
    assert broker.publish(ANN, "[:a/b]") is not None
    assert broker.detach("ann", "c", new.token)
    assert not broker.detach("ann", "c", new.token)


def test_an_absent_user_gets_nothing_and_costs_nothing() -> None:
    broker = Broker()
    assert broker.publish(ANN, "[:a/b]") is None
    assert broker.publish(client_channel("ann", "c"), "[:a/b]") is None
    assert broker.publish(client_channel(None, "c"), "[:a/b]") is None
    assert (broker.told.pushes, broker._histories) == ([], {})


def test_for_a_user_who_just_left_events_are_kept_for_the_window() -> None:
    broker = Broker()
    token = broker.attach("ann", "c").token
    cursor = broker.watermark()
    broker.detach("ann", "c", token)
    offset = broker.publish(ANN, "[:a/b]")
    assert offsets(read(broker, ANN, cursor=cursor)) == [offset]
    broker.time += WINDOW
    assert broker.publish(ANN, "[:a/b]") is None


def test_one_client_has_a_channel_of_its_own() -> None:
    broker = Broker()
    broker.attach("ann", "c1")
    broker.attach(None, "c3")
    assert broker.publish(client_channel("ann", "c1"), "[:a/b]") is not None
    assert broker.publish(client_channel("ann", "c2"), "[:a/b]") is None
    assert broker.publish(client_channel(None, "c1"), "[:a/b]") is None
    assert broker.publish(client_channel(None, "c3"), "[:a/b]") is not None


def test_broadcasts_are_kept_whoever_is_there() -> None:
    broker = Broker()
    assert broker.publish(EVERYONE, "[:a/b]") and broker.publish(ANONYMOUS, "[:a/b]")


# Topics ---------------------------------------------------------------------------------


def test_a_membership_begins_when_it_was_told_and_ends() -> None:
    broker = Broker()
    broker.attach("ann", "c")
    assert [broker.join("ann", "t"), broker.join("ann", "t")] == [True, False]
    assert broker.members("t") == {"ann"}
    (told,) = broker.told.pushes
    assert (told.channel, told.text) == (ANN, '[:chsk/joined "t"]')
    assert broker.attach("ann", "c2").topics == {"t": told.offset}
    assert [broker.leave("ann", "t"), broker.leave("ann", "t")] == [True, False]
    assert broker.told.pushes[1].text == '[:chsk/left "t"]'
    assert (broker.members("t"), broker.attach("ann", "c3").topics) == (frozenset(), {})


def test_members_get_what_was_published_after_they_joined() -> None:
    broker = Broker()
    broker.attach("ann", "c")
    cursor = broker.watermark()
    broker.publish(topic_channel("t"), "[:a/b 1]")
    broker.join("ann", "t")
    after = broker.publish(topic_channel("t"), "[:a/b 2]")
    joined = broker.attach("ann", "c").topics["t"]
    assert offsets(broker.since({topic_channel("t"): joined}, cursor, 10**6)) == [after]


def test_an_absent_user_may_join() -> None:
    broker = Broker()
    assert broker.join("ann", "t")
    assert broker.told.pushes == []
    offset = broker.publish(topic_channel("t"), "[:a/b]")
    joined = broker.attach("ann", "c").topics["t"]
    assert offset is not None and joined < offset


def test_a_user_is_in_so_many_topics_at_most() -> None:
    broker = Broker()
    for number in range(MAX_TOPICS):
        broker.join("ann", f"t{number}")
    with pytest.raises(UsageError, match="100 topics"):
        broker.join("ann", "one more")
    assert "one more" not in broker._members
    broker.leave("ann", "t0")
    assert broker.join("ann", "one more")


# Channels and choice --------------------------------------------------------------------


@given(st.text(), st.text(), st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True))
def test_no_two_channels_share_a_name(one: str, other: str, client_id: str) -> None:
    names = [EVERYONE, ANONYMOUS, user_channel(one), topic_channel(one), client_channel(None, "c")]
    names += [client_channel(one, client_id), user_channel(f"{other}x{one}")]
    if one:
        assert len(set(names)) == len(names)


def test_keyed_sends_are_remembered_for_longer_than_clients_repeat_them() -> None:
    broker = Broker(recovery_seconds=1)
    assert broker.claim("tab:ann", "key", "one") is None
    broker.time += 110
    broker.sweep()
    assert broker.claim("tab:ann", "key", "two") == ""
    broker.time += 121
    broker.sweep()
    assert broker.claim("tab:ann", "key", "three") is None

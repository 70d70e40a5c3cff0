"""Rising offsets, complete cursors, histories within their limits.

The clock goes backwards too. A naive model, a list of all that was ever published, judges what is
called complete.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_chsk.brokers.contract import ANONYMOUS, EVERYONE, Page
from flask_chsk.protocol.push import Push
from tests.unit.brokers.memory.scene import ANN, START, WINDOW, Broker, Later, offsets, read

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


def test_an_event_knows_the_one_before_it_in_its_channel() -> None:
    broker = Broker()
    broker.clients.attach("ann", "c")
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


# History --------------------------------------------------------------------------------


def test_history_gives_what_followed_a_cursor_in_order_over_all_channels() -> None:
    broker = Broker()
    broker.clients.attach("ann", "c")
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
    assert broker._journal._histories == {}


def test_a_cursor_of_the_future_is_not_complete() -> None:
    broker = Broker()
    assert not read(broker, EVERYONE, cursor=broker.watermark() + 2).complete


def test_a_client_that_was_told_of_a_gap_is_before_the_next_event() -> None:
    broker = Broker()
    gap = broker.watermark() + 1
    assert read(broker, EVERYONE, cursor=gap) == Page((), gap, False, True)
    assert broker.publish(EVERYONE, "[:a/b]") == gap + 1


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
    future = cursor > broker._journal.last + 1
    assert stepped or future or not (kept and fresh), "what could be given was not"

"""What every broker does, said once and run over each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flask_chsk.brokers.contract import (
    ANONYMOUS,
    EVERYONE,
    KEYS,
    MAX_TOPICS,
    Broker,
    client_channel,
    topic_channel,
    user_channel,
)
from flask_chsk.errors import Refused, UsageError
from flask_chsk.protocol.push import Push
from tests.integration.brokers.conftest import MODEL, Ears
from tests.process import eventually

ANN = user_channel("ann")
PAGE = 256 * 1024
WEIRD = ["ann:bob", "newline\nuid", "Ünïcødé ✓", "a b", "-", "*", "lone \ud800"]

Start = Callable[..., Ears]


@pytest.fixture(params=["memory", "redis", "model of Redis"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param != "redis":
        return MODEL if request.param.startswith("model") else "memory://"
    found: str = request.getfixturevalue("redis_url")
    return found


@pytest.fixture
def ears(start: Start, url: str) -> Ears:
    return ready(start(url))


@pytest.fixture
def broker(ears: Ears) -> Broker:
    return ears.broker


def ready(ears: Ears) -> Ears:
    ears.broker.ready()
    ears.broker.listen()
    return ears


def shown(pushes: Any) -> list[tuple[str, str, int]]:
    return [(push.channel, push.text, push.offset) for push in pushes]


def test_who_is_not_there_gets_nothing(broker: Broker) -> None:
    assert broker.publish(ANN, "[:a/b 1]") is None
    assert broker.publish(client_channel("ann", "1"), "[:a/b 1]") is None
    broker.clients.attach("ann", "2")
    assert broker.publish(client_channel("ann", "1"), "[:a/b 1]") is None


@pytest.mark.parametrize("uid", [None, "ann"])
def test_events_to_a_client_that_went_are_kept_for_its_return(
    broker: Broker, uid: str | None
) -> None:
    other = broker.clients.attach(uid, "other")
    arrival = broker.clients.attach(uid, "1")
    assert other is not None
    assert arrival is not None
    channel = client_channel(uid, "1")
    start = broker.publish(channel, "[:a/b 1]") or 0
    broker.clients.detach(uid, "1", arrival.token)
    kept = broker.publish(channel, "[:a/b 2]")
    page = broker.since({channel: 0}, start, PAGE)
    assert (page.complete, shown(page.pushes)) == (True, [(channel, "[:a/b 2]", kept)])
    assert broker.publish(client_channel(uid, "never-here"), "[:a/b 3]") is None


def test_events_are_delivered_in_the_order_of_their_offsets(ears: Ears) -> None:
    broker = ears.broker
    broker.clients.attach("ann", "1")
    broker.topics.join("ann", "news")
    ears.texts(1)  # joined
    broker.since({topic_channel("news"): 0}, 0, PAGE)
    channels = [ANN, EVERYONE, client_channel("ann", "1"), topic_channel("news")]
    offsets = [broker.publish(channel, f"[:a/b {n}]") for n, channel in enumerate(channels * 5)]
    assert ears.texts(21)[1:] == [f"[:a/b {n}]" for n in range(20)]
    assert offsets == [push.offset for push in ears.heard[1:]] == sorted(set(offsets))  # type: ignore[type-var]
    assert [push.channel for push in ears.heard[1:]] == channels * 5
    assert ears.watermark() >= ears.heard[-1].offset


@pytest.mark.parametrize("uid", WEIRD)
def test_any_text_is_a_uid(ears: Ears, uid: str) -> None:
    arrival = ears.broker.clients.attach(uid, "1")
    assert arrival is not None
    offsets = [
        ears.broker.publish(user_channel(uid), '[:a/b "é"]', exclude=(uid, "2")),
        ears.broker.publish(client_channel(uid, "1"), "[:a/b 2]"),
    ]
    ears.texts(2)
    assert shown(ears.heard) == [
        (user_channel(uid), '[:a/b "é"]', offsets[0]),
        (client_channel(uid, "1"), "[:a/b 2]", offsets[1]),
    ]
    assert ears.heard[0].exclude == (uid, "2")
    ears.broker.topics.join(uid, "news")
    assert ears.broker.topics.members("news") == {uid}


def test_the_anonymous_hear_what_is_for_them(ears: Ears) -> None:
    ears.broker.clients.attach(None, "1")
    ears.broker.publish(ANONYMOUS, "[:a/b 1]")
    ears.broker.publish(client_channel(None, "1"), "[:a/b 2]", exclude=(None, "1"))
    assert ears.texts(2) == ["[:a/b 1]", "[:a/b 2]"]
    assert ears.heard[1].exclude == (None, "1")


def test_history_gives_what_followed_a_cursor(broker: Broker) -> None:
    broker.clients.attach("ann", "1")
    broker.clients.attach("bob", "1")
    offsets = [broker.publish(ANN, f"[:a/b {n}]") for n in range(10)]
    broker.publish(user_channel("bob"), "[:a/b 99]")
    broadcast = broker.publish(EVERYONE, "[:a/b 10]")
    page = broker.since({ANN: 0, EVERYONE: 0}, offsets[6] or 0, PAGE)
    assert shown(page.pushes) == [
        *[(ANN, f"[:a/b {n}]", offsets[n]) for n in (7, 8, 9)],
        (EVERYONE, "[:a/b 10]", broadcast),
    ]
    assert (page.complete, page.more) == (True, False)
    assert page.end >= (broadcast or 0)


def test_a_channel_is_read_from_its_joining_on(broker: Broker) -> None:
    broker.clients.attach("ann", "1")
    first = broker.publish(ANN, "[:a/b 1]") or 0
    second = broker.publish(ANN, "[:a/b 2]") or 0
    third = broker.publish(ANN, "[:a/b 3]") or 0
    page = broker.since({ANN: second}, first, PAGE)
    assert shown(page.pushes) == [(ANN, "[:a/b 3]", third)]


def test_history_comes_in_pages(broker: Broker) -> None:
    broker.clients.attach("ann", "1")
    start = broker.publish(ANN, "[:a/b 0]") or 0
    channels = [ANN, client_channel("ann", "1")]
    texts = [f'[:a/b "{n}{"x" * 100}"]' for n in range(90)]
    for n, text in enumerate(texts):
        broker.publish(channels[n % 2], text)
    got: list[str] = []
    cursor, more, pages = start, True, 0
    while more:
        page = broker.since(dict.fromkeys(channels, 0), cursor, 1000)
        assert page.complete
        assert page.pushes
        got += [push.text for push in page.pushes]
        cursor, more, pages = page.end, page.more, pages + 1
    assert got == texts
    assert pages > 5


def test_one_event_larger_than_a_page_is_a_page(broker: Broker) -> None:
    broker.clients.attach("ann", "1")
    start = broker.publish(ANN, "[:a/b 0]") or 0
    texts = [f'[:a/b "{"x" * 5000}"]' for _ in range(3)]
    for text in texts:
        broker.publish(ANN, text)
    page = broker.since({ANN: 0}, start, 1000)
    assert [push.text for push in page.pushes] == texts[:1]
    assert page.more


def test_a_cursor_out_of_the_window_is_incomplete(broker: Broker) -> None:
    broker.clients.attach("ann", "1")
    now = broker.publish(ANN, "[:a/b 1]") or 0
    old = broker.since({ANN: 0}, now - 121_000_000, PAGE)
    future = broker.since({ANN: 0}, now + 60_000_000, PAGE)
    for page in (old, future):
        assert (page.pushes, page.complete) == ((), False)


def test_a_client_that_was_told_of_a_gap_has_all_from_there(broker: Broker) -> None:
    broker.clients.attach("ann", "1")
    old = broker.since({ANN: 0}, 1, PAGE)
    assert not old.complete
    gap = old.end + 1
    page = broker.since({ANN: 0}, gap, PAGE)
    assert (page.pushes, page.complete, page.end >= gap) == ((), True, True)
    broker.publish(ANN, "[:a/b 1]")
    assert [push.text for push in broker.since({ANN: 0}, gap, PAGE).pushes] == ["[:a/b 1]"]


def test_an_event_that_was_trimmed_makes_a_cursor_incomplete(start: Start, url: str) -> None:
    broker = ready(start(url, recovery_events=5)).broker
    broker.clients.attach("ann", "1")
    offsets = [broker.publish(ANN, f"[:a/b {n}]") or 0 for n in range(10)]
    assert not broker.since({ANN: 0}, offsets[3], PAGE).complete
    page = broker.since({ANN: 0}, offsets[4], PAGE)
    assert [push.text for push in page.pushes] == [f"[:a/b {n}]" for n in range(5, 10)]


def test_bytes_are_limited_too(start: Start, url: str) -> None:
    broker = ready(start(url, recovery_bytes=1000)).broker
    broker.clients.attach("ann", "1")
    before = broker.publish(ANN, "[:a/b 0]") or 0
    broker.publish(ANN, f'[:a/b "{"x" * 2000}"]')
    assert not broker.since({ANN: 0}, before, PAGE).complete
    after = broker.publish(ANN, "[:a/b 1]") or 0
    assert broker.since({ANN: 0}, after, PAGE).complete


def test_a_late_end_of_an_older_opening_disturbs_nothing(broker: Broker) -> None:
    older = broker.clients.attach("ann", "1")
    newer = broker.clients.attach("ann", "1")
    assert older is not None
    assert newer is not None
    assert (older.first, newer.first) == (True, False)
    assert not broker.clients.detach("ann", "1", older.token)
    assert broker.publish(ANN, "[:a/b 1]") is not None
    assert broker.clients.detach("ann", "1", newer.token)
    assert not broker.clients.detach("ann", "1", newer.token)


def test_a_user_who_went_is_waited_for(broker: Broker) -> None:
    one = broker.clients.attach("ann", "1")
    assert one is not None
    cursor = broker.publish(ANN, "[:a/b 1]") or 0
    broker.clients.detach("ann", "1", one.token)
    assert broker.publish(ANN, "[:a/b 2]") is not None
    again = broker.clients.attach("ann", "2")
    assert again is not None
    assert again.first is True
    assert [push.text for push in broker.since({ANN: 0}, cursor, PAGE).pushes] == ["[:a/b 2]"]


def test_the_last_client_is_the_last(broker: Broker) -> None:
    one, two = broker.clients.attach("ann", "1"), broker.clients.attach("ann", "2")
    assert one is not None
    assert two is not None
    assert not broker.clients.detach("ann", "1", one.token)
    assert broker.clients.detach("ann", "2", two.token)


def test_the_generation_of_comings_and_goings_rises(broker: Broker) -> None:
    generations = []
    for _ in range(3):
        one = broker.clients.attach("ann", "1")
        assert one is not None
        generations += [one.generation, broker.clients.detach("ann", "1", one.token)]
    assert generations == sorted(set(generations))
    assert generations[0] > 0


def test_membership(ears: Ears) -> None:
    broker = ears.broker
    broker.clients.attach("ann", "1")
    assert broker.topics.join("ann", "news") is True
    assert broker.topics.join("ann", "news") is False
    assert broker.topics.join("bob", "news") is True
    assert broker.topics.members("news") == {"ann", "bob"}
    joined = first(ears)
    arrival = broker.clients.attach("ann", "2")
    assert arrival is not None
    assert dict(arrival.topics) == {"news": joined.offset}
    assert broker.topics.leave("ann", "news") is True
    assert broker.topics.leave("ann", "news") is False
    assert broker.topics.members("news") == {"bob"}
    assert ears.texts(2) == ['[:chsk/joined "news"]', '[:chsk/left "news"]']


def first(ears: Ears) -> Push:
    ears.texts(1)
    return ears.heard[0]


def test_topics_are_limited(broker: Broker) -> None:
    for number in range(MAX_TOPICS):
        broker.topics.join("ann", f"topic-{number}")
    with pytest.raises(UsageError, match="100 topics"):
        broker.topics.join("ann", "one more")


# whose a client id is ----------------------------------------------------------------------


def test_an_anonymous_client_id_is_its_owners_in_every_process(start: Start, url: str) -> None:
    one = ready(start(url))
    two = one if url == "memory://" else ready(start(url))
    mine = one.broker.clients.attach(None, "1", "ajax", True, digest="mine")
    assert mine is not None
    for kind in ("ws", "try", "ajax", "poll"):
        for digest in ("other", ""):
            with pytest.raises(Refused) as refused:
                two.broker.clients.attach(None, "1", kind, bool(digest), digest=digest)
            assert (refused.value.status, refused.value.retry_after) == (409, 2)
    assert [broker.clients.holder(None, "1") for broker in (one.broker, two.broker)] == [
        "mine",
        "mine",
    ]
    again = two.broker.clients.attach(None, "1", "ajax", True, digest="mine")
    assert again is not None
    two.broker.clients.detach(None, "1", again.token)
    assert one.broker.clients.holder(None, "1") is None
    assert one.broker.clients.attach(None, "1", "ws", True, digest="other") is not None


def test_a_users_client_may_come_back_with_another_secret(broker: Broker) -> None:
    broker.clients.attach("ann", "1", "ws", True, digest="one")
    assert broker.clients.attach("ann", "1", "ws", True, digest="two") is not None
    assert broker.clients.holder("ann", "1") == "two"
    assert broker.clients.holder("ann", "2") is None and broker.clients.holder("bob", "1") is None


def test_a_client_without_a_secret_holds_its_id_too(broker: Broker) -> None:
    broker.clients.attach(None, "1")
    assert broker.clients.holder(None, "1") == ""
    with pytest.raises(Refused):
        broker.clients.attach(None, "1", "ws", True, digest="other")


def test_what_a_client_without_a_cursor_was_served_is_known_at_its_next_poll(ears: Ears) -> None:
    broker = ears.broker
    first = broker.clients.attach("ann", "1", "ajax")
    assert first is not None
    offsets = [broker.publish(ANN, f"[:a/b {n}]") or 0 for n in range(3)]
    assert broker.clients.ack("ann", "1", first.token, offsets[2]) is True
    assert (
        broker.clients.ack("ann", "1", first.token, offsets[0]) is True
    )  # the others were not given
    second = broker.clients.attach("ann", "1", "poll")
    assert second is not None
    assert second.cursor == offsets[0]
    assert broker.clients.ack("ann", "1", first.token, offsets[2]) is False
    third = broker.clients.attach("ann", "1", "poll")
    assert third is not None
    assert third.cursor == offsets[0]


def test_nothing_is_noted_of_a_client_that_is_not_there(broker: Broker) -> None:
    arrival = broker.clients.attach("ann", "1", "ajax")
    assert arrival is not None
    broker.clients.detach("ann", "1", arrival.token)
    broker.clients.ack("ann", "1", arrival.token, 42)
    again = broker.clients.attach("ann", "1", "ajax")
    assert again is not None
    assert again.cursor is None


def test_a_send_that_comes_again_is_one_processs_and_its_reply_is_kept(broker: Broker) -> None:
    assert broker.sends.claim("1:ann", "k", "first") is None
    assert broker.sends.claim("1:ann", "k", "first") is None  # its answer was lost: asked again
    assert broker.sends.claim("1:ann", "k", "second") == ""
    broker.sends.keep_reply("1:ann", "k", "[1]")
    assert broker.sends.claim("1:ann", "k", "second") == "[1]"
    assert broker.sends.claim("1:ann", "other", "second") is None
    assert broker.sends.claim("1:bob", "k", "second") is None


def test_the_reply_to_a_send_that_nobody_claimed_is_not_kept(broker: Broker) -> None:
    broker.sends.keep_reply("1:ann", "k", "[1]")
    assert broker.sends.claim("1:ann", "k", "first") is None


def test_of_a_clients_sends_the_latest_are_kept(broker: Broker) -> None:
    for number in range(KEYS + 1):
        assert broker.sends.claim("1:ann", str(number), "first") is None
    assert broker.sends.claim("1:ann", "1", "second") == ""
    assert broker.sends.claim("1:ann", "0", "second") is None


def test_clients_that_can_be_asked_are_known(broker: Broker) -> None:
    assert broker.clients.askable("ann") == set()
    arrival = broker.clients.attach("ann", "1", v1=True)
    broker.clients.attach("ann", "2", v1=False)
    broker.clients.attach(None, "3", v1=True)
    assert broker.clients.askable("ann") == {"1"}
    assert broker.clients.askable(None) == {"3"}
    assert arrival is not None
    broker.clients.detach("ann", "1", arrival.token)
    assert broker.clients.askable("ann") == set()


def test_the_clients_of_a_user_are_limited(start: Start, url: str) -> None:
    broker = ready(start(url, max_clients_per_uid=2)).broker
    for number in range(2):
        assert broker.clients.attach("ann", str(number)) is not None
    assert broker.clients.attach("ann", "1") is not None
    with pytest.raises(Refused) as refused:
        broker.clients.attach("ann", "2")
    assert refused.value.status == 429


def test_who_is_connected_is_known_by_transport(broker: Broker) -> None:
    ann = broker.clients.attach("ann", "1", "ws")
    broker.clients.attach("ann", "2", "ajax")
    broker.clients.attach("bob", "1", "ajax")
    broker.clients.attach(None, "3", "ajax")
    eventually(lambda: broker.clients.connected() == ({"ann"}, {"ann", "bob"}, {"ann", "bob"}))
    assert ann is not None
    broker.clients.detach("ann", "1", ann.token)
    eventually(lambda: broker.clients.connected() == (set(), {"ann", "bob"}, {"ann", "bob"}))


def test_whoever_watches_is_told_that_users_came_or_went(ears: Ears) -> None:
    ears.broker.clients.attach("ann", "1")
    assert ("changed",) not in ears.happened
    ears.broker.clients.watch()
    ears.broker.clients.attach("bob", "1")
    ears.wait("changed")


def test_a_word_reaches_the_process_it_names(ears: Ears) -> None:
    ears.broker.tell("0" * 16, "[nobody]")
    ears.broker.tell(ears.broker.name, "[1 2]")
    ears.wait("told", "[1 2]")
    assert ("told", "[nobody]") not in ears.happened


def test_a_membership_that_is_known_may_be_told_again(broker: Broker) -> None:
    broker.clients.attach("ann", "1")
    broker.topics.join("ann", "news")
    broker.topics.rejoin("ann", "news")
    assert broker.topics.members("news") == {"ann"}


def test_a_late_poll_does_not_displace_a_websocket(broker: Broker) -> None:
    assert broker.clients.attach("ann", "1", "ws", v1=True) is not None
    assert broker.clients.attach("ann", "1", "poll", v1=True) is None
    assert broker.clients.connected().ws == {"ann"}
    assert broker.clients.attach("ann", "1", "ajax", v1=True) is not None


def test_a_websocket_is_on_trial_while_its_client_polls(broker: Broker) -> None:
    polls = broker.clients.attach("ann", "1", "ajax", v1=True)
    on_trial = broker.clients.attach("ann", "1", "try", v1=True)
    assert on_trial is not None
    assert (on_trial.trial, on_trial.token) == (True, "")
    eventually(lambda: broker.clients.connected().ajax == {"ann"})
    proven = broker.clients.attach("ann", "1", "ws", v1=True)
    assert proven is not None and not proven.trial
    assert polls is not None
    assert broker.clients.detach("ann", "1", polls.token) == 0
    eventually(lambda: broker.clients.connected().ws == {"ann"})


@pytest.mark.parametrize("channel", ["u:ann", "c:1:ann", "t:news"])
def test_a_client_between_two_polls_hears_by_its_next_one_that_it_was_closed(
    broker: Broker, channel: str
) -> None:
    broker.topics.join("ann", "news")
    polls = broker.clients.attach("ann", "1", "ajax", v1=True, digest="d")
    broker.publish(channel, '[:chsk/close {:code 4001, :reason ""}]')
    assert polls is not None
    broker.clients.detach("ann", "1", polls.token)
    assert said_to(broker, "ann", "d") == '[:chsk/close {:code 4001, :reason ""}]'
    assert said_to(broker, "ann", "d") is None


def said_to(broker: Broker, uid: str, digest: str) -> str | None:
    """The close that a poll is told of, of a client that shows the secret with *digest*."""
    arrival = broker.clients.attach(uid, "1", "poll", v1=True, digest=digest)
    assert arrival is not None
    if arrival.token:
        broker.clients.detach(uid, "1", arrival.token)
    return arrival.missed_close


def test_whoever_was_let_in_again_hears_no_earlier_close(broker: Broker) -> None:
    broker.clients.attach("ann", "1", "ajax", v1=True, digest="d")
    broker.publish(ANN, "[:chsk/close]")
    broker.clients.attach("ann", "1", "ajax", v1=True, digest="d")
    assert said_to(broker, "ann", "d") is None

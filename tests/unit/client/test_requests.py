"""What was sent and has no reply yet, and what waits to be sent."""

from __future__ import annotations

from typing import Any

import pytest

from flask_chsk.client.effects import Dropped, Effect, Replied
from flask_chsk.client.link import Link, Outgoing
from flask_chsk.client.requests import KEY_SECONDS, UNKNOWN_USER, Requests
from flask_chsk.errors import PackError
from flask_chsk.packers import make
from flask_chsk.protocol.event import Event
from flask_chsk.protocol.wire import WIRES, Composer

SCOPE = ("ann", "id0", "e1")


class Kept(Requests):
    """Requests with their effects."""

    def __init__(self, packer: str = "edn", offline_queue: int = 0) -> None:
        self.effects: list[Effect] = []
        super().__init__(Composer(make(packer), WIRES["1.21"]), self.effects.append, offline_queue)

    def begin(self, data: Any = 1, timeout: float = 10.0, **how: Any) -> Outgoing:
        """Pack an event that expects a reply, from now, which is 0."""
        outgoing = self.pack(Event("chat/say", data), print, timeout, **how)
        self.expect(outgoing, 0.0)
        return outgoing


@pytest.fixture
def requests() -> Kept:
    return Kept()


def test_an_event_is_packed_with_its_callback_id_and_key(requests: Kept) -> None:
    plain = requests.pack(Event("chat/say", {"a": 1}))
    asked = requests.pack(Event("chat/say"), print, 1.0, key="k")
    assert (plain.data, plain.id) == ("[[:chat/say {:a 1}] nil]", None)
    assert (asked.data, asked.id) == ('[[:chat/say] "c1" {:key "k"}]', "c1")


def test_an_error_names_what_the_caller_gave(requests: Kept) -> None:
    with pytest.raises(PackError, match=r'^data\["when"\]: object of type object'):
        requests.pack(Event("chat/say", {"when": object()}))
    with pytest.raises(PackError, match="data: 36 bytes, of the 20 that the server takes"):
        requests.pack(Event("chat/say", "é" * 8), max_bytes=20)


def test_the_first_reply_counts(requests: Kept) -> None:
    one, two = requests.begin(), requests.begin()
    requests.answered(two.id, "two", None)
    requests.answered(two.id, "again", None)
    requests.answered("c99", "nobody's", None)
    requests.reply(one, "one", {"more": 1})
    assert requests.effects == [Replied(two, "two"), Replied(one, "one", {"more": 1})]
    assert [requests.is_wanted(one), requests.is_wanted(two)] == [False, False]


def test_what_expects_no_reply_is_always_wanted(requests: Kept) -> None:
    assert requests.is_wanted(requests.pack(Event("chat/say"))) is True


def test_replies_are_overdue_in_the_order_of_their_timeouts(requests: Kept) -> None:
    late, soon, answered = requests.begin(timeout=3), requests.begin(timeout=2), requests.begin()
    requests.reply(answered, None)
    requests.effects.clear()
    assert requests.next_due() == 2
    requests.expire(2.0)
    assert requests.effects == [Replied(soon, "chsk/timeout")]
    assert requests.next_due() == 3
    requests.expire(5.0)
    assert requests.effects[1:] == [Replied(late, "chsk/timeout")]
    assert requests.next_due() is None


def test_sends_and_requests_wait_in_lines_of_their_own() -> None:
    requests = Kept(offline_queue=1)
    sends = [requests.pack(Event("chat/say")) for _ in range(2)]
    asks = [requests.begin(waits=True) for _ in range(1001)]
    assert [requests.enqueue(one, "ann") for one in sends] == [True, False]
    assert [requests.enqueue(one, "ann") for one in asks].count(False) == 1


def test_what_waits_is_its_users() -> None:
    requests = Kept(offline_queue=3)
    mine, anothers, anybodys = requests.begin(), requests.begin(), requests.begin()
    for outgoing, user in ((mine, "ann"), (anothers, "bob"), (anybodys, UNKNOWN_USER)):
        requests.enqueue(outgoing, user)
    assert requests.dequeue("ann") == [mine, anybodys]
    assert requests.effects == [
        Dropped(anothers, "the user changed"),
        Replied(anothers, "chsk/closed", {"message": "the user changed"}),
    ]
    assert requests.dequeue("ann") == []


def test_what_timed_out_in_line_leaves_it() -> None:
    requests = Kept(offline_queue=1)
    outgoing = requests.begin()
    requests.enqueue(outgoing, "ann")
    requests.expire(10.0)
    assert requests.effects == [Replied(outgoing, "chsk/timeout", {"message": "not open yet"})]
    assert requests.dequeue("ann") == []


def test_at_the_end_everything_is_told() -> None:
    requests = Kept(offline_queue=2)
    sent, silent = requests.begin(), requests.pack(Event("chat/say"))
    requests.enqueue(silent, "ann")
    requests.close("closed")
    assert requests.effects == [Replied(sent, "chsk/closed"), Dropped(silent, "closed")]


def test_without_a_key_what_was_interrupted_is_closed(requests: Kept) -> None:
    link, outgoing = Link("ws", None), requests.begin()
    requests.sent(outgoing, link, SCOPE, 0.0)
    assert requests.sent_over(link) == [outgoing]
    assert requests.interrupted(outgoing, resend=True) is False
    assert requests.effects == [Replied(outgoing, "chsk/closed")]


@pytest.mark.parametrize(
    ("scope", "now", "again"),
    [
        (SCOPE, KEY_SECONDS - 1, True),
        (SCOPE, KEY_SECONDS, False),
        (("bob", *SCOPE[1:]), 1.0, False),
        ((*SCOPE[:2], "e2"), 1.0, False),
    ],
)
def test_with_a_key_it_is_sent_again_where_the_key_holds(
    requests: Kept, scope: tuple[str, ...], now: float, again: bool
) -> None:
    outgoing = requests.begin(key="k")
    requests.sent(outgoing, Link("ws", None), SCOPE, 0.0)
    assert requests.interrupted(outgoing, resend=True) is True
    assert requests.interrupted(outgoing, resend=True) is True
    assert requests.resend(scope, now) == ([outgoing] if again else [])
    assert requests.effects == ([] if again else [Replied(outgoing, "chsk/closed")])


@pytest.mark.parametrize(("slept", "again"), [(KEY_SECONDS - 2, True), (KEY_SECONDS, False)])
def test_a_key_does_not_outlive_the_sleep_of_a_machine(
    requests: Kept, slept: float, again: bool
) -> None:
    outgoing = requests.begin(key="k")
    requests.sent(outgoing, Link("ws", None), SCOPE, 0.0, 1000.0)
    requests.interrupted(outgoing, resend=True)
    # The steady clock stood still while the time of day went on.
    assert requests.resend(SCOPE, 1.0, 1000.0 + slept) == ([outgoing] if again else [])


def test_a_client_at_rest_sends_nothing_again(requests: Kept) -> None:
    outgoing = requests.begin(key="k")
    requests.sent(outgoing, Link("ws", None), SCOPE, 0.0)
    assert requests.interrupted(outgoing, resend=False) is False
    assert requests.effects == [Replied(outgoing, "chsk/closed")]


def test_what_was_answered_meanwhile_is_not_sent_again(requests: Kept) -> None:
    outgoing = requests.begin(key="k")
    requests.sent(outgoing, Link("ws", None), SCOPE, 0.0)
    requests.interrupted(outgoing, resend=True)
    requests.answered(outgoing.id, "paid", None)
    assert requests.resend(SCOPE, 1.0) == []

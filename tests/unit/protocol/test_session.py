"""What the server knows of one client, with the clock turned by hand and no transport at all."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_chsk import packers
from flask_chsk.protocol.event import Event
from flask_chsk.protocol.push import CANONICAL, Push
from flask_chsk.protocol.session import (
    BAD_EVENT,
    BAD_PACKAGE,
    BAD_PACKAGE_SHOWN,
    DEAD,
    FRAME_BYTES,
    PAGE_BYTES,
    PING,
    Answered,
    Batched,
    Pinged,
    Ponged,
    Received,
    Rules,
    ServerSession,
    cb_error,
    cb_success,
    closing,
    read_cursor,
    read_message,
)
from flask_chsk.protocol.wire import WIRES, Composer, Data
from flask_chsk.values import Keyword

EPOCH = "e7f3"
RULES = Rules(EPOCH, kalive=25.0, ping_timeout=10.0, cursor_every=30.0, max_outbox_bytes=4096)
NOW = 1000.0


def composer(packer: str = "edn", wire: str = "1.21") -> Composer:
    return Composer(packers.make(packer), WIRES[wire])


def session(
    *, v1: bool = False, offset: int = 0, keeps: bool = False, rules: Rules = RULES, **how: Any
) -> ServerSession:
    one = ServerSession("ann", "c-1", composer(**how), rules, NOW, v1=v1, offset=offset)
    one.retain_until_ack = keeps
    return one


def push(offset: int, data: Any = None, *, exclude: tuple[str | None, str] | None = None) -> Push:
    return Push("u:ann", CANONICAL.pack([Keyword("a/b"), data]), offset, exclude=exclude)


def line(message: Data) -> bytes:
    """A transport's dress that a test can read: a message a line."""
    return (message if isinstance(message, str) else message.hex()).encode() + b"\n"


def taken(one: ServerSession) -> list[str]:
    return one.drain(line, {}).decode().splitlines()


def answered(one: ServerSession) -> str | None:
    answer = one.answer(line, {})
    return None if answer is None else answer.decode().strip()


# Cursors --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "offset"),
    [
        ("e7f3:0", 0),
        ("e7f3:1042", 1042),
        ("e7f3:9007199254740991", 2**53 - 1),
        ("e7f4:1042", None),
        ("e7f3:", None),
        ("e7f3:01", None),
        ("e7f3:-1", None),
        ("e7f3:1 ", None),
        ("e7f3:1\n", None),
        ("e7f3:١", None),
        ("e7f3:12345678901234567", None),
        ("e7f3:1,+1", None),
        (":1", None),
        ("1", None),
        ("", None),
        (None, None),
    ],
)
def test_a_cursor_is_an_offset_of_its_epoch(text: str | None, offset: int | None) -> None:
    assert read_cursor(text, EPOCH) == offset


@given(st.text())
def test_no_text_at_all_breaks_the_reading_of_a_cursor(text: str) -> None:
    offset = read_cursor(text, EPOCH)
    assert offset is None or text == f"{EPOCH}:{offset}"


# What came in ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "incoming"),
    [
        ('[[:chat/say {:a 1}] "c1"]', Received(Event(Keyword("chat/say"), {"a": 1}), "c1")),
        ("[[:chat/say 1] nil]", Received(Event(Keyword("chat/say"), 1))),
        ("[[:chat/say 1] false]", Received(Event(Keyword("chat/say"), 1))),
        ("[[:chat/say]]", Received(Event(Keyword("chat/say")))),
        ("[[:chat/say 1] :ajax :extra 7]", Received(Event(Keyword("chat/say"), 1), "ajax")),
        ("[[:chat/say 1] 0]", Received(Event(Keyword("chat/say"), 1), 0)),
        ('[[:chsk/ws-ping] "p"]', Pinged("p")),
        ("[[:chsk/ws-ping] nil]", Pinged()),
        ("[[:chsk/ws-pong] nil]", Ponged()),
        ('[[:chsk/answer ["q" {:b 2}]] nil]', Answered("q", {"b": 2})),
        ('[[:chsk/answer ["q" nil "broke"]] nil]', Answered("q", None, "broke")),
        ('[[:chsk/answer ["q" 1 nil]] nil]', Answered("q", 1, None)),
        ('[[:chsk/answer ["q"]] nil]', Received(Event(BAD_EVENT, ["chsk/answer", ["q"]]))),
        ("[[:chsk/answer [7 1]] nil]", Received(Event(BAD_EVENT, ["chsk/answer", [7, 1]]))),
        (
            "[[:chsk/batch [[:a/b 1] [:c/d]]] nil]",
            Batched((Received(Event(Keyword("a/b"), 1)), Received(Event(Keyword("c/d"))))),
        ),
        ("[[:chsk/batch []] nil]", Batched(())),
        (
            "[[:chsk/batch [[:chsk/ws-pong] 7 [:chsk/batch []]]] nil]",
            Batched(
                (
                    Received(Event(BAD_EVENT, ["chsk/ws-pong"])),
                    Received(Event(BAD_EVENT, 7)),
                    Received(Event(BAD_EVENT, ["chsk/batch", []])),
                )
            ),
        ),
        ('[[:chsk/batch 1] "c"]', Received(Event(BAD_EVENT, ["chsk/batch", 1]), "c")),
        ('[[:unns 1] "c"]', Received(Event(BAD_EVENT, ["unns", 1]), "c")),
        ('[["a/b" 1] "c"]', Received(Event(BAD_EVENT, ["a/b", 1]), "c")),
        ('[[:a/b 1 2] "c"]', Received(Event(BAD_EVENT, ["a/b", 1, 2]), "c")),
        ('[[] "c"]', Received(Event(BAD_EVENT, []), "c")),
        ("[nil nil]", Received(Event(BAD_EVENT, None))),
        ("[:chsk/ws-ping nil]", Received(Event(BAD_EVENT, "chsk/ws-ping"))),
        ("[[:chsk/uidport-open 1] nil]", Received(Event(BAD_EVENT, ["chsk/uidport-open", 1]))),
        ("[[:chsk/close] nil]", Received(Event(BAD_EVENT, ["chsk/close"]))),
        ("[[:chsk/handshake 1] nil]", Received(Event(BAD_EVENT, ["chsk/handshake", 1]))),
        ("[]", Received(Event(BAD_PACKAGE, "[]"))),
        ("{:a 1}", Received(Event(BAD_PACKAGE, "{:a 1}"))),
        ("garbage{", Received(Event(BAD_PACKAGE, "garbage{"))),
        ("", Received(Event(BAD_PACKAGE, ""))),
    ],
)
def test_what_a_message_means(text: str, incoming: object) -> None:
    assert read_message(composer(), text) == incoming


def test_the_application_sees_a_kibibyte_of_a_bad_package() -> None:
    assert read_message(composer(), "[" * 5000) == Received(
        Event(BAD_PACKAGE, "[" * BAD_PACKAGE_SHOWN)
    )


def test_a_string_is_an_id_in_json_only() -> None:
    assert read_message(composer("json"), '[["a/b",1],"c"]') == Received(
        Event(Keyword("a/b"), 1), "c"
    )


@given(st.text() | st.binary())
def test_whatever_a_client_sends_means_something(data: str | bytes) -> None:
    read_message(composer(), data)


@pytest.mark.parametrize("status", ["chsk/closed", "chsk/timeout", "chsk/error"])
def test_three_replies_are_not_the_servers(status: str) -> None:
    assert cb_error(Keyword(status)) and not cb_success(Keyword(status))
    assert cb_success(status)  # a string is what a handler may well answer


# The handshake --------------------------------------------------------------------------


def test_a_handshake_names_the_user_and_carries_data() -> None:
    data = composer().piece({"motd": "hi"})
    assert session().handshake(data) == '[[:chsk/handshake ["ann" nil {:motd "hi"}]] nil]'


def test_nobody_is_a_keyword_to_sentes_clients_and_nil_to_ours() -> None:
    sentes = ServerSession(None, "c", composer(), RULES, NOW)
    ours = ServerSession(None, "c", composer(), RULES, NOW, v1=True)
    assert sentes.handshake(None) == "[[:chsk/handshake [:sente/nil-uid nil nil]] nil]"
    assert ours.handshake(None, extras={"recovered": True}) == (
        "[[:chsk/handshake [nil nil nil {:recovered true}]] nil]"
    )


# The outbox -----------------------------------------------------------------------------


def test_nothing_leaves_an_empty_outbox() -> None:
    one = session()
    assert taken(one) == []
    assert answered(one) is None


def test_pushes_in_a_row_share_a_frame_and_nothing_overtakes() -> None:
    one = session()
    one.deliver(push(1))
    one.deliver(push(2))
    one.say('[1 "c"]')
    one.deliver(push(3))
    one.say('["pong" "p"]')
    assert taken(one) == [
        "[[[:a/b nil] [:a/b nil]] nil]",
        '[1 "c"]',
        "[[[:a/b nil]] nil]",
        '["pong" "p"]',
    ]
    assert taken(one) == []
    assert (one.outbox_bytes, one.acked) == (0, 3)


def test_ours_are_told_each_events_offset() -> None:
    one = session(v1=True)
    for offset in (1042, 1043, 1050):
        one.deliver(push(offset))
    assert taken(one) == ['[[[:a/b nil] [:a/b nil] [:a/b nil]] nil "e7f3:1042,+1,+7"]']


def test_one_push_carries_its_offset_alone() -> None:
    one = session(v1=True)
    one.deliver(push(1042, 7))
    assert taken(one) == ['[[[:a/b 7]] nil "e7f3:1042"]']


def test_an_event_that_was_taken_in_is_not_taken_in_again() -> None:
    one = session(offset=5)
    assert [one.deliver(push(offset)) for offset in (4, 5, 6, 6, 7)] == [
        False,
        False,
        True,
        False,
        True,
    ]
    assert taken(one) == ["[[[:a/b nil] [:a/b nil]] nil]"]


def test_an_excluded_client_passes_the_event_by() -> None:
    one = session()
    assert not one.deliver(push(1, exclude=("ann", "c-1")))
    assert one.deliver(push(2, exclude=("ann", "c-2")))
    assert one.queued == 2
    assert taken(one) == ["[[[:a/b nil]] nil]"]


def test_a_page_leaves_at_a_time() -> None:
    one = session(rules=Rules(EPOCH))
    for offset in (1, 2, 3):
        one.deliver(push(offset, "x" * (PAGE_BYTES - 100)))
    assert [len("".join(taken(one))) > PAGE_BYTES, len(taken(one)), len(taken(one))] == [True, 1, 0]
    assert (one.outbox, one.outbox_bytes) == (None, 0)


def test_frames_are_small_enough_for_a_slow_network() -> None:
    one = session(rules=Rules(EPOCH))
    for offset in range(1, 10):
        one.deliver(push(offset, "x" * (FRAME_BYTES // 4)))
    one.say('[1 "c"]')
    first, second, rest, reply = taken(one)
    assert all(FRAME_BYTES < len(frame) < FRAME_BYTES * 5 / 4 for frame in (first, second))
    assert FRAME_BYTES / 4 < len(rest) < FRAME_BYTES / 2
    assert reply == '[1 "c"]'
    assert (one.outbox, one.outbox_bytes, one.acked) == (None, 0, 9)


def test_equal_batches_are_packed_once() -> None:
    packed: list[Data] = []

    def encode(message: Data) -> bytes:
        packed.append(message)
        return line(message)

    pushes = [push(1), push(2)]
    frames: dict[Any, bytes] = {}
    for _ in range(3):
        one = session()
        for each in pushes:
            one.deliver(each)
        assert one.drain(encode, frames) == b"[[[:a/b nil] [:a/b nil]] nil]\n"
    assert packed == ["[[[:a/b nil] [:a/b nil]] nil]"]


def test_a_frame_is_not_shared_by_those_who_want_it_otherwise() -> None:
    each = push(1)
    frames: dict[Any, bytes] = {}
    dresses = {
        "[[[:a/b nil]] nil]": session(),
        '[[[:a/b nil]] nil "e7f3:1"]': session(v1=True),
        '[[["a/b",null]],null]': session(packer="json"),
        "[[[:a/b nil]]]": session(wire="1.18"),
        "-[[:a/b nil]]": session(wire="1.0"),
    }
    for one in dresses.values():
        one.deliver(each)
    assert list(dresses) == [one.drain(line, frames).decode().strip() for one in dresses.values()]


def test_replies_to_a_socket_that_is_gone_are_forgotten_and_pushes_are_not() -> None:
    one = session()
    one.say("[1]")
    one.deliver(push(1))
    one.say("[2]")
    one.change_transport("ws", 1.0)
    assert one.outbox_bytes == push(1).size
    assert taken(one) == ["[[[:a/b nil]] nil]"]


def test_sentes_client_is_overfull_past_the_limit() -> None:
    one = session()
    one.deliver(push(1, "x" * 4000))
    assert not one.overfull
    one.deliver(push(2, "x" * 4000))
    assert one.overfull


# Polls ----------------------------------------------------------------------------------


def test_a_poll_of_sentes_client_is_answered_with_each_event_once() -> None:
    one = session()
    one.deliver(push(1))
    one.deliver(push(2))
    assert answered(one) == "[[[:a/b nil] [:a/b nil]] nil]"
    assert answered(one) is None
    one.deliver(push(3))
    assert answered(one) == "[[[:a/b nil]] nil]"
    assert (one.acked, one.outbox, one.outbox_bytes) == (3, None, 0)


def test_ours_get_an_answer_again_until_they_acknowledge_it() -> None:
    one = session(v1=True, keeps=True)
    one.deliver(push(1))
    one.deliver(push(2))
    assert answered(one) == answered(one) == '[[[:a/b nil] [:a/b nil]] nil "e7f3:1,+1"]'
    one.ack(1)
    one.deliver(push(3))
    assert answered(one) == '[[[:a/b nil] [:a/b nil]] nil "e7f3:2,+1"]'
    one.ack(3)
    assert answered(one) is None
    assert (one.acked, one.outbox_bytes) == (3, 0)


def test_a_poll_is_answered_with_a_page() -> None:
    one = session(rules=Rules(EPOCH))
    for offset in (1, 2, 3):
        one.deliver(push(offset, "x" * (PAGE_BYTES // 2)))
    assert [answered(one) is not None for _ in range(4)] == [True, True, True, False]


# Cursors and catching up ----------------------------------------------------------------


def test_one_of_ours_that_falls_behind_lets_its_pushes_go_and_keeps_its_replies() -> None:
    one = session(v1=True, offset=10)
    one.deliver(push(11, "x" * 4000))
    one.say('[1 "c"]')
    assert one.deliver(push(12, "x" * 4000))
    assert (one.needs_replay, one.queued, one.acked) == (True, 10, 10)
    assert taken(one) == ['[1 "c"]']
    assert not one.deliver(push(13))  # history has it
    one.caught_up([push(11), push(12)], end=12, more=True)
    assert one.needs_replay
    assert taken(one) == ['[[[:a/b nil] [:a/b nil]] nil "e7f3:11,+1"]']
    one.caught_up([push(13)], end=20, more=False)
    assert (one.needs_replay, one.queued) == (False, 20)
    assert taken(one) == ['[[[:a/b nil]] nil "e7f3:13"]']


def test_one_large_event_alone_is_never_too_much() -> None:
    one = session(v1=True)
    assert one.deliver(push(1, "x" * 10_000))
    assert not one.needs_replay


def test_what_history_gives_and_live_events_give_is_taken_once() -> None:
    one = session(v1=True, offset=10)
    one.fall_behind()
    one.caught_up([push(11), push(12)], end=12, more=False)
    assert [one.deliver(push(offset)) for offset in (11, 12, 13)] == [False, False, True]
    assert taken(one) == ['[[[:a/b nil] [:a/b nil] [:a/b nil]] nil "e7f3:11,+1,+1"]']


def test_a_client_that_has_more_than_we_thought_goes_on_from_there() -> None:
    one = session(v1=True, keeps=True)
    for offset in (1, 2, 3):
        one.deliver(push(offset))
    one.resume(2)
    assert not one.needs_replay
    assert answered(one) == '[[[:a/b nil]] nil "e7f3:3"]'


def test_a_client_that_has_less_than_we_sent_is_given_it_from_history() -> None:
    one = session(v1=True)
    one.deliver(push(1))
    one.deliver(push(2))
    taken(one)
    one.deliver(push(3))
    one.resume(1)
    assert (one.needs_replay, one.acked, one.queued, one.outbox) == (True, 1, 1, None)


def test_a_gap_is_told_to_ours_and_skipped_for_sentes() -> None:
    ours, sentes = session(v1=True), session()
    for one in (ours, sentes):
        one.deliver(push(5))
        one.gap(100)
        assert (one.needs_replay, one.queued) == (False, 100)
        assert one.deliver(push(101))
    assert taken(ours) == ['[[[:chsk/gap nil] [:a/b nil]] nil "e7f3:100,+1"]']
    assert taken(sentes) == ["[[[:a/b nil]] nil]"]


def test_a_gap_is_told_though_its_client_falls_behind_before_it_left() -> None:
    one = session(v1=True)
    one.gap(100)
    one.deliver(push(101))
    one.fall_behind()
    assert one.outbox_bytes == len("[:chsk/gap nil]")
    assert taken(one) == ['[[[:chsk/gap nil]] nil "e7f3:100"]']
    one.caught_up([push(101)], 101, more=False)
    assert taken(one) == ['[[[:a/b nil]] nil "e7f3:101"]']


def test_a_gap_that_the_client_has_heard_of_elsewhere_is_not_told_again() -> None:
    one = session(v1=True)
    one.gap(100)
    one.resume_unknown(100)
    assert one.outbox is None
    one.gap(200)
    one.resume_unknown(199)
    assert taken(one) == ['[[[:chsk/gap nil]] nil "e7f3:200"]']


def test_it_is_known_up_to_where_nothing_is_owed() -> None:
    one = session(v1=True, offset=10)
    starts = [one.start]
    one.start_at(20)
    starts.append(one.start)
    one.gap(30)
    starts.append(one.start)
    one.resume(30)
    starts.append(one.start)
    one.resume(25)  # another process served it up to there
    starts.append(one.start)
    one.start_at(40)
    one.resume_unknown(50)
    starts.append(one.start)
    assert starts == [10, 20, 30, 30, 0, 0]


def test_who_has_all_need_not_be_given_it_again() -> None:
    resting, waiting = session(offset=5), session(offset=5)
    waiting.deliver(push(7))
    for one in (resting, waiting):
        one.advance_to(20)
        one.fall_behind()
    assert (resting.queued, waiting.queued) == (20, 5)


def test_only_one_of_ours_at_rest_is_told_the_watermark() -> None:
    assert session().cursor(50, NOW) is None
    one = session(v1=True)
    assert one.cursor(50, NOW) == "e7f3:50"
    assert one.cursor(40, NOW) == "e7f3:50"  # never back
    one.deliver(push(60))
    assert one.cursor(70, NOW) is None
    taken(one)
    assert one.cursor(60, NOW) == "e7f3:60"
    one.fall_behind()
    assert one.cursor(70, NOW) is None


# The clock ------------------------------------------------------------------------------


def test_silence_is_asked_about_then_closed() -> None:
    one = session()
    assert one.check(NOW + 24) == (None, NOW + 25)
    assert one.check(NOW + 25) == (PING, NOW + 35)
    assert one.check(NOW + 34) == (None, NOW + 35)
    assert one.check(NOW + 35) == (None, NOW + 35)  # first read what may be waiting
    assert one.check(NOW + 35.25) == (DEAD, NOW + 35.25)


def test_any_message_and_any_sign_of_life_is_life() -> None:
    one = session()
    one.receive("[[:a/b] nil]", NOW + 20)
    assert one.check(NOW + 25) == (None, NOW + 45)
    assert one.check(NOW + 45) == (PING, NOW + 55)
    one.alive(NOW + 54)
    assert one.check(NOW + 55) == (None, NOW + 79)


def test_a_message_between_the_judgements_saves() -> None:
    one = session()
    one.check(NOW + 25)
    one.check(NOW + 35)
    one.receive("[[:chsk/ws-pong] nil]", NOW + 35.1)
    assert one.check(NOW + 35.25) == (None, NOW + 60.1)


def test_while_the_socket_is_not_read_silence_proves_nothing() -> None:
    one = session()
    assert one.check(NOW + 25) == (PING, NOW + 35)
    assert one.check(NOW + 100, reading=False) == (None, NOW + 125)
    assert one.check(NOW + 125) == (PING, NOW + 135)


def test_clients_that_never_pong_are_pinged_and_left_in_peace() -> None:
    one = session(wire="1.18")
    assert one.check(NOW + 25) == (PING, NOW + 35)
    assert one.check(NOW + 35) == (None, NOW + 60)
    assert one.check(NOW + 60) == (PING, NOW + 70)


def test_one_of_ours_that_talks_is_told_its_cursor_all_the_same() -> None:
    one = session(v1=True)
    one.receive("[[:a/b] nil]", NOW + 20)
    assert one.check(NOW + 25) == (None, NOW + 30)
    assert one.check(NOW + 30) == (PING, NOW + 40)
    assert one.ping(77, NOW + 30) == '[:chsk/ws-ping nil "e7f3:77"]'


def test_pings_in_the_dress_of_each_generation() -> None:
    assert [session(wire=wire).ping(7, NOW) for wire in WIRES] == [
        "[:chsk/ws-ping nil]",
        "[:chsk/ws-ping]",
        "+[:chsk/ws-ping]",
        "-:chsk/ws-ping",
    ]


# All of it together ---------------------------------------------------------------------


class Client:
    """One of ours: drops what is not above its cursor, and keeps the rest."""

    def __init__(self) -> None:
        self.cursor = 0
        self.seen: list[int] = []

    def take_in(self, text: str) -> None:
        events, _, offsets = composer().read(text)
        offset = 0
        for event, step in zip(events, offsets.partition(":")[2].split(","), strict=True):
            offset += int(step)
            if offset > self.cursor:
                self.cursor = offset
                self.seen.append(event[1][0])


def page(history: list[Push], after: int, size: int) -> tuple[list[Push], int, bool]:
    """What a broker that forgets nothing gives: pushes, the end, whether there is more."""
    found = [each for each in history if each.offset > after]
    if len(found) > size:
        return found[:size], found[size - 1].offset, True
    return found, max(after, len(history)), False


@given(
    st.lists(st.sampled_from(["send", "send much", "take", "lose"]), max_size=40),
    st.booleans(),
    st.integers(1, 3),
)
def test_whatever_gets_lost_ours_see_each_event_once_and_in_order(
    steps: list[str], polls: bool, page_size: int
) -> None:
    one, client, history = session(v1=True, keeps=polls), Client(), list[Push]()

    def leaving() -> list[str]:
        if polls:
            one.resume(client.cursor)  # every poll brings its cursor
        if one.needs_replay and not one.outbox:
            pushes, end, more = page(history, one.queued, page_size)
            one.caught_up(pushes, end, more=more)
        if not polls:
            return taken(one)
        answer = answered(one)
        return [] if answer is None else [answer]

    for step in [*steps, "lose", *["take"] * 50]:
        if step == "take":
            for text in leaving():
                client.take_in(text)
        elif step == "lose":
            leaving()
            one.resume(client.cursor)
        else:
            data = [len(history) + 1, "x" * (3000 if step == "send much" else 1)]
            history.append(push(len(history) + 1, data))
            one.deliver(history[-1])
    assert client.seen == [each.offset for each in history]


def test_before_a_gap_that_waits_nothing_is_owed() -> None:
    """Its client is not told twice of what it missed once."""
    one = session(v1=True, offset=10)
    one.gap(100)
    one.resume(10)
    assert (one.needs_replay, one.queued) == (True, 100)
    assert taken(one) == ['[[[:chsk/gap nil]] nil "e7f3:100"]']


# Closes of the application ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("reconnect", "after", "data"),
    [
        (True, None, {"code": 4003, "reason": "closed by the application"}),
        (False, None, {"code": 4005, "reason": "signed out"}),
        (False, ("w", "t"), {"code": 4005, "reason": "signed out", "after": ["w", "t"]}),
    ],
)
def test_an_application_closes_by_an_event(
    reconnect: bool, after: Any, data: dict[str, Any]
) -> None:
    assert closing(reconnect, after) == ["chsk/close", data]

"""Messages of clients on their way to the handlers: by WebSocket and by POST."""

from __future__ import annotations

from typing import Any

import pytest

from flask_chsk.errors import Refused
from flask_chsk.protocol import session as s
from flask_chsk.protocol.event import Event
from flask_chsk.protocol.session import read_sized
from flask_chsk.server.connection import Connection
from flask_chsk.server.replies import Pending
from flask_chsk.values import Keyword

from .fakes import COMPOSER, FakeTransport, Office, texts, told


class Scene(Office):
    """A worker with handlers that note what they get, and reply."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seen: list[Any] = []
        self.handlers.on("a/note")(lambda ev: self.seen.append(ev.data))
        self.handlers.on("a/add")(lambda ev: ev.data + 1)
        self.receiver = self.worker.receiver

    def message(self, connection: Connection, text: str, websocket: Any = None) -> None:
        """A message comes over a client's WebSocket."""
        websocket = websocket or connection.transport
        self.receiver.received(connection, websocket, text)
        self.hub.work()

    def post(self, text: str, *, work: bool = True, **more: Any) -> Any:
        """A message comes by POST; what answers it, when all is handled."""
        incoming, size = read_sized(COMPOSER, text)
        answer = self.receiver.posted(self.opening(**more), incoming, size)
        if work:
            self.hub.work()
        return b"".join(answer) if isinstance(answer, Pending) else answer


@pytest.fixture
def scene() -> Scene:
    return Scene()


# By WebSocket ---------------------------------------------------------------------------


def test_an_event_is_handled_and_answered(scene: Scene) -> None:
    one = scene.connect()
    scene.message(one, '[[:a/add 1] "cb"]')
    assert texts(one) == ['[2 "cb"]']
    assert told(one) == ["wake"]


def test_events_of_a_batch_are_handled_in_order(scene: Scene) -> None:
    scene.message(scene.connect(), "[[:chsk/batch [[:a/note 1] [:a/note 2]]]]")
    assert scene.seen == [1, 2]


def test_a_ping_is_answered_where_it_wants_that(scene: Scene) -> None:
    one = scene.connect()
    scene.message(one, '[[:chsk/ws-ping] "cb"]')
    assert texts(one)[0].startswith('["pong" "cb"')
    scene.message(one, "[[:chsk/ws-ping]]")
    assert len(texts(one)) == 1


def test_a_message_over_a_socket_that_was_replaced_is_dropped(scene: Scene) -> None:
    one = scene.connect()
    old = one.transport
    scene.connect()
    scene.message(one, "[[:a/note 1]]", old)
    assert scene.seen == []


def test_a_message_over_a_socket_on_trial_makes_it_the_transport(scene: Scene) -> None:
    one = scene.poll()
    trial = FakeTransport()
    scene.clients.try_socket(one, trial)
    scene.message(one, "[[:a/note 1]]", trial)
    assert one.transport is trial
    assert scene.seen == [1]


def test_a_keyed_send_is_handled_once_and_answered_again(scene: Scene) -> None:
    one = scene.connect()
    scene.handlers.on("a/count")(lambda ev: scene.seen.append(1) or len(scene.seen))
    for cb in ("c1", "c2"):
        scene.message(one, f'[[:a/count] "{cb}" {{"key" "k"}}]')
    assert texts(one) == ['[1 "c1"]', '[1 "c2"]']
    assert scene.worker.counters["repeated"] == 1


def test_a_client_of_sentes_has_no_keys(scene: Scene) -> None:
    one = scene.connect(v1=False, digest="")
    for _ in range(2):
        scene.message(one, '[[:a/note 1] nil {"key" "k"}]')
    assert scene.seen == [1, 1]


def test_more_events_than_the_rate_allows_close_the_client() -> None:
    scene = Scene(rate=(1.0, 2))
    one = scene.connect()
    for number in range(3):
        scene.message(one, f"[[:a/note {number}]]")
    assert scene.seen == [0, 1]
    assert told(one)[-1] == (s.FLOODING, "more events per second than CHSK_RATE")


def test_pings_take_no_events_place() -> None:
    scene = Scene(rate=(1.0, 2))
    one = scene.connect()
    for _ in range(5):
        scene.message(one, "[[:chsk/ws-ping]]")
    scene.message(one, "[[:chsk/batch [[:a/note 1] [:a/note 2]]]]")
    assert scene.seen == [1, 2]


def test_an_answer_to_no_question_is_counted(scene: Scene) -> None:
    scene.message(scene.connect(), '[[:chsk/answer ["nothing" 1]]]')
    assert scene.worker.counters["answers_unasked"] == 1


# By POST --------------------------------------------------------------------------------


def test_a_post_is_answered_with_the_reply_of_its_handler(scene: Scene) -> None:
    assert scene.post("[[:a/add 1] true]") == b"[2 nil]"


def test_a_post_that_wants_no_reply_is_answered_at_once(scene: Scene) -> None:
    assert scene.post("[[:a/note 1]]", work=False) == "[:chsk/dummy-cb-200 nil]"
    scene.hub.work()
    assert scene.seen == [1]


def test_a_deferred_reply_that_does_not_come_is_a_timeout(scene: Scene) -> None:
    scene.handlers.on("a/later")(lambda ev: ev.defer())
    assert scene.post("[[:a/later] true]") == b"[:chsk/timeout nil]"


def test_a_post_that_a_browser_repeats_is_handled_once(scene: Scene) -> None:
    for number in (1, 1, 2):
        scene.post("[[:a/note 1]]", number=number)
    assert scene.seen == [1, 1]
    assert scene.post("[[:a/add 1] true]", number=3) == b"[2 nil]"
    assert scene.post("[[:a/add 1] true]", number=3) == b"[2 nil]"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("[[:chsk/ws-ping] true]", '["pong" nil]'),
        ("[[:chsk/ws-ping]]", "[:chsk/dummy-cb-200 nil]"),
        ("[[:chsk/ws-pong]]", "[:chsk/dummy-cb-200 nil]"),
        ('[[:chsk/answer ["nothing" 1]]]', "[:chsk/dummy-cb-200 nil]"),
        ("[[:chsk/batch []]]", "[:chsk/dummy-cb-200 nil]"),
    ],
)
def test_messages_of_the_protocol_are_answered_at_once(
    scene: Scene, text: str, answer: str
) -> None:
    assert scene.post(text) == answer


def refusal(scene: Scene, text: str = "[[:a/note 1]]") -> tuple[int, str]:
    with pytest.raises(Refused) as refused:
        scene.post(text, work=False)
    return refused.value.status, str(refused.value)


def test_a_post_is_refused_while_the_worker_drains(scene: Scene) -> None:
    scene.clients.drain()
    assert refusal(scene)[0] == 503


def test_a_post_is_refused_while_too_much_waits_in_the_worker(scene: Scene) -> None:
    scene.worker.budget.waiting = 10**9
    assert refusal(scene)[0] == 503
    assert scene.worker.counters["intake_full"] == 1


def test_a_post_is_refused_while_too_many_events_of_its_client_wait() -> None:
    scene = Scene(max_inbox=2)
    for number in range(2):
        scene.post(f"[[:a/note {number}]]", work=False)
    assert refusal(scene)[0] == 429
    scene.hub.work()
    scene.post("[[:a/note 2]]")
    assert scene.seen == [0, 1, 2]


def test_a_post_waits_for_its_handlers_where_half_of_an_inbox_is_full() -> None:
    scene = Scene(max_inbox=4)
    incoming = s.Received(Event(Keyword("a/note"), 1))
    first = scene.receiver.posted(scene.opening(), incoming)
    second = scene.receiver.posted(scene.opening(), incoming)
    assert first == "[:chsk/dummy-cb-200 nil]"
    assert isinstance(second, Pending)


def test_a_post_that_comes_too_fast_is_told_when_to_come_again() -> None:
    scene = Scene(rate=(1.0, 1))
    scene.post("[[:a/note 1]]")
    assert refusal(scene)[0] == 429


def test_an_address_may_make_so_many_requests() -> None:
    scene = Scene(rate_per_address=(1.0, 2))
    address = "192.0.2.1"
    waits = [scene.receiver.address_too_fast(address) for _ in range(3)]
    assert waits == [0, 0, 1]
    assert scene.receiver.address_too_fast("192.0.2.2") == 0

"""Handlers of one client run one after another; those of others, and pings, do not wait."""

from __future__ import annotations

import http.client
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

from tests.e2e.wire.conftest import Wire
from tests.process import WAIT, eventually

CONFIG = {"max_inbox": 16}
TURNS = list(range(1, 21))


def test_events_of_one_client_are_handled_in_the_order_sent(wire: Wire) -> None:
    """Odd ones are quick, even ones slow; a ping is answered meanwhile."""
    peer = wire.peer("order")
    peer.open()
    peer.say("[:test/sleep 2]", '"slept"')
    for number in TURNS[:10]:
        peer.say(f"[:test/turn {number}]")
    peer.say("[:chsk/ws-ping]", '"ping"')
    for number in TURNS[10:]:
        peer.say(f"[:test/turn {number}]")
    assert [peer.read()[:2], peer.read()[:2]] == [["pong", "ping"], ["slept", "slept"]]
    assert [event[1] for event in peer.events(len(TURNS))] == TURNS


def test_events_by_post_are_handled_in_the_order_sent(wire: Wire) -> None:
    peer = wire.peer("order-post")
    peer.hello()
    for number in TURNS[:10]:  # as many as may wait
        assert peer.post(f"[:test/turn {number}]") == "chsk/dummy-cb-200"
    turned: list[int] = []
    while len(turned) < 10:
        turned += [event[1] for event in peer.poll()]
    assert turned == TURNS[:10]


def test_a_batch_is_handled_in_its_order(wire: Wire) -> None:
    peer = wire.peer("order-batch")
    peer.hello()
    batch = " ".join(f"[:test/turn {number}]" for number in TURNS)
    assert peer.post(f"[:chsk/batch [{batch}]]") == "chsk/dummy-cb-200"
    turned: list[int] = []
    while len(turned) < len(TURNS):
        turned += [event[1] for event in peer.poll()]
    assert turned == TURNS


def test_a_concurrent_handler_does_not_wait(wire: Wire) -> None:
    peer = wire.peer("beside")
    peer.open()
    peer.say("[:test/sleep 2]", '"slept"')
    peer.say("[:test/beside 0]", '"beside"')
    assert [peer.read()[:2], peer.read()[:2]] == [["beside", "beside"], ["slept", "slept"]]


def test_a_slow_concurrent_handler_holds_nobody_up(wire: Wire) -> None:
    peer = wire.peer("beside-slow")
    peer.open()
    peer.say("[:test/beside 2]", '"beside"')
    peer.say("[:test/echo 1]", '"echo"')
    assert [peer.read()[1], peer.read()[1]] == ["echo", "beside"]


def test_one_clients_slow_handler_is_nobody_elses(wire: Wire) -> None:
    slow, quick = wire.peer("slow"), wire.peer("quick")
    slow.open()
    quick.open()
    slow.say("[:test/sleep 3]", '"slept"')
    assert [quick.ask(f"[:test/echo {number}]") for number in range(20)] == list(range(20))
    assert wire.get("/stats")["inboxes"] == 1  # it still sleeps
    assert slow.read()[:2] == ["slept", "slept"]


def test_twenty_slow_handlers_run_beside_each_other(wire: Wire) -> None:
    peers = [wire.peer(f"crowd{number}") for number in range(20)]
    for peer in peers:
        peer.open()
    for peer in peers:
        peer.say("[:test/sleep 4]", '"slept"')
    eventually(lambda: wire.get("/stats")["inboxes"] == 20)
    assert [peer.read()[0] for peer in peers] == ["slept"] * 20


def test_a_full_inbox_stops_the_reading_and_loses_nothing(wire: Wire) -> None:
    peer = wire.peer("flood")
    peer.open()
    for number in range(200):
        peer.say("[:test/sleep 0.01]" if number % 20 == 0 else "[:test/echo 1]", str(number))
    assert [peer.read()[1] for _ in range(200)] == list(range(200))
    assert peer.ask("[:test/echo 2]") == 2


def test_who_waits_for_each_answer_never_fills_an_inbox(wire: Wire) -> None:
    peer = wire.peer("burst-post")
    batch = " ".join(["[:test/sleep 0.001]"] * 20)
    for _ in range(10):
        assert peer.post_raw(f"[[:chsk/batch [{batch}]] nil]") == (200, "[:chsk/dummy-cb-200 nil]")


def test_a_deferred_reply_holds_no_later_event_back(wire: Wire) -> None:
    """The head of its answer, which our clients wait for, comes before it."""
    peer = wire.peer("deferred-post")
    connection = http.client.HTTPConnection("127.0.0.1", wire.port, timeout=WAIT)
    form = urlencode({**peer.params, "ppstr": '[[:test/defer 1] "cb"]'})
    fields = {"Content-Type": "application/x-www-form-urlencoded", **peer.proofs()}
    connection.request("POST", "/chsk", form, fields)
    response = connection.getresponse()
    assert response.status == 200
    assert wire.do("/deferred") == {"replied": [True]}
    assert response.read() == b"[{:late 1} nil]"
    connection.close()


def test_a_full_inbox_refuses_a_post_for_now(wire: Wire) -> None:
    peer = wire.peer("flood-post")

    def send(number: int) -> tuple[int, str]:
        return peer.post_raw("[[:test/sleep 0.3] nil]")

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(send, range(40)))
    refused = [text for status, text in answers if status == 429]
    assert {status for status, _ in answers} == {200, 429}
    assert all("(CHSK_MAX_INBOX)" in text for text in refused)

"""Events leave while their sender still runs, from wherever it runs, to whom they are for."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.wire.conftest import Wire

PLACES = ["view", "view-busy", "greenlet", "thread", "threadpool", "native-thread"]


@pytest.mark.parametrize("where", PLACES)
def test_an_event_arrives_while_its_sender_still_runs(
    wire: Wire, where: str, tmp_path: Path
) -> None:
    """Also while it burns CPU, which holds all of a gevent worker up."""
    socket, poller = wire.peer(f"from-{where}"), wire.peer(f"from-{where}")
    socket.open()
    poller.hello()
    until = tmp_path / "arrived"
    with ThreadPoolExecutor() as pool:
        sending = pool.submit(wire.do, f"/send-from/{where}", to=f"from-{where}", until=str(until))
        try:
            assert socket.events(1) == [["test/from", where]]
            if where != "view-busy":
                assert poller.poll() == [["test/from", where]]
            assert not sending.done()
        finally:
            until.touch()
        sending.result()


def test_an_event_arrives_while_the_handler_that_sent_it_still_runs(wire: Wire) -> None:
    peer, other = wire.peer("sender"), wire.peer("receiver")
    peer.open()
    other.open()
    peer.say('[:test/push {:to "receiver" :n 2 :gap 1000}]', '"pushed"')
    assert other.events(1) == [["test/item", 0]]
    assert peer.ask("[:chsk/ws-ping]") == "pong"  # the handler has not replied yet
    assert peer.read()[:2] == [{"pushed": 2}, "pushed"]


def test_a_user_gets_it_on_every_client(wire: Wire) -> None:
    sockets = [wire.peer("many") for _ in range(2)] + [wire.sente("many")]
    poller = wire.peer("many")
    for peer in sockets:
        peer.open()
    poller.hello()
    assert len(set(wire.do("/send", to="many", count=3)["offsets"])) == 3
    items = [["test/item", number] for number in range(3)]
    assert [peer.events(3) for peer in sockets] == [items] * 3
    got: list[list[object]] = []
    while len(got) < 3:
        got += poller.poll()
    assert got == items


def test_nobody_else_gets_it(wire: Wire) -> None:
    ann, bob, nobody = wire.peer("only-ann"), wire.peer("only-bob"), wire.peer()
    for peer in (ann, bob, nobody):
        peer.open()
    wire.do("/send", to="only-ann", count=1)
    assert ann.events(1) == [["test/item", 0]]
    assert [bob.ask("[:test/echo 1]"), nobody.ask("[:test/echo 2]")] == [1, 2]


def test_a_user_who_is_not_there_is_sent_nothing(wire: Wire) -> None:
    assert wire.do("/send", to="absent", count=2) == {"offsets": [None, None]}
    assert wire.get("/stats")["dropped_absent"] == 2


def test_all_without_a_uid_are_addressed_together(wire: Wire) -> None:
    nobodies = [wire.peer(), wire.sente(), wire.peer()]
    somebody = wire.peer("somebody")
    for peer in (*nobodies, somebody):
        peer.open()
    wire.do("/send", count=1)
    assert [peer.events(1) for peer in nobodies] == [[["test/item", 0]]] * 3
    assert somebody.ask("[:test/echo 1]") == 1


def test_an_event_goes_back_to_the_very_client_that_asked(wire: Wire) -> None:
    one, other = wire.peer(), wire.peer()
    one.open()
    other.hello()
    assert other.post("[:test/tell-me 2]", ":ajax") == "told"
    assert other.poll() == [["test/told", 2]]
    assert one.ask("[:test/echo 1]") == 1


def test_a_broadcast_reaches_all_but_its_sender(wire: Wire) -> None:
    sender, tab = wire.peer("caster"), wire.peer("caster")
    others = [wire.peer("listener"), wire.sente("listener"), wire.peer(), wire.sente()]
    poller = wire.peer("listening-poller")
    for peer in (sender, tab, *others):
        peer.open()
    poller.hello()
    sender.say('[:test/broadcast "hi"]')
    said = [["test/said", "hi"]]
    assert [peer.events(1) for peer in (tab, *others)] == [said] * 5
    assert poller.poll() == said
    assert sender.ask("[:test/echo 1]") == 1


def test_what_one_sender_sends_arrives_in_its_order(wire: Wire) -> None:
    peer = wire.sente("ordered")
    peer.open()
    assert wire.do("/send", to="ordered", count=500)["offsets"][0] is not None
    assert [event[1] for event in peer.events(500)] == list(range(500))


def test_a_flushed_event_does_not_wait_for_its_window(wire: Wire) -> None:
    peer = wire.peer("flush")
    peer.open()
    peer.say('[:test/push {:to "flush" :n 3 :flush? true}]', '"pushed"')
    events: list[list[object]] = []
    frames = 0
    while len(events) < 3:
        events += peer.read()[0]
        frames += 1
    assert events == [["test/item", number] for number in range(3)]
    assert frames == 3 or "flask" in wire.server.command  # whose hub may be a moment behind


@pytest.mark.parametrize("kind", ["gunicorn-gevent", "flask-run"])
def test_the_first_leaves_at_once_and_the_rest_together(
    serve: Callable[..., Wire], kind: str
) -> None:
    wire = serve(kind, send_buf_ws=2.0)  # longer than ten sends take
    peer = wire.peer("window")
    peer.open()
    wire.do("/send", to="window", count=10)
    assert peer.read()[0] == [["test/item", 0]]
    assert peer.read()[0] == [["test/item", number] for number in range(1, 10)]

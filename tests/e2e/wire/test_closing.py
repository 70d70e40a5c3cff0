"""A close takes effect at once; its words leave after the response of the view that closed."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import pytest
import websocket

from tests.e2e.wire.conftest import Client, Wire
from tests.peer import Closed
from tests.process import WAIT, eventually

APP = "tests.e2e.wire.closing:app"
SIGNED_OUT = (4005, "signed out")
TOLD = [["chsk/close", {"code": 4005, "reason": "signed out"}]]
SILENCE = 0.6  # seconds in which a word that does not wait would have come

numbers = itertools.count()


@pytest.fixture(scope="module")
def wire(serve: Callable[..., Wire]) -> Wire:
    return serve(app=APP)


@pytest.fixture(scope="module")
def threaded(serve: Callable[..., Wire]) -> Wire:
    """Werkzeug's server: native threads."""
    return serve("flask-run", app=APP)


@pytest.fixture(params=["wire", "threaded"])
def either(request: pytest.FixtureRequest) -> Wire:
    found: Wire = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def ann() -> str:
    return f"ann{next(numbers)}"


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


class Tab:
    """A client that listens: what it hears is in `heard`, how it ended in `ended`."""

    def __init__(self, peer: Client, kind: str, pool: ThreadPoolExecutor) -> None:
        self.peer = peer
        self.kind = kind
        self.heard: list[Any] = []
        peer.open() if kind == "ws" else peer.hello()
        self.listening = pool.submit(self._listen)

    def _listen(self) -> tuple[int | None, str]:
        while True:
            try:
                events = self.peer.read()[0] if self.kind == "ws" else self.peer.poll()
            except Closed as closed:
                return closed.code, closed.reason
            for event in events:
                if event[0] == "chsk/close":
                    return event[1]["code"], event[1]["reason"]
                self.heard.append(event[1])


class Tabs:
    """A user's two tabs, one on each transport."""

    def __init__(self, wire: Wire, uid: str, pool: ThreadPoolExecutor) -> None:
        self.tabs = [Tab(wire.peer(uid), kind, pool) for kind in ("ws", "ajax")]
        eventually(lambda: wire.get("/stats")["parked"])

    def hear_nothing(self) -> bool:
        """Whether they go on as if nothing had happened."""
        done, _ = wait([tab.listening for tab in self.tabs], SILENCE, FIRST_COMPLETED)
        return not done and not any(tab.heard for tab in self.tabs)

    def are_signed_out(self) -> bool:
        """Whether both are told, within the time that it may take."""
        return [tab.listening.result(WAIT) for tab in self.tabs] == [SIGNED_OUT] * 2


def begin_to_close(
    wire: Wire, uid: str, how: str, pool: ThreadPoolExecutor, at: Wire | None = None, **form: str
) -> Future[Any]:
    """A view closes, and has not answered yet; *at* is where the connections are."""
    before = (at or wire).get("/stats").get("closed", 0)
    answer = pool.submit(wire.do, f"/close/{uid}/{how}", **form)
    eventually(lambda: (at or wire).get("/stats").get("closed", 0) > before)
    return answer


@pytest.mark.parametrize("how", ["return", "raise"])
def test_pages_are_told_when_the_response_has_ended(
    either: Wire, ann: str, pool: ThreadPoolExecutor, how: str
) -> None:
    tabs = Tabs(either, ann, pool)
    answer = begin_to_close(either, ann, how, pool)
    stats = either.get("/stats")
    assert (ann in stats["there"], stats["closes_waiting"]) == (False, 2)
    assert either.do(f"/send/{ann}", number=1)["offset"] is not None  # for who comes back
    assert tabs.hear_nothing()
    either.do(f"/go/{ann}")
    assert tabs.are_signed_out()
    if how == "return":
        assert answer.result() == {"closed": ann}
    else:
        either.expected_tracebacks += 1
    stats = either.get("/stats")
    assert (stats["closes_waiting"], stats.get("closes_timed_out", 0)) == (0, 0)


@pytest.mark.parametrize("how", ["file", "empty", "stream"])
def test_every_kind_of_response_has_an_end(
    wire: Wire, ann: str, pool: ThreadPoolExecutor, how: str
) -> None:
    tabs = Tabs(wire, ann, pool)
    begin_to_close(wire, ann, how, pool)
    assert tabs.hear_nothing()
    wire.do(f"/go/{ann}")
    assert tabs.are_signed_out()
    assert wire.get("/stats").get("closes_timed_out", 0) == 0


def test_now_does_not_wait(either: Wire, ann: str, pool: ThreadPoolExecutor) -> None:
    tabs = Tabs(either, ann, pool)
    answer = begin_to_close(either, ann, "now", pool)
    assert tabs.are_signed_out()
    assert not answer.done()
    either.do(f"/go/{ann}")


@pytest.mark.parametrize("kind", ["ws", "ajax"])
def test_a_handler_is_no_view(wire: Wire, ann: str, pool: ThreadPoolExecutor, kind: str) -> None:
    tabs = Tabs(wire, ann, pool)
    if kind == "ws":
        tabs.tabs[0].peer.say("[:test/close]")
    else:
        tabs.tabs[1].peer.post("[:test/close]")
    assert tabs.are_signed_out()
    assert wire.get("/stats").get("closes_timed_out", 0) == 0


def test_who_comes_back_meanwhile_is_not_closed(
    wire: Wire, ann: str, pool: ThreadPoolExecutor
) -> None:
    tabs = Tabs(wire, ann, pool)
    begin_to_close(wire, ann, "return", pool)
    again = [
        Tab(wire.peer(ann, **{"client-id": tab.peer.params["client-id"]}), tab.kind, pool)
        for tab in tabs.tabs
    ]
    wire.do(f"/send/{ann}", number=7)
    eventually(lambda: [tab.heard for tab in again] == [["7"], ["7"]])
    assert tabs.hear_nothing()
    wire.do(f"/go/{ann}")
    assert tabs.are_signed_out()
    wire.do(f"/send/{ann}", number=8)
    eventually(lambda: [tab.heard for tab in again] == [["7", "8"]] * 2)
    wire.do(f"/say-and-close/{ann}")
    assert [tab.listening.result(WAIT) for tab in again] == [SIGNED_OUT] * 2


def test_one_client_of_several_is_closed(wire: Wire, ann: str, pool: ThreadPoolExecutor) -> None:
    tabs = Tabs(wire, ann, pool)
    one, other = tabs.tabs
    begin_to_close(wire, ann, "return", pool, client=one.peer.params["client-id"])
    wire.do(f"/send/{ann}", number=1)
    eventually(lambda: other.heard == ["1"])
    assert not one.listening.done()
    wire.do(f"/go/{ann}")
    assert one.listening.result(WAIT) == SIGNED_OUT
    assert (one.heard, other.listening.done()) == ([], False)
    wire.do(f"/say-and-close/{ann}")
    assert other.listening.result(WAIT) == SIGNED_OUT


@pytest.mark.parametrize("v", ["1", ""])
def test_a_closed_socket_is_neither_heard_nor_answered(
    wire: Wire, ann: str, pool: ThreadPoolExecutor, v: str
) -> None:
    peer = wire.peer(ann, v=v)
    peer.open()
    begin_to_close(wire, ann, "return", pool)
    peer.say("[:test/echo 1]", '"cb"')
    peer.socket.settimeout(SILENCE)
    with pytest.raises(websocket.WebSocketTimeoutException):
        peer.read()
    peer.socket.settimeout(WAIT)
    wire.do(f"/go/{ann}")
    with pytest.raises(Closed):
        peer.read()


def test_what_a_socket_was_sent_before_the_close_arrives_before_it(
    wire: Wire, ann: str, pool: ThreadPoolExecutor
) -> None:
    tab = Tab(wire.peer(ann), "ws", pool)
    wire.do(f"/say-and-close/{ann}")
    assert (tab.listening.result(WAIT), tab.heard) == (SIGNED_OUT, [0, 1, 2])


def test_between_two_polls_the_next_one_waits(
    wire: Wire, ann: str, pool: ThreadPoolExecutor
) -> None:
    peer = wire.peer(ann)
    peer.hello()
    begin_to_close(wire, ann, "return", pool)
    polling = pool.submit(peer.poll)
    with pytest.raises(TimeoutError):
        polling.result(SILENCE)
    wire.do(f"/go/{ann}")
    assert polling.result(WAIT) == TOLD


def test_a_poll_whose_time_is_over_waits_on(
    serve: Callable[..., Wire], ann: str, pool: ThreadPoolExecutor
) -> None:
    wire = serve(app=APP, env={"LP_TIMEOUT": "1.0"})
    tab = Tab(wire.peer(ann), "ajax", pool)
    begin_to_close(wire, ann, "return", pool)
    with pytest.raises(TimeoutError):
        tab.listening.result(2.0)
    wire.do(f"/go/{ann}")
    assert tab.listening.result(WAIT) == SIGNED_OUT


def test_a_response_without_end_holds_nobody_for_ever(
    serve: Callable[..., Wire], pool: ThreadPoolExecutor
) -> None:
    wire = serve(app=APP)
    streamed, copied = Tabs(wire, "streamed", pool), Tabs(wire, "copied", pool)
    begin_to_close(wire, "streamed", "stream", pool)
    begin_to_close(wire, "copied", "thread", pool)  # in a copied context, which has no response
    assert streamed.are_signed_out() and copied.are_signed_out()
    assert wire.get("/stats")["closes_timed_out"] == 4
    wire.do("/go/streamed")
    wire.do("/go/copied")


def test_a_worker_that_ends_says_what_it_holds(
    serve: Callable[..., Wire], ann: str, pool: ThreadPoolExecutor
) -> None:
    wire = serve(app=APP, env={"GUNICORN_CMD_ARGS": "--no-control-socket --graceful-timeout 1"})
    tabs = Tabs(wire, ann, pool)
    begin_to_close(wire, ann, "return", pool)
    wire.server.kill(signal.SIGTERM)
    assert tabs.are_signed_out()


# Several workers -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(serve: Callable[..., Wire], redis_url: str) -> tuple[Wire, Wire]:
    """Workers that share a Redis."""
    env = {"CHSK_BROKER_URL": f"{redis_url}?prefix=closing"}
    return serve(app=APP, env=env), serve(app=APP, env=env)


def test_another_worker_waits_for_the_response(
    two: tuple[Wire, Wire], ann: str, pool: ThreadPoolExecutor
) -> None:
    here, there = two
    tabs = Tabs(here, ann, pool)
    begin_to_close(there, ann, "return", pool, at=here)
    eventually(lambda: here.get("/stats")["closes_waiting"] == 2)
    there.do(f"/send/{ann}", number=1)
    assert tabs.hear_nothing()
    there.do(f"/go/{ann}")
    assert tabs.are_signed_out()
    assert here.get("/stats").get("closes_timed_out", 0) == 0


@pytest.mark.parametrize("go_first", [False, True])
def test_a_poll_that_comes_elsewhere_is_told_as_well(
    two: tuple[Wire, Wire], ann: str, pool: ThreadPoolExecutor, go_first: bool
) -> None:
    here, there = two
    peer = here.peer(ann)
    peer.hello()
    begin_to_close(there, ann, "return", pool, at=here)
    peer.port = there.port
    if go_first:
        there.do(f"/go/{ann}")
        assert peer.poll() == TOLD
    else:
        polling = pool.submit(peer.poll)
        with pytest.raises(TimeoutError):
            polling.result(SILENCE)
        there.do(f"/go/{ann}")
        assert polling.result(WAIT) == TOLD
    assert there.get("/stats").get("closes_timed_out", 0) == 0


def test_a_poll_that_comes_after_the_response_is_told_at_once(
    two: tuple[Wire, Wire], ann: str, pool: ThreadPoolExecutor
) -> None:
    here, there = two
    peer = here.peer(ann)
    peer.hello()
    begin_to_close(there, ann, "return", pool, at=here)
    there.do(f"/go/{ann}")
    assert peer.poll() == TOLD  # this worker asks the other, which has answered long since
    assert here.get("/stats").get("closes_timed_out", 0) == 0


def test_a_worker_that_dies_before_its_response_holds_nobody_for_ever(
    serve: Callable[..., Wire], redis_url: str, ann: str, pool: ThreadPoolExecutor
) -> None:
    env = {"CHSK_BROKER_URL": f"{redis_url}?prefix=closing-dies"}
    here, there = serve(app=APP, env=env), serve(app=APP, env=env)
    tabs = Tabs(here, ann, pool)
    begin_to_close(there, ann, "return", pool, at=here)
    there.server.stop(signal.SIGKILL)
    assert tabs.are_signed_out()
    assert here.get("/stats")["closes_timed_out"] == 2

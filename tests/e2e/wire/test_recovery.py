"""Cuts, on any transport: inside the window each event once and in order, outside it a clear no."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import websocket

from tests.e2e.wire.conftest import Client, Wire
from tests.peer import Closed
from tests.process import eventually

CONFIG = {"lp_timeout": 0.5, "recovery_events": 1000}
COUNT = 200


class Reader(Client):
    """One of ours (docs/protocol.rst): drops what is not above its cursor, notes the rest."""

    def __init__(self, wire: Wire, uid: str) -> None:
        super().__init__(wire.port, v="1", uid=uid)
        wire.peers.append(self)
        self.seen: list[Any] = []
        self.gaps = 0
        self.random = random.Random(uid)  # the same cuts in every run

    def _note(self, message: list[Any]) -> None:
        if len(message) < 3 or not isinstance(message[2], str):
            return
        value = message[0]
        events = value if type(value) is list else [None]  # a cursor alone
        epoch, _, steps = message[2].partition(":")
        here, offset = int(self.cursor.partition(":")[2]), 0
        for event, step in zip(events, steps.split(","), strict=True):
            offset += int(step)
            if offset > here and event is not None:
                self.take(event)
        self.cursor = f"{epoch}:{max(here, offset)}"

    def take(self, event: list[Any]) -> None:
        if event[0] == "chsk/gap":
            self.gaps += 1
        else:
            self.seen.append(event[1])

    def _greeted(self, message: list[Any]) -> list[Any]:
        before = self.cursor
        handshake = super()._greeted(message)
        if handshake[3]["recovered"]:
            assert self.cursor == before
        return handshake

    def come(self) -> None:
        """Open a WebSocket, and say something, by which the server trusts it."""
        self.open()
        self.say("[:chsk/ws-ping]")

    # What happens to a client, at random ---------------------------------------------------

    def listen(self) -> None:
        """Over one WebSocket, until it is cut at some moment."""
        self.come()
        frames = self.random.randrange(1, 40)
        with contextlib.suppress(Closed, websocket.WebSocketException, OSError):
            while frames and len(self.seen) < COUNT:
                self.read()
                frames -= 1
        self.cut()

    def ask_around(self) -> None:
        """Some polls, of whose answers the network takes some."""
        self.hello()
        for _ in range(self.random.randrange(1, 8)):
            if self.random.random() < 0.3:
                self.number += 1
                self.get(n=str(self.number))  # answered, and nobody heard it
            elif len(self.seen) < COUNT:
                self.poll()

    def either(self) -> None:
        self.random.choice([self.listen, self.ask_around])()


def gone(wire: Wire, peer: Client) -> None:
    """Wait until the server has forgotten a user's only client."""
    eventually(lambda: peer.params["uid"] not in wire.get("/uids")["any"])


@contextlib.contextmanager
def sending(wire: Wire, uid: str) -> Iterator[None]:
    """While numbered events are sent to *uid*, over a second or so."""
    with ThreadPoolExecutor() as pool:
        sent = pool.submit(wire.do, "/send", to=uid, count=COUNT, every=0.005)
        yield
        assert None not in sent.result()["offsets"]


@pytest.mark.parametrize("over", [Reader.listen, Reader.ask_around, Reader.either])
def test_whatever_is_cut_each_event_comes_once_and_in_order(
    wire: Wire, over: Callable[[Reader], None]
) -> None:
    reader = Reader(wire, f"cut-{over.__name__}")
    reader.come()
    with sending(wire, reader.params["uid"]):
        while len(reader.seen) < COUNT:
            over(reader)
    assert (reader.seen, reader.gaps) == (list(range(COUNT)), 0)


def test_an_answer_that_got_lost_is_given_again(wire: Wire) -> None:
    reader = Reader(wire, "lost")
    reader.hello()
    wire.do("/send", to="lost", count=1)
    assert "[[[:test/item 0]] nil" in reader.get()[1]
    assert "[[[:test/item 0]] nil" in reader.get()[1]
    reader.poll()
    assert reader.seen == [0]
    reader.poll()
    assert reader.seen == [0]  # acknowledged by that poll's cursor


def test_sentes_clients_get_what_came_while_they_were_away_within_the_grace(wire: Wire) -> None:
    peer = wire.sente("away")
    peer.open()
    peer.close()  # what leaves before the server notices a cut is lost
    wire.get("/stats")
    wire.do("/send", to="away", count=3)
    peer.open()
    assert peer.events(3) == [["test/item", number] for number in range(3)]


def test_what_came_over_another_channel_comes_in_its_place(wire: Wire) -> None:
    reader, other = Reader(wire, "channels"), wire.peer("channels-other")
    reader.open()
    other.open()
    reader.cut()
    wire.do("/send", to="channels", count=1)
    other.say('[:test/broadcast "all"]')
    other.ask("[:test/echo 1]")  # its handler runs behind that of the broadcast
    wire.do("/send", to="channels", start=1, count=1)
    reader.open()
    while len(reader.seen) < 3:
        reader.read()
    assert reader.seen == [0, "all", 1]


def test_a_socket_on_trial_takes_over_when_it_speaks(wire: Wire) -> None:
    reader = Reader(wire, "trial")
    reader.hello()
    reader.open()
    with ThreadPoolExecutor() as pool:
        polling = pool.submit(reader.poll)
        wire.do("/send", to="trial", count=1)
        assert polling.result() == [["test/item", 0]]  # polls go on meanwhile
    wire.do("/send", to="trial", start=1, count=1)
    reader.say("[:test/echo 1]")
    while len(reader.seen) < 2:
        reader.read()
    assert reader.seen == [0, 1]


def test_a_socket_that_never_speaks_ends_with_its_client(serve: Callable[..., Wire]) -> None:
    wire = serve(close_grace_ajax=2.0)
    peer = wire.peer("mute")
    peer.hello()
    peer.open()
    with pytest.raises(Closed) as closed:
        peer.read()
    assert closed.value.code == 1013
    assert wire.get("/stats")["clients"] == 0


# Outside the window ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(serve: Callable[..., Wire]) -> Wire:
    """A server that keeps ten events, and 64 KiB for a client that does not read."""
    return serve(
        recovery_events=10,
        max_message_bytes=32 * 1024,
        max_outbox_bytes=64 * 1024,
        lp_timeout=0.5,
        close_grace_ws=0.3,
        close_grace_ajax=0.3,
    )


@pytest.mark.parametrize("transport", [Reader.open, Reader.hello])
def test_outside_the_window_nothing_is_recovered_and_nothing_partial_comes(
    small: Wire, transport: Callable[[Reader], list[Any]]
) -> None:
    reader = Reader(small, f"outside-{transport.__name__}")
    transport(reader)
    before = reader.cursor
    reader.cut()
    gone(small, reader)
    small.do("/send", to=reader.params["uid"], count=11)
    assert transport(reader)[3]["recovered"] is False
    assert int(reader.cursor.partition(":")[2]) > int(before.partition(":")[2])
    small.do("/send", to=reader.params["uid"], start=11, count=1)
    while not reader.seen:
        reader.poll() if transport is Reader.hello else reader.read()
    assert (reader.seen, reader.gaps) == ([11], 0)


def test_at_the_edge_of_the_window_all_is_recovered(small: Wire) -> None:
    reader = Reader(small, "edge")
    reader.open()
    reader.cut()
    gone(small, reader)
    small.do("/send", to="edge", count=10)
    assert reader.open()[3]["recovered"] is True
    while len(reader.seen) < 10:
        reader.read()
    assert reader.seen == list(range(10))


def test_a_poll_with_a_cursor_too_old_is_told_of_the_gap(serve: Callable[..., Wire]) -> None:
    wire = serve(recovery_events=10, lp_timeout=0.5)
    reader = Reader(wire, "old-poll")
    reader.hello()
    old = reader.cursor
    wire.do("/send", to="old-poll", count=11)
    while len(reader.seen) < 11:
        reader.poll()
    reader.poll()  # acknowledges, so only history could give them again
    reader.cursor = old
    reader.poll()
    assert (reader.seen, reader.gaps) == (list(range(11)), 1)


def test_who_reads_too_slowly_for_history_is_told_of_the_gap_and_goes_on(small: Wire) -> None:
    reader = Reader(small, "slow")
    reader.open()
    small.do("/send", to="slow", count=1000, of=20_000)  # 20 MB: more than sockets hold
    small.do("/send", to="slow", start=1000, count=1)
    while reader.seen[-1:] != [1000]:
        reader.read()
    numbers = [item[0] for item in reader.seen[:-1]]
    assert {item[1] for item in reader.seen[:-1]} == {"x" * 20_000}
    missing = [(a, b) for a, b in itertools.pairwise(numbers) if b != a + 1]
    assert all(a < b for a, b in missing)
    assert reader.gaps >= 1


# What a cursor and a token open ---------------------------------------------------------


@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize(
    "cursor", ["future", "7:7", "x", "e" * 41, "0", "another:1700000000000000", "negative"]
)
def test_a_cursor_that_cannot_be_recovers_nothing_and_loses_nothing(
    small: Wire, cursor: str, existing: bool
) -> None:
    reader = Reader(small, f"forged-{cursor[:9]}-{existing}")
    reader.open()
    epoch, _, offset = reader.cursor.partition(":")
    forged = {"future": f"{epoch}:{int(offset) + 10**12}", "negative": f"{epoch}:-1"}
    reader.cursor = forged.get(cursor, cursor)
    if not existing:
        reader.cut()
        gone(small, reader)
    kept, reader.cursor = reader.cursor, ""
    assert reader.open(cursor=kept)[3]["recovered"] is False
    small.do("/send", to=reader.params["uid"], count=1)
    reader.read()
    assert reader.seen == [0]


@pytest.mark.parametrize("resume", ["", "forged", "another's"])
def test_without_its_token_a_user_starts_at_now(small: Wire, resume: str) -> None:
    other = Reader(small, f"resume-{resume}-other")
    other.open()
    reader = Reader(small, f"resume-{resume}")
    reader.open()
    reader.cut()
    small.do("/send", to=reader.params["uid"], count=2)
    reader.resume = other.resume if resume == "another's" else resume
    assert reader.open()[3]["recovered"] is False
    small.do("/send", to=reader.params["uid"], start=2, count=1)
    reader.read()
    assert reader.seen == [2]


def test_nobodys_client_id_in_use_is_refused_without_its_secret(small: Wire) -> None:
    peer, thief = small.peer(), small.peer()
    peer.open()
    thief.params["client-id"] = peer.params["client-id"]
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        thief.open()
    assert refused.value.status_code == 409
    status, text = thief.get(**{"handshake?": "1"})  # type: ignore[arg-type]
    assert (status, text) == (
        409,
        "this client id is held by another client: take a new one, or try again when it is gone\n",
    )
    assert peer.ask("[:test/echo 1]") == 1

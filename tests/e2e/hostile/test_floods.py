"""Much of everything: events, pings, connects, polls, unfinished messages; who does not read."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

from flask_chsk.protocol.frames import PING, TEXT, Pong, build
from tests.e2e.hostile.conftest import MiB, Target
from tests.e2e.hostile.wire import EDN, MASK, Wire, head, text, upgrade
from tests.process import eventually

CONFIG = {"CHSK_MAX_INBOUND_BYTES": 16 * MiB, "CHSK_WS_KALIVE": 3600}


def test_a_flood_of_events_is_handled_in_order(target: Target) -> None:
    count = 20_000
    with target.within(24), target.opened() as wire:
        wire.send(b"".join(text(f"[[:test/echo {number}] {number}]") for number in range(count)))
        replies = [wire.read() for _ in range(count)]
    assert replies == [f"[{number} {number}]" for number in range(count)]


def test_a_flood_of_events_nobody_handles_is_told_once(target: Target) -> None:
    with target.within(24), target.opened() as wire:
        wire.send(b"".join(text(f"[[:flood/no{number}] nil]") for number in range(20_000)))
        assert wire.ask("[:test/echo 1]") == 1


def test_a_flood_of_rubbish_is_told_once(target: Target) -> None:
    with target.within(24), target.opened() as wire:
        wire.send(text("x") * 100_000)
        assert wire.ask("[:test/echo 1]") == 1


def test_a_flood_of_empty_pings_gets_few_pongs(target: Target) -> None:
    pings = 500_000
    with target.within(24), target.opened() as wire:
        sender = threading.Thread(
            target=wire.send,
            args=(build(PING, b"", mask=MASK) * pings + text('[[:test/echo 1] "end"]'),),
        )
        sender.start()
        pongs = 0
        while isinstance(message := wire.read(), Pong):
            pongs += 1
        sender.join()
    assert message == '[1 "end"]'
    assert pongs < pings / 100


def test_pings_by_one_who_does_not_read_pile_up_nowhere(target: Target) -> None:
    with target.within(24), target.opened() as wire:
        wire.socket.settimeout(3.0)
        ours = build(PING, b"x" * 125, mask=MASK) * 5000
        theirs = text('[[:chsk/ws-ping] "' + "x" * 100 + '"]') * 5000
        with contextlib.suppress(OSError):
            for _ in range(40):
                wire.send(ours + theirs)


def test_replies_to_one_who_does_not_read_end_at_the_limit(target: Target) -> None:
    with target.counts("too_slow"), target.within(64), target.opened() as wire:
        event = text('[[:test/echo "' + "x" * 100_000 + '"] "cb"]')
        for _ in range(400):
            if not wire.try_send(event):
                break


def test_pushes_to_one_who_does_not_read_end_at_the_limit(target: Target) -> None:
    """A client of ours is not closed for it: it falls behind, and history has the rest."""
    with target.within(48), target.opened("sleeper", "&uid=sleeper&v=1") as wire:
        for _ in range(4):
            target.get("/send/sleeper/100?size=100000")
        assert target.stats()["too_slow"] >= 0
        gaps = numbers = 0
        while not gaps and numbers < 400:
            for event in EDN.unpack(wire.read())[0]:
                gaps += event[0] == "chsk/gap"
                numbers += event[0] == "test/item"
    assert gaps or numbers == 400


def test_a_batch_of_a_hundred_thousand_events_is_no_event(target: Target) -> None:
    batch = "[[:chsk/batch [" + "[:a/b] " * 100_000 + "]] nil]"
    with target.within(48), target.opened() as wire:
        for _ in range(3):
            wire.send(text(batch))
        assert wire.ask("[:test/echo 1]") == 1


def test_large_events_that_wait_for_a_slow_handler_stop_the_reading(target: Target) -> None:
    with target.within(24), target.opened() as wire:
        wire.send(text("[[:test/sleep 1.5] nil]"))
        wire.socket.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            for _ in range(64):
                wire.send(text('[[:test/note "' + "x" * 1_000_000 + '"] nil]'))
        eventually(lambda: target.stats()["inboxes"] == 0)


def test_large_posts_that_wait_for_slow_handlers_are_refused(target: Target) -> None:
    def post(number: int) -> int:
        fields = {"client-id": f"poster{number}", "ppstr": "[[:test/sleep 6] nil]"}
        statuses = []
        for _ in range(3):
            body = urlencode(fields).encode()
            fields["ppstr"] = '[[:test/note "' + "x" * 900_000 + '"] nil]'
            request = {
                "Content-Type": "application/x-www-form-urlencoded",
                "Content-Length": str(len(body)),
            }
            statuses.append(target.request(head("/chsk", request, "POST") + body)[0])
        return statuses[-1]

    with target.within(160), ThreadPoolExecutor(10) as pool:
        statuses = list(pool.map(post, range(40)))
    assert {200, 503} >= set(statuses) >= {503}
    eventually(lambda: target.stats()["arriving"] < MiB)


def test_unfinished_messages_of_many_are_bounded_together(target: Target) -> None:
    """Each within its own limit: almost a mebibyte, and then silence."""
    part = b"\x82\xff" + MiB.to_bytes(8, "big") + MASK + b"x" * (MiB - 1)
    wires: list[Wire] = []
    with target.counts("arrivals_given_up"), target.within(40):
        for number in range(60):
            wires.append(target.opened(f"hoarder{number}"))
            wires[-1].try_send(part)
        with target.opened("honest") as honest:  # whose message is large, but comes
            payload = "y" * 300_000
            assert honest.ask(f'[:test/echo "{payload}"]') == payload
    assert (
        sum(wire.closed() == (1013, "too much is arriving: try later") for wire in wires[:30]) > 0
    )


def test_unfinished_fragments_are_bounded_as_well(target: Target) -> None:
    first = build(TEXT, b"x" * 60_000, mask=MASK, fin=False)
    more = build(0, b"x" * 60_000, mask=MASK, fin=False)
    with target.counts("arrivals_given_up"), target.within(40):
        for number in range(40):
            target.opened(f"piecemeal{number}").try_send(first + more * 15)


def test_unfinished_posts_are_bounded_together(target: Target) -> None:
    request = head(
        "/chsk?client-id=a&binary%3F=1",
        {"Content-Type": "application/octet-stream", "Content-Length": str(MiB)},
        "POST",
    )
    with target.counts("arrivals_given_up"), target.within(48):
        for _ in range(40):
            target.wire().try_send(request + b"x" * (MiB - 1))
        target.get("/stats")
    target.cut()
    eventually(lambda: target.stats()["arriving"] == 0)


def test_a_flood_of_connects_leaves_nothing(target: Target) -> None:
    descriptors = target.server.descriptors()
    with target.within(40):
        for number in range(600):
            wire = target.wire()
            wire.send(upgrade(f"/chsk?client-id=flood{number}"))
            if number % 3 == 0:
                wire.answer()
            if number % 2:
                wire.reset()
            else:
                wire.socket.close()
    eventually(lambda: target.stats()["clients"] == 1)  # the bystander
    eventually(lambda: target.server.descriptors() <= descriptors + 2)


def test_a_flood_of_handshakes_by_ajax_leaves_nothing(target: Target) -> None:
    with target.within(40):
        for number in range(600):
            assert target.request(head(f"/chsk?client-id=ajax{number}&v=1"))[0] == 200
    eventually(lambda: target.stats()["clients"] == 1)


def test_one_clients_polls_that_chase_each_other_are_refused(target: Target) -> None:
    target.request(head("/chsk?client-id=chaser"))
    wires = [target.wire() for _ in range(30)]
    for wire in wires:
        wire.send(head("/chsk?client-id=chaser"))
    statuses = {wire.answer()[0] for wire in wires}
    assert statuses == {200, 429}


def test_parked_polls_that_are_hung_up_leave_nothing(target: Target) -> None:
    greenlets = target.get("/stats?collect=1")["greenlets"]
    for number in range(200):
        target.request(head(f"/chsk?client-id=parked{number}"))
    wires = [target.wire() for _ in range(200)]
    for number, wire in enumerate(wires):
        wire.send(head(f"/chsk?client-id=parked{number}"))
    target.cut()
    eventually(lambda: target.stats()["clients"] == 1)
    eventually(lambda: target.get("/stats?collect=1")["greenlets"] <= greenlets + 70)


def test_a_flood_of_connects_of_one_user_ends_at_their_limit(target: Target) -> None:
    wires = [target.wire() for _ in range(80)]
    for number, wire in enumerate(wires):
        wire.send(upgrade(f"/chsk?client-id=tab{number}&uid=many"))
    statuses = [wire.answer()[0] for wire in wires]
    assert (statuses.count(101), statuses.count(429)) == (64, 16)


def test_keyed_sends_of_many_clients_are_not_kept_for_ever(
    target_with: Callable[..., Target],
) -> None:
    """Replies for repetitions: 256 of 16 KiB would be 4 MiB for each client id made up."""
    target = target_with()
    reply = "x" * 16_000
    with target.within(140):
        for client in range(40):
            with target.opened(f"keys{client}") as wire:
                for key in range(200):
                    event = f'[[:test/echo "{reply}"] "c" {{:key "k{key}"}}]'
                    wire.send(text(event))
                for _ in range(200):
                    wire.read()

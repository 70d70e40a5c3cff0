"""CHSK_RATE and CHSK_RATE_PER_ADDRESS: off by default, sharp where set."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlencode

import pytest

from tests.e2e.hostile.conftest import Target
from tests.e2e.hostile.wire import head, text

FORM = "application/x-www-form-urlencoded"


def post(target: Target, message: str) -> tuple[int, dict[str, str], str]:
    body = urlencode({"ppstr": message, "client-id": "poster", "uid": "poster"}).encode()
    with target.wire() as wire:
        headers: dict[str, str | None] = {"Content-Type": FORM, "Content-Length": str(len(body))}
        wire.send(head("/chsk", headers, "POST") + body)
        return wire.answer()


def test_there_is_no_rate_by_default(target: Target) -> None:
    with target.opened() as wire:
        wire.send(text("[[:test/note 1] nil]") * 2000)
        assert wire.ask("[:test/echo 1]") == 1


def test_who_is_faster_than_its_rate_is_closed_as_flooding(
    target_with: Callable[..., Target],
) -> None:
    target = target_with(CHSK_RATE=[5, 10])
    with target.counts("flooding"), target.opened() as wire:
        for _ in range(10):
            assert wire.ask("[:test/echo 1]") == 1
        wire.send(text("[[:test/echo 1] nil]") * 100)
        assert wire.closed() == (4004, "more events per second than CHSK_RATE")
    with target.opened("slow") as wire:  # its own bucket
        assert wire.ask("[:test/echo 1]") == 1


def test_a_batch_counts_as_what_is_in_it(target_with: Callable[..., Target]) -> None:
    target = target_with(CHSK_RATE=[5, 10])
    with target.opened() as wire:
        wire.send(text("[[:chsk/batch [" + "[:test/note 1] " * 11 + "]] nil]"))
        assert wire.closed() == (4004, "more events per second than CHSK_RATE")


def test_posts_of_a_client_share_its_rate(target_with: Callable[..., Target]) -> None:
    target = target_with(CHSK_RATE=[1, 10])
    target.request(head("/chsk?client-id=poster&uid=poster&v=1"))
    answers = [post(target, "[[:test/echo 1] :ajax]") for _ in range(24)]
    assert [status for status, _, _ in answers[:10]] == [200] * 10
    assert {status for status, _, _ in answers[10:]} >= {429}
    refused = next(answer for answer in answers if answer[0] == 429)
    assert (refused[1]["retry-after"], refused[2]) == (
        "1",  # seconds until the next may come
        "more events per second than CHSK_RATE\n",
    )


def test_posts_have_their_rate_without_a_connection_too(target_with: Callable[..., Target]) -> None:
    target = target_with(CHSK_RATE=[1, 10])
    statuses = [post(target, "[[:test/note 1] nil]")[0] for _ in range(40)]
    assert statuses[:10] == [200] * 10
    assert statuses.count(429) >= 20


@pytest.mark.parametrize("v", ["", "&v=1"])
def test_the_protocols_own_messages_take_no_events_place(
    target_with: Callable[..., Target], v: str
) -> None:
    """A client of ours pings at each opening: under a small rate it could never send an event."""
    target = target_with(CHSK_RATE=[0.001, 1])
    with target.opened("c1", f"{v}&uid=ann") as wire:
        wire.send(text('[[:chsk/ws-ping] "ping"]') + text("[[:chsk/ws-pong] nil]"))
        assert wire.ask("[:test/echo 1]") == 1
    with target.counts("flooding"), target.opened("c2", v) as wire:
        wire.send(text("[[:chsk/ws-pong] nil]") * 11)
        assert wire.closed() == (4004, "more events per second than CHSK_RATE")
    with target.counts("flooding"), target.opened("c3", v) as wire:
        wire.send(text('[[:chsk/answer ["none" 1]] nil]') * 11)
        assert wire.closed() == (4004, "more events per second than CHSK_RATE")


def test_a_posted_batch_counts_as_what_is_in_it(target_with: Callable[..., Target]) -> None:
    target = target_with(CHSK_RATE=[5, 10])
    batch = "[[:chsk/batch [" + "[:test/note 1] " * 1000 + "]] nil]"
    assert post(target, batch)[0] == 429
    assert target.get("/seen") == []


def test_a_client_of_ours_is_told_how_many_events_a_batch_may_have(
    target_with: Callable[..., Target],
) -> None:
    target = target_with(CHSK_RATE=[5, 10])
    with target.wire() as wire:
        assert wire.open("/chsk?client-id=ours&v=1")[3]["max-batch"] == 5


def test_an_address_has_its_rate_whatever_it_asks_for(target_with: Callable[..., Target]) -> None:
    target = target_with(CHSK_RATE_PER_ADDRESS=[1, 20])
    with target.opened() as wire:  # a WebSocket is one request
        for _ in range(50):
            assert wire.ask("[:test/echo 1]") == 1
    statuses = [target.request(head(f"/chsk?client-id=c{number}"))[0] for number in range(40)]
    assert statuses[:15] == [200] * 15
    assert 429 in statuses[19:]
    assert target.stats()["refused_429"] >= 10

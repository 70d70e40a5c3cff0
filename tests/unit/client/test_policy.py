"""Which transport is tried, and when; no client, no link."""

from __future__ import annotations

from typing import Any

import pytest

from flask_chsk.client.link import LinkClosed
from flask_chsk.client.policy import Options, Policy, Verdict

CUT = LinkClosed(1006)


def policy(**options: Any) -> Policy:
    options.setdefault("backoff", lambda attempt: float(attempt))
    return Policy(Options(**options), lambda: 0.5)


@pytest.mark.parametrize("kind", ["ws", "ajax"])
def test_a_type_that_was_asked_for_is_kept(kind: Any) -> None:
    fixed = policy(type=kind)
    fixed.confirmed("ajax", 0.0, takes_over=False)
    assert (fixed.next_kind(), fixed.polls_beside, fixed.wants_websocket) == (kind, False, False)
    assert fixed.is_blocked("ws", CUT) is False


def test_after_polls_worked_they_are_tried_first_until_nothing_works() -> None:
    auto = policy()
    assert auto.next_kind() == "ws"
    auto.confirmed("ajax", 0.0, takes_over=False)
    assert (auto.next_kind(), auto.wants_websocket) == ("ajax", True)
    auto.trials_failed()
    assert (auto.next_kind(), auto.wants_websocket) == ("ws", False)


def test_polls_are_tried_beside_a_websocket_until_one_worked() -> None:
    auto = policy()
    assert auto.polls_beside is True
    auto.confirmed("ws", 0.0, takes_over=False)
    assert auto.polls_beside is False


def test_waits_for_an_upgrade_double_up_to_ten_minutes() -> None:
    auto = policy()
    assert [auto.next_upgrade() for _ in range(7)] == [30, 60, 120, 240, 480, 600, 600]
    auto.confirmed("ws", 0.0, takes_over=True)
    assert auto.next_upgrade() == 2


@pytest.mark.parametrize(
    ("how", "blocked"),
    [
        (LinkClosed(1006), True),
        (LinkClosed(1002), True),
        (LinkClosed(status=502), True),
        (LinkClosed(1000), False),
        (LinkClosed(1012), False),
        (LinkClosed(4002), False),
        (LinkClosed(status=403), False),
        (LinkClosed(status=503), False),
    ],
)
def test_what_a_server_says_blocks_no_websocket(how: LinkClosed, blocked: bool) -> None:
    assert policy().is_blocked("ws", how) is blocked
    assert policy().is_blocked("ajax", how) is False


def test_two_short_websockets_in_a_row_give_way_to_polls() -> None:
    auto = policy()
    told = []
    for start in (0.0, 10.0):
        auto.confirmed("ws", start, takes_over=False)
        told.append(auto.confirmed_link_closed("ws", True, start + 0.3))
    assert told == [False, True]
    auto.confirmed("ws", 20.0, takes_over=False)
    assert auto.confirmed_link_closed("ws", True, 25.0) is False  # it lasted


def test_a_refusal_is_retried_once_with_new_credentials() -> None:
    auto, refused = policy(), LinkClosed(status=401, why="unexpected")
    verdict = auto.judge(refused, 0.0)
    assert verdict == Verdict("waiting", "unexpected", renews=True)
    assert auto.wait(refused, verdict, renamed=False) == 0.0
    assert auto.judge(refused, 0.0) == Verdict("refused", "refused")
    auto.reset()
    assert auto.judge(refused, 0.0).renews is True


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (1000, Verdict("closed", "clean")),
        (4001, Verdict("closed", "replaced")),
        (4005, Verdict("closed", "signed-out")),
        (4003, Verdict("waiting", "clean")),
        (None, Verdict("waiting", "clean")),
    ],
)
def test_some_codes_are_final(code: int | None, verdict: Verdict) -> None:
    assert policy().judge(LinkClosed(code, why="clean"), 0.0) == verdict


def test_whoever_expired_comes_back_and_whoever_was_signed_out_does_not() -> None:
    auto = policy()
    expired = LinkClosed(4005, "expired", why="clean")
    verdict = auto.judge(expired, 0.0)
    assert verdict == Verdict("waiting", "expired")
    assert [auto.wait(expired, verdict, renamed=False) for _ in range(2)] == [0, 1]  # the backoff
    assert auto.judge(LinkClosed(4005, "signed out"), 0.0).status == "closed"


def test_our_own_change_of_transport_is_no_other_client() -> None:
    auto, replaced = policy(), LinkClosed(4001, why="clean")
    auto.confirmed("ws", 10.0, takes_over=True)
    assert auto.judge(replaced, 14.9).status == "waiting"
    assert auto.judge(replaced, 15.0).status == "closed"


@pytest.mark.parametrize(
    ("how", "renamed", "wait"),
    [
        (LinkClosed(status=503, retry_after=7.0), False, 7.0),
        (LinkClosed(status=409, retry_after=7.0), True, 0.0),  # the backoff's first
        (LinkClosed(1012, "spread=20"), False, 10.0),
        (LinkClosed(1012), False, 1.0),
        (CUT, False, 0.0),
    ],
)
def test_the_wait_is_the_servers_or_the_backoffs(
    how: LinkClosed, renamed: bool, wait: float
) -> None:
    auto = policy()
    assert auto.wait(how, auto.judge(how, 0.0), renamed=renamed) == wait


def test_the_backoff_counts_retries_until_a_connection_is_stable() -> None:
    auto, verdict = policy(), Verdict("waiting", "clean")
    assert [auto.wait(CUT, verdict, renamed=False) for _ in range(3)] == [0, 1, 2]
    auto.stable()
    assert auto.wait(CUT, verdict, renamed=False) == 0


def test_one_wait_a_second_may_be_cut_short() -> None:
    auto = policy()
    assert [auto.may_hurry(now) for now in (0.0, 0.5, 1.0, 1.9)] == [True, False, True, False]

"""What is not theirs: client ids, cursors, resume tokens, asks, keys, cookies, csrf tokens."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from tests.hostile.conftest import Target
from tests.hostile.wire import EDN, head, text, upgrade

FORM = "application/x-www-form-urlencoded"


def post(target: Target, message: str, **fields: str) -> tuple[int, str]:
    body = urlencode({"ppstr": message, **fields}).encode()
    headers: dict[str, str | None] = {"Content-Type": FORM, "Content-Length": str(len(body))}
    return target.request(head("/chsk", headers, "POST") + body)


class Victim:
    """An anonymous client of ours, open, with its cursor and token."""

    def __init__(self, target: Target) -> None:
        self.id = secrets.token_hex(8)
        self.wire = target.wire()
        extras = self.wire.open(f"/chsk?client-id={self.id}&v=1")[3]
        self.cursor, self.resume = extras["cursor"], extras["resume"]

    def is_there(self) -> bool:
        return bool(self.wire.ask("[:test/echo :mine]") == "mine")


@pytest.fixture
def victim(target: Target) -> Victim:
    return Victim(target)


# Client ids --------------------------------------------------------------------------------


@pytest.mark.parametrize("v", ["", "&v=1"])
@pytest.mark.parametrize("resume", ["", "&resume=x", "&resume=%00", "&resume=" + "A" * 24])
def test_an_anonymous_client_id_opens_nothing(
    target: Target, victim: Victim, v: str, resume: str
) -> None:
    assert target.request(upgrade(f"/chsk?client-id={victim.id}{v}{resume}"))[0] == 403
    assert target.request(head(f"/chsk?client-id={victim.id}{v}{resume}"))[0] == 403
    assert target.request(head(f"/chsk?client-id={victim.id}&handshake%3F=1{v}{resume}"))[0] == 403
    assert victim.is_there()


def test_nobody_posts_in_an_anonymous_clients_name(target: Target, victim: Victim) -> None:
    assert post(target, "[[:test/push 1] nil]", **{"client-id": victim.id, "v": "1"})[0] == 403
    assert victim.is_there()


def test_a_users_client_id_is_another_one_under_another_uid(target: Target) -> None:
    ann = target.wire()
    ann.open("/chsk?client-id=tab&uid=ann")
    with target.wire() as eve:
        eve.open("/chsk?client-id=tab&uid=eve")
        eve.send(text("[[:test/push 1] nil]"))
        assert eve.read() == "[[[:test/item 1]] nil]"
    assert ann.ask("[:test/echo :mine]") == "mine"


def test_a_uid_cannot_be_spelt_into_another_ones_channel(target: Target) -> None:
    """Channels are named by client id and uid: no pair of them may be read as another."""
    wires = []
    for client_id, uid in [("a", "b:c"), ("a", "b"), ("a", ":b"), ("a", "c:a:b"), ("a-b", "c")]:
        wires.append(target.wire())
        wires[-1].open(f"/chsk?client-id={client_id}&uid={quote(uid)}")
    for wire in wires:
        wire.send(text("[[:test/push :mine] nil]"))
    for wire in wires:
        assert wire.read() == "[[[:test/item :mine]] nil]"
    for wire in wires:
        assert wire.ask("[:test/echo :nothing-else]") == "nothing-else"


# Cursors and resume tokens -------------------------------------------------------------------


def cursors(real: str) -> list[str]:
    epoch, _, offset = real.partition(":")
    return [
        "x",
        ":",
        f"{epoch}:",
        f"{epoch}:-1",
        f"{epoch}:0",
        f"{epoch}:{int(offset) + 10**12}",
        f"{epoch}:{'9' * 16}",
        f"{epoch}:{'9' * 400}",
        f"{epoch}:{offset}.5",
        f"{epoch}:{offset} ",
        f"{epoch.upper()}:{offset}",
        f"{epoch}:٣",
        f"00000000:{offset}",
        f"{epoch}:{offset},+1",
        "\0",
    ]


def test_a_cursor_without_its_token_recovers_nothing(target: Target, victim: Victim) -> None:
    for cursor in [victim.cursor, *cursors(victim.cursor)]:
        with target.wire() as stranger:
            name = secrets.token_hex(8)
            query = f"&cursor={quote(cursor)}&resume={victim.resume}"
            extras = stranger.open(f"/chsk?client-id={name}&v=1{query}")[3]
            assert extras["recovered"] is False, cursor


def test_ones_own_token_with_a_forged_cursor_recovers_nothing(target: Target) -> None:
    wire = target.wire()
    extras = wire.open("/chsk?client-id=self&uid=self&v=1")[3]
    for cursor in cursors(extras["cursor"]):
        query = f"&v=1&uid=self&resume={extras['resume']}&cursor={quote(cursor)}"
        with target.wire() as again:
            got = again.open(f"/chsk?client-id=self{query}")[3]
            assert got["recovered"] is False, cursor


def test_a_token_is_of_one_client_of_one_user(target: Target) -> None:
    wire = target.wire()
    extras = wire.open("/chsk?client-id=one&uid=ann&v=1")[3]
    target.get("/send/ann/3")
    cursor, resume = quote(extras["cursor"]), extras["resume"]
    for who in ("client-id=two&uid=ann", "client-id=one&uid=eve", "client-id=one"):
        with target.wire() as other:
            got = other.open(f"/chsk?{who}&v=1&cursor={cursor}&resume={resume}")[3]
            assert got["recovered"] is False, who
            assert other.ask("[:test/echo :nothing]") == "nothing"


def test_a_forged_cursor_of_a_poll_tells_of_a_gap(target: Target) -> None:
    status, answer = target.request(head("/chsk?client-id=poller&uid=poller&v=1&handshake%3F=1"))
    extras = EDN.unpack(answer)[0][1][3]
    for number, cursor in enumerate(cursors(extras["cursor"])):
        query = f"&v=1&uid=poller&n={number}&resume={extras['resume']}&cursor={quote(cursor)}"
        status, answer = target.request(head(f"/chsk?client-id=poller{query}"))
        assert status == 200
        assert "chsk/gap" in answer, (cursor, answer)


def test_who_comes_after_an_anonymous_client_has_nothing_of_theirs(
    target: Target, victim: Victim
) -> None:
    """Client ids stand in URLs and logs: when one is free again, its past is not."""
    victim.wire.send(text("[[:test/push :secret] nil]"))
    assert ":secret" in victim.wire.read()
    victim.wire.reset()
    answer = (0, "")
    while answer[0] != 200:  # till its grace is over
        answer = target.request(head(f"/chsk?client-id={victim.id}&v=1"))
    resume = EDN.unpack(answer[1])[0][1][3]["resume"]
    query = f"&v=1&cursor={quote(victim.cursor)}&resume={resume}"
    with target.wire() as thief:
        assert thief.open(f"/chsk?client-id={victim.id}{query}")[3]["recovered"] is False
        assert thief.ask("[:test/echo :nothing]") == "nothing"


# Asks and keys -----------------------------------------------------------------------------


def test_an_ask_is_answered_by_whom_it_was_asked_only(target: Target) -> None:
    ann, eve, asker = target.wire(), target.wire(), target.wire()
    ann.open("/chsk?client-id=ann&uid=ann&v=1")
    eve.open("/chsk?client-id=eve&uid=eve&v=1")
    asker.open("/chsk?client-id=asker&uid=asker&v=1")
    replies: list[Any] = []
    thread = threading.Thread(target=lambda: replies.append(asker.ask('[:test/ask ["ann" 1]]')))
    thread.start()
    [[id, _]] = [event[1] for event in EDN.unpack(ann.read())[0]]
    with target.counts("answers_unasked"):
        eve.send(text(f'[[:chsk/answer ["{id}" :forged]] nil]'))
        assert eve.ask("[:test/echo 1]") == 1
        answer = f'[[:chsk/answer ["{id}" :forged]] nil]'
        assert post(target, answer, **{"client-id": "eve", "uid": "eve"})[0] == 200
    ann.send(text(f'[[:chsk/answer ["{id}" :honest]] nil]') * 2)
    thread.join()
    assert replies == ["honest"]


@pytest.mark.parametrize("id", ['""', '"x"', '"' + "x" * 10_000 + '"', ":a/b", "1", "nil"])
def test_an_answer_to_nothing_is_counted(target: Target, id: str) -> None:
    with target.opened(secrets.token_hex(8), "&v=1") as wire:
        wire.send(text(f"[[:chsk/answer [{id} 1]] nil]"))
        assert wire.ask("[:test/echo 1]") == 1


def test_a_key_gives_no_stranger_the_reply(target: Target) -> None:
    with target.opened("owner", "&v=1") as owner:
        owner.send(text('[[:test/echo "secret"] "c" {:key "k"}]'))
        assert owner.read() == '["secret" "c"]'
        status, reply = post(
            target, '[[:test/echo "other"] :ajax {:key "k"}]', **{"client-id": "owner"}
        )
        assert (status, "secret" in reply) == (403, False)
    answer: tuple[int, str] = (403, "")
    while answer[0] == 403:  # till the owner's grace is over
        answer = post(target, '[[:test/echo "other"] :ajax {:key "k"}]', **{"client-id": "owner"})
    assert answer == (200, '["other" nil]')
    with target.opened("owner", "&v=1") as thief:
        thief.send(text('[[:test/echo "other"] "c" {:key "k"}]'))
        assert thief.read() == '["other" "c"]'


# Sessions and CSRF tokens ------------------------------------------------------------------


def test_only_the_sessions_own_csrf_token_opens(target_with: Callable[..., Target]) -> None:
    target = target_with(CHSK_CSRF=True)
    with target.wire() as wire:
        wire.send(head("/login/ann"))
        _, headers, page = wire.answer()
    cookie = headers["set-cookie"].partition(";")[0]
    token = re.search('csrf-token="(.+?)"', page)
    assert token is not None
    with target.wire() as wire:
        wire.send(head("/login/eve"))
        foreign = re.search('csrf-token="(.+?)"', wire.answer()[2])
    assert foreign is not None
    wrong = ["", "x", foreign[1], token[1] + "x", token[1][:-1], token[1].swapcase(), "%FF", "%00"]
    url = "/chsk?client-id=tab&csrf-token="
    for given in wrong:
        for request in (
            upgrade(url + given, {"Cookie": cookie}),
            head(url + given, {"Cookie": cookie}),
        ):
            assert target.request(request)[0] == 403, given
    assert target.request(upgrade(url + token[1]))[0] == 403  # without the session it is of
    assert target.request(upgrade(url + token[1], {"Cookie": cookie}))[0] == 101


def test_a_forged_session_is_nobodys(target: Target) -> None:
    forged = {"Cookie": "session=eyJ1aWQiOiJhbm4ifQ.aSM4WQ.AAAAAAAAAAAAAAAAAAAAAAAAAAA"}
    with target.wire() as wire:
        assert wire.open("/chsk?client-id=forger", forged)[0] == "sente/nil-uid"

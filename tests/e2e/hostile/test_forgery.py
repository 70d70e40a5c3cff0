"""What is not theirs: client ids, cursors, resume tokens, asks, keys, cookies, csrf tokens."""

from __future__ import annotations

import base64
import re
import secrets
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from flask_chsk.security import RESUME_HEADER, SECRET_HEADER
from tests.e2e.hostile.conftest import Target
from tests.e2e.hostile.wire import EDN, head, text, upgrade

FORM = "application/x-www-form-urlencoded"


Headers = dict[str, str | None]


def post(
    target: Target, message: str, headers: Headers | None = None, **fields: str
) -> tuple[int, str]:
    body = urlencode({"ppstr": message, **fields}).encode()
    more: Headers = {"Content-Type": FORM, "Content-Length": str(len(body)), **(headers or {})}
    return target.request(head("/chsk", more, "POST") + body)


class Victim:
    """An anonymous client of ours, open, with its secret, cursor and token."""

    def __init__(self, target: Target) -> None:
        self.id = secrets.token_hex(8)
        self.secret = secrets.token_urlsafe(16)
        self.wire = target.wire()
        extras = self.wire.open(f"/chsk?client-id={self.id}&v=1", {SECRET_HEADER: self.secret})[3]
        self.cursor, self.resume = extras["cursor"], extras["resume"]

    def is_there(self) -> bool:
        return bool(self.wire.ask("[:test/echo :mine]") == "mine")


@pytest.fixture
def victim(target: Target) -> Victim:
    return Victim(target)


# Client ids --------------------------------------------------------------------------------


@pytest.mark.parametrize("v", ["", "&v=1"])
@pytest.mark.parametrize("resume", ["", "x", "A" * 24, "the victim's"])
def test_an_anonymous_client_id_opens_nothing(
    target: Target, victim: Victim, v: str, resume: str
) -> None:
    shown: Headers = {RESUME_HEADER: victim.resume if resume == "the victim's" else resume}
    url = f"/chsk?client-id={victim.id}{v}&cursor={quote(victim.cursor)}"
    for request in (upgrade(url, shown), head(url, shown), head(url + "&handshake%3F=1", shown)):
        status, line = target.request(request)
        assert (status, "held by another client" in line) == (409, True)
    assert victim.is_there()


@pytest.mark.parametrize(
    "secret", ["", "x", "s" * 21, "s" * 65, "s" * 21 + "=", "s" * 21 + "ü", "s" * 22 + " x"]
)
def test_a_v1_client_without_a_secret_is_refused(target: Target, secret: str) -> None:
    shown: Headers = {SECRET_HEADER: secret or None}
    for who in ("client-id=none", "client-id=none&uid=none"):
        for request in (upgrade(f"/chsk?{who}&v=1", shown), head(f"/chsk?{who}&v=1", shown)):
            status, line = target.request(request)
            assert (status, SECRET_HEADER in line) == (400, True)
    assert post(target, "[[:test/echo 1] nil]", shown, **{"client-id": "none", "v": "1"})[0] == 400


def test_nothing_that_opens_something_is_taken_from_the_url(target: Target, victim: Victim) -> None:
    """A log of URLs is no credential: what is in it opens nothing."""
    url = f"/chsk?client-id={victim.id}&v=1&cursor={quote(victim.cursor)}"
    url += f"&resume={victim.resume}&secret={victim.secret}&{SECRET_HEADER}={victim.secret}"
    assert target.request(head(url))[0] == 409
    own: Headers = {SECRET_HEADER: victim.secret}
    victim.wire.reset()
    with target.wire() as again:
        assert again.open(url, own)[3]["recovered"] is False  # whatever ?resume= says


def test_no_handler_sees_what_opens_something(target: Target, victim: Victim) -> None:
    """What quotes a request, such as a report of an error, does not tell it."""
    own: Headers = {SECRET_HEADER: victim.secret, RESUME_HEADER: victim.resume}
    fields = {"client-id": victim.id, "v": "1"}
    status, shown = post(target, "[[:test/request] :ajax]", own, **fields)
    assert status == 200
    seen = [victim.wire.ask("[:test/request]"), shown]
    csrf, resume = (base64.urlsafe_b64encode(text).decode() for text in (b"c" * 20, b"r" * 20))
    offered = f"chsk.v1, secret.{'s' * 22}, resume.{resume}, csrf.{csrf}"
    with target.wire() as wire:
        wire.open(
            "/chsk?client-id=browser&v=1",
            {SECRET_HEADER: None, "Sec-WebSocket-Protocol": offered},
        )
        seen.append(wire.ask("[:test/request]"))
    assert "chsk.v1" in seen[-1]
    for secret in (victim.secret, victim.resume, "s" * 22, resume, csrf):
        assert secret not in str(seen)


@pytest.mark.parametrize("v", ["", "1"])
def test_nobody_posts_in_an_anonymous_clients_name(target: Target, victim: Victim, v: str) -> None:
    assert post(target, "[[:test/push 1] nil]", **{"client-id": victim.id, "v": v})[0] == 409
    assert victim.is_there()


def test_the_secret_proves_a_client_that_heard_no_handshake(target: Target, victim: Victim) -> None:
    """Its answer may be lost: then the client has no token yet."""
    own: Headers = {SECRET_HEADER: victim.secret}
    with target.wire() as again:
        again.open(f"/chsk?client-id={victim.id}&v=1", own)
        assert again.ask("[:test/echo :mine]") == "mine"
    victim.wire.reset()


def test_one_of_sentes_clients_and_one_of_ours_do_not_share_an_id(target: Target) -> None:
    with target.opened("sentes") as theirs:
        assert target.request(head("/chsk?client-id=sentes&v=1"))[0] == 409
        assert theirs.ask("[:test/echo 1]") == 1


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
            query = f"client-id={name}&v=1&cursor={quote(cursor)}"
            extras = stranger.open(f"/chsk?{query}", {RESUME_HEADER: victim.resume})[3]
            assert extras["recovered"] is False, cursor


def test_ones_own_token_with_a_forged_cursor_recovers_nothing(target: Target) -> None:
    wire = target.wire()
    extras = wire.open("/chsk?client-id=self&uid=self&v=1")[3]
    for cursor in cursors(extras["cursor"]):
        query = f"&v=1&uid=self&cursor={quote(cursor)}"
        with target.wire() as again:
            own: Headers = {RESUME_HEADER: extras["resume"]}
            got = again.open(f"/chsk?client-id=self{query}", own)[3]
            assert got["recovered"] is False, cursor


def test_a_token_is_of_one_client_of_one_user_with_one_secret(target: Target) -> None:
    wire = target.wire()
    extras = wire.open("/chsk?client-id=one&uid=ann&v=1")[3]
    target.get("/send/ann/3")
    resume: Headers = {RESUME_HEADER: extras["resume"]}
    other_secret = {**resume, SECRET_HEADER: "t" * 22}
    for who, shown in (
        ("client-id=two&uid=ann", resume),
        ("client-id=one&uid=eve", resume),
        ("client-id=one", resume),
        ("client-id=one&uid=ann", other_secret),
    ):
        with target.wire() as other:
            got = other.open(f"/chsk?{who}&v=1&cursor={quote(extras['cursor'])}", shown)[3]
            assert got["recovered"] is False, who
            assert other.ask("[:test/echo :nothing]") == "nothing"


def test_a_forged_cursor_of_a_poll_tells_of_a_gap(target: Target) -> None:
    status, answer = target.request(head("/chsk?client-id=poller&uid=poller&v=1&handshake%3F=1"))
    extras = EDN.unpack(answer)[0][1][3]
    for number, cursor in enumerate(cursors(extras["cursor"])):
        query = f"&v=1&uid=poller&n={number}&cursor={quote(cursor)}"
        own: Headers = {RESUME_HEADER: extras["resume"]}
        status, answer = target.request(head(f"/chsk?client-id=poller{query}", own))
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
    query = f"client-id={victim.id}&v=1&cursor={quote(victim.cursor)}"
    for shown in (resume, victim.resume):
        with target.wire() as thief:
            assert thief.open(f"/chsk?{query}", {RESUME_HEADER: shown})[3]["recovered"] is False
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
    keyed = '[[:test/echo "other"] :ajax {:key "k"}]'
    own: Headers = {SECRET_HEADER: secrets.token_urlsafe(16)}
    with target.wire() as owner:
        owner.open("/chsk?client-id=owner&v=1", own)
        owner.send(text('[[:test/echo "secret"] "c" {:key "k"}]'))
        assert owner.read() == '["secret" "c"]'
        assert post(target, keyed, **{"client-id": "owner", "v": "1"})[0] == 409
        assert post(target, keyed, own, **{"client-id": "owner", "v": "1"}) == (
            200,
            '["secret" nil]',
        )
    answer = (409, "")
    while answer[0] == 409:  # till the owner's grace is over
        answer = post(target, keyed, **{"client-id": "owner", "v": "1"})
    assert answer == (200, '["other" nil]')
    with target.opened("owner", "&v=1") as thief:
        thief.send(text('[[:test/echo "third"] "c" {:key "k"}]'))
        assert thief.read() == '["other" "c"]'  # the thief's own


def test_sentes_clients_have_no_keys(target: Target) -> None:
    """Whoever knows an anonymous client id could have the reply."""
    for number in range(2):
        answer = post(target, f'[[:test/echo {number}] :ajax {{:key "k"}}]', **{"client-id": "s"})
        assert answer == (200, f"[{number} nil]")


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

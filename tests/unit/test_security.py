"""The checks before a channel socket opens: what passes, and the line that says why not."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_chsk.errors import Refused
from flask_chsk.security import (
    Began,
    Shown,
    check_client_id,
    check_csrf,
    check_may_act,
    check_origin,
    digest_of_secret,
    offers,
    page_cursor,
    read_page_cursor,
    read_resume_token,
    resume_key,
    resume_token,
    subprotocol_value,
)

OWN = "https://example.org"
KEY = resume_key("secret")
SEVEN = Began(7, 7)


def refusal(check: Any, *args: Any) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        check(*args)
    assert "\n" not in str(caught.value)
    return caught.value.status, str(caught.value)


# Client ids -----------------------------------------------------------------------------


@pytest.mark.parametrize("id", ["a", "A-z_0", "f" * 64, "e890fa7a-d7b4-4978-9c95-655beebe1415"])
def test_a_client_id_is_64_url_characters_at_most(id: str) -> None:
    assert check_client_id(id) == id


@pytest.mark.parametrize("id", [None, "", "f" * 65, "a b", "a:b", "ü", "a\n", "a/b", "١"])
def test_other_client_ids_are_refused_without_being_repeated(id: str | None) -> None:
    status, line = refusal(check_client_id, id)
    assert status == 400
    assert re.match(r"(no|bad) client-id: ", line)
    assert not id or line == "bad client-id: [A-Za-z0-9_-], at most 64 long"


# Origins --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin", [OWN, "https://EXAMPLE.org", "https://example.org:443", "https://example.org/", None]
)
def test_our_own_pages_and_no_browser_pass(origin: str | None) -> None:
    assert check_origin(origin, None, OWN, None) is None
    assert check_origin(origin, "same-origin", OWN, ()) is None


def test_the_default_port_is_the_schemes() -> None:
    assert check_origin("http://example.org", None, "http://example.org:80", None) is None
    assert refusal(check_origin, "https://example.org:80", None, OWN, None)[0] == 403
    assert refusal(check_origin, "http://example.org:443", None, "http://example.org", None)


def test_a_listed_origin_passes_and_is_told_so() -> None:
    listed = ("https://app.example.org",)
    assert check_origin("https://app.example.org", None, OWN, listed) == listed[0]
    assert check_origin("https://APP.example.org", None, OWN, listed) == "https://APP.example.org"


def test_any_origin_is_allowed_as_any_and_not_as_itself() -> None:
    """So that it gets no credentials: a page of anybody must not read with our users' cookies."""
    assert check_origin("https://evil.example", "cross-site", OWN, "*") == "*"
    assert check_origin(None, "cross-site", OWN, "*") is None


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "https://example.org.evil.example",
        "https://evil.example/https://example.org",
        "https://example.org:8443",
        "null",
        "",
        "https://app.example.org.evil.example",
    ],
)
def test_other_origins_are_refused_and_both_are_named(origin: str) -> None:
    status, line = refusal(check_origin, origin, None, OWN, ("https://app.example.org",))
    assert status == 403
    assert line == (f"Origin {origin} is not {OWN}: add it to CHSK_ALLOWED_ORIGINS if it is yours")


def test_behind_a_tls_proxy_the_line_says_so() -> None:
    status, line = refusal(check_origin, OWN, None, "http://example.org", None)
    assert (status, "ProxyFix" in line) == (403, True)


def test_a_request_of_another_sites_page_is_refused_without_an_origin_too() -> None:
    assert refusal(check_origin, None, "cross-site", OWN, None) == (
        403,
        "a page of another site asked: list it in CHSK_ALLOWED_ORIGINS",
    )


def test_the_browsers_word_that_a_request_is_its_own_pages_counts_whatever_the_host() -> None:
    """A proxy that passes no Host on makes us another site in our own eyes."""
    assert check_origin("https://public.example", "same-origin", "http://inner:8000", None) is None
    for site in ("same-site", "cross-site", "none", "Same-Origin ", ""):
        status, _ = refusal(check_origin, "https://public.example", site, OWN, None)
        assert status == 403


def test_what_an_origin_says_is_shown_cut_and_in_ascii() -> None:
    _, line = refusal(check_origin, "http://ü\n" + "x" * 500, None, OWN, None)
    assert line.startswith("Origin http://\\xfc\\nxxx") and len(line) < 250


# CSRF -----------------------------------------------------------------------------------


def test_the_sessions_token_passes() -> None:
    check_csrf("token", "token")
    check_csrf("tökén", "tökén")


@pytest.mark.parametrize(
    ("given", "expected", "line"),
    [
        ("token", None, "no CSRF token in this session: "),
        (None, "token", "CSRF token missing: "),
        ("", "token", "CSRF token missing: "),
        ("Token", "token", "CSRF token is not this session's: "),
        ("\udc80", "token", "CSRF token is not this session's: "),
    ],
)
def test_another_token_is_refused_and_never_shown(
    given: str | None, expected: str | None, line: str
) -> None:
    status, said = refusal(check_csrf, given, expected)
    assert (status, said.startswith(line), "chsk_script()" in said) == (403, True, True)


# Subprotocols ---------------------------------------------------------------------------


@given(st.text(min_size=1))
def test_a_subprotocol_carries_any_text(text: str) -> None:
    encoded = base64.urlsafe_b64encode(text.encode("utf-8", "replace")).decode()
    sent = text.encode("utf-8", "replace").decode()
    assert subprotocol_value(f"chsk.v1, csrf.{encoded}", "csrf") == sent
    assert subprotocol_value(f"chsk.v1,csrf.{encoded.rstrip('=')} ", "csrf") == sent


@pytest.mark.parametrize(
    "offered", [None, "", "csrf", "csrf.", "xcsrf.YQ", "csrf.!", "csrf.Y", "csrf._w", "csrf.ü"]
)
def test_what_carries_nothing_is_nothing(offered: str | None) -> None:
    assert subprotocol_value(offered, "csrf") is None


@given(st.text())
def test_no_subprotocol_at_all_breaks_the_reading(text: str) -> None:
    subprotocol_value(text, "csrf")


def test_ours_is_among_the_offered() -> None:
    assert offers("csrf.x, chsk.v1", "chsk.v1")
    assert not offers("chsk.v10,xchsk.v1", "chsk.v1")
    assert not offers(None, "chsk.v1")


# Secrets --------------------------------------------------------------------------------

SECRET = "s" * 22
DIGEST = digest_of_secret(SECRET)


def test_a_secret_is_known_by_a_digest_that_does_not_show_it() -> None:
    assert digest_of_secret(SECRET) == DIGEST != digest_of_secret("t" * 22)
    assert len(DIGEST) == 22 and SECRET not in DIGEST


@pytest.mark.parametrize("secret", [None, "", "s" * 21, "s" * 65, "s" * 21 + " ", "s" * 21 + "ü"])
def test_a_secret_has_128_bits_in_base64url(secret: str | None) -> None:
    status, line = refusal(digest_of_secret, secret)
    assert (status, "X-Chsk-Secret" in line) == (400, True)


def test_what_opens_something_is_taken_out_of_a_request() -> None:
    """Handlers get the request, and reports of errors quote its headers."""
    offered = "chsk.v1, secret.sss, resume.cnJy, csrf.Y2Nj, auth.YWFh, graphql.x"
    environ: dict[str, Any] = {
        "HTTP_SEC_WEBSOCKET_PROTOCOL": offered,
        "HTTP_HOST": "example.org",
    }
    assert Shown.take(environ) == ("sss", "rrr", "ccc", "aaa")
    assert environ == {
        "HTTP_SEC_WEBSOCKET_PROTOCOL": "chsk.v1, graphql.x",
        "HTTP_HOST": "example.org",
    }
    environ = {"HTTP_X_CHSK_SECRET": "sss", "HTTP_X_CHSK_RESUME": "rrr"}
    assert Shown.take(environ) == ("sss", "rrr", None, None)
    assert environ == {}
    assert Shown.take({}) == (None, None, None, None)


def test_an_anonymous_client_id_is_its_owners_while_somebody_has_it() -> None:
    other = digest_of_secret("t" * 22)
    for held, shown in ((None, DIGEST), (None, ""), (DIGEST, DIGEST), ("", "")):
        check_may_act(None, held, shown)
    for held, shown in ((DIGEST, other), (DIGEST, ""), ("", DIGEST)):
        assert refusal(check_may_act, None, held, shown)[0] == 409


def test_a_users_client_is_the_users_whatever_secret_is_shown() -> None:
    for held in (None, "", DIGEST):
        check_may_act("ann", held, digest_of_secret("t" * 22))


# Resume tokens --------------------------------------------------------------------------


def test_a_token_is_good_for_one_client_of_one_user_with_one_secret() -> None:
    token = resume_token(KEY, "ann", "c1", DIGEST, SEVEN)
    assert read_resume_token([KEY], token, "ann", "c1", DIGEST) == SEVEN
    others: list[tuple[str | None, str, str]] = [
        ("bob", "c1", DIGEST),
        (None, "c1", DIGEST),
        ("ann", "c2", DIGEST),
        ("ann", "c1", ""),
        ("ann", "c1", digest_of_secret("t" * 22)),
    ]
    for other in others:
        assert read_resume_token([KEY], token, *other) is None
    assert read_resume_token([resume_key("other")], token, "ann", "c1", DIGEST) is None


def test_a_token_of_a_key_that_was_replaced_is_good() -> None:
    token = resume_token(resume_key("old"), None, "c1", DIGEST, SEVEN)
    keys = [resume_key("new"), resume_key("older"), resume_key("old")]
    assert read_resume_token(keys, token, None, "c1", DIGEST) == SEVEN
    assert read_resume_token(keys[:2], token, None, "c1", DIGEST) is None


def test_a_token_tells_since_when_and_none_can_tell_it_otherwise() -> None:
    token = resume_token(KEY, None, "c1", DIGEST, Began(0xABCDEF, 0xABCDEF))
    assert read_resume_token([KEY], token, None, "c1", DIGEST) == Began(0xABCDEF, 0xABCDEF)
    since, _, signed = token.partition(".")
    for earlier in (
        "0",
        "1",
        since[:-1],
        since.upper(),
        f"0{since}",
        "",
        "-1",
        "+1",
        " 1",
        f"{since}+1",
    ):
        assert read_resume_token([KEY], f"{earlier}.{signed}", None, "c1", DIGEST) is None


@pytest.mark.parametrize(
    "token", [None, "", "x", ".", "0.", "0.x", "0.ü", "0.\udc80", "٣.x", "f" * 17 + "."]
)
def test_what_is_no_token_opens_nothing(token: str | None) -> None:
    assert read_resume_token([KEY], token, None, "c1", DIGEST) is None


@pytest.mark.parametrize("uid", ["-", "u", "", "\ud800", "a\x00b"])
def test_a_user_is_never_taken_for_nobody_or_another(uid: str) -> None:
    token = resume_token(KEY, uid, "c1", DIGEST, Began(0, 0))
    assert read_resume_token([KEY], token, uid, "c1", DIGEST) == Began(0, 0)
    assert read_resume_token([KEY], token, None, "c1", DIGEST) is None


def test_the_key_is_the_same_for_a_secret_in_text_and_in_bytes() -> None:
    assert resume_key("secret") == resume_key(b"secret") != resume_key(b"other")


def test_a_token_of_a_page_tells_two_beginnings() -> None:
    began = Began(0x3E8, 0x3F0)
    token = resume_token(KEY, "ann", "c1", DIGEST, began)
    assert token.startswith("3e8+8.")
    assert read_resume_token([KEY], token, "ann", "c1", DIGEST) == began
    for other in ("3e8", "3e8+0", "3e8+7", "3f0", "3e8+8+8", "3e8+"):
        moved = f"{other}.{token.partition('.')[2]}"
        assert read_resume_token([KEY], moved, "ann", "c1", DIGEST) is None


# Page cursors ---------------------------------------------------------------------------


@pytest.mark.parametrize("uid", [None, "ann", "-", "a\x00b", "\ud800"])
def test_a_page_cursor_is_good_for_its_user(uid: str | None) -> None:
    text = page_cursor(KEY, uid, "e7f3:1042")
    assert text.startswith("e7f3:1042.")
    assert read_page_cursor([resume_key("new"), KEY], text, uid) == "e7f3:1042"
    for other in (None, "bob", "uann", "page", ""):
        if other != uid:
            assert read_page_cursor([KEY], text, other) is None
    assert read_page_cursor([resume_key("new")], text, uid) is None


def test_a_page_cursor_cannot_be_moved() -> None:
    signed = page_cursor(KEY, "ann", "e7f3:1042").partition(".")[2]
    for cursor in ("e7f3:1041", "e7f3:104", "e7f4:1042", "", "u", "x.e7f3:1042"):
        assert read_page_cursor([KEY], f"{cursor}.{signed}", "ann") is None


@pytest.mark.parametrize(
    "text", [None, "", ".", "e7f3:1042", "e7f3:1042.", "e7f3:1042." + "ü" * 24]
)
def test_what_is_no_page_cursor_opens_nothing(text: str | None) -> None:
    assert read_page_cursor([KEY], text, None) is None


def test_a_resume_token_is_no_page_cursor_and_a_page_cursor_no_resume_token() -> None:
    token = resume_token(KEY, None, "c1", DIGEST, SEVEN)
    assert read_page_cursor([KEY], token, None) is None
    text = page_cursor(KEY, None, "7")
    assert read_resume_token([KEY], text, None, "c1", DIGEST) is None

"""Pages of other sites, in the browser of somebody who is signed in here (docs/security.rst)."""

from __future__ import annotations

import pytest

from tests.e2e.hostile.conftest import Target
from tests.e2e.hostile.wire import head, upgrade

CONFIG = {"CHSK_ALLOWED_ORIGINS": ["https://friend.example"]}
URL = "/chsk?client-id=page"
BODY = b"client-id=page&ppstr=%5B%5B%3Atest%2Fecho+1%5D+%3Aajax%5D"
POST: dict[str, str | None] = {
    "Content-Type": "application/x-www-form-urlencoded",
    "Content-Length": str(len(BODY)),
}

FOREIGN = [
    "https://evil.example",
    "null",
    "http://127.0.0.1.evil.example",
    "http://evil.example#127.0.0.1",
    "http://127.0.0.1@evil.example",
    "http://127.0.0.1:1",
    "https://127.0.0.1",
    "file://",
    "https://friend.example.evil.example",
    "https://notfriend.example",
    "http://friend.example",
    "https://friend.example:444",
    "https://sub.friend.example",
    "javascript://friend.example",
    "https://friend.example\t",
    "x" * 5000,
]


@pytest.mark.parametrize("origin", FOREIGN, ids=range(len(FOREIGN)))
def test_a_foreign_origin_is_refused(target: Target, origin: str) -> None:
    allowed = origin.strip() == "https://friend.example"
    headers: dict[str, str | None] = {"Origin": origin}
    with target.wire() as wire:
        wire.send(upgrade(URL, headers))
        status, _, body = wire.answer()
        assert status == (101 if allowed else 403)
        assert allowed or "CHSK_ALLOWED_ORIGINS" in body
    for request in (
        head(URL, headers),
        head(f"{URL}&handshake%3F=1", headers),
        head("/chsk", {**POST, **headers}, "POST") + BODY,
        head(URL, headers, "OPTIONS"),
    ):
        with target.wire() as wire:
            wire.send(request)
            status, answered, _ = wire.answer()
            assert allowed or status == 403
            assert allowed or "access-control-allow-origin" not in answered


@pytest.mark.parametrize("site", ["cross-site"])
def test_a_get_that_browsers_make_without_an_origin_is_refused_across_sites(
    target: Target, site: str
) -> None:
    """An image, a script, a link: they carry cookies, and no Origin."""
    for mode in ("no-cors", "navigate"):
        headers: dict[str, str | None] = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode}
        assert target.request(head(URL, headers))[0] == 403
        assert target.request(upgrade(URL, headers))[0] == 403
        request = head("/chsk", {**POST, **headers}, "POST") + BODY
        assert target.request(request)[0] == 403


def test_a_listed_origin_gets_what_it_needs_and_no_more(target: Target) -> None:
    with target.wire() as wire:
        wire.send(head(URL, {"Origin": "https://friend.example"}, "OPTIONS"))
        status, headers, _ = wire.answer()
    assert status == 204
    assert {name: value for name, value in headers.items() if "access-control" in name} == {
        "access-control-allow-origin": "https://friend.example",
        "access-control-allow-credentials": "true",
        "access-control-allow-methods": "GET, POST",
        "access-control-allow-headers": (
            "Authorization, Content-Type, X-CSRF-Token, X-Requested-With, X-Chsk-Secret,"
            " X-Chsk-Resume"
        ),
        "access-control-max-age": "600",
    }
    assert headers["vary"] == "Origin"


def test_a_listed_origin_is_told_why_it_is_refused(target: Target) -> None:
    with target.wire() as wire:
        wire.send(head("/chsk", {"Origin": "https://friend.example"}))
        status, headers, body = wire.answer()
    assert (status, headers["access-control-allow-origin"]) == (400, "https://friend.example")
    assert body.startswith("no client-id")


def test_our_own_pages_need_no_cors(target: Target) -> None:
    with target.wire() as wire:
        own = f"http://127.0.0.1:{target.port}"
        wire.send(head(f"{URL}&handshake%3F=1", {"Host": own[7:], "Origin": own}))
        status, headers, _ = wire.answer()
    assert (status, [name for name in headers if "access-control" in name]) == (200, [])


def test_a_proxys_headers_are_not_believed_without_proxy_fix(target: Target) -> None:
    headers: dict[str, str | None] = {
        "Origin": "https://evil.example",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "https",
        "Forwarded": "host=evil.example;proto=https",
    }
    assert target.request(upgrade(URL, headers))[0] == 403

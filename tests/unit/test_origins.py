"""Which origins a list lets in, and what a list may hold."""

from __future__ import annotations

import pytest
from flask import Flask

from flask_chsk import Chsk, origins
from flask_chsk.config import Config
from flask_chsk.errors import ConfigError, Refused
from flask_chsk.security import SECRET_HEADER, check_origin

OWN = "https://example.org"


def check(origin: str, *listed: str, own: str = OWN, cookies: bool = False) -> str | None:
    """The decision of a server whose list holds *listed*."""
    config = Config.of({"CHSK_ALLOWED_ORIGINS": list(listed)})
    return check_origin(origin, None, own, config.allowed_origins, cookies)


@pytest.mark.parametrize(
    "origin",
    [
        "capacitor://localhost",
        "ionic://localhost",
        "ionic://",
        "app://",
        "app://bundle",
        "tauri://localhost",
        "http://tauri.localhost",
        "file://",
        "chrome-extension://abcdefghijklmnop",
        "moz-extension://6e4f-11",
        "http://[::1]:5173",
        "http://my_host:8080",
    ],
)
def test_origins_of_apps_are_listed_as_they_are(origin: str) -> None:
    assert check(origin, origin, cookies=True) == origin
    with pytest.raises(Refused):
        check(origin, "https://app.example.org")


@pytest.mark.parametrize(
    ("origin", "listed"),
    [
        ("https://app.example.com", "https://APP.example.com/"),
        ("https://app.example.com", "https://app.example.com:443"),
        ("https://app.example.com", "wss://app.example.com"),
        ("wss://app.example.com", "https://app.example.com"),
        ("http://localhost:5173", "http://localhost:5173"),
    ],
)
def test_one_origin_is_the_same_in_each_spelling(origin: str, listed: str) -> None:
    assert check(origin, listed) == origin


@pytest.mark.parametrize(
    "origin", ["wss://example.org", "wss://example.org:443", "WSS://EXAMPLE.org"]
)
def test_a_program_may_name_our_own_host_by_the_scheme_of_the_socket(origin: str) -> None:
    assert check(origin) is None
    with pytest.raises(Refused):
        check(origin.lower().replace("example", "evil"))


@pytest.mark.parametrize(
    ("listed", "origin", "let_in"),
    [
        ("https://*.example.com", "https://a.example.com", True),
        ("https://*.example.com", "https://b.a.EXAMPLE.com", True),
        ("https://*.example.com", "https://a.example.com:443", True),
        ("https://*.example.com:8443", "https://a.example.com:8443", True),
        ("http://*.localhost:3000", "http://tenant.localhost:3000", True),
        ("https://*.example.com", "https://example.com", False),
        ("https://*.example.com", "http://a.example.com", False),
        ("https://*.example.com", "https://a.example.com:8443", False),
        ("https://*.example.com", "https://aexample.com", False),
        ("https://*.example.com", "https://.example.com", False),
        ("https://*.example.com", "https://a.example.com.evil.net", False),
        ("https://*.example.com", "https://evil.net/.example.com", False),
        ("https://*.example.com", "https://evil.net?.example.com", False),
        ("https://*.example.com", "https://user@evil.net:1.example.com", False),
        ("https://*.example.com", "https://*.example.com.", False),
        ("https://*.example.com", "null", False),
        ("https://*.example.com", "", False),
    ],
)
def test_a_wildcard_lets_subdomains_in_and_nothing_else(
    listed: str, origin: str, let_in: bool
) -> None:
    if let_in:
        assert check(origin, listed) == origin
    else:
        with pytest.raises(Refused):
            check(origin, listed)


def test_null_is_served_without_cookies_only() -> None:
    assert check("null", "null") == "*"  # in CORS: without credentials
    with pytest.raises(Refused, match="came with cookies, and any page can be one"):
        check("null", "null", cookies=True)
    with pytest.raises(Refused, match="Origin null is not"):
        check("null", "https://app.example.org")


@pytest.mark.parametrize(
    ("listed", "line"),
    [
        ("example.org", "'example.org' is no origin; write scheme and host, with the port"),
        ("https://", "'https://' has no host name"),
        ("https://a.org/x", "'https://a.org/x' is no origin"),
        ("https://u@a.org", "'https://u@a.org' has no host name"),
        ("https://a.org:x", "'https://a.org:x' is no origin"),
        ("https://a b.org", "'https://a b.org' has no host name"),
        ("", "'' is no origin"),
        ("*", "'*' stands for any origin alone: write \"*\" in place of the list"),
        ("https://*", "'https://*' has a wildcard for more than subdomains of one domain"),
        ("https://*.org", "'https://*.org' has a wildcard for more than subdomains"),
        ("https://app-*.a.org", "'https://app-*.a.org' has a wildcard for more than"),
        ("http://localhost:*", "'http://localhost:*' is no origin"),
        ("*://a.org", "'*://a.org' is no origin"),
        ("app://*", "'app://*' has a wildcard, which only http and https may have"),
        ("https://münchen.de", "is not what browsers send: write 'https://xn--mnchen-3ya.de'"),
    ],
)
def test_what_matches_nothing_is_refused_with_the_remedy(listed: str, line: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Config.of({"CHSK_ALLOWED_ORIGINS": [listed]})
    assert str(raised.value).startswith("CHSK_ALLOWED_ORIGINS: ")
    assert line in str(raised.value)


def test_a_development_server_that_replaces_host_is_named() -> None:
    with pytest.raises(Refused, match="development server: its proxy has to pass Host on"):
        check("http://localhost:5173", own="http://127.0.0.1:5000")
    with pytest.raises(Refused) as raised:
        check("https://app.example.com")
    assert "development" not in str(raised.value)


def test_long_origins_are_compared_in_little_time() -> None:
    listed = tuple(f"https://*.a{n}.example.org" for n in range(50))
    assert not origins.matches("https://" + "a-." * 20_000 + "x", listed)


@pytest.mark.parametrize(
    ("origin", "cookies", "status", "allow", "credentials"),
    [
        ("https://a.example.com", False, 200, "https://a.example.com", "true"),
        ("capacitor://localhost", False, 200, "capacitor://localhost", "true"),
        ("null", False, 200, "*", None),
        ("null", True, 403, None, None),
        ("https://evil.net", False, 403, None, None),
    ],
)
def test_answers_allow_what_the_list_does(
    origin: str, cookies: bool, status: int, allow: str | None, credentials: str | None
) -> None:
    app = Flask(__name__)
    app.secret_key = "secret"
    Chsk(app, allowed_origins=["https://*.example.com", "capacitor://localhost", "null"])
    headers = {"Origin": origin, "Authorization": "Bearer t", SECRET_HEADER: "s" * 22}
    browser = app.test_client()
    if cookies:
        browser.set_cookie("session", "x")
    for method in ("GET", "OPTIONS"):
        answer = browser.open(
            "/chsk?client-id=x&v=1&handshake%3F=1", method=method, headers=headers
        )
        assert answer.status_code == (204 if status == 200 and method == "OPTIONS" else status)
        assert answer.headers.get("Access-Control-Allow-Origin") == allow
        assert answer.headers.get("Access-Control-Allow-Credentials") == credentials

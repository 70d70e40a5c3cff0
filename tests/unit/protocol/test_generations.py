"""By what requests tell their generation, request by request as each version sends them."""

from __future__ import annotations

from typing import Any

import pytest

from flask_chsk.protocol.generations import CURRENT, GENERATIONS, told
from flask_chsk.protocol.wire import WIRES
from flask_chsk.security import proves_same_origin

# What the clients of a version put into a request's query or form, and who they are taken for.
SENT: list[tuple[str, str, Any, str, str]] = [
    ("1.1", "1.0", "ws", "", "1.0"),
    ("1.1", "1.0", "poll", "_ ajax-client-uuid", "1.0"),
    ("1.3", "1.0", "ws", "client-id", "1.9"),
    ("1.3", "1.0", "poll", "_ client-id", "1.7"),
    ("1.3", "1.0", "post", "_ csrf-token ppstr", "1.3"),
    ("1.5", "1.0", "poll", "_ client-id handshake?", "1.7"),
    ("1.5", "1.0", "post", "_ csrf-token ppstr", "1.3"),
    ("1.7", "1.0", "poll", "_ client-id handshake?", "1.7"),
    ("1.7", "1.0", "post", "_ client-id csrf-token ppstr", "1.9"),
    ("1.9", "1.0", "ws", "client-id", "1.9"),
    ("1.9", "1.0", "poll", "udt client-id handshake?", "1.9"),
    ("1.9", "1.0", "post", "udt client-id csrf-token ppstr", "1.9"),
    ("1.11", "1.0", "poll", "udt client-id", "1.9"),
    ("1.14", "1.0", "ws", "client-id csrf-token", "1.14"),
    ("1.14", "1.0", "poll", "udt client-id csrf-token", "1.14"),
    ("1.17", "1.17", "ws", "client-id csrf-token", "1.17"),
    ("1.17", "1.17", "poll", "udt client-id csrf-token", "1.17"),
    ("1.18", "1.18", "ws", "client-id csrf-token", "1.18"),
    ("1.19", "1.18", "post", "udt client-id csrf-token ppstr", "1.18"),
    ("1.21", "1.21", "ws", "client-id csrf-token", "1.21"),
    ("1.21", "1.21", "post", "udt client-id ppstr", "1.21"),
]


@pytest.mark.parametrize(("version", "wire", "kind", "params", "taken_for"), SENT)
def test_a_request_is_told_by_its_parameters(
    version: str, wire: str, kind: Any, params: str, taken_for: str
) -> None:
    assert told(wire, kind, params.split()).first == taken_for


@pytest.mark.parametrize(("version", "wire", "kind", "params", "taken_for"), SENT)
def test_whoever_a_client_is_taken_for_it_is_treated_as_its_own_asks(
    version: str, wire: str, kind: Any, params: str, taken_for: str
) -> None:
    """Where nothing tells two generations apart, what is assumed is safe for both."""
    number = int(version.partition(".")[2])
    one = told(wire, kind, params.split())
    if kind == "ws" and 9 <= number <= 17:
        assert one.clean_close_is_final
    if kind == "poll":
        assert (one.poll_end == []) is (3 <= number <= 8)
        assert (one.idle_poll > 25.0) is one.hang_up is (3 <= number <= 8)
    if kind == "post":
        assert one.post_without_id is (3 <= number <= 6)
    assert one.supported is (number >= 3)


def test_each_wire_has_its_generations() -> None:
    assert {one.wire for one in GENERATIONS} == set(WIRES)
    assert CURRENT.first == "1.21"


OWN = "https://example.org"


@pytest.mark.parametrize(
    ("origin", "fetch_site", "proves"),
    [
        (OWN, None, True),
        (OWN + ":443", None, True),
        (OWN, "same-origin", True),
        (None, "same-origin", True),
        ("http://inside:8000", "same-origin", True),  # a proxy changed Host
        (None, None, False),
        ("null", None, False),
        ("http://example.org", None, False),
        ("https://sub.example.org", None, False),
        (None, "none", False),
        (OWN, "same-site", False),
        (OWN, "cross-site", False),
    ],
)
def test_a_browser_proves_the_origin(
    origin: str | None, fetch_site: str | None, proves: bool
) -> None:
    assert proves_same_origin(origin, fetch_site, OWN) is proves

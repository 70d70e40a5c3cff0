"""Every setting: what it accepts, and the error that names it otherwise."""

from __future__ import annotations

import dataclasses
from datetime import timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from flask_chsk.config import Config, MiB
from flask_chsk.errors import ConfigError

# key: values that work (as given, as kept), values that cannot.
KEYS: dict[str, tuple[list[tuple[Any, Any]], list[Any]]] = {
    "path": ([("/ws", "/ws"), ("/a/b", "/a/b")], ["chsk", "", None, 7]),
    "packer": ([("edn", "edn"), ("json", "json")], ["", None, 7]),
    "packers": ([(["edn"], ("edn",)), (("json", "edn"), ("json", "edn"))], ["edn", [], [7], None]),
    "wire": (
        [*((each, each) for each in ("1.21", "1.18", "1.17", "1.0")), (1.21, "1.21"), (1.0, "1.0")],
        ["1.20", 1.2, 1, None],
    ),
    "naive_datetimes": (
        [
            (None, None),
            ("UTC", timezone.utc),
            (timezone.utc, timezone.utc),
            ("Europe/Berlin", ZoneInfo("Europe/Berlin")),
        ],
        ["Nowhere/Land", "../etc", "", 2, True],
    ),
    "allowed_origins": (
        [
            (None, None),
            ("*", "*"),
            ("https://A.example", ("https://a.example",)),
            (["http://a.example:8080/"], ("http://a.example:8080",)),
            (["wss://a.example:443", "null"], ("https://a.example", "null")),
            (["https://*.a.example"], ("https://*.a.example",)),
            (["capacitor://localhost", "app://"], ("capacitor://localhost", "app://")),
            ([], ()),
        ],
        ["a.example", ["*"], ["https://"], ["https://a.example/x"], ["https://*.org"], [7], 7],
    ),
    "csrf": ([(True, True), (False, False)], [1, 0, None, "no"]),
    "ws_kalive": ([(1, 1.0), (0.1, 0.1)], [0, -1, "25", True, float("nan"), 3601]),
    "ws_ping_timeout": ([(10, 10.0)], [0, None, False]),
    "lp_timeout": ([(55, 55.0), (0.5, 0.5)], [56, 0, float("inf")]),
    "reply_timeout": ([(55, 55.0)], [55.1, 0, None]),
    "send_buf_ws": ([(0, 0.0), (0.05, 0.05)], [-0.1, 11, None]),
    "send_buf_ajax": ([(0, 0.0)], [-1, "0"]),
    "recv_buf": ([(1, 1)], [0, 1.5, True, "1"]),
    "close_grace_ws": ([(0, 0.0), (5, 5.0)], [-1, 3601]),
    "close_grace_ajax": ([(0, 0.0)], [-1, None]),
    "max_message_bytes": ([(1024, 1024)], [1023, 1e6, None]),
    "max_message_values": ([(100, 100)], [99, 1e6, None]),
    "max_outbox_bytes": ([(2 * MiB, 2 * MiB)], [2047, 2 * MiB - 1, None]),
    "max_inbox": ([(1, 1)], [0, None]),
    "max_inbound_bytes": ([(4 * MiB, 4 * MiB)], [4 * MiB - 1, None]),
    "max_clients_per_uid": ([(1, 1)], [0, None]),
    "max_openings": ([(1, 1)], [0, None]),
    "rate": ([(None, None), ((10, 20), (10.0, 20)), ([0.5, 1], (0.5, 1))], [10, (0, 1), (1, 0)]),
    "rate_per_address": ([(None, None), ((5, 9), (5.0, 9))], ["10", (1,), (1, 2, 3), ("a", 1)]),
    "recovery_events": ([(0, 0)], [-1, None]),
    "recovery_bytes": ([(0, 0)], [-1, 1.5]),
    "recovery_seconds": ([(0, 0.0), (3600, 3600.0)], [-1, 86401]),
    "page_grace": ([(0, 0.0), (15, 15.0)], [-1, 3601, None]),
    "allow_unshared": ([(True, True)], [1, None]),
    "health": ([(True, True)], [1, None]),
    "broker_url": ([("redis://host/1", "redis://host/1")], ["", None]),
}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHSK_BROKER_URL", raising=False)


def test_every_setting_is_tried_here() -> None:
    assert set(KEYS) == {field.name for field in dataclasses.fields(Config)}


@pytest.mark.parametrize(
    ("key", "given", "kept"), [(key, *good) for key, (goods, _) in KEYS.items() for good in goods]
)
def test_a_value_that_works_is_kept(key: str, given: Any, kept: Any) -> None:
    as_argument = Config.of({}, **{key: given})
    from_config = Config.of({f"CHSK_{key.upper()}": given})
    assert getattr(as_argument, key) == kept
    assert type(getattr(as_argument, key)) is type(kept)
    assert from_config == as_argument == dataclasses.replace(Config(), **{key: kept})


@pytest.mark.parametrize(
    ("key", "given"), [(key, bad) for key, (_, bads) in KEYS.items() for bad in bads]
)
def test_a_value_that_cannot_work_is_refused_by_name(key: str, given: Any) -> None:
    with pytest.raises(ConfigError, match=f"CHSK_{key.upper()}"):
        Config.of({}, **{key: given})


def test_the_defaults_work() -> None:
    assert Config.of({}) == Config()


def test_an_argument_wins_over_the_applications_config() -> None:
    assert Config.of({"CHSK_PATH": "/a", "CHSK_CSRF": False}, path="/b") == Config(
        path="/b", csrf=False
    )


def test_keys_of_others_are_not_ours() -> None:
    assert Config.of({"SECRET_KEY": "s", "CHSKX": 1, "chsk_path": "/x"}) == Config()


@pytest.mark.parametrize(
    ("config", "given", "complaint"),
    [
        ({"CHSK_KALIVE": 1}, {}, r"unknown setting CHSK_KALIVE: did you mean CHSK_WS_KALIVE\?"),
        ({}, {"orgins": "*"}, "unknown setting orgins"),
        ({}, {"allowed_orgins": "*"}, "did you mean CHSK_ALLOWED_ORIGINS"),
        ({"CHSK_": 1}, {}, "unknown setting CHSK_,"),
    ],
)
def test_an_unknown_setting_is_named_with_the_nearest_known_one(
    config: dict[str, Any], given: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        Config.of(config, **given)


def test_the_packer_is_one_of_the_packers() -> None:
    with pytest.raises(ConfigError, match="CHSK_PACKER 'json' is not in CHSK_PACKERS"):
        Config.of({}, packer="json", packers=["edn"])


def test_an_outbox_takes_two_of_the_largest_messages() -> None:
    Config.of({}, max_message_bytes=2048, max_outbox_bytes=4096)
    with pytest.raises(ConfigError, match="CHSK_MAX_OUTBOX_BYTES 4095 must be at least twice"):
        Config.of({}, max_message_bytes=2048, max_outbox_bytes=4095)


def test_the_environment_names_the_broker_unless_the_application_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CHSK_BROKER_URL", "redis://env")
    monkeypatch.setenv("CHSK_PATH", "/not-read")
    assert Config.of({}) == Config(broker_url="redis://env")
    assert Config.of({"CHSK_BROKER_URL": "redis://app"}).broker_url == "redis://app"
    assert Config.of({}, broker_url="memory://").broker_url == "memory://"


def test_settings_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().path = "/x"  # type: ignore[misc]

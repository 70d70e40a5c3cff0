"""Every setting: its default, its unit, the reason for its number, and its check.

Read once at ``init_app`` from ``app.config["CHSK_…"]`` and keyword arguments (which win);
an unknown name or an impossible value is a :class:`~flask_chsk.errors.ConfigError` that
names it. Times are seconds, sizes bytes.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from . import origins
from .errors import ConfigError

MiB = 1024 * 1024

WIRES = ("1.21", "1.18", "1.17", "1.0")
"""Generations of Sente's wire, named by the first version that spoke them.

docs/protocol.rst, "Sente's generations".
"""


@dataclass(frozen=True)
class Config:
    """The checked settings of one initialised application."""

    path: str = "/chsk"
    packer: str = "edn"  # for clients that name none: Sente's default
    packers: tuple[str, ...] = ("edn", "json")
    wire: str = "1.21"
    naive_datetimes: tzinfo | None = None  # the zone they are in; None: they are refused

    allowed_origins: tuple[str, ...] | str | None = None  # None: same origin; "*": any
    csrf: bool = True

    ws_kalive: float = 25.0  # below Heroku's 55 s and nginx's 60 s idle limits, twice over
    ws_ping_timeout: float = 10.0
    lp_timeout: float = 20.0  # clients give a poll up at 60, many proxies at 30
    reply_timeout: float = 20.0
    send_buf_ws: float = 0.030  # two frames of a display: nobody sees it, batches do gain
    send_buf_ajax: float = 0.100  # a poll answered costs a round trip, so gather longer
    recv_buf: int = 1000

    close_grace_ws: float = 2.5  # Sente's: longer than a page reload
    close_grace_ajax: float = 5.0  # Sente's: longer than the way from one poll to the next

    max_message_bytes: int = 1 * MiB
    max_message_values: int = 20_000  # read in 10 ms, and the dearest kinds in some 60
    max_outbox_bytes: int = 4 * MiB
    max_inbox: int = 128
    max_inbound_bytes: int = 64 * MiB  # arriving, or waiting for handlers; of the process
    max_clients_per_uid: int = 64
    max_openings: int = 500  # at a time; a worker lets them in within the 5 s that clients wait
    rate: tuple[float, int] | None = None  # events per second, burst; per client
    rate_per_address: tuple[float, int] | None = None  # requests per second, burst

    recovery_events: int = 256
    recovery_bytes: int = 1 * MiB
    recovery_seconds: float = 120.0
    page_grace: float = 15.0  # from a page's request to its connection, on a slow network too

    allow_unshared: bool = False
    health: bool = False  # serve PATH/health: what it says is for your own probes
    broker_url: str = field(default="memory://", repr=False)  # may hold a password

    @classmethod
    def of(cls, app_config: Mapping[str, Any], **given: Any) -> Config:
        """The settings of one application.

        *given* (lower case, without prefix) wins over ``CHSK_`` keys of *app_config*;
        ``CHSK_BROKER_URL`` is also read from the environment.

        :raises ConfigError: naming the key, and the nearest known one.
        """
        names = {one.name for one in fields(cls)}
        settings: dict[str, Any] = {}
        if "CHSK_BROKER_URL" in os.environ:
            settings["broker_url"] = os.environ["CHSK_BROKER_URL"]
        for key, value in app_config.items():
            if key.startswith("CHSK_"):
                settings[_known(key.removeprefix("CHSK_").lower(), names, key)] = value
        for key, value in given.items():
            settings[_known(key, names, key)] = value
        checked = {
            key: _CHECKS[key](f"CHSK_{key.upper()}", value) for key, value in settings.items()
        }
        config = cls(**checked)
        config._check_together()
        return config

    def _check_together(self) -> None:
        if self.packer not in self.packers:
            raise ConfigError(
                f"CHSK_PACKER {self.packer!r} is not in CHSK_PACKERS {self.packers!r}: add it there"
            )
        if self.max_outbox_bytes < 2 * self.max_message_bytes:
            raise ConfigError(
                f"CHSK_MAX_OUTBOX_BYTES {self.max_outbox_bytes} must be at least twice"
                f" CHSK_MAX_MESSAGE_BYTES {self.max_message_bytes}, or one large event"
                " would close a healthy connection"
            )
        if self.max_inbound_bytes < 4 * self.max_message_bytes:
            raise ConfigError(
                f"CHSK_MAX_INBOUND_BYTES {self.max_inbound_bytes} must be at least four times"
                f" CHSK_MAX_MESSAGE_BYTES {self.max_message_bytes}: urlencoded, one message may"
                " come as three times its size"
            )


def _known(name: str, names: set[str], key: str) -> str:
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=1)
    hint = f": did you mean CHSK_{near[0].upper()}?" if near else ""
    raise ConfigError(f"unknown setting {key}{hint or ', see flask_chsk.config.Config'}")


# Checks: (key, value) -> the value as it is kept. ---------------------------------------

Check = Callable[[str, Any], Any]


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{key} must be a non-empty string, not {value!r}")
    return value


def _url(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value:  # what it is instead may hold a password
        raise ConfigError(f"{key} must be a non-empty string, not a {type(value).__name__}")
    return value


def _path(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.startswith("/"):
        raise ConfigError(f'{key} must be a path such as "/chsk", not {value!r}')
    return value


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{key} must be True or False, not {value!r}")
    return value


def _seconds(low: float, high: float, why: str = "") -> Check:
    def check(key: str, value: Any) -> float:
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not low <= value <= high
        ):
            raise ConfigError(f"{key} must be seconds from {low:g} to {high:g}{why}, not {value!r}")
        return float(value)

    return check


def _count(low: int) -> Check:
    def check(key: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ConfigError(f"{key} must be a whole number of at least {low}, not {value!r}")
        return value

    return check


def _wire(key: str, value: Any) -> str:
    if str(value) not in WIRES:  # 1.21, as TOML and YAML read it, is as good as "1.21"
        raise ConfigError(f"{key} must be one of {', '.join(WIRES)}, not {value!r}")
    return str(value)


def zone(key: str, value: Any) -> tzinfo | None:
    """The zone that *value* names, or is.

    :raises ConfigError: naming *key*.
    """
    if value is None or isinstance(value, tzinfo):
        return value
    if not isinstance(value, str):
        raise ConfigError(f'{key} must be None, a tzinfo or a name such as "UTC", not {value!r}')
    if value.upper() == "UTC":
        return timezone.utc  # needs no database of zones
    try:
        return ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(
            f'{key}: there is no zone {value!r}: write "UTC", or a name such as "Europe/Berlin";'
            " where the system has no zones, pip install tzdata"
        ) from None


def _names(key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple | set | frozenset) or not value or not _all_text(value):
        raise ConfigError(f'{key} must be a list of names such as ["edn", "json"], not {value!r}')
    return tuple(value)


def _all_text(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _origins(key: str, value: Any) -> tuple[str, ...] | str | None:
    if value is None or value == "*":
        return value  # type: ignore[no-any-return]
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple | set | frozenset) or not _all_text(value):
        raise ConfigError(f'{key} must be None, "*" or a list of origins, not {value!r}')
    listed = []
    for origin in value:
        try:
            listed.append(origins.entry(origin))
        except ValueError as error:
            raise ConfigError(f"{key}: {origin!r} {error}") from None
    return tuple(listed)


def _rate(key: str, value: Any) -> tuple[float, int] | None:
    if value is None:
        return None
    try:
        per_second, burst = value
        if per_second > 0 and burst >= 1:
            return float(per_second), int(burst)
    except (TypeError, ValueError):
        pass
    raise ConfigError(f"{key} must be None or (number per second, burst), not {value!r}")


_CHECKS: dict[str, Check] = {
    "path": _path,
    "packer": _text,
    "packers": _names,
    "wire": _wire,
    "naive_datetimes": zone,
    "allowed_origins": _origins,
    "csrf": _flag,
    "ws_kalive": _seconds(0.1, 3600),
    "ws_ping_timeout": _seconds(0.1, 3600),
    "lp_timeout": _seconds(0.1, 55, " (clients give a poll up at 60)"),
    "reply_timeout": _seconds(0.1, 55, " (clients give a request up at 60)"),
    "send_buf_ws": _seconds(0, 10),
    "send_buf_ajax": _seconds(0, 10),
    "recv_buf": _count(1),
    "close_grace_ws": _seconds(0, 3600),
    "close_grace_ajax": _seconds(0, 3600),
    "max_message_bytes": _count(1024),
    "max_message_values": _count(100),
    "max_outbox_bytes": _count(2048),
    "max_inbox": _count(1),
    "max_inbound_bytes": _count(4096),
    "max_clients_per_uid": _count(1),
    "max_openings": _count(1),
    "rate": _rate,
    "rate_per_address": _rate,
    "recovery_events": _count(0),
    "recovery_bytes": _count(0),
    "recovery_seconds": _seconds(0, 86400),
    "page_grace": _seconds(0, 3600),
    "allow_unshared": _flag,
    "health": _flag,
    "broker_url": _url,
}

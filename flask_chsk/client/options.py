"""Checks of what an application gives to a client; an error names the option.

A function that is asked for a token runs in a thread of its own, so that one that never returns
holds up nothing else. Nothing here connects.
"""

from __future__ import annotations

import difflib
import re
import threading
from collections.abc import Callable, Iterable
from functools import partial
from inspect import signature
from typing import Any

from ..errors import BadEvent, ConfigError
from ..interrupts import from_signal
from ..logs import logger
from ..protocol.backoff import exp_backoff
from ..protocol.event import is_event_id
from .policy import Options
from .waiting import Flag, ThreadGroup

log = logger(__name__)

ASK = 10.0  # seconds for a function of the application to return a token
CLIENT_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
LONGEST = 1_000_000.0  # seconds, the longest wait that sockets take: as good as for ever

Token = str | Callable[[], str | None] | None


def seconds(name: str, given: Any) -> float:
    """*given* as seconds to wait; ``math.inf`` means for ever.

    :raises ConfigError: for what is no number, or below 0.
    """
    if isinstance(given, bool) or not isinstance(given, int | float) or not given >= 0:
        raise ConfigError(f"{name} is in seconds, and at least 0: not {given!r}")
    return float(min(given, LONGEST))


def positive(name: str, given: Any) -> float:
    """*given* as seconds to wait, more than 0.

    :raises ConfigError: for anything else.
    """
    if not seconds(name, given) > 0:
        raise ConfigError(f"{name} is in seconds, and more than 0: not {given!r}")
    return seconds(name, given)


def count(name: str, given: Any, least: int) -> int:
    """*given* as a number of things, at least *least*.

    :raises ConfigError: for anything else.
    """
    if isinstance(given, bool) or not isinstance(given, int) or given < least:
        raise ConfigError(f"{name} is a number, and at least {least}: not {given!r}")
    return given


def token(name: str, given: Any) -> str | None:
    """*given*, if it can travel in a header.

    :raises ConfigError: naming the option, without the token.
    """
    if given is None or (isinstance(given, str) and given.isascii() and given.isprintable()):
        return given
    raise ConfigError(f"{name} must be a string of ASCII characters; encode others, as base64")


def page_cursor(given: Any) -> str | None:
    """*given*, if it can be the cursor that a view returned.

    :raises ConfigError: for anything else.
    """
    if given is None or isinstance(given, str):
        return given or None
    raise ConfigError(f"cursor is what chsk.page_cursor() returned, not {given!r}")


def handler_id(given: Any) -> str:
    """*given*, if it is an event's id or ``"*"``.

    :raises BadEvent: with an id as it should be.
    """
    if given == "*" or is_event_id(given):
        return str(given)
    raise BadEvent(
        f'on({given!r}): an id has a namespace, as in on("chat/say"); "*" takes all others. The'
        ' connection is told to watch(fn) and on("chsk/state")'
    )


def checked_backoff(backoff: Callable[[int], float]) -> Callable[[int], float]:
    """*backoff*; where it fails or returns no seconds, the default takes its place."""

    def wait(attempt: int) -> float:
        try:
            return seconds("backoff", backoff(attempt))
        except BaseException as error:
            if from_signal(error):
                raise
            log.exception("backoff failed")
            return exp_backoff(attempt)

    return wait


def assert_known(function: Callable[..., Any], given: Iterable[str]) -> None:
    """Check the names of keyword arguments of *function*, unless it takes all.

    :raises TypeError: naming the one that is unknown, and the option that is most like it.
    """
    parameters = signature(function).parameters
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        return
    known = [name for name in parameters if name != "self"]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise TypeError(f"there is no option {name}: {hint}")


def session_options(
    type: str,
    ws_kalive: float,
    ws_ping_timeout: float,
    connect_timeout: float,
    offline_queue: int,
    backoff: Callable[[int], float] | None,
    client_id: str | None,
) -> Options:
    """The options of a session.

    :raises ConfigError: naming the one that cannot be.
    """
    if type not in ("auto", "ws", "ajax"):
        raise ConfigError(f'type is "auto", "ws" or "ajax", not {type!r}')
    if client_id is not None and not (
        isinstance(client_id, str) and CLIENT_ID.fullmatch(client_id)
    ):
        raise ConfigError(f"client_id is 1 to 64 of A-Za-z0-9_-, not {client_id!r}")
    return Options(
        type=type,  # type: ignore[arg-type]
        ws_kalive=positive("ws_kalive", ws_kalive),
        ws_ping_timeout=positive("ws_ping_timeout", ws_ping_timeout),
        connect_timeout=positive("connect_timeout", connect_timeout),
        offline_queue=count("offline_queue", offline_queue, 0),
        backoff=checked_backoff(backoff or exp_backoff),
        client_id=client_id,
    )


class _Answer:
    """What one call of the application's function returns, for all who wait for it."""

    __slots__ = ("error", "flags", "value")

    def __init__(self) -> None:
        self.flags: list[Flag] = []
        self.value: Any = None
        self.error: BaseException | None = None


class Credentials:
    """The CSRF token and the bearer token of one client.

    Where the application gave functions for them, each runs once at a time, in a thread of its
    own.
    """

    def __init__(self, threads: ThreadGroup, csrf_token: Token, auth: Token) -> None:
        """
        :raises ConfigError: for a token that cannot travel in a header.
        """
        self._given = {"csrf_token": csrf_token, "auth": auth}
        for name, given in self._given.items():
            if not callable(given):
                token(name, given)
        self._threads = threads
        self._lock = threading.Lock()
        self._asked: dict[str, _Answer] = {}

    def ask(self) -> tuple[str | None, str | None]:
        """The CSRF token and the bearer token, asked for anew; it may block.

        :raises ConfigError: naming the function that returns no token, fails, or takes too long.
        """
        return self._ask("csrf_token"), self._ask("auth")

    def _ask(self, name: str) -> str | None:
        given = self._given[name]
        if not callable(given):
            return token(name, given)
        with self._lock:
            answer = self._asked.get(name)
            begins = answer is None
            if answer is None:
                answer = self._asked[name] = _Answer()
            flag = Flag()
            answer.flags.append(flag)
        if begins:
            self._threads.start(name, partial(self._run, name, given, answer))
        if not flag.wait(ASK):
            raise ConfigError(f"{name} returned nothing within {ASK:g} s")
        if answer.error is not None:
            raise ConfigError(f"{name}: {answer.error!r}") from answer.error
        return token(name, answer.value)

    def _run(self, name: str, given: Callable[[], Any], answer: _Answer) -> None:
        try:
            answer.value = given()
        except BaseException as error:
            answer.error = error
            if from_signal(error):
                raise
        finally:
            with self._lock:
                del self._asked[name]
                flags = answer.flags
            for flag in flags:
                flag.set()

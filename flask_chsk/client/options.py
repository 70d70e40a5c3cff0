"""What an application gives to a client: checked, and named where it cannot be.

Tokens and seconds only; it connects to nothing. A function that is asked for a token runs in a
thread of its own, so that one that never returns keeps nobody waiting.
"""

from __future__ import annotations

import difflib
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
from .waiting import Crew, Flag

log = logger("flask_chsk.client")

ASK = 10.0  # seconds for a function of the application to return a token
LONGEST = 1_000_000.0  # seconds of a wait: more is too much for sockets, and as good as for ever

Token = str | Callable[[], str | None] | None


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


def seconds(name: str, given: Any) -> float:
    """*given* as seconds to wait; ``math.inf`` is a wait without an end.

    :raises ConfigError: naming what is no number, or below 0.
    """
    if isinstance(given, bool) or not isinstance(given, int | float) or not given >= 0:
        raise ConfigError(f"{name} is in seconds, and at least 0: not {given!r}")
    return float(min(given, LONGEST))


def token(name: str, given: Any) -> str | None:
    """*given*, where it can travel in a header.

    :raises ConfigError: naming the option; never showing the token.
    """
    if given is None or (isinstance(given, str) and given.isascii() and given.isprintable()):
        return given
    raise ConfigError(f"{name} must be a string of ASCII characters; encode others, as base64")


def handler_id(given: Any) -> str:
    """*given*, where events can have it as their id, or ``"*"``.

    :raises BadEvent: with the right way.
    """
    if given == "*" or is_event_id(given):
        return str(given)
    raise BadEvent(
        f'on({given!r}): an id has a namespace, as in on("chat/say"); "*" takes all others. The'
        ' connection is told to watch(fn) and on("chsk/state")'
    )


def checked_backoff(backoff: Callable[[int], float]) -> Callable[[int], float]:
    """*backoff*; where it fails, or returns no seconds, the usual one in its place."""

    def wait(attempt: int) -> float:
        try:
            return seconds("backoff", backoff(attempt))
        except BaseException as error:
            if from_signal(error):
                raise
            log.exception("backoff failed")
            return exp_backoff(attempt)

    return wait


class _Answer:
    __slots__ = ("error", "flags", "value")

    def __init__(self) -> None:
        self.flags: list[Flag] = []
        self.value: Any = None
        self.error: BaseException | None = None


class Questions:
    """Asks functions of the application for tokens, each once at a time."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._lock = threading.Lock()
        self._asked: dict[str, _Answer] = {}

    def ask(self, name: str, given: Token) -> str | None:
        """The token that *given* is, or returns.

        :raises ConfigError: naming the option that returns none, fails, or takes too long.
        """
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
            self._crew.start(name, partial(self._run, name, given, answer))
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

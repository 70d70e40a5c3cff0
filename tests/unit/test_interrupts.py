"""Whose exception it is: a signal's, or the code's."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flask_chsk.interrupts import from_signal


def caught(fn: Callable[[], object]) -> BaseException:
    try:
        fn()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def interrupted(number: int) -> Callable[[], object]:
    def work() -> None:
        os.kill(os.getpid(), number)
        for _ in range(1_000_000):
            pass

    return work


@pytest.fixture
def on_signal() -> Iterator[Callable[[int, Any], None]]:
    """Sets the handler of a signal for one test."""
    before: dict[int, Any] = {}

    def set_handler(number: int, handler: Any) -> None:
        before.setdefault(number, signal.signal(number, handler))

    yield set_handler
    for number, handler in before.items():
        signal.signal(number, handler)


def leave(number: int, frame: object) -> None:
    sys.exit(3)


def test_ctrl_c_is_a_signals(on_signal: Callable[[int, Any], None]) -> None:
    on_signal(signal.SIGINT, signal.default_int_handler)
    assert from_signal(caught(interrupted(signal.SIGINT)))
    assert from_signal(caught(lambda: signal.raise_signal(signal.SIGINT)))


def test_what_a_servers_handler_raises_is_a_signals(on_signal: Callable[[int, Any], None]) -> None:
    on_signal(signal.SIGUSR1, leave)
    assert from_signal(caught(interrupted(signal.SIGUSR1)))


@pytest.mark.parametrize("default", [True, False])
@pytest.mark.parametrize(
    "source",
    [
        "raise KeyboardInterrupt",
        "raise KeyboardInterrupt from None",
        "raise SystemExit(3)",
        "import sys; sys.exit(3)",
        "raise GeneratorExit",
        "raise ValueError",
        "1 / 0",
        "try:\n raise KeyboardInterrupt\nfinally:\n print(end='')",
        "try:\n raise KeyboardInterrupt\nexcept KeyboardInterrupt:\n raise",
    ],
)
def test_what_code_raises_is_the_codes(
    source: str, default: bool, on_signal: Callable[[int, Any], None]
) -> None:
    on_signal(signal.SIGINT, signal.default_int_handler if default else leave)
    code = compile(source, "handler", "exec")
    assert not from_signal(caught(lambda: exec(code)))


def test_an_error_that_was_never_raised_is_nobodys() -> None:
    assert not from_signal(KeyboardInterrupt())

"""What may be registered: a function that a call runs, with the parameters it is called by."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from flask_chsk.errors import ConfigError
from flask_chsk.plain import did_not_run, plain


def function(ev: Any) -> Any: ...


async def coroutine_function(ev: Any) -> Any: ...


def generator_function(ev: Any) -> Iterator[Any]:
    yield ev


async def async_generator_function(ev: Any) -> AsyncIterator[Any]:
    yield ev


class Called:
    """An object that can be called."""

    def __call__(self, ev: Any) -> Any: ...

    def method(self, ev: Any) -> Any: ...


class CalledAsync:
    """One whose call would not run."""

    async def __call__(self, ev: Any) -> Any: ...


class Made:
    """A class whose call makes an object."""

    def __init__(self, ev: Any) -> None: ...


@pytest.mark.parametrize(
    "fn",
    [
        function,
        lambda ev: None,
        functools.partial(function),
        Called(),
        Called().method,
        Made,
        print,
        str,
        lambda *args, **more: None,
        lambda ev, more=1: None,
    ],
)
def test_a_function_that_a_call_runs_is_given_back(fn: Any) -> None:
    assert plain(fn, "@chsk.on", takes="ev") is fn


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (coroutine_function, "coroutine_function is async and would never run"),
        (functools.partial(coroutine_function), "is async and would never run"),
        (functools.partial(functools.partial(coroutine_function)), "is async"),
        (CalledAsync(), "is async and would never run"),
        (async_generator_function, "is async and would never run"),
        (generator_function, "generator_function has a yield and would never run"),
        (None, "@chsk.on takes a function, not None"),
        ("say", "@chsk.on takes a function, not 'say'"),
    ],
)
def test_what_no_call_runs_is_refused(fn: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        plain(fn, "@chsk.on")
    assert str(refused.value).startswith("@chsk.on")


def test_the_refusal_ends_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"write a plain function \(def\)"):
        plain(coroutine_function, "@chsk.on")
    with pytest.raises(ConfigError, match=r": do otherwise$"):
        plain(coroutine_function, "@chsk.on", "do otherwise")


@pytest.mark.parametrize(
    ("fn", "takes", "words"),
    [
        (function, "", r"function\(ev: 'Any'\) is called as function\(\): write def function\(\)"),
        (function, "ev, value", r"is called as function\(ev, value\): write def function\(ev, v"),
        (lambda: None, "ev", r"is called as <lambda>\(ev\)"),
        (lambda ev, *, more: None, "ev", r"is called as <lambda>\(ev\)"),
    ],
)
def test_other_parameters_are_refused(fn: Any, takes: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        plain(fn, "@chsk.on", takes=takes)


def test_a_method_that_is_registered_inside_of_its_class_is_told_where() -> None:
    with pytest.raises(ConfigError, match=r"register the method of an object, such as obj\.method"):
        plain(Called.method, "@chsk.on", takes="ev")


def test_parameters_that_nobody_asks_for_are_not_checked() -> None:
    assert plain(function, "@chsk.on") is function


# What a call gave --------------------------------------------------------------------------


def test_a_coroutine_did_not_run_and_is_closed() -> None:
    coroutine = coroutine_function(1)
    assert did_not_run(coroutine)
    with pytest.raises(RuntimeError, match="already"):
        coroutine.send(None)


@pytest.mark.parametrize("value", [generator_function(1), async_generator_function(1)])
def test_a_generator_did_not_run(value: Any) -> None:
    assert did_not_run(value)


def test_what_can_be_awaited_did_not_run() -> None:
    class Future:
        def __await__(self) -> Iterator[Any]:
            yield

    assert did_not_run(Future())


@pytest.mark.parametrize("value", [None, True, 0, [], iter([]), function, coroutine_function])
def test_any_other_value_is_a_result(value: Any) -> None:
    assert not did_not_run(value)

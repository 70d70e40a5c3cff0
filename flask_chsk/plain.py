"""Checks that hooks and handlers are plain functions.

Calling an ``async`` function, or one with ``yield``, does not run it. The object that the call
returns is true, so an ``async`` check would let everybody in.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from .errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])

REMEDY = "write a plain function (def): under gevent it runs concurrently, and it may block"


def plain(fn: F, role: str, remedy: str = REMEDY) -> F:
    """*fn*, if a call runs it.

    :param role: what *fn* is registered as, such as ``"@chsk.authorize"``.
    :raises ConfigError: for an ``async`` function, a generator function, or no function.
    """
    if not callable(fn):
        raise ConfigError(f"{role} takes a function, not {fn!r}")
    code: Any = fn
    while isinstance(code, partial):
        code = code.func
    if not inspect.isroutine(code) and not inspect.isclass(code):
        code = type(code).__call__  # of an object that can be called
    name = getattr(fn, "__qualname__", repr(fn))
    if inspect.iscoroutinefunction(code) or inspect.isasyncgenfunction(code):
        raise ConfigError(f"{role}: {name} is async and would never run: {remedy}")
    if inspect.isgeneratorfunction(code):
        raise ConfigError(f"{role}: {name} has a yield and would never run: {remedy}")
    return fn


def did_not_run(value: object) -> bool:
    """Whether *value* is a coroutine, a generator or the like: a function that did not run.

    A coroutine is closed, so that Python does not warn of it as well.
    """
    if inspect.iscoroutine(value):
        value.close()
        return True
    return inspect.isawaitable(value) or inspect.isgenerator(value) or inspect.isasyncgen(value)

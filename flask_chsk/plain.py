"""Checks that hooks and handlers are plain functions, with the parameters that they are called by.

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


def plain(fn: F, role: str, remedy: str = REMEDY, *, takes: str | None = None) -> F:
    """*fn*, if a call runs it.

    :param role: what *fn* is registered as, such as ``"@chsk.authorize"``.
    :param takes: the parameters that it is called with, such as ``"ev, value"``.
    :raises ConfigError: for an ``async`` function, a generator function, one that cannot be called
        so, or no function.
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
    if takes is not None:
        _check_parameters(fn, role, name, takes)
    return fn


def _check_parameters(fn: Callable[..., Any], role: str, name: str, takes: str) -> None:
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):  # of some functions in C it is not known
        return
    try:
        signature.bind(*takes.split(", ") if takes else ())
    except TypeError:
        short = name.rpartition(".")[2]
        remedy = f"write def {short}({takes})"
        if next(iter(signature.parameters), "") in ("self", "cls"):
            remedy = f"register the method of an object, such as obj.{short}, outside of its class"
        own = signature.replace(return_annotation=inspect.Signature.empty)
        raise ConfigError(f"{role}: {name}{own} is called as {short}({takes}): {remedy}") from None


def did_not_run(value: object) -> bool:
    """Whether *value* is a coroutine, a generator or the like: a function that did not run.

    A coroutine is closed, so that Python does not warn of it as well.
    """
    if inspect.iscoroutine(value):
        value.close()
        return True
    return inspect.isawaitable(value) or inspect.isgenerator(value) or inspect.isasyncgen(value)

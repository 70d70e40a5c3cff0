"""Whether the script that runs was imported a second time, as a module."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from flask_chsk.server.twice import imported_again


def module(name: str, path: Any) -> ModuleType:
    made = ModuleType(name)
    if path is not None:
        made.__file__ = path
    return made


@pytest.fixture(autouse=True)
def script(monkeypatch: pytest.MonkeyPatch) -> None:
    """The script ``/srv/app.py`` runs."""
    monkeypatch.setitem(sys.modules, "__main__", module("__main__", "/srv/app.py"))


def test_a_script_that_nobody_imported_runs_once() -> None:
    assert imported_again() is None


def test_the_name_by_which_it_was_imported_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "handlers", module("handlers", "/srv/handlers.py"))
    monkeypatch.setitem(sys.modules, "app", module("app", "/srv/app.py"))
    assert imported_again() == "app"


def test_the_same_module_by_another_name_is_no_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "app", sys.modules["__main__"])
    assert imported_again() is None


@pytest.mark.parametrize("path", [None, ...])
def test_a_session_at_the_prompt_has_no_script(monkeypatch: pytest.MonkeyPatch, path: Any) -> None:
    if path is None:
        monkeypatch.setitem(sys.modules, "__main__", module("__main__", None))
    else:
        monkeypatch.delitem(sys.modules, "__main__")
    monkeypatch.setitem(sys.modules, "built_in", module("built_in", None))
    assert imported_again() is None


def test_what_is_no_module_may_stand_among_the_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "never", None)
    monkeypatch.setitem(sys.modules, "odd", object())
    assert imported_again() is None

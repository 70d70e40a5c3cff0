"""What a session decides: one type for each thing to do, and the engine can do all of them."""

from __future__ import annotations

import threading
from dataclasses import fields
from itertools import combinations
from typing import Any, get_args

import pytest

from flask_chsk.client.dispatch import Dispatcher, RecvQueue
from flask_chsk.client.effects import Asked, Effect, Open, Replied, Repoll
from flask_chsk.client.engine import Engine
from flask_chsk.client.link import Link
from tests.unit.client.fakes import Bench

EFFECTS = get_args(Effect)


def test_the_engine_carries_out_each_effect() -> None:
    bench = Bench()
    dispatcher = Dispatcher(bench.threads, RecvQueue(1), True)
    engine = Engine(bench.session, bench.endpoint, dispatcher, bench.threads, threading.RLock())
    assert set(engine._carries_out) == set(EFFECTS)


def test_effects_of_two_kinds_are_never_equal() -> None:
    def filled(effect: Any) -> Any:
        return effect(*(None for _ in fields(effect)))

    assert [(a, b) for a, b in combinations(map(filled, EFFECTS), 2) if a == b] == []


def test_effects_of_one_kind_are_equal_where_they_do_the_same() -> None:
    link = Link("ws", None)
    assert Open(link) == Open(link) and Open(link) != Open(Link("ws", None))
    assert Repoll(link) != Open(link)


def test_an_effect_stays_as_it_was_decided() -> None:
    replied: Any = Replied(None, "reply")  # type: ignore[arg-type]
    assert replied.details is None
    with pytest.raises(AttributeError):
        replied.reply = "another"
    with pytest.raises((AttributeError, TypeError)):
        replied.other = 1
    assert repr(Asked("1", None)) == "Asked(id='1', event=None)"  # type: ignore[arg-type]

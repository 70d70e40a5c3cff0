"""What is decided of clients while they are being let in."""

from __future__ import annotations

import pytest

from flask_chsk.protocol.push import Push
from flask_chsk.server.connection import Asked
from flask_chsk.server.controls import OPENING, Controls

CLOSE = '[:chsk/close {:code 4005 :reason "out"}]'


@pytest.fixture
def controls() -> Controls:
    return Controls()


def test_controls_are_kept_for_whoever_is_being_let_in(controls: Controls) -> None:
    ann, again, nobody = controls.buffer("ann"), controls.buffer("ann"), controls.buffer("c9")
    joined = Push("u:ann", '[:chsk/joined "t"]', 1)
    close_of_client, close_of_nobody = Push("c:c1:ann", CLOSE, 2), Push("c:c9", CLOSE, 3)
    for push in (joined, close_of_client, close_of_nobody):
        controls.note(push, 0.0)
    assert ann == again == [joined, close_of_client]
    assert nobody == [close_of_nobody]


def test_nothing_is_kept_once_they_are_in(controls: Controls) -> None:
    one, two = controls.buffer("ann"), controls.buffer("ann")
    controls.release("ann", one)
    assert controls.awaits("ann")
    controls.note(Push("u:ann", CLOSE, 1), 0.0)
    assert (one, len(two)) == ([], 1)
    controls.release("ann", two)
    assert not controls.awaits("ann")


def test_a_close_concerns_whoever_was_asked_for_before_it(controls: Controls) -> None:
    close = Push("u:ann", CLOSE, 5)
    controls.note(close, 0.0)
    controls.note(Push("u:ann", '[:chsk/left "t"]', 9), 0.0)
    assert list(controls.closes_after(4, ["u:ann", "*"])) == [close]
    assert list(controls.closes_after(5, ["u:ann", "*"])) == []
    assert list(controls.closes_after(4, ["u:bob"])) == []


def test_closes_are_forgotten_when_no_request_can_be_as_old(controls: Controls) -> None:
    controls.note(Push("u:ann", CLOSE, 1), 0.0)
    controls.note(Push("u:bob", CLOSE, 2), 10.0)
    controls.note(Push("u:ann", CLOSE, 3), 20.0)  # again: it is the latest now
    controls.sweep(10.0 + OPENING)
    assert list(controls.closes) == ["u:ann"]
    controls.begin_epoch()
    assert not controls.closes


def test_who_was_asked_for_remembers_when(controls: Controls) -> None:
    controls.lapses += 1
    assert controls.asked(7) == Asked(7, 1)

"""The names that Flask-SocketIO has, and what they are called here."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask import Flask

from flask_chsk import Chsk, Handlers
from flask_chsk.web.migrants import _OURS, no_attribute


class Owner:
    """Something with attributes."""


def test_a_name_of_flask_socketio_is_answered_with_ours() -> None:
    error = no_attribute(Owner(), "emit")
    assert str(error).startswith("'Owner' object has no attribute 'emit': use chsk.send(uid, ")


def test_another_name_is_just_not_there() -> None:
    assert str(no_attribute(Owner(), "nothing")) == "'Owner' object has no attribute 'nothing'"


def test_the_error_says_of_what_it_is() -> None:
    owner = Owner()
    error = no_attribute(owner, "emit")
    assert (type(error), error.name, error.obj) == (AttributeError, "emit", owner)


@pytest.mark.parametrize("name", _OURS)
def test_what_is_named_in_its_place_is_there(name: str) -> None:
    owners: dict[str, Any] = {"chsk": Chsk(), "Handlers": Handlers}
    for owner, method in re.findall(r"\b(chsk)\.(\w+)\(", _OURS[name]):
        assert callable(getattr(owners[owner], method))


@pytest.mark.parametrize("name", _OURS)
def test_no_name_of_ours_is_called_one_of_theirs(name: str) -> None:
    app = Flask(__name__)
    app.secret_key = "for tests"
    with pytest.raises(AttributeError, match=": use "):
        getattr(Chsk(app), name)

"""Classes that applications use show what docs/api.rst names, and nothing else."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

import pytest
from flask import Flask

from flask_chsk import Chsk
from tests.process import ROOT

API = (ROOT / "docs/api.rst").read_text(encoding="utf-8")


def members(name: str) -> set[str]:
    """The names that docs/api.rst lists for a class."""
    found = re.search(
        rf"^\.\. autoclass:: {re.escape(name)}\n   :members: (.+(?:\n {{4,}}.+)*)", API, re.M
    )
    assert found is not None, f"docs/api.rst lists no members of {name}"
    return set(re.split(r",\s*", found[1].strip()))


def public(thing: Any) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


@pytest.mark.parametrize(
    "name",
    [
        "flask_chsk.Chsk",
        "flask_chsk.EventMessage",
        "flask_chsk.Handlers",
        "flask_chsk.client.ChannelSocket",
        "flask_chsk.publisher.Publisher",
    ],
)
def test_a_class_shows_the_names_of_its_documentation(name: str) -> None:
    module, _, cls = name.rpartition(".")
    shown, listed = public(getattr(import_module(module), cls)), members(name)
    assert shown - listed == set(), "list them in docs/api.rst, or let them begin with _"
    assert listed - shown == set()


def test_a_chsk_has_no_other_attributes() -> None:
    app = Flask("app")
    chsk = Chsk(app, csrf=False)
    listed = members("flask_chsk.Chsk")
    # Those that need the server of a process are not asked for.
    assert {name for name in vars(chsk) if not name.startswith("_")} == set()
    assert public(chsk) == listed
    assert public(chsk.bind(app)) <= listed


def test_a_channel_socket_has_no_other_attributes() -> None:
    chsk = import_module("flask_chsk.client").ChannelSocket(
        "http://127.0.0.1:1/chsk", connect=False
    )
    assert public(chsk) == members("flask_chsk.client.ChannelSocket")
    chsk.destroy()

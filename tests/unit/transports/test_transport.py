"""Whatever carries a client can do the same, also where a test takes its place."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from flask_chsk.transports.longpoll import Poller
from flask_chsk.transports.transport import Transport
from flask_chsk.transports.websocket import WebSocket
from tests.unit.server.fakes import FakeTransport

MEMBERS = {name: one for name, one in vars(Transport).items() if not name.startswith("_")}


def called_with(method: Any) -> list[tuple[str, bool]]:
    """The parameters of a method, and whether each may be left out."""
    parameters = list(inspect.signature(method).parameters.values())[1:]
    return [(one.name, one.default is not one.empty) for one in parameters]


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize(
    "carrier", [WebSocket, Poller, FakeTransport], ids=lambda one: one.__name__
)
def test_each_carrier_is_used_in_the_same_way(carrier: type[Any], name: str) -> None:
    wanted, found = MEMBERS[name], inspect.getattr_static(carrier, name, None)
    if isinstance(wanted, property):
        assert not inspect.isfunction(found), "it is read, not called"
    else:
        assert called_with(found) == called_with(wanted)

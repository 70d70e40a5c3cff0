"""Identities that expire, with the clock turned by hand."""

from __future__ import annotations

from typing import Any

import pytest

from flask_chsk.server.expiries import Expiries

from .fakes import FakeHub, Site


class Scene(Site):
    def __init__(self) -> None:
        super().__init__()
        self.expired: list[str] = []
        self.expiries = Expiries(self.hub, lambda one: self.expired.append(one.session.client_id))

    def sweep(self, now: float) -> list[str]:
        """Which clients were ended by it."""
        self.expiries.sweep(now)
        expired, self.expired = self.expired, []
        return expired


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_each_is_ended_when_its_time_has_come_and_not_before(scene: Scene) -> None:
    for client_id, expires_at in (("c1", 100.0), ("c2", 100.5), ("c3", 2000.0)):
        scene.expiries.note(scene.connect("ann", client_id), expires_at)
    assert [scene.sweep(now) for now in (99.0, 100.0, 100.9, 101.0, 102.0)] == [
        [],
        ["c1"],
        [],
        ["c2"],
        [],
    ]
    assert len(scene.expiries) == 1


def test_a_connection_without_expiry_is_not_known(scene: Scene) -> None:
    scene.expiries.note(scene.connect(), None)
    assert len(scene.expiries) == 0
    assert vars(scene.expiries)["_connections"] == {}


@pytest.mark.parametrize("renewed", [200.0, 50.0, None])
def test_the_latest_request_counts(scene: Scene, renewed: float | None) -> None:
    one = scene.connect()
    scene.expiries.note(one, 100.0)
    scene.expiries.note(one, renewed)
    assert scene.sweep(100.0) == (["c1"] if renewed == 50.0 else [])
    assert scene.sweep(500.0) == (["c1"] if renewed == 200.0 else [])


def test_nothing_is_kept_of_a_client_that_is_gone(scene: Scene) -> None:
    one = scene.connect()
    scene.expiries.note(one, 100.0)
    scene.expiries.forget(one)
    scene.expiries.forget(one)
    assert vars(scene.expiries)["_connections"] == {}
    assert scene.sweep(200.0) == []


def test_one_that_is_renewed_while_others_are_ended_stays(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crowd is ended in slices, between which requests come."""
    jobs: list[Any] = []
    monkeypatch.setattr(FakeHub, "sliced", lambda self, job: jobs.append(job()))
    one, two = scene.connect("ann", "c1"), scene.connect("ann", "c2")
    for connection in (one, two):
        scene.expiries.note(connection, 100.0)
    scene.expiries.sweep(100.0)
    next(jobs[0])
    scene.expiries.note(two, 300.0)
    list(jobs[0])
    assert scene.expired == ["c1"]
    assert len(scene.expiries) == 1

"""A worker answers what the command line asks it, and shows what happens for as long as asked."""

from __future__ import annotations

from typing import Any

import pytest

from flask_chsk.errors import BrokerUnavailable
from flask_chsk.protocol.inspection import Finding, Inquiry
from flask_chsk.server import inspection as module
from flask_chsk.server.inspection import Inspection
from flask_chsk.server.topics import Topics
from flask_chsk.server.trace import Trace

from .fakes import Site


class Scene(Site):
    """An inspection, and what it tells the asker."""

    name = "worker"

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []
        self.away = False
        self.topics = Topics(60.0)
        self.trace = Trace()
        broker: Any = self
        stats = lambda: {"clients": 1}  # noqa: E731
        self.inspection = Inspection(
            self.hub, broker, self.registry, self.topics, self.trace, stats
        )

    def tell(self, name: str, text: str) -> None:
        if self.away:
            raise BrokerUnavailable("away")
        finding = Finding.read(text)
        assert finding is not None and (name, finding[:2]) == ("asker", ("id", "worker"))
        self.told.append(finding.value)

    def ask(self, what: str, **more: Any) -> Any:
        """What is told at once."""
        self.told.clear()
        assert self.inspection.on_worker_message(Inquiry("asker", "id", what, **more).text())
        self.hub.work()
        return self.told

    def lines(self) -> list[str]:
        """What a tail has told since the last call, without times."""
        self.hub.sleep(module.FLUSH)
        told = [" ".join(line.split()) for one in self.told for _, line, _ in one["lines"]]
        self.told.clear()
        return told


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_what_is_no_question_is_left_to_others(scene: Scene) -> None:
    assert scene.inspection.on_worker_message("[:chsk/answer 1]") is False


def test_a_question_of_a_later_version_is_not_answered(scene: Scene) -> None:
    assert scene.ask("weather") == []


def test_stats_clients_and_topics_are_told(scene: Scene) -> None:
    one = scene.connect("ann", "c1")
    scene.connect("bob", "c2")
    one.session.say("a message")
    for uid in ("ann", "bob"):
        scene.topics.joined(uid, "room/1", 5)
    scene.topics.joined("ann", "room/2", 6)
    assert scene.ask("stats") == [{"clients": 1}]
    assert scene.ask("topics") == [{"room/1": 2, "room/2": 1}]
    assert scene.ask("clients", uid="zoe") == [[]]
    client = {"client_id": "c1", "state": "ws", "packer": "edn", "ours": True, "waiting": 1}
    assert scene.ask("clients", uid="ann") == [[client]]


def test_an_answer_is_lost_while_the_broker_is_away(scene: Scene) -> None:
    scene.away = True
    assert scene.ask("stats") == []


def test_a_tail_begins_with_an_empty_answer_and_shows_what_happens_then(scene: Scene) -> None:
    scene.trace.client("in", "ann", "c1", "chat/before")
    assert scene.ask("tail") == [{"lines": [], "missed": 0}]
    scene.told.clear()
    scene.trace.client("in", "ann", "c1", "chat/say", payload={"text": "private"})
    scene.trace.client("reply", "ann", "c1", "chat/say")
    assert scene.lines() == [
        "in uid 'ann' client c1 chat/say",
        "reply uid 'ann' client c1 chat/say",
    ]
    assert scene.lines() == []


def test_a_tail_is_limited_to_what_was_asked_for(scene: Scene) -> None:
    scene.ask("tail", uid="ann", event="a/b")
    scene.told.clear()
    scene.trace.client("in", "ann", "c1", "a/b")
    scene.trace.client("in", "ann", "c1", "a/c")
    scene.trace.client("in", "bob", "c2", "a/b")
    assert scene.lines() == ["in uid 'ann' client c1 a/b"]


def test_a_payload_is_shown_where_it_was_asked_for(scene: Scene) -> None:
    scene.ask("tail", payload=True)
    scene.told.clear()
    scene.trace.client("in", "ann", "c1", "a/b", payload={"text": "\x1b[31m"})
    scene.trace.client("in", "ann", "c1", "a/c")
    scene.hub.sleep(module.FLUSH)
    assert [payload for _, _, payload in scene.told[0]["lines"]] == [r"{'text': '\x1b[31m'}", None]


def test_a_payload_that_breaks_when_it_is_looked_at_is_named_by_its_type(scene: Scene) -> None:
    class Row:
        def __repr__(self) -> str:
            raise LookupError("its session is gone")

    scene.ask("tail", payload=True)
    scene.told.clear()
    scene.trace.client("reply", "ann", "c1", "a/b", payload=Row())
    scene.hub.sleep(module.FLUSH)
    assert [payload for _, _, payload in scene.told[0]["lines"]] == ["<Row>"]


def test_what_is_too_much_is_counted(scene: Scene) -> None:
    scene.ask("tail")
    scene.told.clear()
    for _ in range(module.MOST + 3):
        scene.trace.client("in", "ann", "c1", "a/b")
    scene.hub.sleep(module.FLUSH)
    assert (len(scene.told[0]["lines"]), scene.told[0]["missed"]) == (module.MOST, 3)


def test_a_tail_ends_unless_it_is_asked_for_again(scene: Scene) -> None:
    scene.ask("tail")
    scene.hub.sleep(module.TAIL - 1)
    assert scene.ask("tail") == []  # it goes on
    scene.hub.sleep(module.TAIL - 1)
    assert scene.trace.on
    scene.hub.sleep(2)
    assert not scene.trace.on

"""Workers are asked by way of Redis, all at once, and each has some seconds to answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from flask_chsk import ConfigError, ConnectedUids
from flask_chsk.brokers.redis import scripts
from flask_chsk.inspector import Inspector, Line
from flask_chsk.protocol.inspection import Finding, Inquiry

URL = "redis://127.0.0.1:1/0"


class Workers:
    """In place of Redis and what it reaches: workers that answer, or do not."""

    def __init__(self) -> None:
        self.redis = self
        self.names = [b"w1", b"w2"]
        self.answers: dict[str, list[Any]] = {}
        self.asked: list[tuple[str, Inquiry]] = []
        self.inbox: list[str] = []
        self.closed = False

    def call(self, script: Any, *args: Any) -> Any:
        if script is scripts.WORKERS:
            return self.names
        if script is scripts.CONNECTED:
            return [[b"ann"], [b"bob"]]
        assert script is scripts.TELL
        name, text = args[0], args[1].decode()
        inquiry = Inquiry.read(text)
        assert inquiry is not None
        self.asked.append((name, inquiry))
        for value in self.answers.pop(name, []):
            self.inbox += ["not an answer", Finding(inquiry.id, name, value).text()]
        return 1

    def close(self) -> None:
        self.closed = True

    # an inbox

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *args: object) -> None: ...

    def next(self, seconds: float) -> str | None:
        return self.inbox.pop(0) if self.inbox else None


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:
    workers = Workers()
    monkeypatch.setattr("flask_chsk.inspector.Connections", lambda url: workers)
    monkeypatch.setattr("flask_chsk.brokers.redis.inbox.Inbox", lambda redis, name: workers)
    return workers


def test_a_broker_of_one_process_is_refused() -> None:
    with pytest.raises(ConfigError, match="only the process that serves knows this"):
        Inspector("memory://")


def test_who_is_connected_is_asked_of_redis_alone(workers: Workers) -> None:
    ws, ajax = frozenset({"ann"}), frozenset({"bob"})
    with Inspector(URL) as inspector:
        assert inspector.uids() == ConnectedUids(ws, ajax, ws | ajax)
    assert (workers.asked, workers.closed) == ([], True)


def test_each_worker_is_asked(workers: Workers) -> None:
    workers.answers = {"w1": [{"clients": 1}], "w2": [{"clients": 2}]}
    assert Inspector(URL).ask("stats") == {"w1": {"clients": 1}, "w2": {"clients": 2}}
    assert [(name, one.what) for name, one in workers.asked] == [("w1", "stats"), ("w2", "stats")]
    assert len({one for _, one in workers.asked}) == 1


def test_a_worker_that_does_not_answer_is_waited_for_and_named(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_chsk.inspector.PATIENCE", 0.01)
    workers.answers = {"w1": [[]]}
    assert Inspector(URL).ask("clients", "ann") == {"w1": [], "w2": None}
    assert workers.asked[0][1].uid == "ann"


def test_a_tail_names_each_worker_and_gives_its_lines(workers: Workers) -> None:
    one = {"lines": [[1.5, "in uid 'ann' a/b", None]], "missed": 2}
    workers.answers = {"w1": [{"lines": [], "missed": 0}], "w2": [one]}
    tail = Inspector(URL).tail(uid="ann", payload=True)
    assert [next(tail) for _ in range(4)] == [
        "worker w1 is shown",
        "worker w2 is shown",
        Line("w2", 1.5, "in uid 'ann' a/b", None),
        "worker w2: 2 more were too many",
    ]
    inquiry = workers.asked[0][1]
    assert (inquiry.what, inquiry.uid, inquiry.payload) == ("tail", "ann", True)

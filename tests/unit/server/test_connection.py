"""The states of a connection, and what hangs on them."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import indent
from types import SimpleNamespace
from typing import Any

import pytest

from flask_chsk import packers
from flask_chsk.protocol.push import Push
from flask_chsk.protocol.session import Outbox, Rules, ServerSession
from flask_chsk.protocol.wire import WIRES, Composer
from flask_chsk.server.connection import (
    TRANSITIONS,
    Change,
    Connection,
    Opening,
    State,
    transition_table,
)
from flask_chsk.transports.longpoll import Poller

COMPOSER = Composer(packers.make("edn"), WIRES["1.21"])
ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/internals.rst"
FILES = sorted(
    path
    for folder in ("server", "transports", "web")
    for path in (ROOT / "flask_chsk" / folder).glob("*.py")
)


class Deadlines:
    """Says when to check again."""

    def __init__(self) -> None:
        self.checked: list[float] = []
        self.next: float | None = None

    def check_deadlines(self, connection: Connection, now: float) -> float | None:
        self.checked.append(now)
        return self.next


class Scene:
    """A connection, and transports for it."""

    def __init__(self) -> None:
        self.deadlines = Deadlines()
        session = ServerSession("ann", "c1", COMPOSER, Rules(epoch="e"), 0.0, v1=True, offset=1)
        self.connection = Connection(self.deadlines, session, "ws", now=1.0)
        owner: Any = SimpleNamespace(unparked=lambda connection, poller: None)
        self.poller: Poller[Connection] = Poller(owner, self.connection)
        self.socket: Any = SimpleNamespace(kind="ws")
        self.waiter: Any = SimpleNamespace(set=lambda value: None)

    def bring_to(self, state: State) -> None:
        for change in WAYS[state]:
            CHANGES[change](self)
        assert self.connection.state is state


CHANGES: dict[Change, Callable[[Scene], object]] = {
    Change.SOCKET: lambda scene: scene.connection.attach_socket(scene.socket, 2.0),
    Change.POLLER: lambda scene: scene.connection.attach_poller(scene.poller, 2.0),
    Change.PARK: lambda scene: scene.connection.park(scene.waiter),
    Change.ANSWER: lambda scene: scene.connection.answered(3.0),
    Change.LOSE: lambda scene: scene.connection.lose(3.0),
    Change.FORGET: lambda scene: scene.connection.forget(),
}
WAYS = {
    State.ABSENT: [],
    State.WS: [Change.SOCKET],
    State.BETWEEN_POLLS: [Change.POLLER],
    State.PARKED: [Change.POLLER, Change.PARK],
    State.GONE: [Change.FORGET],
}


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.mark.parametrize("change", Change)
@pytest.mark.parametrize("state", State)
def test_methods_follow_the_table(scene: Scene, state: State, change: Change) -> None:
    scene.bring_to(state)
    after = TRANSITIONS[state].get(change)
    if after is None:
        with pytest.raises(RuntimeError):
            CHANGES[change](scene)
        assert scene.connection.state is state
    else:
        CHANGES[change](scene)
        assert scene.connection.state is after


def outside_writes(tree: ast.AST) -> Iterator[str]:
    """Fields of connections and sessions that something else than they themselves assigns."""
    fields = {*Connection.__slots__, *Outbox.__slots__, *ServerSession.__slots__}
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        for target in targets:
            for one in target.elts if isinstance(target, ast.Tuple) else [target]:
                if isinstance(one, ast.Attribute) and one.attr in fields:
                    owner = ast.unparse(one.value)
                    if owner.rpartition(".")[2] in ("connection", "one", "known", "session"):
                        yield ast.unparse(one)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_connections_and_sessions_are_changed_by_their_methods_only(path: Path) -> None:
    assert list(outside_writes(ast.parse(path.read_text(encoding="utf-8")))) == []


def test_writes_from_outside_are_found() -> None:
    source = "connection.lost_at, x = 1, 2\none.acked += 1\nself.session.v1 = True\nself.kind = 2"
    found = list(outside_writes(ast.parse(source)))
    assert found == ["connection.lost_at", "one.acked", "self.session.v1"]


def test_the_documentation_shows_the_table() -> None:
    assert indent(transition_table(), "   ") in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("state", "lost_at"),
    [
        (State.ABSENT, 1.0),
        (State.WS, None),
        (State.BETWEEN_POLLS, 2.0),
        (State.PARKED, None),
        (State.GONE, None),
    ],
)
def test_a_grace_begins_where_nothing_waits_for_messages(
    scene: Scene, state: State, lost_at: float | None
) -> None:
    scene.bring_to(state)
    assert scene.connection.lost_at == lost_at


def test_a_transport_is_there_until_it_is_lost_or_its_client_forgotten(scene: Scene) -> None:
    one = scene.connection
    assert one.attach_socket(scene.socket, 2.0) is None
    assert one.transport is scene.socket
    assert one.poller is None
    assert one.attach_poller(scene.poller, 3.0) is scene.socket
    assert one.poller is one.transport is scene.poller
    one.attach_socket(scene.socket, 4.0)
    assert one.lose(5.0) is scene.socket
    assert (one.transport, one.lost_at) == (None, 5.0)
    one.attach_socket(scene.socket, 6.0)
    assert one.forget() is scene.socket
    assert (one.transport, one.gone) == (None, True)


def test_pushes_outlive_their_transport_and_replies_do_not(scene: Scene) -> None:
    one = scene.connection
    one.attach_socket(scene.socket, 2.0)
    push = Push("u:ann", "[:a/b 1]", 2)
    one.session.deliver(push)
    one.session.say('["reply" "c1"]')
    one.attach_poller(scene.poller, 3.0)
    assert one.session.outbox == [push]
    assert one.session.retain_until_ack  # until the next poll acknowledges them


def test_the_latest_opening_counts(scene: Scene) -> None:
    one = scene.connection
    opening = Opening("ann", "c1", COMPOSER, digest="d")
    assert one.opened(opening, "ws", "first", 10, 2.0) == 1
    assert one.opened(opening, "ws", None, 20, 3.0) == 2
    assert (one.token, one.since, one.lost_at) == ("first", 20, 3.0)
    assert one.owner == ("ann", "c1", "d")


def test_a_new_epoch_forgets_offsets(scene: Scene) -> None:
    one = scene.connection
    one.opened(Opening("ann", "c1", COMPOSER), "ws", "token", 10, 2.0)
    one.served, one.gap_due = 5, True
    one.begin_epoch(Rules(epoch="f"))
    assert (one.since, one.served, one.gap_due, one.session.queued) == (0, 0, False, 0)
    assert one.token == "token"


def test_one_batch_leaves_in_a_window(scene: Scene) -> None:
    one = scene.connection
    one.note_flush(1.0)
    assert [one.may_flush(now, 0.5) for now in (1.2, 1.5, 1.6, 2.0)] == [False, True, False, True]


def test_a_deadline_that_was_moved_forward_is_checked_once(scene: Scene) -> None:
    one = scene.connection
    one.next_check_at = 5.0
    scene.deadlines.next = 9.0
    assert [one.due(now) for now in (4.0, 5.0, 8.0)] == [None, 9.0, None]
    assert scene.deadlines.checked == [5.0]


def test_nothing_is_due_of_a_client_that_is_forgotten(scene: Scene) -> None:
    one = scene.connection
    one.next_check_at = 5.0
    one.forget()
    assert one.due(6.0) is None
    assert scene.deadlines.checked == []


def asking(scene: Scene, cursor: str | None) -> Opening:
    """A request of the same page."""
    return Opening("ann", "c1", COMPOSER, v1=True, digest=scene.connection.digest, cursor=cursor)


@pytest.mark.parametrize(
    ("kind", "cursor", "overtaken"),
    [
        ("ws", 5, True),  # made before the polls came to 10
        ("ws", 15, False),
        ("ws", None, True),  # of another user, before the page signed in
        ("poll", None, False),  # the latest request of a page whose user changed
    ],
)
def test_a_request_of_a_page_that_polls_may_be_overtaken(
    scene: Scene, kind: str, cursor: int | None, overtaken: bool
) -> None:
    scene.bring_to(State.BETWEEN_POLLS)
    scene.connection.session.resume(10)
    opening = asking(scene, f"e:{cursor or 7}")
    assert scene.connection.is_overtaken(opening, kind, cursor) is overtaken
    scene.connection.greet(10)  # a handshake, of which it is not known that it arrived
    assert scene.connection.is_overtaken(opening, kind, cursor) is False
    scene.connection.confirm(10)
    assert scene.connection.is_overtaken(opening, kind, cursor) is overtaken


def test_a_request_that_knows_no_cursor_is_overtaken_by_any_other(scene: Scene) -> None:
    assert scene.connection.is_overtaken(asking(scene, None), "ws", None) is True
    stranger = Opening("ann", "c1", COMPOSER, v1=True, digest="another page")
    assert scene.connection.is_overtaken(stranger, "ws", None) is False

"""Sends that wait for a commit, on real sessions of SQLAlchemy."""

from __future__ import annotations

import gc
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from werkzeug.local import LocalProxy

from flask_chsk import after_commit
from flask_chsk.after_commit import defer
from flask_chsk.errors import BrokerUnavailable, UsageError


class GivenUp(Exception):
    """Ends a transaction, or a savepoint, by a rollback."""


def new_engine(url: str) -> Engine:
    """An engine whose transactions SQLAlchemy begins, so that savepoints work in SQLite."""
    engine = create_engine(url)

    @event.listens_for(engine, "connect")
    def connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = on")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE row (n INTEGER PRIMARY KEY)"))
        connection.execute(
            text("CREATE TABLE part (n REFERENCES row (n) DEFERRABLE INITIALLY DEFERRED)")
        )
    return engine


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = new_engine(f"sqlite:///{tmp_path / 'db'}")
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with Session(engine) as session:
        yield session


@pytest.fixture
def sent() -> list[Any]:
    return []


Deferred = Callable[[Any, Any], None]


@pytest.fixture
def send(sent: list[Any]) -> Deferred:
    """Defers the send of an event, which is noted in ``sent``."""
    return lambda session, event: defer(session, f"test/{event}", lambda: sent.append(event))


def insert(session: Any, n: int) -> None:
    session.execute(text("INSERT INTO row VALUES (:n)"), {"n": n})


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    gc.collect()
    assert len(after_commit._waiting) == 0


# Commits and rollbacks -------------------------------------------------------------------------


def test_events_are_sent_in_order_once_they_are_committed(
    session: Session, sent: list[Any], send: Deferred
) -> None:
    send(session, 1)
    insert(session, 1)
    send(session, 2)
    session.flush()
    assert sent == []
    session.commit()
    assert sent == [1, 2]
    session.commit()
    assert sent == [1, 2]


def test_what_is_sent_finds_the_row_committed_and_the_connection_free(
    engine: Engine, session: Session
) -> None:
    found = []

    def look() -> None:
        with engine.connect() as connection:
            found.append((connection.scalar(text("SELECT n FROM row")), pool.checkedout()))

    pool: Any = engine.pool
    insert(session, 7)
    defer(session, "a/b", look)
    session.commit()
    assert found == [(7, 1)]  # the one connection is the one that looks


@pytest.mark.parametrize("end", ["rollback", "close", "reset", "invalidate"])
def test_events_of_a_transaction_that_ends_otherwise_are_dropped(
    session: Session, sent: list[Any], send: Deferred, end: str
) -> None:
    insert(session, 1)
    send(session, 1)
    getattr(session, end)()
    session.commit()
    insert(session, 2)
    send(session, 2)
    session.commit()
    assert sent == [2]


def test_a_context_sends_or_drops_as_it_ends(
    engine: Engine, sent: list[Any], send: Deferred
) -> None:
    new_session = sessionmaker(engine)
    with new_session.begin() as session:
        send(session, 1)
    with suppress(GivenUp), new_session.begin() as session:
        send(session, 2)
        raise GivenUp
    with new_session() as session:
        with session.begin():
            send(session, 3)
        assert sent == [1, 3]
        send(session, 4)  # and no commit
    assert sent == [1, 3]


def test_savepoints_that_roll_back_drop_theirs(
    session: Session, sent: list[Any], send: Deferred
) -> None:
    send(session, 1)
    with session.begin_nested():
        send(session, 2)
        with suppress(GivenUp), session.begin_nested():
            send(session, 3)
            with session.begin_nested():
                send(session, 4)
            raise GivenUp
        with session.begin_nested():
            send(session, 5)
        send(session, 6)
    send(session, 7)
    assert sent == []
    session.commit()
    assert sent == [1, 2, 5, 6, 7]


def test_a_released_savepoint_is_dropped_with_its_transaction(
    session: Session, sent: list[Any], send: Deferred
) -> None:
    with session.begin_nested():
        send(session, 1)
    session.rollback()
    session.commit()
    assert sent == []


def test_a_commit_releases_the_savepoints_in_progress(
    session: Session, sent: list[Any], send: Deferred
) -> None:
    session.begin_nested()
    send(session, 1)
    session.begin_nested()
    send(session, 2)
    session.commit()
    assert sent == [1, 2]


def test_a_rollback_takes_the_savepoints_in_progress_along(
    session: Session, sent: list[Any], send: Deferred
) -> None:
    around = session.begin_nested()
    send(session, 1)
    session.begin_nested()
    send(session, 2)
    around.rollback()
    send(session, 3)
    session.commit()
    assert sent == [3]


def test_an_error_of_a_statement_costs_its_savepoint_only(
    session: Session, sent: list[Any], send: Deferred
) -> None:
    insert(session, 1)
    send(session, 1)
    with suppress(IntegrityError), session.begin_nested():
        send(session, 2)
        insert(session, 1)
    session.commit()
    assert sent == [1]


def test_a_commit_that_the_database_refuses_sends_nothing(
    session: Session, sent: list[Any], send: Deferred
) -> None:
    session.execute(text("INSERT INTO part VALUES (99)"))
    send(session, 1)
    with pytest.raises(IntegrityError):
        session.commit()
    session.rollback()
    send(session, 2)
    session.commit()
    assert sent == [2]


def test_a_transaction_that_was_prepared_sends_with_its_commit(
    engine: Engine, sent: list[Any], send: Deferred
) -> None:
    with Session(twophase=True) as session:
        send(session, 1)
        session.prepare()
        with pytest.raises(UsageError, match="takes no more"):
            send(session, 2)
        assert sent == []
        session.commit()
    assert sent == [1]


def test_a_session_that_joined_a_transaction_sends_with_its_own_commit(
    engine: Engine, sent: list[Any], send: Deferred
) -> None:
    """As in test suites, which roll back everything in the end."""
    with engine.connect() as connection, connection.begin() as outer:
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            insert(session, 1)
            send(session, 1)
            session.commit()
            assert sent == [1]
            send(session, 2)
            session.rollback()
        outer.rollback()
    assert sent == [1]


def test_sessions_do_not_mix(engine: Engine, sent: list[Any], send: Deferred) -> None:
    with Session(engine) as one, Session(engine) as two:
        send(one, 1)
        send(two, 2)
        two.commit()
        assert sent == [2]
        one.commit()
        assert sent == [2, 1]


# Within SQLAlchemy's own events ----------------------------------------------------------------


def test_what_is_sent_before_a_commit_belongs_to_it(
    session: Session, sent: list[Any], send: Deferred
) -> None:
    event.listen(session, "before_commit", lambda session: send(session, 1))
    insert(session, 1)
    session.commit()
    assert sent == [1]


def test_a_savepoint_within_a_flush_belongs_to_the_transaction(
    sent: list[Any], send: Deferred
) -> None:
    app = Flask("app")
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
    db = SQLAlchemy(app)

    class Item(db.Model):  # type: ignore[name-defined,misc]
        id = db.Column(db.Integer, primary_key=True)

    def after_flush(session: Any, context: Any) -> None:
        with session.begin_nested():
            send(session, 2)

    with app.app_context():
        db.create_all()
        send(db.session, 1)
        event.listen(db.session(), "after_flush", after_flush)
        db.session.add(Item())
        db.session.commit()
        assert sent == [1, 2]
        db.engine.dispose()


def test_a_transaction_that_is_over_takes_no_more(
    session: Session, sent: list[Any], send: Deferred
) -> None:
    refused = []

    def committed(session: Session) -> None:
        with pytest.raises(UsageError, match="takes no more") as error:
            send(session, 2)
        refused.append(error)

    send(session, 1)
    event.listen(session, "after_commit", committed)
    session.commit()
    assert (sent, len(refused)) == ([1], 1)


# Sessions of all kinds -------------------------------------------------------------------------


def test_the_session_of_a_scope_is_meant(engine: Engine, sent: list[Any], send: Deferred) -> None:
    scoped = scoped_session(sessionmaker(engine))

    def roll_back() -> None:
        send(scoped, 2)
        scoped.rollback()
        scoped.remove()

    send(scoped, 1)
    thread = threading.Thread(target=roll_back)
    thread.start()
    thread.join()
    scoped.commit()
    assert sent == [1]
    send(scoped, 3)
    scoped.remove()
    scoped.commit()
    scoped.remove()
    assert sent == [1]


def test_a_proxy_of_a_session_is_its_session(
    session: Session, sent: list[Any], send: Deferred
) -> None:
    send(LocalProxy(lambda: session), 1)
    session.commit()
    assert sent == [1]


def test_the_session_of_flask_sqlalchemy_drops_what_its_context_did_not_commit(
    sent: list[Any], send: Deferred
) -> None:
    app = Flask("app")
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
    db = SQLAlchemy(app)
    with app.app_context():
        send(db.session, 1)
        db.session.commit()
        send(db.session, 2)
    with app.app_context():
        db.session.commit()
        db.engine.dispose()
    assert sent == [1]


def test_a_session_that_nobody_ends_is_forgotten(
    engine: Engine, sent: list[Any], send: Deferred
) -> None:
    session = Session(engine)
    send(session, 1)
    del session
    gc.collect()
    assert len(after_commit._waiting) == 0
    assert sent == []


def test_a_session_without_autobegin_has_to_begin_first(
    engine: Engine, sent: list[Any], send: Deferred
) -> None:
    with Session(engine, autobegin=False) as session:
        with pytest.raises(UsageError, match=r"autobegin=False: call it after session\.begin\(\)"):
            send(session, 1)
        with session.begin():
            send(session, 2)
    assert sent == [2]


def test_a_session_closed_for_good_takes_nothing(engine: Engine, send: Deferred) -> None:
    session = Session(engine, close_resets_only=False)
    session.close()
    with pytest.raises(InvalidRequestError, match="permanently closed"):
        send(session, 1)


@pytest.mark.parametrize("given", [True, "sqlite://", Session, sessionmaker(), SQLAlchemy()])
def test_what_is_no_session_is_refused(given: Any, send: Deferred) -> None:
    with pytest.raises(UsageError, match=r"takes a session of SQLAlchemy, such as db\.session or"):
        send(given, 1)


def test_a_connection_is_no_session(engine: Engine, send: Deferred) -> None:
    with engine.connect() as connection, pytest.raises(UsageError, match=r"Session\(\), not <sql"):
        send(connection, 1)


@pytest.mark.parametrize(
    "given", [AsyncSession(), async_scoped_session(async_sessionmaker(), lambda: 1)]
)
def test_an_async_session_is_refused_with_what_to_do(given: Any, send: Deferred) -> None:
    with pytest.raises(UsageError, match=r"no AsyncSession.* `await session\.commit\(\)`"):
        send(given, 1)


def test_without_sqlalchemy_nothing_is_a_session(
    monkeypatch: pytest.MonkeyPatch, send: Deferred
) -> None:
    monkeypatch.setitem(sys.modules, "sqlalchemy.orm", None)
    with pytest.raises(UsageError, match="which is not installed, not 'db'"):
        send("db", 1)


# Errors ----------------------------------------------------------------------------------------


def test_an_error_of_the_broker_is_logged_and_the_rest_is_sent(
    session: Session, sent: list[Any], send: Deferred, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise BrokerUnavailable("Redis is away")

    send(session, 1)
    defer(session, "order/changed", fail)
    send(session, 3)
    session.commit()
    assert sent == [1, 3]
    [record] = caplog.records
    assert (record.levelno, record.exc_info) == (logging.ERROR, False)
    assert record.getMessage() == "order/changed was not sent after its commit: Redis is away"
    insert(session, 1)
    session.commit()  # the session is as before


def test_any_other_error_is_logged_with_its_traceback(
    session: Session, sent: list[Any], send: Deferred, caplog: pytest.LogCaptureFixture
) -> None:
    defer(session, "order/changed", lambda: 1 / 0)
    send(session, 2)
    session.commit()
    assert sent == [2]
    assert "ZeroDivisionError" in caplog.text


def test_what_ends_the_caller_is_raised_and_the_rest_is_logged(
    session: Session, sent: list[Any], send: Deferred, caplog: pytest.LogCaptureFixture
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    lost = []
    send(session, 1)
    defer(session, "order/changed", interrupted, lambda: lost.append(2))
    defer(session, "test/3", lambda: sent.append(3), lambda: lost.append(3))
    with pytest.raises(KeyboardInterrupt):
        session.commit()
    assert (sent, lost) == ([1], [2, 3])
    [record] = caplog.records
    assert record.getMessage() == (
        "order/changed and 1 more were not sent after their commit: KeyboardInterrupt()"
    )
    insert(session, 1)
    session.commit()
    assert sent == [1]


def test_what_is_dropped_is_named_for_who_debugs(
    session: Session, send: Deferred, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "flask_chsk.after_commit")
    send(session, 1)
    send(session, 2)
    session.rollback()
    [record] = caplog.records
    assert record.getMessage() == (
        "dropped, as their transaction ended without a commit: test/1, test/2"
    )


# Histories -------------------------------------------------------------------------------------


class History:
    """Random transactions. With each event goes a row, and the database says what has held."""

    def __init__(self, seed: int, engine: Engine) -> None:
        self.random = Random(seed)
        self.engine = engine
        self.sent: list[int] = []
        self.steps: list[str] = []
        self.n = 0
        self.commits = 0

    def run(self, transactions: int) -> None:
        session = Session(self.engine)
        for _ in range(transactions):
            with suppress(GivenUp):
                getattr(self, self.random.choice(["plain", "context", "left_open"]))(session)
            if self.random.random() < 0.3:
                session.close()
                session = Session(self.engine)
        session.close()

    def plain(self, session: Session) -> None:
        self.step("begin")
        try:
            self.work(session, 0)
        except GivenUp:
            self.step("rollback")
            session.rollback()
        else:
            self.step("commit")
            session.commit()
            self.commits += 1

    def context(self, session: Session) -> None:
        self.step("with begin")
        with session.begin():
            self.work(session, 0)
        self.commits += 1

    def left_open(self, session: Session) -> None:
        """Ends with what is in progress: its savepoints and itself."""
        self.step("begin")
        for _ in range(self.random.randrange(3)):
            self.event(session)
            session.begin_nested()
            self.step("savepoint")
        self.event(session)
        end = self.random.choice(["commit", "commit", "commit", "rollback", "close"])
        self.step(end)
        getattr(session, end)()
        self.commits += end == "commit"

    def work(self, session: Session, depth: int) -> None:
        for _ in range(self.random.randrange(4)):
            if depth < 3 and self.random.random() < 0.3:
                self.step("savepoint")
                with suppress(GivenUp), session.begin_nested():
                    self.work(session, depth + 1)
            else:
                self.event(session)
        if self.random.random() < 0.5 - 0.1 * depth:
            self.step("give up")
            raise GivenUp

    def event(self, session: Session) -> None:
        self.n += 1
        n = self.n
        before = self.random.random() < 0.5
        if not before:
            insert(session, n)
        defer(session, f"test/{n}", lambda: self.sent.append(n))
        if before:
            insert(session, n)
        self.step(str(n))

    def step(self, what: str) -> None:
        self.steps.append(what)

    @property
    def held(self) -> list[int]:
        with self.engine.connect() as connection:
            return list(connection.scalars(text("SELECT n FROM row ORDER BY n")))


@pytest.mark.parametrize("seed", range(10))
def test_exactly_what_the_database_holds_was_sent_in_order(seed: int) -> None:
    """10,000 transactions, half of them rolled back, many with savepoints."""
    engine = new_engine("sqlite://")
    history = History(seed, engine)
    history.run(1000)
    held = history.held
    engine.dispose()
    assert history.sent == held, " ".join(history.steps)
    assert 400 < history.commits < 600

"""Who may still answer a question, and what its asker gets."""

from __future__ import annotations

from typing import Any

import pytest

from flask_chsk.errors import AskFailed, AskTimeout, ClientGone, NoClient
from flask_chsk.protocol.event import Event
from flask_chsk.protocol.question import (
    Client,
    Outcome,
    Question,
    asked_of,
    asking,
    read,
    value_of,
    written,
)
from flask_chsk.protocol.session import ASK, Answered

ONE: Client = ("ann", "c1")
TWO: Client = ("ann", "c2")


class Asked:
    def __init__(self, *clients: Client) -> None:
        self.outcomes: list[Outcome] = []
        self.question = Question(dict.fromkeys(clients), self.outcomes.append)

    def answer(self, client: Client, value: Any = None, error: str | None = None) -> bool:
        return self.question.answer(client, Answered("q", value, error))


def test_all_clients_of_a_user_are_asked_or_one() -> None:
    assert asked_of("ann", ["c1", "c2"], None) == {ONE: None, TWO: None}
    assert asked_of("ann", ["c1", "c2"], "c2") == {TWO: None}


@pytest.mark.parametrize(("clients", "client_id"), [([], None), ([], "c1"), (["c2"], "c1")])
def test_where_nobody_could_answer_nobody_is_asked(clients: list[str], client_id: Any) -> None:
    with pytest.raises(NoClient, match="uid 'ann' has no client that can be asked"):
        asked_of("ann", clients, client_id)


def test_the_first_answer_ends_it() -> None:
    asked = Asked(ONE, TWO)
    assert asked.answer(TWO, 7)
    assert asked.outcomes == [("value", 7)]


def test_an_error_ends_it_when_it_is_the_last() -> None:
    asked = Asked(ONE, TWO)
    assert asked.answer(ONE, error="no handler")
    assert asked.outcomes == []
    asked.question.gone(TWO)
    assert asked.outcomes == [("error", "no handler")]


def test_when_all_are_gone_it_ends() -> None:
    asked = Asked(ONE, TWO)
    asked.question.only({TWO})
    assert asked.outcomes == []
    asked.question.only(set())
    assert asked.outcomes == [("gone", None)]


def test_only_those_that_were_asked_answer_and_once() -> None:
    asked = Asked(ONE, TWO)
    assert not asked.answer(("bob", "c1"), 1)
    assert asked.answer(ONE, error="no")
    assert not asked.answer(ONE, 2)
    assert asked.outcomes == []


@pytest.mark.parametrize(
    ("outcome", "error", "words"),
    [
        (None, AskTimeout, "uid 'ann' did not answer a/b within 2.5 s"),
        (("gone", None), ClientGone, "the last client of uid 'ann' that was asked went away"),
        (("error", "no handler"), AskFailed, "a/b: no handler"),
    ],
)
def test_the_asker_is_told_why_there_is_no_value(
    outcome: Outcome | None, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=f"^{words}$"):
        value_of(outcome, "ann", "a/b", 2.5)


def test_the_asker_gets_the_value() -> None:
    assert value_of(("value", None), "ann", "a/b", 2.5) is None
    assert value_of(("value", {"x": 1}), "ann", "a/b", 2.5) == {"x": 1}


def test_the_event_that_asks_holds_the_question() -> None:
    assert asking("q", Event("a/b", 1)) == [ASK, ["q", ["a/b", 1]]]


@pytest.mark.parametrize("client", [ONE, (None, "c1")])
@pytest.mark.parametrize("answer", [Answered("q", [1, b"x"]), Answered("q", None, "no")])
def test_an_answer_travels_between_processes(client: Client, answer: Answered) -> None:
    assert read(written(client, answer)) == (client, answer)

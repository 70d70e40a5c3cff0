"""Questions to workers and their answers are read as they were written."""

from __future__ import annotations

import pytest

from flask_chsk.protocol.inspection import Finding, Inquiry


def test_a_question_and_an_answer_come_through() -> None:
    inquiry = Inquiry("asker", "id", "tail", uid="zoë", payload=True)
    assert Inquiry.read(inquiry.text()) == inquiry
    finding = Finding("id", "worker", {"clients": 3})
    assert Finding.read(finding.text()) == finding


@pytest.mark.parametrize(
    "text", ["", "chsk/inspect", "chsk/inspect {", 'chsk/inspect {"no": 1}', "chsk/inspect []"]
)
def test_what_is_no_question_is_none(text: str) -> None:
    assert Inquiry.read(text) is None


@pytest.mark.parametrize("text", ["", "chsk/inspected", "chsk/inspected [1]", "chsk/inspected 7"])
def test_what_is_no_answer_is_none(text: str) -> None:
    assert Finding.read(text) is None

"""A series of polls: when the next one begins, and what ends them; no network."""

from __future__ import annotations

from typing import Any

import pytest

from flask_chsk.client import polling as module
from flask_chsk.client.http_client import Answer, NoAnswer
from flask_chsk.client.link import LinkClosed
from flask_chsk.client.polling import Polling
from tests.unit.client.fakes import Bench

END = NoAnswer("exception", "the end")
ENDED = [LinkClosed(message="the end")]


def polled(*answers: Answer | NoAnswer, **given: Any) -> tuple[Bench, Polling]:
    """A link that polls until *answers* ended it."""
    bench = Bench(*answers, **given)
    polling = Polling(*bench.parts, bench.session.requests)
    polling.start()
    return bench, polling


def answer(text: str, status: int = 200, **headers: str) -> Answer:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, fields, text.encode())


def test_a_poll_follows_the_answer_to_the_one_before() -> None:
    bench, _ = polled(answer("one"), answer("two"), END)
    assert bench.owner.told == ["one", "two", "finished", *ENDED]
    assert [params["n"] for _, params, _ in bench.http.asked] == ["1", "2", "3"]


def test_the_first_poll_asks_for_a_handshake_and_waits_less() -> None:
    bench = Bench(answer("handshake"), END)
    bench.session.trial = bench.link
    received = bench.owner.received

    def confirm(link: Any, data: Any) -> str | None:
        link.confirmations_left = 0
        return received(link, data)

    bench.owner.received = confirm  # type: ignore[method-assign]
    Polling(*bench.parts, bench.session.requests).start()
    first, second = bench.http.asked
    assert (first[1].get("handshake?"), first[2]) == ("1", 10.0)
    assert (second[1].get("handshake?"), second[2]) == (None, 25.0)


def test_after_an_empty_poll_the_next_one_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(answer("empty"), END, words={"empty": "chsk/timeout"})
    polling = Polling(*bench.parts, bench.session.requests)
    waits: list[float] = []
    monkeypatch.setattr(polling._ended, "wait", waits.append)
    polling.start()
    [wait] = waits  # less what the poll itself took
    assert wait <= module.EMPTY


def test_no_poll_begins_while_a_websocket_is_on_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(answer("one"), END)
    bench.owner.polls = False
    polling = Polling(*bench.parts, bench.session.requests)
    asked: list[int] = []

    def wait(timeout: float) -> bool:
        asked.append(len(bench.http.asked))
        bench.owner.polls = len(asked) == 3
        return False

    monkeypatch.setattr(polling._ended, "wait", wait)
    polling.start()
    assert asked == [1, 1, 1]


@pytest.mark.parametrize(
    ("said", "how"),
    [
        (
            answer("try later", 503, content_type="text/plain", retry_after="7"),
            LinkClosed(status=503, message="try later", retry_after=7.0),
        ),
        (answer("", 500), LinkClosed(status=500, message="HTTP 500")),
    ],
)
def test_a_refusal_ends_the_link(said: Answer, how: LinkClosed) -> None:
    bench, _ = polled(said)
    assert bench.owner.told == ["finished", how]


def test_a_page_is_shown_to_the_application_and_ends_the_link() -> None:
    bench, _ = polled(answer("<html>", content_type="text/html"))
    shown, finished, how = bench.owner.told
    assert (shown, finished) == ("<html>", "finished")
    assert "is answered by a page of HTML" in how.message


def test_rubbish_ends_the_link() -> None:
    bench, _ = polled(answer("rubbish"), words={"rubbish": "chsk/error"})
    assert bench.owner.told[-1] == LinkClosed(message="not a channel socket's answer")


def test_what_the_application_raises_ends_the_link(caplog: pytest.LogCaptureFixture) -> None:
    bench, _ = polled(chsk_url=lambda *args: 1 // 0)
    assert bench.owner.told[-1] == LinkClosed(
        message=repr(ZeroDivisionError("integer division or modulo by zero"))
    )
    assert caplog.messages == ["polling failed"]


def test_a_restart_begins_another_poll() -> None:
    bench, _ = polled(NoAnswer("abort", "aborted"), END)
    assert (len(bench.http.asked), bench.owner.told) == (2, ["finished", *ENDED])


def test_an_end_of_the_owner_is_no_close() -> None:
    bench = Bench(answer("one"))
    polling = Polling(*bench.parts, bench.session.requests)
    bench.owner.received = lambda link, data: polling.end(1000)  # type: ignore[method-assign,assignment]
    polling.start()
    assert bench.owner.told == ["finished"]

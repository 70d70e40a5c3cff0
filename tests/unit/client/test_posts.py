"""POSTs of a polling client: their order, batches, repetitions and ends; no network."""

from __future__ import annotations

from typing import Any

import pytest

from flask_chsk.client import posts as module
from flask_chsk.client.handshake import ServerInfo
from flask_chsk.client.http_client import Answer, NoAnswer
from flask_chsk.client.link import Outgoing
from flask_chsk.client.posts import Posts
from flask_chsk.protocol.event import Event
from tests.unit.client.fakes import Bench

OK = Answer(200, {}, b"[:ok nil]")


class Posting(Bench):
    """A line of POSTs."""

    def __init__(self, *answers: Answer | NoAnswer, batches: bool = False, **given: Any) -> None:
        super().__init__(*answers, **given)
        if batches:
            self.session.server = ServerInfo({"max-batch": 3})
        self.ended: list[bool] = []  # whether something was still under way, each time
        self.posts = Posts(
            *self.parts, self.session.requests, lambda: self.ended.append(self.posts.under_way)
        )

    def send(self, *numbers: Any, cb: Any = None, timeout: float = 7.0) -> list[Outgoing]:
        """Put events in line, and let them leave."""
        sent = [self.session.pack(Event("a/x", number), cb, timeout) for number in numbers]
        for outgoing in sent:
            self.session.requests.expect(outgoing, 0.0)
            assert self.posts.take(outgoing)
        assert self.link.busy
        self.posts.flush()
        return sent

    @property
    def posted(self) -> list[str]:
        return [params["ppstr"] for _, params, _ in self.http.asked]


def test_without_batches_each_event_leaves_alone() -> None:
    bench = Posting(OK, OK)
    bench.send(1, 2)
    assert bench.posted == ["[[:a/x 1] nil]", "[[:a/x 2] nil]"]
    assert bench.owner.told == [("a/x", "[:ok nil]")] * 2
    assert (bench.link.busy, bench.posts.under_way, bench.ended[-1]) == (False, False, False)


def test_events_without_a_reply_leave_together() -> None:
    bench = Posting(OK, OK, batches=True)
    bench.send(1, 2, 3, 4)
    assert bench.posted == [
        "[[:chsk/batch [[:a/x 1] [:a/x 2] [:a/x 3]]] nil]",
        "[[:a/x 4] nil]",
    ]


def test_a_batch_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_BYTES", 30)
    bench = Posting(OK, OK, batches=True)
    bench.send(1, 2, 3)
    assert bench.posted == ["[[:chsk/batch [[:a/x 1] [:a/x 2]]] nil]", "[[:a/x 3] nil]"]


def test_an_event_with_a_reply_leaves_alone_and_has_its_own_timeout() -> None:
    bench = Posting(OK, OK, batches=True)
    bench.send(1, cb=print)
    bench.send(2)
    assert [timeout for _, _, timeout in bench.http.asked] == [7.0, 25.0]
    assert bench.posted[0] == '[[:a/x 1] "c1"]'


def test_a_binary_message_is_the_body_and_its_parameters_the_query() -> None:
    bench = Posting(Answer(200, {}, b"\x92\xa2ok\xc0"), packer="msgpack")
    bench.send(1)
    [(method, params, _)] = bench.http.asked
    assert (method, params["binary?"], params["client-id"]) == ("POST", "true", "id0")
    assert bench.owner.told == [("a/x", b"\x92\xa2ok\xc0")]


def test_what_nobody_waits_for_does_not_leave() -> None:
    bench = Posting()
    outgoing = bench.session.pack(Event("a/x"), print, 7.0)
    bench.posts.take(outgoing)  # it was rejected meanwhile: nothing expects its reply
    bench.posts.flush()
    assert (bench.http.asked, bench.owner.told, bench.link.busy) == ([], [], False)


def test_the_line_is_bounded_and_takes_nothing_after_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_QUEUE", 1)
    bench = Posting()
    outgoing = bench.session.pack(Event("a/x"))
    assert [bench.posts.take(outgoing) for _ in range(2)] == [True, False]
    bench = Posting()
    bench.threads.ending.set()
    assert bench.posts.take(outgoing) is False


@pytest.mark.parametrize("status", [429, 503])
def test_a_post_that_comes_too_early_is_repeated_five_times_at_most(status: int) -> None:
    later = Answer(status, {"retry-after": "0.0"})  # not a number of seconds: no wait is asked
    bench = Posting(*[later] * module.TRIES)
    bench.threads.ending.wait = lambda timeout=None: False  # type: ignore[method-assign]
    bench.send(1)
    assert len(bench.http.asked) == module.TRIES
    details = {"status": status, "message": f"HTTP {status}"}
    assert bench.owner.told == [("a/x", "chsk/error", details)]


def test_a_refusal_asks_for_credentials_once() -> None:
    tokens = iter(["old", "new", "never"])
    refused = Answer(403, {"content-type": "text/plain"}, b"not you\n")
    bench = Posting(refused, refused, csrf_token=lambda: next(tokens))
    bench.endpoint.ask_credentials()
    bench.send(1)
    assert bench.session.csrf == "new"
    assert bench.owner.told == [("a/x", "chsk/error", {"status": 403, "message": "not you"})]


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("exception", ("a/x", "interrupted")),
        ("abort", ("a/x", "interrupted")),
        ("timeout", ("a/x", "chsk/timeout", None)),
    ],
)
def test_without_an_answer_it_is_not_known_whether_it_arrived(
    kind: str, told: Any, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Posting(NoAnswer(kind, "cut"))
    bench.send(1)
    assert bench.owner.told == [told]
    assert caplog.messages == ["a POST of a/x failed: cut"]


def test_a_login_page_is_an_error() -> None:
    bench = Posting(Answer(302, {"location": "/login"}))
    bench.send(1)
    [(name, reply, details)] = bench.owner.told
    assert (name, reply, details["status"]) == ("a/x", "chsk/error", 302)
    assert "is answered by a redirect to /login" in details["message"]


def test_what_the_application_raises_ends_one_post(caplog: pytest.LogCaptureFixture) -> None:
    bench = Posting(chsk_url=lambda *args: 1 // 0)
    bench.send(1, 2)
    assert [reply for _, reply, _ in bench.owner.told] == ["chsk/error"] * 2
    assert caplog.messages == ["a POST of a/x failed"] * 2

"""What happens is told to the log at DEBUG, and to taps, and to nobody where nobody listens."""

from __future__ import annotations

import logging

import pytest

from flask_chsk.protocol.push import Push
from flask_chsk.server.trace import Happening, Trace

LOG = "flask_chsk.server.trace"


def test_nobody_listens_until_the_log_or_a_tap_does(caplog: pytest.LogCaptureFixture) -> None:
    trace = Trace()
    with caplog.at_level(logging.INFO, LOG):
        assert not trace.on
        trace.add(print)
        assert trace.on
        trace.remove(print)
        assert not trace.on
    with caplog.at_level(logging.DEBUG, LOG):
        assert not trace.on
        trace.look()
        assert trace.on


def test_the_log_shows_no_payload(caplog: pytest.LogCaptureFixture) -> None:
    trace = Trace()
    with caplog.at_level(logging.DEBUG, LOG):
        trace.client("in", "ann", "a1", "chat/say", "wants a reply", {"text": "secret"})
        trace.client("close", None, "b2", about="4003 closed")
    assert caplog.messages == [
        "in      uid 'ann' client a1 chat/say wants a reply",
        "close   anonymous client b2 4003 closed",
    ]


@pytest.mark.parametrize(
    ("channel", "whose", "topic"),
    [
        ("u:ann", "uid 'ann'", None),
        ("c:a1:ann", "uid 'ann' client a1", None),
        ("c:a1", "anonymous client a1", None),
        ("t:room/1", "topic 'room/1'", "room/1"),
        ("*", "everybody", None),
        ("-", "anonymous", None),
    ],
)
def test_a_tap_gets_events_with_their_receivers_and_payload(
    channel: str, whose: str, topic: str | None
) -> None:
    trace, seen = Trace(), list[Happening]()
    trace.add(seen.append)
    trace.push(Push(channel, "[:order/shipped 7]", offset=9), ["ann"])
    about = "to 1 client here, offset 9"
    assert seen == [Happening("out", whose, ["ann"], "order/shipped", about, topic, 7)]


def test_an_event_without_data_has_no_payload() -> None:
    trace, seen = Trace(), list[Happening]()
    trace.add(seen.append)
    trace.push(Push("*", "[:page/reload]"), [])
    assert (seen[0].about, seen[0].payload) == ("to 0 clients here, offset 0", None)

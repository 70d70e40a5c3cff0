"""The exceptions of the package: what each is, and how it is caught."""

from __future__ import annotations

import pickle

import pytest

from flask_chsk import errors
from flask_chsk.errors import ChskError, ProtocolError, Refused, ReplyError

ALL = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, Exception)]


@pytest.mark.parametrize("kind", ALL)
def test_everything_raised_on_purpose_is_caught_by_one_name(kind: type[Exception]) -> None:
    assert issubclass(kind, ChskError)
    assert kind.__module__ == "flask_chsk.errors"


@pytest.mark.parametrize(
    ("kind", "python"),
    [
        (errors.ConfigError, ValueError),
        (errors.UsageError, RuntimeError),
        (errors.BadEvent, ValueError),
        (errors.PackError, TypeError),
        (errors.UnpackError, ValueError),
        (errors.AskTimeout, TimeoutError),
        (errors.ReplyTimeout, TimeoutError),
    ],
)
def test_an_error_is_also_what_python_calls_it(
    kind: type[ChskError], python: type[Exception]
) -> None:
    assert issubclass(kind, python)


@pytest.mark.parametrize(
    ("base", "kinds"),
    [
        (
            errors.AskError,
            {errors.NoClient, errors.ClientGone, errors.AskTimeout, errors.AskFailed},
        ),
        (errors.BrokerError, {errors.BrokerUnavailable, errors.PublishUnknown}),
        (errors.RequestError, {errors.ReplyTimeout, errors.ChannelClosed, errors.ReplyError}),
    ],
)
def test_what_circumstance_raises_is_caught_by_one_name_each(
    base: type[ChskError], kinds: set[type[ChskError]]
) -> None:
    assert {kind for kind in ALL if issubclass(kind, base)} == {base, *kinds}


def test_an_error_of_the_protocol_has_its_close_code() -> None:
    error = ProtocolError(1002, "a mask is missing")
    assert (error.code, str(error)) == (1002, "a mask is missing")


def test_a_refusal_has_status_and_line_and_perhaps_a_time() -> None:
    refused = Refused(429, "too many", retry_after=10)
    assert (refused.status, str(refused), refused.retry_after) == (429, "too many", 10)
    assert Refused(400, "no client id").retry_after is None


def test_an_error_reply_has_the_status_that_the_server_gave() -> None:
    assert (ReplyError("no", 403).status, str(ReplyError("no", 403))) == (403, "no")
    assert ReplyError("no").status is None


@pytest.mark.parametrize("kind", [one for one in ALL if one not in (ProtocolError, Refused)])
def test_errors_that_reach_an_application_go_to_other_processes(kind: type[ChskError]) -> None:
    error = pickle.loads(pickle.dumps(kind("why")))
    assert (type(error), str(error)) == (kind, "why")

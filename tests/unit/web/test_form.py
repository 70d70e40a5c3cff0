"""The message in a POST: taken out of a form of any size, the other fields left to Werkzeug."""

from __future__ import annotations

from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_chsk.errors import Refused
from flask_chsk.web.form import MOST_FIELDS, OTHER_BYTES, fields_of, message_of


@given(st.text(), st.booleans())
def test_any_message_is_read_as_browsers_write_it(text: str, plus: bool) -> None:
    written = (quote_plus if plus else quote)(text)
    assert message_of(f"ppstr={written}".encode()) == (text, b"")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (b"", ""),
        (b"a+b%20c%2Bd", "a b c+d"),
        (b"%5b%5B", "[["),
        (b"a=b=c", "a=b=c"),
        (b"\\x41\\n\\", "\\x41\\n\\"),
        (b"%5Cx41", "\\x41"),
        (b"%C3%A9", "é"),
        ("é".encode(), "é"),
        (b"%00", "\x00"),
        (b"%FF", "\ufffd"),
        (b"\xff", "\ufffd"),
    ],
)
def test_escapes_are_those_of_forms_and_no_others(written: bytes, message: str) -> None:
    assert message_of(b"ppstr=" + written)[0] == message


@pytest.mark.parametrize("written", [b"%", b"%4", b"%zz", b"a%", b"%%", b"% 1"])
def test_a_percent_sign_that_escapes_nothing_is_refused(written: bytes) -> None:
    with pytest.raises(Refused, match="not urlencoded") as refused:
        message_of(b"ppstr=" + written)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("body", "rest"),
    [
        (b"ppstr=1&a=b&c=%20", b"a=b&c=%20"),
        (b"a=b&ppstr=1&c=%20", b"a=b&c=%20"),
        (b"a=b&c=%20&ppstr=1", b"a=b&c=%20"),
        (b"ppstr=1", b""),
        (b"ppstr=1&ppstr=2", b"ppstr=2"),
    ],
)
def test_the_other_fields_stay_as_they_are(body: bytes, rest: bytes) -> None:
    assert message_of(body) == ("1", rest)


@pytest.mark.parametrize("body", [b"", b"a=b", b"xppstr=1", b"ppstr", b"PPSTR=1", b"a=ppstr=1"])
def test_a_form_without_a_message_has_none(body: bytes) -> None:
    assert message_of(body) == (None, body)


def test_a_form_has_a_bounded_number_of_fields() -> None:
    fields = b"&".join([b"ppstr=1", *[b"a=b"] * (MOST_FIELDS - 1)])
    assert message_of(fields)[0] == "1"
    for more in (b"&a=b", b"&"):
        with pytest.raises(Refused, match=f"over {MOST_FIELDS} fields") as refused:
            message_of(fields + more)
        assert refused.value.status == 400


def test_fields_beside_the_message_are_of_bounded_size() -> None:
    most = b"a=" + b"x" * (OTHER_BYTES - 2)
    assert message_of(most + b"&ppstr=1") == ("1", most)
    for body in (most + b"x&ppstr=1", most + b"x"):
        with pytest.raises(Refused, match=f"over {OTHER_BYTES} bytes") as refused:
            message_of(body)
        assert refused.value.status == 400


def test_the_message_itself_may_be_large() -> None:
    message, rest = message_of(b"a=b&ppstr=" + b"%41" * OTHER_BYTES)
    assert (message, rest) == ("A" * OTHER_BYTES, b"a=b")


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"", {}),
        (b"a=1&b=x+y%26&c=", {"a": "1", "b": "x y&", "c": ""}),
        (b"a=1&a=2", {"a": "1"}),  # as request.values
        (b"a=%ff\xff", {"a": "\ufffd\ufffd"}),
    ],
)
def test_the_other_fields_by_name(body: bytes, fields: dict[str, str]) -> None:
    assert fields_of(body) == fields

"""The message in a POST: the field ``ppstr`` of a form, or the whole body.

What a client sends: docs/protocol.rst, "POSTs".

A form is decoded by Werkzeug field by field and escape by escape, in Python: a body of a million
fields, or of a million escapes, would keep the process busy for a second. So the message, which
may be large, is taken out and decoded here, in C. The few other fields stay for Werkzeug, where a
hook of the application asks for them.
"""

from __future__ import annotations

from urllib.parse import parse_qsl

from ..errors import Refused

MOST_FIELDS = 64  # our clients send some ten
OTHER_BYTES = 16_384  # of all but the message
_MESSAGE = b"ppstr="


def message_of(body: bytes) -> tuple[str | None, bytes]:
    """The message in a urlencoded *body*, and the body without it; None where there is none.

    :raises Refused: 400 for too many or too large fields beside it, and for a ``%`` that escapes
        nothing.
    """
    if body.count(b"&") >= MOST_FIELDS:
        raise Refused(400, f"a form of over {MOST_FIELDS} fields: POST the message as ppstr=")
    fields = body.split(b"&")
    message = None
    for number, field in enumerate(fields):
        if field.startswith(_MESSAGE):
            del fields[number]
            message = _unquoted(field[len(_MESSAGE) :])
            body = b"&".join(fields)
            break
    if len(body) > OTHER_BYTES:
        raise Refused(400, f"a form of over {OTHER_BYTES} bytes beside the message in ppstr=")
    return message, body


def fields_of(body: bytes) -> dict[str, str]:
    """The fields of a urlencoded *body* by name; of several with one name the first."""
    text = body.decode("utf-8", "replace")
    return dict(reversed(parse_qsl(text, keep_blank_values=True)))


def _unquoted(value: bytes) -> str:
    value = value.replace(b"+", b" ")
    if b"%" in value:
        # Python's escape \xHH for %HH.
        escaped = value.replace(b"\\", b"\\\\").replace(b"%", b"\\x")
        try:
            value = escaped.decode("unicode_escape").encode("latin-1")
        except UnicodeDecodeError:
            raise Refused(400, "ppstr= is not urlencoded: a % stands before two digits") from None
    return str(value, "utf-8", "replace")

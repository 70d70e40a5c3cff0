"""What docs/protocol.rst lists is what the code has: codes, statuses, ids, limits, messages."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

import pytest

from flask_chsk import brokers, packers, security
from flask_chsk.client import session as client
from flask_chsk.config import Config
from flask_chsk.errors import Refused, UsageError
from flask_chsk.protocol import event, session, uids
from flask_chsk.protocol.session import ServerSession
from flask_chsk.protocol.wire import WIRES, Composer
from flask_chsk.server import replies
from flask_chsk.values import Keyword, StrKey
from flask_chsk.web import form, views
from tests.process import ROOT

PACKAGE = ROOT / "flask_chsk"
SOURCES = [ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")]
SCRIPT = (PACKAGE / "static/chsk.js").read_text(encoding="utf-8")
PAGE = (ROOT / "docs/protocol.rst").read_text(encoding="utf-8")
HEADING = re.compile(r"^(.+)\n[=~-]{3,}$", re.M)


def section(title: str) -> str:
    """The text of a section of the page."""
    titles = list(HEADING.finditer(PAGE))
    for found, following in zip(titles, [*titles[1:], None], strict=True):
        if found[1] == title:
            return PAGE[found.end() : following.start() if following else None]
    raise LookupError(title)


def tables(title: str) -> list[list[list[str]]]:
    """The tables of a section, each its rows below the heads, each the text of its cells."""
    found = []
    for table in section(title).split(".. list-table::")[1:]:
        body = re.split(r"\n(?=\S)", table)[0]
        rows = re.split(r"\n   \* -", body)[2:]
        found.append([[" ".join(cell.split()) for cell in row.split("\n     -")] for row in rows])
    return found


def words(cell: str) -> list[str]:
    """What stands in a cell as code."""
    return re.findall(r"``(.+?)``", cell)


def strings() -> Iterator[str]:
    for source in SOURCES:
        for node in ast.walk(source):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_close_codes() -> None:
    listed = {int(code): then for code, _, then in tables("Close codes")[0]}
    codes = [*range(1000, 1016), *range(4000, 4100)]
    named = {value for value in vars(session).values() if type(value) is int and value in codes}
    assert [*listed] == sorted({*named, 1007})  # frames.py has that one alone
    final = {code: words(then)[0] for code, then in listed.items() if "stay closed" in then}
    assert final == client._FINAL
    assert all(f'{code}: "{reason}"' in SCRIPT for code, reason in final.items())


def test_statuses() -> None:
    calls = [node for source in SOURCES for node in ast.walk(source) if isinstance(node, ast.Call)]
    refused = {
        call.args[0].value
        for call in calls
        if getattr(call.func, "id", getattr(call.func, "attr", "")) == "Refused"
        and isinstance(call.args[0], ast.Constant)
    }
    assert [int(row[0]) for row in tables("Refusals")[0]] == sorted(refused)


def test_reserved_ids() -> None:
    listed = [id for row in tables("Reserved ids")[0] for id in words(row[0])]
    used = {text for text in strings() if re.fullmatch(r"chsk/[a-z0-9-]+[a-z0-9]", text)}
    used |= set(re.findall(r'"(chsk/[a-z0-9-]+)"', SCRIPT))
    begin = {"chsk/ws-p", "chsk/uidport"}
    assert sorted(listed) == sorted(used - begin - {"chsk/bytes"})  # a tag of the broker's EDN


@pytest.mark.parametrize("number", [0, 1])
def test_names_of_parameters_and_headers(number: int) -> None:
    known = " ".join(strings())
    for name in [word for row in tables("Requests")[number + 1] for word in words(row[0])]:
        assert name.removesuffix(": Bearer") in known, name


LIMITS = {
    "characters of a client id": 64,
    "characters of a uid": 255,
    "characters of an event id": event._ID_LENGTH,
    "characters of a cursor": 40,
    "characters of a key": session.KEY_LENGTH,
    "keys that are remembered of one client": brokers.KEYS,
    "bytes of a reply that is kept for a repetition": replies.KEPT_REPLY,
    "events in one batch": session.BATCHED,
    "characters of a bad package that the application gets": session.BAD_PACKAGE_SHOWN,
    "bytes of one push, about": session.PAGE_BYTES,
    "levels of nesting": packers.MAX_DEPTH,
    "fields of a form": form.MOST_FIELDS,
    "bytes of a form beside the message": form.OTHER_BYTES,
    "bytes of a request's head, as a server keeps it": views.MOST_KEPT,
    "seconds for the body of a POST to arrive": int(views.BODY_SECONDS),
    "topics of one user": brokers.MAX_TOPICS,
}


def test_limits() -> None:
    listed = {what: most for what, most in tables("Limits")[0] if not most.startswith("half")}
    assert listed == {what: f"{most:,}" for what, most in LIMITS.items()}


def test_the_lengths_of_names() -> None:
    assert security.check_client_id("x" * 64)
    with pytest.raises(Refused):
        security.check_client_id("x" * 65)
    assert uids.as_uid("x" * 255)
    with pytest.raises(UsageError):
        uids.as_uid("x" * 256)
    assert session.read_cursor("e" * 20 + ":" + "1" * 16, "e" * 20)
    assert session.read_cursor("e" * 20 + ":" + "1" * 20, "e" * 20) is None


def test_generations() -> None:
    rows = tables("Sente's generations")[0]
    columns = [[words(cell) for cell in column] for column in zip(*rows, strict=True)]
    for name, wire in WIRES.items():
        composer = Composer(packers.make("edn"), wire)
        one = ServerSession(None, "c", composer, session.Rules("e7f3"), 0.0)
        column = columns[1 + [*reversed(WIRES)].index(name)]
        _, bare, wrapped, said, asks, nil_uid, _ = column
        assert [composer.message(["hi"]), composer.message(["hi"], "c")] == [*bare, *wrapped]
        for message, cb in ((said[0], None), (asks[0], "ajax" if wire.writes_nil else 0)):
            assert composer.read(message) == ([Keyword("a/b"), 1], cb, None)
        assert nil_uid[0] in str(one.handshake(None))


@pytest.mark.parametrize("row", tables("Values")[0], ids=lambda row: row[0])
def test_values(row: list[str]) -> None:
    python, edn, transit, msgpack = (words(cell)[0] for cell in row)
    value: Any = eval(python, {"Keyword": Keyword, "StrKey": StrKey})
    packed = packers.make("msgpack").pack(value)
    assert isinstance(packed, bytes)
    assert [packers.make("edn").pack(value), packers.make("transit").pack(value)] == [edn, transit]
    assert packed.hex() == msgpack


def test_settings_that_are_named_exist() -> None:
    names = {f"CHSK_{name.upper()}" for name in Config.__dataclass_fields__}
    begin = {"CHSK_CLOSE_GRACE", "CHSK_RECOVERY"}  # of several, written with an ellipsis
    assert set(re.findall(r"CHSK_[A-Z_]+[A-Z]", PAGE)) <= names | begin

"""What docs/protocol.rst lists is what the code has: codes, statuses, ids, limits, messages."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

import pytest

from flask_chsk import figures, packers, security
from flask_chsk.brokers import contract
from flask_chsk.client import policy
from flask_chsk.client.session import ClientSession
from flask_chsk.config import Config
from flask_chsk.errors import Refused, UsageError
from flask_chsk.protocol import event, generations, session, uids
from flask_chsk.protocol.session import ServerSession
from flask_chsk.protocol.wire import WIRES, Composer
from flask_chsk.server import close_log, idempotency
from flask_chsk.values import Keyword, StrKey
from flask_chsk.web import form, views
from tests.pages import read, tables, words
from tests.process import ROOT

PACKAGE = ROOT / "flask_chsk"
SOURCES = [ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")]
SCRIPT = (PACKAGE / "static/chsk.js").read_text(encoding="utf-8")
PAGE = "protocol.rst"


def strings() -> Iterator[str]:
    for source in SOURCES:
        for node in ast.walk(source):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_close_codes() -> None:
    listed = {int(code): then for code, _, then in tables(PAGE, "Close codes")[0]}
    codes = [*range(1000, 1016), *range(4000, 4100)]
    named = {value for value in vars(session).values() if type(value) is int and value in codes}
    assert [*listed] == sorted({*named, 1007})  # frames.py has that one alone
    final = {code: words(then)[0] for code, then in listed.items() if "stay closed" in then}
    assert final == policy.FINAL
    assert all(f'{code}: "{reason}"' in SCRIPT for code, reason in final.items())
    assert {*final} == generations.FINAL_CODES
    counted = figures.FAMILIES["closed"].numbers
    assert [*counted] == [code for code in listed if code != session.GOING_AWAY]  # clients' own


def test_levels_of_close_codes() -> None:
    """docs/deployment.rst says at which level the log tells of each."""
    rows = re.findall(r"^(\d{4})(?:-(\d{4}))? +(INFO|WARNING)  ", read("deployment.rst"), re.M)
    for code in figures.FAMILIES["closed"].numbers:
        levels = [level for low, high, level in rows if int(low) <= code <= int(high or low)]
        assert levels == ["INFO" if code in close_log.ORDINARY else "WARNING"], code


def test_statuses() -> None:
    calls = [node for source in SOURCES for node in ast.walk(source) if isinstance(node, ast.Call)]
    refused = {
        call.args[0].value
        for call in calls
        if getattr(call.func, "id", getattr(call.func, "attr", "")) == "Refused"
        and isinstance(call.args[0], ast.Constant)
    }
    assert [int(row[0]) for row in tables(PAGE, "Refusals")[0]] == sorted(refused)


def test_reserved_ids() -> None:
    listed = [id for row in tables(PAGE, "Reserved ids")[0] for id in words(row[0])]
    used = {text for text in strings() if re.fullmatch(r"chsk/[a-z0-9-]+[a-z0-9]", text)}
    used |= set(re.findall(r'"(chsk/[a-z0-9-]+)"', SCRIPT))
    begin = {"chsk/ws-p", "chsk/uidport"}
    assert sorted(listed) == sorted(used - begin - {"chsk/bytes"})  # a tag of the broker's EDN


def test_the_state_of_a_client() -> None:
    fields, reasons = tables(PAGE, "The state of a client")
    composer = Composer(packers.make("edn"), WIRES["1.21"])
    one = ClientSession(composer, policy.Options(), random=float, new_id=str)
    assert [words(row[0])[0] for row in fields] == [*one.state]
    initial = SCRIPT.partition("this.#state = {")[2].partition("};")[0]
    assert [words(row[1])[0] for row in fields] == re.findall(r"^ +(\w+)[:,]", initial, re.M)
    told = " ".join(strings())
    for reason in [word for row in reasons for word in words(row[0])]:
        assert f'"{reason}"' in SCRIPT
        assert reason in told or reason in ("offline", "pagehide")


@pytest.mark.parametrize("number", [0, 1])
def test_names_of_parameters_and_headers(number: int) -> None:
    known = " ".join(strings())
    for name in [word for row in tables(PAGE, "Requests")[number + 1] for word in words(row[0])]:
        assert name.removesuffix(": Bearer") in known, name


LIMITS = {
    "characters of a client id": 64,
    "characters of a uid": 255,
    "characters of an event id": event._ID_LENGTH,
    "characters of a cursor": 40,
    "characters of a key": session.KEY_LENGTH,
    "keys that are remembered of one client": contract.KEYS,
    "bytes of a reply that is kept for a repetition": idempotency.KEPT_REPLY,
    "events in one batch": session.BATCHED,
    "characters of a bad package that the application gets": session.BAD_PACKAGE_SHOWN,
    "bytes of one push on a WebSocket, about": session.FRAME_BYTES,
    "bytes of one push in the answer to a poll, about": session.PAGE_BYTES,
    "levels of nesting": packers.MAX_DEPTH,
    "fields of a form": form.MOST_FIELDS,
    "bytes of a form beside the message": form.OTHER_BYTES,
    "bytes of a request's head, as a server keeps it": views.MOST_KEPT,
    "seconds for the body of a POST to arrive": int(views.BODY_SECONDS),
    "topics of one user": contract.MAX_TOPICS,
}


def test_limits() -> None:
    listed = {what: most for what, most in tables(PAGE, "Limits")[0] if not most.startswith("half")}
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
    rows = tables(PAGE, "Sente's generations")[0]
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


@pytest.mark.parametrize("row", tables(PAGE, "Values")[0], ids=lambda row: row[0])
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
    assert set(re.findall(r"CHSK_[A-Z_]+[A-Z]", read(PAGE))) <= names | begin

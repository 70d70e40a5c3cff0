"""The table of docs/packers.rst: what each packer makes of the values that applications have."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import uuid
from collections import deque
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy import create_engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from flask_chsk.errors import PackError
from flask_chsk.packers import make
from tests.process import ROOT

PACKERS = ("edn", "json", "transit", "msgpack")


class Model(BaseModel):
    a: int = 1


@dataclasses.dataclass
class Data:
    a: int = 1


class Base(DeclarativeBase): ...


class Order(Base):
    __tablename__ = "order"
    id: Mapped[int] = mapped_column(primary_key=True)


class Color(enum.Enum):
    RED = "red"


with create_engine("sqlite://").connect() as connection:
    ROW = connection.execute(text("select 1 as a")).one()

ID = uuid.UUID("12345678-1234-5678-1234-567812345678")
NOON = dt.datetime(2026, 1, 2, 12, tzinfo=dt.timezone.utc)
A = {"a": 1}
NOTHING: Any = object()  # refused

# As it is in the table: the value, then what a reader of EDN, JSON, Transit and MessagePack has.
BECOMES: dict[str, tuple[Any, Any, Any, Any, Any]] = {
    "a dataclass": (Data(), A, A, A, A),
    "``row._mapping`` of SQLAlchemy": (ROW._mapping, A, A, A, A),
    "an ``Enum``": (Color.RED, "red", "red", "red", "red"),
    "a tuple": ((1, 2), [1, 2], [1, 2], [1, 2], [1, 2]),
    "a set": ({1}, {1}, [1], {1}, {1}),
    "a ``Decimal``": (Decimal("1.50"), Decimal("1.50"), "1.50", Decimal("1.50"), NOTHING),
    "a ``Fraction``": (Fraction(1, 3), Fraction(1, 3), NOTHING, Fraction(1, 3), Fraction(1, 3)),
    "a ``UUID``": (ID, ID, str(ID), ID, ID),
    "a ``datetime`` with a zone": (NOON, NOON, "2026-01-02T12:00:00+00:00", NOON, NOON),
    "a ``date``": (dt.date(2026, 1, 2), *["2026-01-02"] * 4),
    "``bytes``": (b"ab", NOTHING, NOTHING, b"ab", b"ab"),
    "NaN, infinities": (float("inf"), float("inf"), NOTHING, float("inf"), float("inf")),
    "a number as a key": ({1: "a"}, {1: "a"}, NOTHING, {1: "a"}, {1: "a"}),
    "a tuple as a key": ({(1, 2): "a"}, {(1, 2): "a"}, NOTHING, {(1, 2): "a"}, {(1, 2): "a"}),
    "an integer past 64 bits": (2**70, 2**70, 2**70, 2**70, NOTHING),
}

# What none of them takes, and what to pass in its place.
REFUSED: dict[str, tuple[Any, str]] = {
    "a model of pydantic": (Model(), 'object of type Model: pass its model_dump(mode="json")'),
    "a row of SQLAlchemy": (ROW, "object of type Row: pass its _asdict()"),
    "a mapped object of SQLAlchemy": (
        Order(id=1),
        "object of type Order: pass a dict of its columns",
    ),
    "a ``timedelta``": (
        dt.timedelta(seconds=90),
        "object of type timedelta: pass its total_seconds()",
    ),
    "a ``time``": (dt.time(1, 2), "object of type time: pass its isoformat()"),
    "a ``deque``, a generator": (deque([1]), "object of type deque: pass a list of it"),
    "a ``datetime`` without a zone": (
        dt.datetime(2026, 1, 2),
        "naive datetime; give it a zone, as datetime.now(timezone.utc) does, or set"
        ' CHSK_NAIVE_DATETIMES, such as to "UTC"',
    ),
}


@pytest.mark.parametrize("name", BECOMES)
@pytest.mark.parametrize("packer", PACKERS)
def test_it_is_read_as_the_table_says(packer: str, name: str) -> None:
    value, *read = BECOMES[name]
    expected = read[PACKERS.index(packer)]
    made = make(packer)
    if expected is NOTHING:
        with pytest.raises(PackError):
            made.pack(value)
    else:
        found = made.unpack(made.pack(value))
        assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("packer", PACKERS)
def test_what_none_takes_is_refused_with_what_to_pass(packer: str, name: str) -> None:
    value, why = REFUSED[name]
    with pytest.raises(PackError) as refused:
        make(packer).pack({"x": [value]})
    assert str(refused.value) == f'data["x"][0]: {why}'


def test_the_documentation_has_the_same_rows() -> None:
    table = (ROOT / "docs/packers.rst").read_text().partition("What becomes of a value")[2]
    table = table.partition("A value that a receiver cannot read")[0]
    rows = [row.split("\n     - ") for row in table.split("\n   * - ")[2:]]
    assert [row[0] for row in rows] == [*BECOMES, *REFUSED]
    for name, *cells in rows:
        if name in BECOMES:
            refused = [value is NOTHING for value in BECOMES[name][1:]]
            assert [cell.strip() == "refused" for cell in cells] == refused, name

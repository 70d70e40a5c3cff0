"""The names of ``chsk.stats()``: those that the code counts, and those of the documentation."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from flask_chsk import Chsk
from flask_chsk.figures import AT_START, COUNTERS, FAMILIES, GAUGES, family_of, together
from tests.process import ROOT

PACKAGE = ROOT / "flask_chsk"
PAGE = (ROOT / "docs/metrics.rst").read_text(encoding="utf-8")


def names(key: ast.expr) -> Iterator[str]:
    """The names that a subscript of a counter may be; ``closed_*`` for those with a number."""
    if isinstance(key, ast.JoinedStr):
        yield "".join(part.value if isinstance(part, ast.Constant) else "*" for part in key.values)  # type: ignore[misc]
        return
    given = (key.body, key.orelse) if isinstance(key, ast.IfExp) else (key,)
    for name in given:
        assert isinstance(name, ast.Constant), f"counted by {ast.unparse(key)}"
        yield str(name.value)


def counted(path: Path) -> Iterator[str]:
    """What a module counts."""
    prefix = "broker_" if "brokers" in path.relative_to(PACKAGE).parts else ""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Subscript):
            counter = ast.unparse(node.target.value)
            if counter.endswith(("counters", "_counted")):
                yield from (prefix + name for name in names(node.target.slice))


def test_what_the_code_counts_is_listed() -> None:
    found = {name for path in PACKAGE.rglob("*.py") for name in counted(path)}
    assert found == {*COUNTERS, *(f"{family}_*" for family in FAMILIES)}


def test_all_keys_are_there_from_the_start() -> None:
    app = Flask("app")
    app.secret_key = "secret"
    chsk = Chsk(app)
    assert chsk.stats() == AT_START
    chsk.test_client(uid="ann")
    assert chsk.stats().keys() == AT_START.keys()
    chsk.test_client(uid="ann")
    assert chsk.stats()["opened"] == 2


def test_the_page_lists_the_same_with_the_same_words() -> None:
    listed = dict(re.findall(r"^   \* - ``(\w+)``\n     - (.+(?:\n {7}.+)*)", PAGE, re.M))
    says = {name: " ".join(text.replace("``", "`").split()) for name, text in listed.items()}
    families = {f"{name}_{family.label}": family.says for name, family in FAMILIES.items()}
    assert says == {**COUNTERS, **families, **GAUGES}


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("closed_4002", ("closed", "4002")),
        ("refused_by_parse", None),
        ("closed", None),
        ("broker_epochs", None),
    ],
)
def test_a_family_is_told_by_its_number(name: str, family: tuple[str, str] | None) -> None:
    assert family_of(name) == family


def test_of_several_workers_the_sums_are_told_and_of_what_they_share_the_largest() -> None:
    one, other = {"clients": 2, "broker_schema": 7}, {"clients": 3, "broker_schema": 7, "asks": 1}
    assert together([one, other]) == {"clients": 5, "broker_schema": 7, "asks": 1}

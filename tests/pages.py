"""Reads chapters of the documentation: their sections, and the tables in these."""

from __future__ import annotations

import re

from tests.process import ROOT

HEADING = re.compile(r"^(\S.*)\n([=~.-])\2+$", re.M)


def read(chapter: str) -> str:
    """The text of a chapter, such as ``"protocol.rst"``."""
    return (ROOT / "docs" / chapter).read_text(encoding="utf-8")


def section(chapter: str, title: str) -> str:
    """The text below a heading, up to the next one of whatever level."""
    text = read(chapter)
    titles = list(HEADING.finditer(text))
    for found, following in zip(titles, [*titles[1:], None], strict=True):
        if found[1] == title:
            return text[found.end() : following.start() if following else None]
    raise LookupError(f"{chapter} has no section {title!r}")


def tables(chapter: str, title: str) -> list[list[list[str]]]:
    """The list-tables of a section: each its rows without the heads, each row its cells."""
    found = []
    for table in section(chapter, title).split(".. list-table::")[1:]:
        body = re.split(r"\n(?=\S)", table)[0]
        rows = re.split(r"\n   \* -", body)[2:]
        found.append([[" ".join(cell.split()) for cell in row.split("\n     -")] for row in rows])
    return found


def words(cell: str) -> list[str]:
    """What stands in a cell as code."""
    return re.findall(r"``(.+?)``", cell)

"""The tables of differences in docs/client.rst name all that the two clients have."""

from __future__ import annotations

import re
from inspect import signature

from flask_chsk import client
from flask_chsk.client import ChannelSocket
from tests.pages import tables, words
from tests.process import ROOT

PAGE = "client.rst"
SCRIPT = (ROOT / "flask_chsk/static/chsk.js").read_text(encoding="utf-8")
TYPES = (ROOT / "flask_chsk/static/chsk.d.ts").read_text(encoding="utf-8")


def listed(title: str) -> tuple[list[str], list[str]]:
    """The names of Python and of JavaScript in the first two columns of a section's table."""
    [rows] = tables(PAGE, title)
    assert all(len(row) == 3 and row[2] for row in rows)
    return (
        sorted(name for row in rows for name in words(row[0])),
        sorted(name for row in rows for name in words(row[1])),
    )


def body(declaration: str) -> str:
    """What stands between the braces of a declaration in chsk.d.ts."""
    found = re.search(
        rf"^export {declaration}\b[^{{]*(?:{{[^{{}}]*}}[^{{]*)*{{\n(.*?)^}}", TYPES, re.M | re.S
    )
    assert found
    return found[1]


def members(declaration: str) -> set[str]:
    return set(re.findall(r"^  (?:readonly )?(\w+)\??[(:<]", body(declaration), re.M))


def test_options() -> None:
    python, javascript = listed("Options")
    assert python == sorted({*signature(ChannelSocket.__init__).parameters} - {"self"})
    assert javascript == sorted(members("interface Options") | {"path"})


def test_members() -> None:
    python, javascript = listed("What a channel socket has")
    assert python == sorted(name for name in dir(ChannelSocket) if not name.startswith("_"))
    assert javascript == sorted(members("class ChannelSocket") - {"constructor"})


def test_functions_and_classes() -> None:
    python, javascript = listed("Functions and classes")
    assert python == sorted(client.__all__)
    exported = set(re.findall(r"^export (?:class|const|function) (\w+)", TYPES, re.M))
    assert javascript == sorted(exported)


def test_each_difference_on_the_network_has_a_reason() -> None:
    [rows] = tables(PAGE, "On the network")
    assert all(len(row) == 4 and len(row[3]) > 10 for row in rows)


def test_the_units_of_times_are_in_their_names() -> None:
    """As the page says: milliseconds in JavaScript, and then the name ends so."""
    constants = dict(re.findall(r"^const ([A-Z_]+) = ([\d_]+);", SCRIPT, re.M))
    unnamed = {
        name
        for name, value in constants.items()
        if int(value) >= 1000 and not name.endswith(("_MS", "_BYTES", "_CHARS"))
    }
    assert unnamed == {"LEFT", "POST_QUEUE", "REQUESTS"}

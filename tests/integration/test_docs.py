"""What the documentation shows runs."""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.process import ROOT

BLOCK = re.compile(r"^\.\. code-block:: python\n(?:   :name: (\S+)\n)?\n((?:   .*\n|\n)+)", re.M)


def blocks(chapter: str) -> list[tuple[str, str]]:
    """The chapter's Python, each block with its name, if it has one."""
    text = (ROOT / "docs" / chapter).read_text(encoding="utf-8")
    return [(name, textwrap.dedent(code)) for name, code in BLOCK.findall(text)]


CODE = [
    pytest.param(code, id=f"{path.stem}-{name or number}")
    for path in sorted((ROOT / "docs").glob("*.rst"))
    for number, (name, code) in enumerate(blocks(path.name))
]


@pytest.mark.parametrize("code", CODE)
def test_its_python_is_python(code: str) -> None:
    ast.parse(code)


def test_a_client_of_sentes_signs_in_asks_and_hears(tmp_path: Path) -> None:
    """The requests of Sente's client, of a page that the chapter's application rendered."""
    page = '<body data-csrf="{{ chsk_csrf_token() }}">'
    assert page in (ROOT / "docs/sente.rst").read_text(encoding="utf-8")
    shown: dict[str, Any] = {"__name__": "shown"}
    exec(dict(blocks("sente.rst"))["sente.py"], shown)
    app = shown["app"]
    (tmp_path / "index.html").write_text(page, encoding="utf-8")
    app.template_folder = str(tmp_path)
    browser = app.test_client()
    browser.post("/login", data={"name": "ann"})
    token = re.findall('data-csrf="([^"]+)"', browser.get("/").text)[0]
    here = {"environ_overrides": {"flask_chsk.test_client": True}}
    poll = "/chsk?" + urlencode({"client-id": "c1", "csrf-token": token, "udt": 1})
    assert browser.get(f"{poll}&handshake%3F=1", **here).text == (
        '[[:chsk/handshake ["ann" nil nil]] nil]'
    )
    say = {"client-id": "c1", "udt": 2, "ppstr": '[[:chat/say {:text "hi"}] :ajax]'}
    answer = browser.post("/chsk", data=say, headers={"X-CSRF-Token": token}, **here)
    assert answer.text == "[{:ok true} nil]"
    assert browser.get(poll, **here).text == '[[[:chat/said {:who "ann" :text "hi"}]] nil]'

"""What one file says stands in another does: each document exists, and each section of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.pages import HEADING
from tests.process import ROOT

FOLDERS = ("flask_chsk", "tests", "docs", "benchmarks", "example_app", "scripts")
TEXTS = {".py", ".js", ".mjs", ".ts", ".rst", ".md", ".sh", ".html", ".toml", ".in"}
MADE = {"node_modules", "_build", "__pycache__", "vectors"}

DOCUMENT = re.compile(r"(?<![\w/.:-])((?:\.\./)*[\w/-]+\.(?:rst|md))\b")
SECTION = re.compile(r"(docs/\w+\.rst), \"([^\"]+)\"")
PATH = re.compile(r"``((?:tests|flask_chsk|benchmarks|example_app|scripts)/[\w./-]+)``")
ROLE = re.compile(r":(?:mod|class|func|meth|attr|data|exc):`~?((?:flask_chsk|tests)[\w.]*)`")
# Names of documents that were never part of the repository, cited by number of section.
STRAY = re.compile(r"\b(?:PROTOCOL|DESIGN|BROKER|CASES|FIELD|STYLE)(?:\.md|(?:\.md)? \d+[a-z]?\b)")
MARK = re.compile(r"\s*\n\s*(?:#|//|\*)?\s*")  # a citation may go on in the next line of a comment


def files() -> Iterator[Path]:
    yield from (path for path in ROOT.iterdir() if path.is_file())
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in TEXTS and not MADE.intersection(path.parts):
                yield path


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


CITING = [path for path in files() if path != Path(__file__)]


@pytest.fixture(scope="module")
def texts() -> dict[Path, str]:
    return {path: text_of(path) for path in CITING}


def test_each_document_that_is_named_exists(texts: dict[Path, str]) -> None:
    missing = {
        (str(path.relative_to(ROOT)), name)
        for path, text in texts.items()
        for name in DOCUMENT.findall(text)
        if not any((base / name).exists() for base in (ROOT, ROOT / "docs", path.parent))
    }
    assert missing == set()


def test_each_section_that_is_cited_exists(texts: dict[Path, str]) -> None:
    sections = {
        path: {found[1] for found in HEADING.finditer(text)} for path, text in texts.items()
    }
    cited = {
        (str(path.relative_to(ROOT)), document, section)
        for path, text in texts.items()
        for document, section in SECTION.findall(MARK.sub(" ", text))
    }
    assert len(cited) > 30
    missing = {one for one in cited if one[2] not in sections.get(ROOT / one[1], ())}
    assert missing == set()


def test_each_path_that_a_document_names_exists(texts: dict[Path, str]) -> None:
    missing = {
        (path.name, name)
        for path, text in texts.items()
        if path.suffix == ".rst"
        for name in PATH.findall(text)
        if not (ROOT / name).exists()
    }
    assert missing == set()


def test_code_that_a_docstring_refers_to_exists(texts: dict[Path, str]) -> None:
    """By a role of Sphinx, with its full name."""
    missing = {
        (str(path.relative_to(ROOT)), name)
        for path, text in texts.items()
        for name in ROLE.findall(text)
        if not exists(name)
    }
    assert missing == set()


def exists(name: str) -> bool:
    """Whether there is such a module, or such a name in one."""
    module, *rest = name.split(".")
    found: Any = import_module(module)
    for part in rest:
        if hasattr(found, "__path__") and find_spec(f"{found.__name__}.{part}") is not None:
            found = import_module(f"{found.__name__}.{part}")
        elif hasattr(found, part):
            found = getattr(found, part)
        else:
            return part in getattr(found, "__annotations__", ())
    return True


def test_no_document_is_cited_that_is_not_in_the_repository(texts: dict[Path, str]) -> None:
    stray = {str(path.relative_to(ROOT)): STRAY.findall(text) for path, text in texts.items()}
    assert {path: found for path, found in stray.items() if found} == {}

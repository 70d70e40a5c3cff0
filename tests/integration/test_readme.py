"""What the README shows runs, and the messages that it explains are the ones that are said."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pytest

from flask_chsk.config import Config
from tests.process import ROOT
from tests.readme import README, SHOWN, write_application


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the application as the README shows it."""
    write_application(tmp_path)
    return tmp_path


def test_its_tests_pass(folder: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert (ran.returncode, "1 passed" in ran.stdout) == (0, True), ran.stdout


def test_the_application_has_twenty_lines_of_code() -> None:
    lines = [line for line in SHOWN["app.py"].splitlines() if line]
    assert len(lines) <= 20


@cache
def said() -> list[str]:
    """Every text in the package, as it is said: … for what varies."""
    texts = []
    for path in (ROOT / "flask_chsk").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "…" for v in node.values]
                texts.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(re.sub("%[rsd]", "…", node.value))
    return texts


REMEDIES = (ROOT / "docs/troubleshooting.rst").read_text(encoding="utf-8")
MESSAGES = [m for m in re.findall(r"^``(.+)``$", REMEDIES, re.M) if not m.startswith("No module")]


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_that_troubleshooting_explains_is_said(message: str) -> None:
    parts = map(re.escape, message.split("…"))
    pattern = re.compile(".*".join(parts), re.S)
    assert any(pattern.match(text) for text in said())


def test_troubleshooting_explains_some_messages() -> None:
    assert len(MESSAGES) > 15


def test_it_has_at_most_two_hundred_lines() -> None:
    assert len(README.splitlines()) <= 200


def test_each_figure_of_what_it_costs_is_one_of_the_benchmarks() -> None:
    costs = README.partition("What it costs\n")[2].partition("Documentation\n")[0]
    quoted = re.findall(r"(?<![\d.])\d[\d.]*(?= (?:KB|µs))", costs)
    table = (ROOT / "docs/benchmarks.rst").read_text(encoding="utf-8")
    measured = [float(one.replace(",", "")) for one in re.findall(r"- ([\d.,]+)(?: ±|\n)", table)]
    unknown = [
        text
        for text in quoted
        if not any(f"{one:.{len(text.partition('.')[2])}f}" == text for one in measured)
    ]
    assert len(quoted) > 10
    assert unknown == []


def test_the_files_that_it_names_are_there() -> None:
    named = set(re.findall(r"\b(?:docs|example_app)/[\w./]*\w\.\w+", README))
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


SETTING = re.compile(r"^``CHSK_(\w+)`` = ``(.+)``$", re.M)


def test_every_setting_is_explained_with_its_default() -> None:
    text = (ROOT / "docs/configuration.rst").read_text(encoding="utf-8")
    explained = {name.lower(): ast.literal_eval(value) for name, value in SETTING.findall(text)}
    assert explained == asdict(Config())

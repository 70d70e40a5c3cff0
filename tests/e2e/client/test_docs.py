"""What ``docs/client.rst`` shows runs, and what it names exists."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.client.conftest import TestServer
from tests.process import ROOT, program

TEXT = (ROOT / "docs/client.rst").read_text(encoding="utf-8")
HEADING = re.compile(r"^(\S.*)\n[-.]{3,}$", re.M)
SCRIPT = ROOT / "flask_chsk/static/chsk.js"


def blocks(language: str) -> list[Any]:
    """The code blocks of one language, by the heading each stands under."""
    found = []
    pattern = rf"\.\. code-block:: {language}\n\n((?:   .*\n|\n)+)"
    for block in re.finditer(pattern, TEXT):
        heading = HEADING.findall(TEXT[: block.start()])[-1]
        code = re.sub("^   ", "", block[1], flags=re.M)
        found.append(pytest.param(code, id=heading.replace(" ", "-")))
    return found


@pytest.mark.parametrize("code", blocks("python"))
def test_its_python_runs(server: TestServer, code: str) -> None:
    exec(compile(code, "docs/client.rst", "exec"), {"url": server.url})


@pytest.mark.parametrize("code", blocks("javascript"))
def test_its_javascript_runs(server: TestServer, tmp_path: Path, code: str) -> None:
    names = sorted(
        set(re.findall(r"^export (?:class|const|function) (\w+)", SCRIPT.read_text(), re.M))
    )
    script = tmp_path / "example.mjs"
    script.write_text(
        f"import assert from 'node:assert';\nimport {{ {', '.join(names)} }} from '{SCRIPT}';\n"
        f"const url = '{server.url}';\n{code}\nprocess.exit(0);\n"
    )
    ran = subprocess.run([program("node"), script], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr


def test_each_test_that_it_names_is_there() -> None:
    named = set(re.findall(r"``(test_\w+)``", TEXT))
    files = [*(ROOT / "tests/unit/client").glob("*.py"), *(ROOT / "tests/e2e/client").glob("*.py")]
    written = "".join(path.read_text("utf-8") for path in files)
    assert named - set(re.findall(r"^def (test_\w+)", written, re.M)) == set()


def test_each_test_of_javascript_that_it_names_is_there() -> None:
    named = set(re.findall(r'"([^"]+)" \((seed|wire|transitions)\)$', TEXT, re.M))
    written = {
        (title, name)
        for name in ("seed", "wire", "transitions")
        for title in re.findall(
            r'\bit\("([^"]+)"', (ROOT / f"tests/js/{name}.test.mjs").read_text("utf-8")
        )
    }
    assert len(named) > 20
    assert named - written == set()

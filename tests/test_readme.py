"""What the README shows runs, and the messages that it explains are the ones that are said."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from flask_chsk.config import Config
from tests.e2e.browser import launch
from tests.process import ROOT, eventually, missing
from tests.readme import README, SHOWN, write_application
from tests.servers import WsgiServer, running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the application as the README shows it."""
    write_application(tmp_path)
    return tmp_path


def test_its_tests_pass(folder: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, "1 passed" in ran.stdout) == (0, True), ran.stdout


def test_the_application_has_twenty_lines_of_code() -> None:
    lines = [line for line in SHOWN["app.py"].splitlines() if line]
    assert len(lines) <= 20


@pytest.fixture
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        try:
            browser = launch(playwright)
        except FileNotFoundError as error:
            missing(str(error))
        yield browser
        browser.close()


@pytest.mark.e2e
def test_its_application_and_page_work(folder: Path, browser: Browser) -> None:
    env = {"PYTHONPATH": str(folder)}
    with running("gunicorn-gevent", "app:app", folder / "log", env) as server:
        ann, bob = (browser.new_context().new_page() for _ in range(2))
        sign_in(ann, server.port, "ann")
        sign_in(bob, server.port, "bob")
        ann.get_by_label("Say").fill("hi")
        ann.get_by_role("button").click()
        for page in (ann, bob):
            expect(page.locator("#said li")).to_have_text(["ann: hi"])
        expect(ann.get_by_label("Say")).to_have_value("")
        status = ann.evaluate("fetch('/orders', {method: 'post'}).then(answer => answer.status)")
        assert status == 201
        assert server.tracebacks == 0, server.log


@pytest.mark.e2e
def test_under_flask_run_a_page_goes_on_with_code_that_was_just_changed(
    folder: Path, browser: Browser
) -> None:
    command = [sys.executable, "-m", "flask", "--app", "app", "run", "--debug", "--port", "0"]
    server = WsgiServer(command, folder / "log", {"PYTHONPATH": str(folder)})
    try:
        ann = browser.new_page()
        sign_in(ann, server.port, "ann")
        app = folder / "app.py"
        code = app.read_text(encoding="utf-8")
        app.write_text(code.replace('ev.data["text"]', 'ev.data["text"].upper()'), encoding="utf-8")
        eventually(lambda: "ann: HI" in say(ann, "hi"), timeout=30)
    finally:
        server.stop()
    assert server.tracebacks == 0, server.log


def say(page: Page, text: str) -> str:
    """Say it; all that the page has heard so far."""
    page.get_by_label("Say").fill(text)
    page.get_by_role("button").click()
    return page.locator("#said").inner_text()


def sign_in(page: Page, port: int, name: str) -> None:
    """Sign in, and wait until the page can be talked to."""
    page.goto(f"http://127.0.0.1:{port}/")
    page.get_by_label("Your name").fill(name)
    with page.expect_websocket() as opened:
        page.get_by_role("button").click()
    opened.value.wait_for_event("framereceived")


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


OURS = README.partition("Troubleshooting\n")[2].partition("\nMore\n")[0]
MESSAGES = [m for m in re.findall(r"^``(.+)``$", OURS, re.M) if not m.startswith("No module")]


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_that_it_explains_is_said(message: str) -> None:
    parts = map(re.escape, message.split("…"))
    pattern = re.compile(".*".join(parts), re.S)
    assert any(pattern.match(text) for text in said())


def test_it_explains_some_messages() -> None:
    assert len(MESSAGES) > 15


def test_the_files_that_it_names_are_there() -> None:
    named = set(re.findall(r"\b(?:docs|example_app)/[\w./]*\w\.\w+", README))
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


SETTING = re.compile(r"^``CHSK_(\w+)`` = ``(.+)``$", re.M)


def test_every_setting_is_explained_with_its_default() -> None:
    text = (ROOT / "docs/configuration.rst").read_text(encoding="utf-8")
    explained = {name.lower(): ast.literal_eval(value) for name, value in SETTING.findall(text)}
    assert explained == asdict(Config())

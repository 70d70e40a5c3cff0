"""The README's application and page, in a browser."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.process import eventually
from tests.readme import write_application
from tests.servers import WsgiServer, running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the application as the README shows it."""
    write_application(tmp_path)
    return tmp_path


def test_its_application_and_page_work(folder: Path, page: Page, other_page: Page) -> None:
    env = {"PYTHONPATH": str(folder)}
    with running("flask-chsk-serve", "app", folder / "log", env) as server:
        ann, bob = page, other_page
        sign_in(ann, server.port, "ann")
        sign_in(bob, server.port, "bob")
        ann.get_by_label("Say").fill("hi")
        ann.get_by_role("button").click()
        for each in (ann, bob):
            expect(each.locator("#said li")).to_have_text(["ann: hi"])
        expect(ann.get_by_label("Say")).to_have_value("")
        status = ann.evaluate("fetch('/orders', {method: 'post'}).then(answer => answer.status)")
        assert status == 201
        assert server.tracebacks == 0, server.log


def test_under_flask_run_a_page_goes_on_with_code_that_was_just_changed(
    folder: Path, page: Page
) -> None:
    command = [sys.executable, "-m", "flask", "--app", "app", "run", "--debug", "--port", "0"]
    server = WsgiServer(command, folder / "log", {"PYTHONPATH": str(folder)})
    try:
        sign_in(page, server.port, "ann")
        app = folder / "app.py"
        code = app.read_text(encoding="utf-8")
        app.write_text(code.replace('ev.data["text"]', 'ev.data["text"].upper()'), encoding="utf-8")
        eventually(lambda: "ann: HI" in say(page, "hi"), 60.0)
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
    heard: list[object] = []
    page.on(
        "websocket",
        lambda socket: socket.on("framereceived", lambda frame: heard.append(frame)),
    )
    page.get_by_role("button").click()
    eventually(lambda: page.wait_for_timeout(20) or heard)

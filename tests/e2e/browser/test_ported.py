"""The application of docs/flask_socketio.rst, which was one of Flask-SocketIO, in a browser."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, expect

from tests.process import ROOT
from tests.readme import files_after, named_blocks, write_files
from tests.servers import running

BLOCKS = named_blocks((ROOT / "docs/flask_socketio.rst").read_text(encoding="utf-8"))


def sign_in(page: Page, url: str, name: str) -> None:
    """Sign in, and wait until the page is connected."""
    page.goto(url)
    page.get_by_label("Your name").fill(name)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#status")).to_have_text("open")


def test_each_piece_does_what_it_did(tmp_path: Path, page: Page, other_page: Page) -> None:
    write_files(files_after(BLOCKS, 6), tmp_path)
    env = {"PYTHONPATH": str(tmp_path)}
    with running("gunicorn-gevent", "app:app", tmp_path / "log", env) as server:
        url = f"http://127.0.0.1:{server.port}/"
        page.goto(url)
        expect(page.locator("#status")).to_have_text("open")
        page.locator("#join").click()
        expect(page.locator("#log li")).to_have_text(["sign in first"])
        sign_in(page, url, "ann")
        sign_in(other_page, url, "bob")
        heard = page.locator("#log li")
        page.locator("#event").click()
        expect(heard).to_have_text(["hello"])
        other_page.locator("#broadcast").click()
        expect(heard).to_have_text(["hello", "hello, all"])
        page.locator("#ping").click()
        expect(heard).to_have_text(["hello", "hello, all", "pong"])
        expect(other_page.locator("#log li")).to_have_text(["hello, all"])
        other_page.locator("#join").click()
        expect(other_page.locator("#log li").last).to_have_text("In the room: bob")
        page.locator("#say").click()
        expect(heard.last).to_have_text("join the room first")
        page.locator("#join").click()
        expect(heard.last).to_have_text("In the room: ann,bob")
        page.locator("#say").click()
        for each in (page, other_page):
            expect(each.locator("#log li").last).to_have_text("hello, room")
        page.locator("#close").click()
        page.locator("#say").click()
        expect(heard.last).to_have_text("join the room first")
        page.locator("#count").click()
        for each in (page, other_page):
            expect(each.locator("#number")).not_to_be_empty()
        page.locator("#leave").click()
        expect(page.locator("#status")).to_have_text("closed")
        expect(other_page.locator("#status")).to_have_text("open")
        assert server.tracebacks == 0, server.log

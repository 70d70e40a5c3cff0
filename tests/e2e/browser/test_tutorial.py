"""The nine steps of docs/tutorial.rst: the application runs after each, as the text says."""

from __future__ import annotations

import os
import signal
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.process import ROOT
from tests.readme import files_after, named_blocks, write_files
from tests.servers import WsgiServer

BLOCKS = named_blocks((ROOT / "docs/tutorial.rst").read_text(encoding="utf-8"))
NewPage = Callable[..., Page]


class Team:
    """The application after a step, and pages of it."""

    def __init__(self, port: int, pid: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.pid = pid

    def show(self, page: Page, name: str = "") -> Page:
        """The page, connected; signed in as *name*."""
        page.goto(self.url)
        if name:
            page.get_by_label("Your name").fill(name)
            page.get_by_role("button", name="Sign in").click()
            expect(page.locator("#user")).to_have_text(name)
        expect(page.locator("#status")).to_have_text("open, ws")
        return page

    def nudge(self, name: str) -> str:
        """What the terminal shows for ``curl -d to=NAME …/nudge``."""
        form = urllib.parse.urlencode({"to": name}).encode()
        with urllib.request.urlopen(f"{self.url}/nudge", form, timeout=20) as answer:
            text: str = answer.read().decode()
        return text


@contextmanager
def serve(step: int, folder: Path, workers: int = 1, **env: str) -> Iterator[Team]:
    """The application of *step* under gunicorn."""
    write_files(files_after(BLOCKS, step), folder)
    gunicorn = [sys.executable, "-m", "gunicorn", "-k", "gevent", "-w", str(workers)]
    command = [*gunicorn, "-b", "127.0.0.1:0", "app:app"]
    server = WsgiServer(command, folder / "log", env | {"PYTHONPATH": str(folder)})
    try:
        yield Team(server.port, server.pid)
    finally:
        server.stop(signal.SIGTERM)
    assert server.tracebacks == 0, server.log


def test_1_the_page_is_connected(tmp_path: Path, page: Page) -> None:
    with serve(1, tmp_path) as team:
        team.show(page)


def test_2_an_event_has_a_reply_or_a_refusal(tmp_path: Path, page: Page) -> None:
    with serve(2, tmp_path) as team:
        team.show(page)
        page.get_by_role("button", name="Add note").click()
        expect(page.locator("#answer")).to_have_text("write something first")
        page.get_by_label("Note").fill("buy milk")
        page.get_by_role("button", name="Add note").click()
        expect(page.locator("#answer")).to_have_text("notes: 1")


def test_3_a_user_signs_in_and_out(tmp_path: Path, page: Page) -> None:
    with serve(3, tmp_path) as team:
        team.show(page, "ann")
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("Your name")).to_be_visible()


def test_4_a_view_reaches_a_user(tmp_path: Path, page: Page) -> None:
    with serve(4, tmp_path) as team:
        assert team.nudge("ann") == "not connected\n"
        team.show(page, "ann")
        assert team.nudge("ann") == "nudged\n"
        expect(page.locator("#news")).to_have_text("Somebody nudges you")


def enter(page: Page, members: str) -> None:
    """Enter the lobby, in which there are *members* then."""
    page.get_by_role("button", name="Enter").click()
    expect(page.locator("#members")).to_have_text(f"In this room: {members}")


def say(page: Page, text: str) -> None:
    """Say it in the lobby."""
    page.get_by_label("Say").fill(text)
    page.get_by_role("button", name="Say").click()


def test_5_members_of_a_room_hear_each_other(tmp_path: Path, page: Page, other_page: Page) -> None:
    with serve(5, tmp_path) as team:
        team.show(page, "ann")
        team.show(other_page, "bob")
        say(page, "too early")
        expect(page.locator("#members")).to_have_text("enter the room first")
        enter(page, "ann")
        enter(other_page, "ann, bob")
        say(page, "hi")
        for each in (page, other_page):
            expect(each.locator("#said li")).to_have_text(["ann: hi"])


def test_6_a_page_shows_who_is_online(tmp_path: Path, page: Page, new_page: NewPage) -> None:
    with serve(6, tmp_path) as team:
        team.show(page, "ann")
        bob = team.show(new_page(), "bob")
        for each in (page, bob):
            expect(each.locator("#online")).to_have_text("ann, bob")
        bob.close()
        expect(page.locator("#online")).to_have_text("ann")


def test_7_a_nudge_while_the_page_is_offline_arrives_later(tmp_path: Path, page: Page) -> None:
    with serve(7, tmp_path) as team:
        team.show(page, "ann")
        expect(page.locator("#offline")).to_be_hidden()
        page.context.set_offline(True)
        expect(page.locator("#offline")).to_be_visible()
        assert team.nudge("ann") == "nudged\n"
        page.context.set_offline(False)
        expect(page.locator("#news")).to_have_text("Somebody nudges you")
        expect(page.locator("#offline")).to_be_hidden()


def test_8_a_killed_worker_is_not_noticed(
    tmp_path: Path, redis_url: str, page: Page, other_page: Page
) -> None:
    with serve(8, tmp_path, workers=2, CHSK_BROKER_URL=redis_url) as team:
        team.show(page, "ann")
        team.show(other_page, "bob")
        workers = Path(f"/proc/{team.pid}/task/{team.pid}/children").read_text().split()
        assert len(workers) == 2
        os.kill(int(workers[0]), signal.SIGKILL)
        for each, name in ((page, "ann"), (other_page, "bob")):
            assert team.nudge(name) == "nudged\n"
            expect(each.locator("#news")).to_have_text("Somebody nudges you")


def test_the_text_adds_to_files_that_are_there() -> None:
    first = {name.partition("/")[2] for name in BLOCKS if name.startswith("1/")}
    assert {name.partition("/")[2] for name in BLOCKS} == first

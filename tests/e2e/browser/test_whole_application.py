"""The application of docs/extensions.rst, with other extensions of Flask, as it stands there."""

from __future__ import annotations

import shlex
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect
from redis import Redis

from tests.process import ROOT, Process, Server, eventually
from tests.process import Redis as RedisServer
from tests.readme import named_blocks, write_files

FILES = named_blocks((ROOT / "docs/extensions.rst").read_text(encoding="utf-8"))
NO_WEBSOCKET = "delete window.WebSocket"


class Shop(NamedTuple):
    web: Server
    redis: Redis
    database: Path


@pytest.fixture
def shop(
    tmp_path: Path, start_redis: Callable[[], RedisServer], start: Callable[..., Process]
) -> Shop:
    """The shop, by the commands of the page: two workers, a worker of Celery, and Redis."""
    write_files(FILES, tmp_path)
    redis, database = start_redis(), tmp_path / "shop.db"
    env = {
        "PYTHONPATH": str(tmp_path),
        "REDIS_URL": redis.url,
        "DATABASE_URL": f"sqlite:///{quote(str(database))}",
        "SECRET_KEY": "of the tests",
    }
    make, work, serve = (
        [sys.executable, "-m", *shlex.split(line.rstrip("&"))]
        for line in FILES["run.sh"].splitlines()
        if not line.startswith("export ")
    )
    made = start(Process, make, env)
    eventually(lambda: not made.running, 60.0)
    start(Process, work, env)
    web = start(Server, [*serve, "--bind", "127.0.0.1:0"], env)
    return Shop(web, Redis.from_url(redis.url), database)


# Clicks are dispatched: of two pages in one window, Playwright clicks in the hidden one only after
# seconds.


def sign_in(page: Page, name: str, password: str) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button").dispatch_event("click")


def order(page: Page, item: str, count: int) -> None:
    page.get_by_label("Item").fill(item)
    page.get_by_label("Count").fill(str(count))
    page.get_by_role("button", name="Order").dispatch_event("click")


def test_the_application_of_the_docs_works_with_other_extensions(
    shop: Shop, new_page: Callable[..., Page]
) -> None:
    ann, bob = new_page(), new_page()
    ann_ajax = new_page(context=ann.context)
    ann_ajax.add_init_script(NO_WEBSOCKET)

    # Flask-WTF and Flask-Login
    assert ann.request.post(f"{shop.web.url}/login", form={"name": "ann"}).status == 400
    ann.goto(shop.web.url)
    sign_in(ann, "ann", "a guess")
    expect(ann.locator("form")).to_contain_text("wrong name or password")
    with ann.expect_websocket():
        sign_in(ann, "ann", "ann's secret")
    ann_ajax.goto(shop.web.url)
    bob.goto(shop.web.url)
    sign_in(bob, "bob", "bob's secret")

    # A form of pydantic, and rows of Flask-SQLAlchemy
    order(ann, "", 0)
    expect(ann.locator("output")).to_have_text(
        "item: String should have at least 1 character; count: Input should be greater than 0"
    )
    order(ann, "tea", 2)
    expect(ann.locator("output")).to_have_text("")
    expect(ann_ajax.locator("#orders li")).to_have_count(1)
    order(ann_ajax, "milk", 1)
    for page in (ann, ann_ajax):
        expect(page.locator("#orders li")).to_contain_text(["2 tea, 20", "1 milk, 20"])

    # A view that pushes, and Flask-Limiter in it
    ann.locator("#order-1 button").dispatch_event("click")
    ann_ajax.locator("#order-2 button").dispatch_event("click")
    for page in (ann, ann_ajax):
        expect(page.locator("#orders li")).to_contain_text([", reminded", ", reminded"])
    order(ann, "bread", 3)
    ann_ajax.locator("#order-3 button").dispatch_event("click")
    expect(ann_ajax.locator("#order-3 button")).to_have_text("Remind later")
    order(ann_ajax, "salt", 1)
    expect(ann.locator("#order-4")).to_contain_text("1 salt")

    # A task of Celery, and Flask-Limiter in a handler
    items = enumerate(["tea", "milk", "bread", "salt"], 1)
    report = [f"{n} of 4: {item}, 20" for n, item in items] + ["ordered: 7"]
    for times, page in enumerate([ann, ann_ajax], 1):
        page.get_by_role("button", name="Report").dispatch_event("click")
        for hears in (ann, ann_ajax):
            expect(hears.locator("#report li")).to_contain_text(report * times)
    ann.get_by_role("button", name="Report").dispatch_event("click")
    expect(ann.locator("#report li").last).to_have_text("2 per 1 hour")

    # Bob sees nothing of it; the database has it all
    order(bob, "cake", 1)
    expect(bob.locator("#orders li")).to_contain_text(["1 cake"])
    with sqlite3.connect(shop.database) as database:
        rows = database.execute('select user_id, item, count, reminded from "order"').fetchall()
    database.close()
    assert rows == [
        ("ann", "tea", 2, 1),
        ("ann", "milk", 1, 1),
        ("ann", "bread", 3, 0),
        ("ann", "salt", 1, 0),
        ("bob", "cake", 1, 0),
    ]

    # Signing out
    session = session_key(ann)
    assert shop.redis.exists(session)
    ann_ajax.get_by_role("button", name="Sign out").dispatch_event("click")
    expect(ann_ajax).to_have_url(f"{shop.web.url}/login")
    expect(ann).to_have_url(f"{shop.web.url}/login?next=%2F")
    assert not shop.redis.exists(session)
    shop.redis.delete(session_key(bob))
    order(bob, "salt", 1)
    expect(bob).to_have_url(f"{shop.web.url}/login?next=%2F")


def session_key(page: Page) -> str:
    """Where Flask-Session keeps the session of *page*."""
    [cookie] = [one for one in page.context.cookies() if one["name"] == "session"]
    return f"session:{cookie['value']}"

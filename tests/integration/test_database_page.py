"""The application of docs/database.rst does what the page says."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy.orm import Session

from flask_chsk.publisher import Publisher
from flask_chsk.testing import make_client
from tests.integration.test_docs import blocks
from tests.process import free_port


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The page's module ``shop``."""
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'shop.db'}")
    module: Any = ModuleType("shop")
    monkeypatch.setitem(sys.modules, "shop", module)
    exec(dict(blocks("database.rst"))["shop.py"], module.__dict__)
    yield module
    with module.app.app_context():
        module.db.engine.dispose()


def rows(shop: Any) -> list[str]:
    with shop.app.app_context():
        return list(shop.db.session.scalars(shop.db.select(shop.Order.item)))


def signed_in(shop: Any) -> tuple[Any, Any]:
    """A browser of ann, and a page in it."""
    browser = shop.app.test_client()
    browser.post("/login/ann")
    return browser, make_client(shop.app, browser)


def test_an_order_is_told_when_it_is_there(shop: Any) -> None:
    browser, page = signed_in(shop)
    assert browser.post("/orders", data={"item": "tea"}).status_code == 204
    assert browser.post("/orders", data={"item": "tea"}).status_code == 500
    assert page.received == [["order/placed", {"id": 1, "item": "tea"}]]
    assert rows(shop) == ["tea"]


def test_only_the_savepoints_that_held_are_told(shop: Any) -> None:
    _, page = signed_in(shop)
    reply = page.request(["order/place-all", ["tea", "milk", "tea", "sugar"]])
    assert reply == {"known": ["tea"]}
    assert [event[1]["item"] for event in page.received] == ["tea", "milk", "sugar"]
    assert rows(shop) == ["tea", "milk", "sugar"]


def test_the_test_of_the_page_passes(shop: Any) -> None:
    names: dict[str, Any] = {}
    exec(dict(blocks("database.rst"))["test_shop.py"], names)
    names["test_an_order_is_told_to_all_tabs_of_its_user"]()


def test_a_redis_that_is_away_is_logged_after_the_commit(caplog: pytest.LogCaptureFixture) -> None:
    with Session() as session, Publisher(f"redis://127.0.0.1:{free_port()}/0") as publisher:
        publisher.broadcast(["order/placed", 1], after_commit=session)
        publisher.broadcast(["order/paid", 1], after_commit=session)
        session.commit()
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    for record, id in zip(caplog.records, ("order/placed", "order/paid"), strict=True):
        assert record.getMessage().startswith(f"{id} was not sent after its commit: ")

"""The applications of docs/guide.rst do what the guide says."""

from __future__ import annotations

import time
from typing import Any

import pytest
from flask import Flask

from flask_chsk import Chsk
from flask_chsk.testing import ChskTestClient, Refusal, make_client
from tests.integration.test_docs import blocks
from tests.process import eventually


def shown(name: str) -> dict[str, Any]:
    """What a block of the guide defines."""
    names: dict[str, Any] = {"__name__": "shown"}
    exec(dict(blocks("guide.rst"))[name], names)
    return names


def signed_in(app: Any, name: str) -> ChskTestClient:
    """A page of a user."""
    browser = app.test_client()
    browser.post(f"/login/{name}")
    return make_client(app, browser)


def test_a_page_does_not_hear_its_own_edit() -> None:
    app = shown("exclude.py")["app"]
    ann, tab, bob = (signed_in(app, name) for name in ("ann", "ann", "bob"))
    ann.send(["document/edit", "abc"])
    bob.send(["document/edit", "abcd"])
    assert tab.received == [["document/edited", "abc"], ["document/edited", "abcd"]]
    assert ann.received == [["document/edited", "abcd"]]
    assert bob.received == [["document/edited", "abc"]]


def test_an_absent_customer_gets_a_mail() -> None:
    names = shown("absent.py")
    app, mails = names["app"], names["mails"]
    ann = signed_in(app, "ann")
    browser = app.test_client()
    for customer in ("ann", "bob"):
        browser.post("/orders/7/ship", data={"customer": customer})
    assert ann.received == [["order/shipped", {"id": 7}]]
    assert mails == [("bob", "Order 7 is on its way")]


def test_a_script_bans_a_user_and_saves_what_they_wrote(redis_url: str) -> None:
    url = f"{redis_url}?prefix=guide-ban"
    app = Flask(__name__)
    app.secret_key = "for tests"
    chsk = Chsk(app, broker_url=url)
    with app.app_context():
        ann = chsk.test_client(uid="ann")
        chsk.join("ann", "news")
    ann.on("page/draft", lambda ev: "half a letter")
    ban = shown("ban.py")["ban"]
    assert ban(url, "ann") == "half a letter"
    with app.app_context():
        eventually(lambda: not chsk.connected_uids.any)
        assert (chsk.members("news"), chsk.stats()["closed_4005"]) == (frozenset(), 1)
    assert ban(url, "bob") is None
    ann.close()


def test_a_token_opens_a_connection_until_it_expires() -> None:
    names = shown("tokens.py")
    app = names["app"]

    def page(token: str) -> ChskTestClient:
        return make_client(app, headers={"Authorization": f"Bearer {token}"})

    token = app.test_client().post("/token", data={"name": "ann"}).json["token"]
    ann = page(token)
    assert ann.uid == "ann"
    server = app.extensions["chsk"].worker()
    now = server.hub.now()
    server.hub.run(server.clients.expiries.sweep, now + names["LIFETIME"] - 60)
    assert len(server.clients.expiries) == 1
    server.hub.run(server.clients.expiries.sweep, now + names["LIFETIME"] + 60)
    assert len(server.clients.expiries) == 0  # the next poll has to show a token
    old = names["tokens"].dumps({"sub": "ann", "exp": time.time() - 1})
    for wrong in (old, "made up"):
        with pytest.raises(Refusal, match="401"):
            page(wrong)

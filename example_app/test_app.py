"""How an application with channel sockets is tested: no port, no browser, no sleeping.

`chsk_client` comes with flask_chsk: conftest.py asks for it. Copy what you need.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_chsk import ReplyError
from flask_chsk.testing import ChskTestClient, Refusal

Connect = Callable[..., ChskTestClient]


def signed_in(app: Flask, name: str) -> FlaskClient:
    """A browser, so to speak: what has its cookies is *name*."""
    browser = app.test_client()
    assert browser.post("/login", data={"name": name}).status_code in (302, 303)
    return browser


def said(client: ChskTestClient) -> list[tuple[str, str]]:
    return [(data["who"], data["text"]) for id, data in client.received if id == "chat/said"]


def present(client: ChskTestClient) -> Any:
    return [data for id, data in client.received if id == "chat/present"][-1]


def test_everybody_is_told_what_one_says(chsk_client: Connect) -> None:
    ann, bob = chsk_client(uid="Ann"), chsk_client(uid="Bob")
    assert list(ann.request(["chat/say", {"text": " hello "}])) == ["id"]
    assert said(ann) == said(bob) == [("Ann", "hello")]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"text": "  "}, "Say something first."),
        ({"text": "x" * 501}, "That is 501 characters; 500 is the most."),
        (None, "Say something first."),
    ],
)
def test_what_parse_refuses_is_answered_and_said_to_nobody(
    chsk_client: Connect, data: Any, message: str
) -> None:
    ann = chsk_client(uid="Ann")
    with pytest.raises(ReplyError, match=message) as refused:
        ann.request(["chat/say", data])
    assert (refused.value.status, said(ann)) == (400, [])


def test_who_comes_later_can_ask_for_the_last_lines(chsk_client: Connect) -> None:
    chsk_client(uid="Ann").send(["chat/say", {"text": "first"}])
    recent = chsk_client(uid="Bob").request(["chat/recent"])
    assert [(line["who"], line["text"]) for line in recent] == [("Ann", "first")]


def test_who_comes_and_goes_is_told(chsk_client: Connect) -> None:
    ann = chsk_client(uid="Ann")
    bob = chsk_client(uid="Bob")
    assert [person["name"] for person in present(ann)] == ["Ann", "Bob"]
    bob.close()
    assert [person["name"] for person in present(ann)] == ["Ann"]


def test_a_form_pushes_to_its_addressee_only(app: Flask, chsk_client: Connect) -> None:
    ann, bob = chsk_client(uid="Ann"), chsk_client(uid="Bob")
    answer = signed_in(app, "Bob").post("/notices", data={"to": "Ann", "text": "ready"})
    assert (answer.status_code, answer.text) == (200, "Sent to Ann.\n")
    assert ["notice/new", {"from": "Bob", "text": "ready"}] in ann.received
    assert "notice/new" not in [id for id, data in bob.received]


def test_a_form_to_somebody_absent_says_so(app: Flask) -> None:
    answer = signed_in(app, "Bob").post("/notices", data={"to": "Zoe", "text": "ready"})
    assert (answer.status_code, answer.text) == (404, "Zoe is not here: nothing was sent.\n")


def test_nobody_connects_without_signing_in(chsk_client: Connect) -> None:
    with pytest.raises(Refusal, match="401: not authorized"):
        chsk_client()


def test_signing_out_closes_the_users_tabs(app: Flask, chsk_client: Connect) -> None:
    browser = signed_in(app, "Ann")
    bob, _, _ = chsk_client(uid="Bob"), chsk_client(browser), chsk_client(browser)
    browser.post("/logout")
    assert [person["name"] for person in present(bob)] == ["Bob"]


def test_numbers_come_back_in_order_to_the_tab_that_sent_them(chsk_client: Connect) -> None:
    ann, other_tab = chsk_client(uid="Ann"), chsk_client(uid="Ann")
    for n in range(20):
        ann.send(["wire/number", n])
    assert [data for id, data in ann.received if id == "wire/handled"] == list(range(20))
    assert "wire/handled" not in [id for id, data in other_tab.received]


def test_a_handler_knows_who_asks(app: Flask, chsk_client: Connect) -> None:
    reply = chsk_client(signed_in(app, "Ann")).request(["wire/whoami"])
    assert (reply["uid"], reply["address"]) == ("Ann", "127.0.0.1")


@pytest.mark.parametrize("name", ["", "  ", "x" * 25, "<b>"])
def test_a_name_that_is_none_is_refused(app: Flask, name: str) -> None:
    assert app.test_client().post("/login", data={"name": name}).status_code == 400


def test_a_form_on_a_foreign_page_is_refused(app: Flask) -> None:
    foreign = {"Sec-Fetch-Site": "cross-site"}
    answer = signed_in(app, "Ann").post("/notices", data={"to": "Ann"}, headers=foreign)
    assert answer.status_code == 403


def test_pages_allow_nothing_inline(app: Flask) -> None:
    answer = signed_in(app, "Ann").get("/")
    assert "script-src 'self';" in answer.headers["Content-Security-Policy"]
    assert "<script>" not in answer.text
    assert "style=" not in answer.text


def test_every_link_to_code_leads_to_its_function(app: Flask) -> None:
    browser = signed_in(app, "Ann")
    page = browser.get("/source/chat.py").text
    assert 'id="L1"' in page
    assert browser.get("/source/../setup.py").status_code == 404
    with app.test_request_context(), pytest.raises(LookupError, match=r"no gone in chat\.py"):
        app.jinja_env.globals["code"]("chat.py", "gone")  # type: ignore[operator]

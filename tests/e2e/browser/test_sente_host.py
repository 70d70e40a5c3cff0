"""What Sente's client sends over Ajax from a page of another origin, in Chromium."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from tests.process import Server

APP = "tests.e2e.sente.app:app"

# Its XHR always has X-Requested-With, which makes the browser ask first.
LIFE = """async ([url, credentials, token]) => {
  const query = new URLSearchParams({ "client-id": "a", udt: "1", "csrf-token": token });
  const ask = async (url, options = {}) => {
    const headers = { "X-Requested-With": "XMLHTTPRequest", ...options.headers };
    const answer = await fetch(url, { credentials, ...options, headers });
    return [answer.status, await answer.text()];
  };
  const post = (text) => ask(url, {
    method: "POST",
    headers: { "X-CSRF-Token": token },
    body: new URLSearchParams({ "client-id": "a", udt: "2", ppstr: text }),
  });
  return [
    await ask(`${url}?${query}&handshake%3F=1`),
    await post('[[:test/echo "hi"] :ajax]'),
    await ask(`${url}?${query}`),
  ];
}"""


@pytest.mark.parametrize("credentials", ["include", "omit"])
def test_a_page_of_another_origin_shakes_hands_posts_and_polls(
    gunicorn: Callable[..., Server], page: Page, credentials: str
) -> None:
    site = gunicorn(APP)
    env = {"ORIGINS": site.url}
    if credentials == "omit":  # without a cookie there is no session to take a token from
        env["NO_CSRF"] = "1"
    api = gunicorn(APP, env=env)
    page.goto(f"{api.url}/page?uid=ann")
    token = page.inner_text("body")
    page.goto(f"{site.url}/page")
    uid = '"ann"' if credentials == "include" else ":sente/nil-uid"
    assert page.evaluate(LIFE, [f"{api.url}/chsk", credentials, token]) == [
        [200, f"[[:chsk/handshake [{uid} nil nil]] nil]"],
        [200, '["hi" nil]'],
        [200, "[:chsk/timeout nil]"],
    ]


def test_a_page_that_is_not_listed_gets_nothing(
    gunicorn: Callable[..., Server], page: Page
) -> None:
    site, api = gunicorn(APP), gunicorn(APP)
    page.goto(f"{site.url}/page")
    failed = page.evaluate(
        f"({LIFE})([`{api.url}/chsk`, 'include', '']).then(() => '', (error) => error.name)"
    )
    assert failed == "TypeError"

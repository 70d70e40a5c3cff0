"""The example in Chromium: all that its page offers, over both transports."""

from __future__ import annotations

import re
import socket
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.proxy import Proxy
from tests.process import ROOT, Process, Server, eventually, free_port, missing, program
from tests.servers import certificate

AXE = ROOT / "tests/js/node_modules/axe-core/axe.min.js"

NewPage = Callable[..., Page]


class Desk:
    """One tab of the example."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url

    def sign_in(self, name: str, transport: str = "WebSocket") -> Desk:
        self.page.goto(f"{self.url}/login")
        self.page.get_by_label("Your name").fill(name)
        self.page.get_by_role("button", name="Sign in").click()
        if transport == "Ajax":
            self.page.goto(f"{self.url}/?transport=ajax")
        return self.wait_open(transport)

    def wait_open(self, transport: str) -> Desk:
        expect(self.page.locator("#status")).to_have_text(transport)
        expect(self.page.locator("#trip")).to_contain_text("ms")
        return self

    def wait_open_again(self) -> None:
        """Over whatever works first: a network that returns in between looks like one without
        WebSockets."""
        expect(self.page.locator("#state")).to_have_text("open")

    def press(self, button: str) -> None:
        self.page.get_by_role("button", name=button).click()

    def say(self, text: str) -> None:
        self.page.get_by_label("Say", exact=True).fill(text)
        self.page.keyboard.press("Enter")
        expect(self.page.get_by_label("Say", exact=True)).to_have_value("")

    def expect_lines(self, *lines: str) -> None:
        expect(self.page.locator(".line span")).to_have_text(lines)

    def expect_present(self, *people: str) -> None:
        expect(self.page.locator("#present li span")).to_have_text(people)


@pytest.fixture
def server(gunicorn: Callable[..., Server]) -> Server:
    return gunicorn("example_app:app")


@pytest.fixture
def ann(server: Server, page: Page) -> Desk:
    """On a WebSocket."""
    return Desk(page, server.url).sign_in("Ann")


@pytest.fixture
def bob(server: Server, other_page: Page) -> Desk:
    """Held to long-polling."""
    return Desk(other_page, server.url).sign_in("Bob", "Ajax")


def test_two_users_chat_one_over_each_transport(ann: Desk, bob: Desk) -> None:
    ann.expect_present("Ann", "Bob")
    bob.expect_present("Ann", "Bob")
    ann.say("is the tide in?")
    bob.say("since six <b>o'clock</b>")
    for desk in (ann, bob):
        desk.expect_lines("is the tide in?", "since six <b>o'clock</b>")


def test_what_was_said_before_is_shown(ann: Desk, bob: Desk) -> None:
    ann.say("first")
    bob.expect_lines("first")
    bob.page.reload()
    bob.expect_lines("first")


def test_what_parse_refuses_is_told_and_stays_in_the_field(ann: Desk) -> None:
    field = ann.page.get_by_label("Say", exact=True)
    field.fill("x" * 501)
    ann.page.keyboard.press("Enter")
    expect(ann.page.get_by_role("alert")).to_have_text("That is 501 characters; 500 is the most.")
    expect(field).to_have_value("x" * 501)


def test_a_form_pushes_a_notice_and_says_so(ann: Desk, bob: Desk) -> None:
    ann.expect_present("Ann", "Bob")
    ann.page.get_by_label("To").select_option("Bob")
    ann.press("Post the form")
    expect(ann.page.locator("#notice-answer")).to_have_text("Sent to Bob.")
    expect(bob.page.locator(".notice span")).to_have_text("Your order is ready")
    bob.press("Dismiss")
    expect(bob.page.locator(".notice")).to_have_count(0)
    expect(ann.page.locator(".notice")).to_have_count(0)


def test_a_request_has_its_reply(bob: Desk) -> None:
    bob.press("Ask: who am I?")
    expect(bob.page.locator("#reply")).to_contain_text("uid: Bob")


def test_who_leaves_is_gone_for_the_others(ann: Desk, bob: Desk) -> None:
    ann.expect_present("Ann", "Bob")
    bob.press("Sign out")
    expect(bob.page).to_have_url(re.compile("/login$"))
    ann.expect_present("Ann")


def test_signing_out_in_one_tab_ends_the_other(ann: Desk, new_page: NewPage) -> None:
    tab = Desk(new_page(context=ann.page.context), ann.url)
    tab.page.goto(ann.url)
    tab.wait_open("WebSocket")
    ann.press("Sign out")
    expect(tab.page).to_have_url(re.compile("/login$"))


@pytest.mark.parametrize("transport", ["WebSocket", "Ajax"])
def test_500_events_are_handled_in_order(server: Server, page: Page, transport: str) -> None:
    desk = Desk(page, server.url).sign_in("Ann", transport)
    desk.press("Send 500 events")
    expect(page.locator("#order")).to_have_text(re.compile(r"^500 handled in order in \d+ ms$"))
    assert page.locator("#cells .done").count() == 500


@pytest.mark.parametrize("transport", ["WebSocket", "Ajax"])
def test_a_cut_line_comes_back_and_missed_nothing(
    server: Server, page: Page, other_page: Page, proxy_to: Callable[..., Proxy], transport: str
) -> None:
    proxy = proxy_to(server)
    ann = Desk(page, proxy.url).sign_in("Ann", transport)
    bob = Desk(other_page, server.url).sign_in("Bob")
    proxy.cut()
    expect(page.locator("#state")).not_to_have_text("open")
    bob.say("while you were away")
    proxy.restore()
    ann.wait_open_again()
    ann.expect_lines("while you were away")
    # The page also asks what was said; over Ajax either answer may come first.
    eventually(lambda: noted(ann, "in", "chat/said") == 1)


def noted(desk: Desk, way: str, id: str) -> int:
    """How many events of this id went ``"in"`` or ``"out"``, by the page's own log."""
    times: list[str] = desk.page.locator(f"#log li[data-key='{way}{id}']").evaluate_all(
        "items => items.map(item => item.dataset.times)"
    )
    return sum(map(int, times))


@pytest.mark.parametrize("transport", ["WebSocket", "Ajax"])
def test_a_restart_of_the_server_is_survived(
    gunicorn: Callable[..., Server], page: Page, transport: str
) -> None:
    env = {"SECRET_KEY": "kept"}
    first = gunicorn("example_app:app", env=env)
    ann = Desk(page, first.url).sign_in("Ann", transport)
    ann.say("before")
    first.stop()
    expect(page.locator("#state")).not_to_have_text("open")
    gunicorn("example_app:app", port=first.port, env=env)
    ann.wait_open_again()
    ann.say("after")
    ann.expect_lines("before", "after")


def test_four_workers_over_redis_are_one(
    gunicorn: Callable[..., Server], redis_url: str, page: Page, other_page: Page
) -> None:
    env = {"SECRET_KEY": "shared", "CHSK_BROKER_URL": f"{redis_url}?prefix=example"}
    url = gunicorn("example_app:app", workers=4, env=env).url
    ann, bob = Desk(page, url).sign_in("Ann"), Desk(other_page, url).sign_in("Bob", "Ajax")
    ann.expect_present("Ann", "Bob")
    ann.say("one")
    bob.say("two")
    for desk in (ann, bob):
        desk.expect_lines("one", "two")
    # Ann's socket is one worker's; Bob's POSTs are anybody's, so no order is promised.
    ann.press("Send 500 events")
    expect(ann.page.locator("#order")).to_contain_text("500 handled in order")


@pytest.mark.parametrize("button", ["Cut the connection", "Reconnect"])
def test_the_buttons_close_and_the_line_opens_again(ann: Desk, button: str) -> None:
    assert noted(ann, "out", "chat/recent") == 1  # what each handshake makes the page ask for
    ann.press(button)
    eventually(lambda: noted(ann, "out", "chat/recent") == 2)
    ann.wait_open("WebSocket")


def test_force_ajax_holds_and_lets_go(ann: Desk) -> None:
    button = ann.page.get_by_role("button", name="Force Ajax")
    button.click()
    ann.wait_open("Ajax")
    expect(button).to_have_attribute("aria-pressed", "true")
    ann.page.reload()
    ann.wait_open("Ajax")
    button.click()
    ann.wait_open("WebSocket")
    expect(button).to_have_attribute("aria-pressed", "false")


def test_presence_follows_a_user_from_one_transport_to_the_other(ann: Desk) -> None:
    """By a second client: the first stays there for its grace."""
    over = ann.page.locator("#present small")
    expect(over).to_have_text(["WebSocket"])
    ann.press("Force Ajax")
    expect(over).to_have_text(["Ajax"])
    ann.press("Force Ajax")
    expect(over).to_have_text(["WebSocket"])


def test_every_link_to_code_leads_to_its_line(ann: Desk) -> None:
    links: list[Any] = ann.page.locator("a.code").evaluate_all(
        "links => links.map(link => [link.firstChild.data.trim(), link.href])"
    )
    assert len(links) > 10
    for function, href in links:
        ann.page.goto(href)
        line = ann.page.locator(".line:target")
        expect(line).to_have_text(re.compile(rf"^\s*(async )?(def|function) {function}\("))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(server: Server, new_page: NewPage, scheme: str) -> None:
    if not AXE.exists():
        missing(str(AXE.relative_to(ROOT)))
    page = new_page(color_scheme=scheme)
    page.goto(f"{server.url}/login")
    assert violations(page) == []
    desk = Desk(page, server.url).sign_in("Ann")
    desk.say("hello")
    desk.press("Send 500 events")
    desk.press("Ask: who am I?")
    desk.press("Post the form")
    expect(page.locator(".notice")).to_have_count(1)
    assert violations(page) == []
    page.goto(f"{server.url}/source/chat.py#L10")
    assert violations(page) == []


def violations(page: Page) -> list[str]:
    """What axe finds, each with the elements concerned."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    result: Any = page.evaluate("axe.run()")
    return [
        f"{found['id']}: {[node['html'] for node in found['nodes']]}"
        for found in result["violations"]
    ]


def test_nothing_is_wider_than_a_small_phone(server: Server, new_page: NewPage) -> None:
    page = new_page(viewport={"width": 360, "height": 740})
    page.goto(f"{server.url}/login")
    widths = [overflow(page)]
    desk = Desk(page, server.url).sign_in("W" * 24)
    desk.say("W" * 200)
    desk.press("Send 500 events")
    desk.press("Ask: who am I?")
    desk.press("Post the form")
    expect(page.locator(".notice")).to_have_count(1)
    widths.append(overflow(page))
    page.goto(f"{server.url}/source/static/app.js")
    widths.append(overflow(page))
    assert widths == [0, 0, 0]


def overflow(page: Page) -> int:
    """Pixels that the page is wider than its window."""
    pixels: int = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return max(pixels, 0)


def test_all_is_reached_by_keyboard(ann: Desk) -> None:
    """Every control takes the focus in turn, and shows it."""
    page = ann.page
    expect(page.get_by_label("Say", exact=True)).to_be_focused()  # from here on it stays ours
    controls = page.locator("a[href], button, input, select, [tabindex='0']").count()
    shown: dict[int, str] = {}
    for _ in range(controls + 1):  # and once round by the browser's own
        page.keyboard.press("Tab")
        index, outline = page.evaluate(FOCUSED)
        if index >= 0:
            shown[index] = outline
    assert (len(shown), set(shown.values())) == (controls, {"solid"})


# The focused control's place in the page, -1 for none, and the outline that shows the focus.
FOCUSED = """() => {
    const it = document.activeElement;
    const place = it === document.body ? -1 : [...document.querySelectorAll("*")].indexOf(it);
    return [place, getComputedStyle(it).outlineStyle];
}"""


def test_everything_is_done_by_keyboard_alone(server: Server, page: Page) -> None:
    # A page has its focus with its first picture, which may come after it has loaded.
    page.goto(f"{server.url}/login")
    expect(page.get_by_label("Your name")).to_be_focused()
    page.keyboard.type("Ann")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_have_text("WebSocket")
    expect(page.get_by_label("Say", exact=True)).to_be_focused()
    page.keyboard.type("by keyboard")
    page.keyboard.press("Enter")
    expect(page.locator(".line span")).to_have_text(["by keyboard"])
    button = page.get_by_role("button", name="Send 500 events")
    button.focus()
    expect(button).to_be_focused()
    page.keyboard.press("Space")
    expect(page.locator("#order")).to_contain_text("in order")


def test_the_policy_lets_nothing_foreign_in_and_nothing_is_refused_by_it(
    server: Server, page: Page
) -> None:
    told: list[str] = []
    page.on("console", lambda message: told.append(f"{message.type}: {message.text}"))
    answer = page.goto(f"{server.url}/login")
    assert answer is not None
    assert "default-src 'none'; script-src 'self';" in answer.headers["content-security-policy"]
    desk = Desk(page, server.url).sign_in("Ann")
    desk.say("hello")
    desk.press("Post the form")
    expect(page.locator(".notice")).to_have_count(1)
    assert told == []


@pytest.mark.parametrize("transport", ["WebSocket", "Ajax"])
def test_it_works_behind_nginx_as_the_documentation_has_it(
    start: Callable[..., Any],
    gunicorn: Callable[..., Server],
    new_page: NewPage,
    tmp_path: Path,
    transport: str,
) -> None:
    (tmp_path / "documented.py").write_text(documented("wsgi.py"), encoding="utf-8")
    inner = gunicorn("documented:app", env={"PYTHONPATH": str(tmp_path)})
    certificate(tmp_path)
    port = free_port()
    server = documented("nginx.conf").replace("listen 443", f"listen 127.0.0.1:{port}")
    server = server.replace("127.0.0.1:8000", f"127.0.0.1:{inner.port}")
    (tmp_path / "nginx.conf").write_text(NGINX.format(folder=tmp_path, server=server))
    nginx = ["-e", "stderr", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
    start(Process, [program("nginx"), *nginx])
    eventually(lambda: answers(port))
    page = new_page(ignore_https_errors=True)
    desk = Desk(page, f"https://127.0.0.1:{port}/board").sign_in("Ann", transport)
    desk.say("through a proxy")
    desk.expect_lines("through a proxy")
    desk.press("Send 500 events")
    expect(page.locator("#order")).to_contain_text("500 handled in order")
    desk.press("Sign out")
    expect(page).to_have_url(f"https://127.0.0.1:{port}/board/login")


NGINX = """
daemon off;
user root;  # else its workers are somebody who may not write here
pid {folder}/nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{server}
}}
"""


def documented(name: str) -> str:
    """A block of docs/deployment.rst, by its name."""
    text = (ROOT / "docs/deployment.rst").read_text(encoding="utf-8")
    found = re.search(rf"   :name: {re.escape(name)}\n\n((?:   .*\n|\n)+)", text)
    assert found is not None
    return textwrap.dedent(found[1])


def answers(port: int) -> bool:
    """Whether somebody listens."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True

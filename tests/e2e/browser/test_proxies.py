"""nginx, as Debian packs it, between a browser and gunicorn: as it comes, and as documented."""

from __future__ import annotations

import http.client
import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.e2e.browser.test_network import Room
from tests.process import ROOT, WAIT, Process, Server, eventually, free_port, program
from tests.servers import certificate

CHAT = "tests.e2e.apps.chat:app"
PROXIED = "tests.e2e.apps.proxied:app"  # with ProxyFix

MAIN = """
daemon off;
worker_processes 1;
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
{servers}
}}
"""

DEFAULTS = """
server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://127.0.0.1:{inner}; }}
}}
"""


def documented(name: str = "nginx.conf") -> str:
    """A block of docs/deployment.rst."""
    text = (ROOT / "docs/deployment.rst").read_text(encoding="utf-8")
    found = re.search(rf"   :name: {re.escape(name)}\n\n((?:   .*\n|\n)+)", text)
    assert found is not None
    return textwrap.dedent(found[1])


def documented_at(port: int, inner: int, tls: bool = True) -> str:
    conf = documented().replace("127.0.0.1:8000", f"127.0.0.1:{inner}")
    assert "listen 443 ssl;" in conf
    if tls:
        return conf.replace("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;")
    conf = conf.replace("listen 443 ssl;", f"listen 127.0.0.1:{port};")
    return re.sub(r" *ssl_certificate.*\n", "", conf)


class Nginx:
    """One nginx for a test; :meth:`run` again replaces its configuration."""

    def __init__(self, start: Callable[..., Process], folder: Path) -> None:
        self._start = start
        self._folder = folder
        self._process: Process | None = None
        self.port = free_port()
        certificate(folder)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def run(self, servers: str) -> None:
        conf = self._folder / "nginx.conf"
        conf.write_text(MAIN.format(folder=self._folder, servers=servers), encoding="utf-8")
        self.stop()
        command = [program("nginx"), "-e", "stderr", "-p", str(self._folder), "-c", str(conf)]
        self._process = self._start(Process, command)
        eventually(self._listens)

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()

    def _listens(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.connect()
        except OSError:
            return False
        connection.close()
        return True


@pytest.fixture
def nginx(start: Callable[..., Process], tmp_path: Path) -> Nginx:
    return Nginx(start, tmp_path)


def enter(page: Page, url: str, type: str) -> None:
    page.goto(f"{url}/login/ann")
    page.wait_for_function(
        "type => window.chsk?.state.open && window.chsk.state.type === type", arg=type
    )


def room(server: Server, page: Page) -> Room:
    return Room(server, None, page)  # type: ignore[arg-type]


# As it comes ------------------------------------------------------------------------------


def test_with_nothing_but_proxy_pass_everything_works_over_polls(
    nginx: Nginx, gunicorn: Callable[..., Server], page: Page
) -> None:
    """HTTP/1.0 upstream, no Upgrade, another Host: and buffering, which polls do not mind."""
    server = gunicorn(CHAT)
    nginx.run(DEFAULTS.format(port=nginx.port, inner=server.port))
    enter(page, nginx.url, "ajax")
    chat = room(server, page)
    assert chat.request() == {"ok": True}
    assert chat.heard(1) == ["hello"]
    said = chat.say(10)
    assert chat.heard(11) == ["hello", *said]


def test_a_message_over_nginxs_limit_is_told_not_hung(
    nginx: Nginx, gunicorn: Callable[..., Server], page: Page
) -> None:
    """``client_max_body_size`` is one mebibyte, and urlencoding makes three bytes of one."""
    server = gunicorn(CHAT)
    nginx.run(DEFAULTS.format(port=nginx.port, inner=server.port))
    enter(page, nginx.url, "ajax")
    told = page.evaluate(
        """() => window.chsk.request(["chat/say", '"'.repeat(400_000)], {timeoutMs: 30_000})
               .then(() => "passed", (error) => [error.name, error.status])"""
    )
    assert told == ["ReplyError", 413]
    assert room(server, page).request() == {"ok": True}


def test_nginx_that_comes_again_has_lost_nothing(
    nginx: Nginx, gunicorn: Callable[..., Server], page: Page
) -> None:
    server = gunicorn(CHAT)
    conf = DEFAULTS.format(port=nginx.port, inner=server.port)
    nginx.run(conf)
    enter(page, nginx.url, "ajax")
    chat = room(server, page)
    before = chat.say(3)
    chat.heard(3)
    nginx.stop()
    during = chat.say(20)
    page.wait_for_timeout(1000)
    nginx.run(conf)
    after = chat.say(3)
    assert chat.heard(26) == before + during + after
    assert page.evaluate("window.gaps") == 0


# As documented ----------------------------------------------------------------------------


def test_as_documented_websockets_pass_at_a_sub_path_behind_tls(
    nginx: Nginx, gunicorn: Callable[..., Server], new_page: Callable[..., Page]
) -> None:
    server = gunicorn(PROXIED)
    nginx.run(documented_at(nginx.port, server.port))
    page = new_page(ignore_https_errors=True)
    enter(page, f"https://127.0.0.1:{nginx.port}/board", "ws")
    chat = room(server, page)
    assert chat.request() == {"ok": True}
    said = chat.say(10)
    assert chat.heard(11) == ["hello", *said]


def test_as_documented_the_largest_message_passes(
    nginx: Nginx, gunicorn: Callable[..., Server], page: Page
) -> None:
    server = gunicorn(PROXIED)
    nginx.run(documented_at(nginx.port, server.port, tls=False))
    page.add_init_script("delete window.WebSocket")
    enter(page, f"{nginx.url}/board", "ajax")
    reply = page.evaluate(
        """() => window.chsk.request(["chat/say", '"'.repeat(500_000)], {timeoutMs: 30_000})
               .catch((error) => [error.name, error.status, error.message])"""
    )
    assert reply == {"ok": True}


def test_without_proxy_fix_tls_makes_the_page_a_strangers_and_says_so(
    nginx: Nginx, gunicorn: Callable[..., Server]
) -> None:
    """For browsers that do not say ``Sec-Fetch-Site``."""
    server = gunicorn(CHAT)
    nginx.run(documented_at(nginx.port, server.port, tls=False))
    connection = http.client.HTTPConnection("127.0.0.1", nginx.port, timeout=WAIT)
    origin = f"https://127.0.0.1:{nginx.port}"
    connection.request("GET", "/board/chsk?client-id=a", headers={"Origin": origin})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    assert answer.status == 403
    assert "ProxyFix" in text
    assert origin in text


def test_keep_alive_holds_an_idle_socket_open_through_nginxs_timeout(
    nginx: Nginx, gunicorn: Callable[..., Server], page: Page
) -> None:
    """Half of ``proxy_read_timeout`` and less, as 25 of 60 seconds; here 1.5 of 5."""
    server = gunicorn(PROXIED, env={"CHAT_KALIVE": "1.5"})
    conf = documented_at(nginx.port, server.port, tls=False)
    nginx.run(conf.replace("proxy_http_version", "proxy_read_timeout 5s; proxy_http_version"))
    enter(page, f"{nginx.url}/board", "ws")
    page.evaluate("window.chsk.watch(() => { window.changes = (window.changes ?? 0) + 1; })")
    page.wait_for_timeout(11_000)
    assert page.evaluate("window.changes ?? 0") == 0
    assert room(server, page).request() == {"ok": True}


def test_a_socket_that_nginx_cut_for_its_silence_comes_back_with_all(
    nginx: Nginx, gunicorn: Callable[..., Server], page: Page
) -> None:
    server = gunicorn(PROXIED)  # pings after 25 seconds
    conf = documented_at(nginx.port, server.port, tls=False)
    nginx.run(conf.replace("proxy_http_version", "proxy_read_timeout 1s; proxy_http_version"))
    enter(page, f"{nginx.url}/board", "ws")
    chat = room(server, page)
    said: list[int] = []
    for _ in range(3):
        said += chat.say(4)
        page.wait_for_timeout(1200)
    assert chat.heard(12) == said
    assert page.evaluate("window.gaps") == 0


def test_polls_longer_than_nginxs_patience_go_on_all_the_same(
    nginx: Nginx, gunicorn: Callable[..., Server], page: Page
) -> None:
    """A poll is held 20 seconds; nginx gives it up after one, with 504."""
    server = gunicorn(CHAT)
    conf = DEFAULTS.format(port=nginx.port, inner=server.port)
    nginx.run(conf.replace("proxy_pass", "proxy_read_timeout 1s; proxy_pass"))
    enter(page, nginx.url, "ajax")
    chat = room(server, page)
    said: list[int] = []
    for _ in range(3):
        said += chat.say(4)
        page.wait_for_timeout(1200)
    assert chat.heard(12) == said
    assert page.evaluate("window.gaps") == 0

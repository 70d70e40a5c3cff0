"""The documentation as Sphinx builds it: no warning, a search that finds, fit for small screens."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.process import ROOT, missing

AXE = ROOT / "tests/js/node_modules/axe-core/axe.min.js"
PAGES = sorted(path.stem for path in (ROOT / "docs").glob("*.rst"))
SOUGHT = (
    "quickstart troubleshooting async datetime upload SQLAlchemy Celery Vite npm CSRF nginx Docker"
).split()
NewPage = Callable[..., Page]


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, and says nothing."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL at which the built documentation is served."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", ROOT / "docs", folder]
    env = {name: value for name, value in os.environ.items() if name != "READTHEDOCS"}
    built = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
    assert built.returncode == 0, built.stderr
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_no_page_scrolls_sideways(site: str, new_page: NewPage) -> None:
    wide = []
    for width in (360, 1280):
        page = new_page(viewport={"width": width, "height": 800})
        for name in PAGES:
            page.goto(f"{site}/{name}.html")
            if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                wide.append((name, width))
    assert wide == []


@pytest.mark.parametrize(
    ("scheme", "rules"), [("light", {}), ("dark", {"runOnly": ["color-contrast"]})]
)
def test_axe_finds_nothing(
    site: str, new_page: NewPage, scheme: str, rules: dict[str, Any]
) -> None:
    if not AXE.exists():
        missing(str(AXE.relative_to(ROOT)))
    page = new_page(color_scheme=scheme)
    found = set()
    for name in PAGES:
        page.goto(f"{site}/{name}.html")
        page.evaluate(AXE.read_text(encoding="utf-8"))
        result: Any = page.evaluate("rules => axe.run(rules)", rules)
        for one in result["violations"]:
            found |= {(one["id"], node["html"][:200]) for node in one["nodes"]}
    assert found == set()


@pytest.mark.parametrize("word", SOUGHT)
def test_the_search_finds_what_newcomers_look_for(site: str, page: Page, word: str) -> None:
    page.goto(f"{site}/search.html?q={word}")
    page.locator("#search-results li a").first.wait_for()


def test_each_page_is_in_the_tree(site: str, page: Page) -> None:
    page.goto(f"{site}/index.html")
    links = page.locator(".sidebar-tree a").evaluate_all("all => all.map(a => a.href)")
    names = {Path(link.partition("#")[0]).stem for link in links}
    assert set(PAGES) - names - {"index"} == set()

"""A page that Vite's development server serves, as docs/deployment.rst has it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.e2e.chromium import launch
from tests.process import ROOT, Server, free_port, missing, program
from tests.readme import named_blocks, write_files
from tests.servers import running

VITE = ROOT / "tests/js/node_modules/vite/bin/vite.js"
FILES = named_blocks((ROOT / "docs/deployment.rst").read_text(encoding="utf-8"))
PAGE = '<!doctype html><title>Vite</title><script type="module" src="main.js"></script>'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The page's folder, with the client installed as a package."""
    shown = {name: FILES[name] for name in ("vite.config.js", "install.sh", "main.js", "app.py")}
    write_files({**shown, "index.html": PAGE, "package.json": '{"type": "module"}'}, tmp_path)
    program("npm")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "npm_config_offline": "true"}
    ran = subprocess.run(
        ["sh", "-e", "install.sh"], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return tmp_path


@pytest.fixture
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        try:
            browser = launch(playwright)
        except FileNotFoundError as error:
            missing(str(error))
        yield browser
        browser.close()


def test_pages_of_vite_reach_the_channel_socket(folder: Path, browser: Browser) -> None:
    with running("flask-run", "app:app", folder / "app.log", {"PYTHONPATH": str(folder)}) as app:
        page = browser.new_page()
        with vite(folder, app.port) as url:
            page.goto(url)
            expect(page).to_have_title("hi, ws")
        assert "changeOrigin" not in app.log
        with vite(folder, app.port, "changeOrigin: true") as url:
            with page.expect_console_message(lambda said: "no changeOrigin" in said.text):
                page.goto(url)
            expect(page).to_have_title("hi, ajax")
        assert "no changeOrigin" in app.log
        assert app.tracebacks == 0, app.log


@contextlib.contextmanager
def vite(folder: Path, port: int, more: str = "") -> Iterator[str]:
    """The URL of a development server in *folder*, with *more* options of its proxy to *port*."""
    if not VITE.exists():
        missing("vite, of tests/js/package.json: make tools")
    config = FILES["vite.config.js"].replace("5000", str(port))
    (folder / "vite.config.js").write_text(config.replace("ws: true", f"ws: true, {more}"))
    own = str(free_port())
    command = [program("node"), str(VITE), str(folder), "--host", "127.0.0.1", "--port", own]
    server = Server([*command, "--strictPort"], folder / f"{own}.log", {"NO_COLOR": "1"})
    try:
        yield server.url
    finally:
        server.stop()

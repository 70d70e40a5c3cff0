"""A page that Vite's development server serves, as docs/deployment.rst has it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.process import ROOT, Server, free_port, missing, program
from tests.readme import named_blocks, write_files

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


def test_pages_of_vite_reach_the_channel_socket(
    folder: Path, page: Page, start: Callable[..., Server], flask_run: Callable[..., Server]
) -> None:
    if not VITE.exists():
        missing("vite, of tests/js/package.json: make tools")

    def vite(more: str = "") -> str:
        """The URL of a development server, with *more* options of its proxy."""
        config = FILES["vite.config.js"].replace("5000", str(app.port))
        (folder / "vite.config.js").write_text(config.replace("ws: true", f"ws: true, {more}"))
        options = ["--host", "127.0.0.1", "--port", str(free_port()), "--strictPort"]
        command = [program("node"), str(VITE), str(folder), *options]
        return start(Server, command, {"NO_COLOR": "1"}).url

    app = flask_run("app", env={"PYTHONPATH": str(folder)})
    page.goto(vite())
    expect(page).to_have_title("hi, ws")
    assert "changeOrigin" not in app.log
    with page.expect_console_message(lambda said: "no changeOrigin" in said.text):
        page.goto(vite("changeOrigin: true"))
    expect(page).to_have_title("hi, ajax")
    assert "no changeOrigin" in app.log

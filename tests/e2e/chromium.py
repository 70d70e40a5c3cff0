"""Finds a Chromium, and starts it for tests.

``python -m tests.e2e.chromium`` prints the one it found, and fails where there is none.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import Browser, Playwright, expect, sync_playwright

# What distributions call it; Playwright's own download comes last.
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

ARGUMENTS = (
    "--no-sandbox",  # containers run tests as root
    "--disable-gpu",
    "--disable-dev-shm-usage",  # /dev/shm of a container is 64 MB: pages would crash
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    # Two contexts share one window: what a page does must not depend on which is in front.
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
)


# Five seconds are short where two parts of the tests share two cores.
PATIENCE_MS = 30_000
expect.set_options(timeout=PATIENCE_MS)


def find_chromium(playwright: Playwright) -> str | None:
    """The path of an installed Chromium; ``CHROMIUM`` in the environment goes before all."""
    if chosen := os.environ.get("CHROMIUM"):
        return shutil.which(chosen)
    for name in NAMES:
        if path := shutil.which(name):
            return path
    own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


def launch(playwright: Playwright, keeps_pages: bool = False) -> Browser:
    """A headless Chromium with a profile of its own, gone when it is closed.

    :param keeps_pages: for the way back to them, which Playwright turns off otherwise.
    :raises FileNotFoundError: there is none.
    """
    path = find_chromium(playwright)
    if path is None:
        raise FileNotFoundError(f"no Chromium: none of {', '.join(NAMES)}, none of Playwright")
    return playwright.chromium.launch(
        executable_path=path,
        headless=True,
        args=list(ARGUMENTS),
        ignore_default_args=["--disable-back-forward-cache"] if keeps_pages else None,
    )


if __name__ == "__main__":
    with sync_playwright() as running:
        sys.exit(print(found) if (found := find_chromium(running)) else "no Chromium")

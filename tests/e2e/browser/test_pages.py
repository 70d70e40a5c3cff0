"""The application of docs/pages.rst: pages load while rows are written, and get each of them."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from playwright.sync_api import Error, Page, Route, expect

from tests.process import ROOT, eventually
from tests.readme import named_blocks, write_files
from tests.servers import WsgiServer

BLOCKS = named_blocks((ROOT / "docs/pages.rst").read_text(encoding="utf-8"))
LOADS = int(os.environ.get("PAGE_LOADS", "50"))
LOAD_MS = 10_000  # a page of a worker that was killed may never be whole
PAUSE = 0.005  # seconds between two rows
KILLS = 0.3  # of all loads: a worker is killed meanwhile
# Rows that are there, of those that were written; a row may be there once.
MISSING = """(ids) => {
  const there = [...document.querySelectorAll("#notes li")].map((item) => Number(item.dataset.id));
  if (new Set(there).size !== there.length) throw new Error(`twice: ${there}`);
  return ids.filter((id) => !there.includes(id));
}"""
NO_WEBSOCKET = "delete globalThis.WebSocket"


class Notes:
    """The application, in one process or several."""

    def __init__(self, folder: Path, workers: int, env: dict[str, str]) -> None:
        self._workers = workers
        gunicorn = [sys.executable, "-m", "gunicorn", "-k", "gevent", "-w", str(workers)]
        command = [*gunicorn, "-b", "127.0.0.1:0", "notes:app"]
        # In memory: a worker waits for the disk, and other tests are busy with that.
        self._memory = tempfile.TemporaryDirectory(dir="/dev/shm")
        database = f"{self._memory.name}/notes.db"
        env = {"PYTHONPATH": str(folder), "NOTES": database, **env}
        self.server = WsgiServer(command, folder / "log", env)
        self.url = f"http://127.0.0.1:{self.server.port}"

    def stop(self) -> None:
        self.server.stop(signal.SIGTERM)
        self._memory.cleanup()

    def kill_a_worker(self, rng: random.Random) -> None:
        """Kill one of the workers, when its master has started all that were killed before."""
        workers = self.server.workers()
        if len(workers) == self._workers:
            os.kill(rng.choice(workers), signal.SIGKILL)

    def add(self, uid: str) -> int | None:
        """The id of a new row, which its event has left for; None: nobody knows."""
        form = urllib.parse.urlencode({"text": f"for {uid}"}).encode()
        try:
            with urllib.request.urlopen(f"{self.url}/notes/{uid}", form, timeout=20) as answer:
                return int(json.load(answer)["id"])
        except (OSError, HTTPException):
            return None


@contextmanager
def serve(folder: Path, workers: int = 1, **env: str) -> Iterator[Notes]:
    write_files(BLOCKS, folder)
    notes = Notes(folder, workers, env)
    try:
        yield notes
    finally:
        notes.stop()


class Writer:
    """Writes rows for one user after another, as fast as they are answered."""

    def __init__(self, notes: Notes) -> None:
        self.uid = ""
        self.ids: list[int] = []  # rows of this user
        self._notes = notes
        self._over = False
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def _write(self) -> None:
        while not self._over:
            uid, ids = self.uid, self.ids
            if uid:
                id = self._notes.add(uid)
                if id is not None:
                    ids.append(id)
            time.sleep(PAUSE)

    def begin(self, uid: str) -> None:
        self.ids = []
        self.uid = uid

    def end(self) -> None:
        self._over = True
        self._thread.join()


def load(page: Page, url: str) -> None:
    """Load a page with all of its scripts, also where workers are killed meanwhile."""
    for _ in range(20):
        failed: list[str] = []
        note = failed.append
        page.on("requestfailed", lambda request, note=note: note(request.url))
        try:
            page.goto(url, timeout=LOAD_MS)
        except Error:
            continue
        if not any(".js" in one for one in failed):
            return
    raise AssertionError("no page came")


def race(notes: Notes, pages: list[Page], seed: int, kills: bool = False) -> int:
    """Load pages while rows are written for their users; how often a page heard of a gap."""
    rng = random.Random(seed)
    gaps: list[str] = []
    for page in pages:
        page.on("request", lambda one: one.url.endswith("/notes") and gaps.append(one.url))
    writer = Writer(notes)
    try:
        for number, page in zip(range(LOADS), itertools.cycle(pages), strict=False):
            writer.begin(f"user{number}")
            time.sleep(rng.random() * 0.05)
            killer = threading.Timer(rng.random() * 0.3, notes.kill_a_worker, [rng])
            if kills and rng.random() < KILLS:
                killer.start()
            load(page, f"{notes.url}/login/user{number}")
            time.sleep(rng.random() * 0.2)
            eventually(lambda: writer.ids)
            ids = writer.ids
            writer.begin("")
            page.wait_for_function(f"(ids) => !({MISSING})(ids).length", arg=ids)
    finally:
        writer.end()
    return len(gaps)


def over_both(new_page: Callable[..., Page]) -> list[Page]:
    """A page over WebSocket, and one over long-polling."""
    polls = new_page()
    polls.add_init_script(NO_WEBSOCKET)
    return [new_page(), polls]


def test_each_page_has_every_row_or_hears_of_a_gap(
    tmp_path: Path, new_page: Callable[..., Page]
) -> None:
    with serve(tmp_path) as notes:
        race(notes, over_both(new_page), seed=1)
        assert notes.server.tracebacks == 0, notes.server.log


def test_so_it_is_while_workers_are_killed(
    tmp_path: Path, redis_url: str, new_page: Callable[..., Page]
) -> None:
    url = f"{redis_url}?prefix=pages"
    with serve(tmp_path, 4, CHSK_BROKER_URL=url) as notes:
        race(notes, over_both(new_page), seed=2, kills=True)


def test_a_page_from_a_cache_fetches_its_data_and_does_not_reload(
    tmp_path: Path, page: Page
) -> None:
    with serve(tmp_path / "before") as notes:
        notes.add("ann")
        page.goto(f"{notes.url}/login/ann")
        cached = page.content()
        page.goto("about:blank")
        assert "data-cursor" in cached
    with serve(tmp_path / "now") as notes:  # where nobody knows of the cursor any more
        for _ in range(2):
            notes.add("ann")
        loaded: list[str] = []

        def from_cache(route: Route) -> None:
            loaded.append(route.request.url)
            route.fulfill(body=cached, content_type="text/html")

        page.goto(f"{notes.url}/login/ann")
        page.route(f"{notes.url}/", from_cache)
        page.goto(f"{notes.url}/")
        expect(page.locator("#notes li")).to_have_count(2)
        assert loaded == [f"{notes.url}/"]

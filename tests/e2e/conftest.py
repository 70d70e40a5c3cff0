"""Real servers, real browsers, and a network that can be cut.

The tests' own process stays unpatched: whatever needs gevent runs in a process of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, sync_playwright

from tests.e2e.chromium import PATIENCE_MS, launch
from tests.e2e.proxy import Proxy
from tests.process import Process, Server, missing

Env = Mapping[str, "str | None"]
P = TypeVar("P", bound=Process)

started = pytest.StashKey["list[Process]"]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failure comes with what the servers said."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    if report.failed:
        for process in item.stash.get(started, []):
            report.sections.append((" ".join(process.command), process.log[-20_000:]))
    return report  # type: ignore[return-value]


# Servers --------------------------------------------------------------------------------


@pytest.fixture
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """``start(Server, command, env=None)``: a process for one test, stopped after it.

    Where a log then holds a traceback the test fails, unless it is marked ``tracebacks``.
    """
    processes = request.node.stash.setdefault(started, [])

    def start(kind: type[P], command: list[str], env: Env | None = None) -> P:
        process = kind(command, tmp_path / f"process-{len(processes)}.log", env)
        processes.append(process)
        return process

    yield start
    for process in reversed(processes):
        process.stop()
    if request.node.get_closest_marker("tracebacks") is None:
        guilty = [process.command for process in processes if process.tracebacks]
        assert guilty == [], "tracebacks in these servers' logs"


@pytest.fixture
def gunicorn(start: Callable[..., Server]) -> Callable[..., Server]:
    """``gunicorn("module:app", *arguments, workers=1, port=0, env=None)``: a running server.

    *port* names the port of a predecessor, to come back where clients look for it.
    """

    def gunicorn(
        app: str, *arguments: str, workers: int = 1, port: int = 0, env: Env | None = None
    ) -> Server:
        command = [sys.executable, "-m", "gunicorn", "--worker-class", "gevent"]
        command += ["--workers", str(workers), "--bind", f"127.0.0.1:{port}"]
        command += ["--graceful-timeout", "5", *arguments, app]
        return start(Server, command, env)

    return gunicorn


@pytest.fixture
def flask_run(start: Callable[..., Server]) -> Callable[..., Server]:
    """``flask_run("module:app", *arguments, port=0, env=None)``: Werkzeug's threaded server."""

    def flask_run(app: str, *arguments: str, port: int = 0, env: Env | None = None) -> Server:
        command = [sys.executable, "-m", "flask", "--app", app, "run", "--port", str(port)]
        return start(Server, [*command, "--no-reload", *arguments], env)

    return flask_run


@pytest.fixture
def chsk_serve(start: Callable[..., Server]) -> Callable[..., Server]:
    """``chsk_serve("module:app", port=0, env=None)``: ``flask chsk serve``."""

    def chsk_serve(app: str, *, port: int = 0, env: Env | None = None) -> Server:
        flask = [sys.executable, "-m", "flask", "--app", app]
        return start(Server, [*flask, "chsk", "serve", "--port", str(port)], env)

    return chsk_serve


@pytest.fixture
def proxy_to() -> Iterator[Callable[..., Proxy]]:
    """``proxy_to(*servers, **options)``: a :class:`Proxy` before one server or several."""
    proxies: list[Proxy] = []

    def proxy_to(*servers: Server, **options: object) -> Proxy:
        proxies.append(Proxy(*(server.port for server in servers), **options))  # type: ignore[arg-type]
        return proxies[-1]

    yield proxy_to
    for proxy in proxies:
        proxy.close()


# Browsers -------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    """What starts browsers."""
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="session")
def chromium(playwright: Playwright) -> Iterator[Browser]:
    """One headless Chromium for all tests; without one they skip, under CI they fail."""
    try:
        browser = launch(playwright)
    except FileNotFoundError as error:
        missing(str(error))
    yield browser
    browser.close()


@pytest.fixture
def new_page(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """``new_page(context=None, **options)``: a page; without *context*, of a user of its own.

    ``new_page(context=page.context)`` is another tab of the same user. Options are those of
    Playwright's ``new_context``. An uncaught error in any page fails the test.
    """
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def new_page(context: BrowserContext | None = None, **options: object) -> Page:
        if context is None:
            context = chromium.new_context(**options)  # type: ignore[arg-type]
            context.set_default_timeout(PATIENCE_MS)
            context.on("weberror", lambda web_error: errors.append(str(web_error.error)))
            contexts.append(context)
        return context.new_page()

    yield new_page
    for context in contexts:
        context.close()
    assert errors == [], "uncaught errors in pages"


@pytest.fixture
def page(new_page: Callable[..., Page]) -> Page:
    """A page of a first user."""
    return new_page()


@pytest.fixture
def other_page(new_page: Callable[..., Page]) -> Page:
    """A page of a second user: no cookie in common with :func:`page`."""
    return new_page()

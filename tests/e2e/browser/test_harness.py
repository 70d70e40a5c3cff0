"""The harness of these tests, itself tested."""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from playwright.sync_api import Page

from tests.e2e.proxy import Proxy
from tests.process import WAIT, Process, Redis, Server, eventually, program

PLAIN = "tests.e2e.apps.plain:app"
Serve = Callable[..., Server]


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=WAIT) as answer:
        text: str = answer.read().decode()
        return text


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_gunicorn_serves_and_is_gone_with_its_workers(gunicorn: Serve) -> None:
    server = gunicorn(PLAIN)
    worker = int(get(f"{server.url}/worker"))
    assert worker != server.pid
    assert server.stop() == 0
    assert not server.running
    eventually(lambda: not alive(worker))
    assert "Using worker: gevent" in server.log


def test_flask_run_serves(flask_run: Serve) -> None:
    server = flask_run(PLAIN, env={"GREETING": "hello"})
    assert "hello" in get(server.url)


def test_a_successor_takes_the_port(gunicorn: Serve) -> None:
    first = gunicorn(PLAIN)
    first.stop()
    second = gunicorn(PLAIN, port=first.port)
    assert second.url == first.url


def test_a_server_that_cannot_start_says_why(gunicorn: Serve) -> None:
    with pytest.raises(RuntimeError, match=r"No module named 'tests\.e2e\.apps\.missing'"):
        gunicorn("tests.e2e.apps.missing:app")


def test_a_process_that_ignores_the_request_is_killed(tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up'); time.sleep(60)"
    process = Process([sys.executable, "-c", code], tmp_path / "log")
    process.wait_for_log("up")
    assert process.stop(timeout=0.2) == -9


def test_a_missing_program_skips_and_under_ci_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="missing: no-such-program"):
        program("no-such-program")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="missing: no-such-program"):
        program("no-such-program")


def test_redis_stops_and_returns_where_it_was(start_redis: Callable[..., Redis]) -> None:
    first = start_redis()
    assert redis.Redis.from_url(first.url).ping()
    assert first.stop() == 0
    with pytest.raises(redis.ConnectionError):
        redis.Redis.from_url(first.url).ping()
    second = start_redis(first.port)
    assert redis.Redis.from_url(second.url).ping()


@pytest.mark.tracebacks
def test_tracebacks_are_counted(gunicorn: Serve) -> None:
    server = gunicorn(PLAIN)
    with pytest.raises(urllib.error.HTTPError, match="500"):
        get(f"{server.url}/broken")
    eventually(lambda: server.tracebacks == 1)


def test_a_traceback_in_the_log_fails_a_test(pytester: pytest.Pytester) -> None:
    root = Path(__file__).parents[3]
    pytester.makeconftest("from tests.e2e.conftest import *")
    pytester.makeini(f"[pytest]\npythonpath = {root}\nmarkers = e2e\n tracebacks")
    pytester.makepyfile(
        f"""
        import pytest, urllib.error, urllib.request

        def ask(gunicorn):
            with pytest.raises(urllib.error.HTTPError):
                urllib.request.urlopen(gunicorn({PLAIN!r}).url + "/broken")

        def test_unmarked(gunicorn):
            ask(gunicorn)

        @pytest.mark.tracebacks
        def test_marked(gunicorn):
            ask(gunicorn)
        """
    )
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*tracebacks in these servers' logs*", "*RuntimeError: as asked*"])


def test_two_pages_are_two_users(gunicorn: Serve, page: Page, other_page: Page) -> None:
    url = gunicorn(PLAIN).url
    page.goto(url)
    page.goto(url)
    other_page.goto(url)
    assert (page.title(), other_page.title()) == ("Visit 2", "Visit 1")


def test_a_second_tab_is_the_same_user(
    gunicorn: Serve, page: Page, new_page: Callable[..., Page]
) -> None:
    url = gunicorn(PLAIN).url
    page.goto(url)
    tab = new_page(context=page.context)
    tab.goto(url)
    assert tab.title() == "Visit 2"


def test_a_browser_sees_the_cut_and_the_return(
    gunicorn: Serve, proxy_to: Callable[..., Proxy], page: Page
) -> None:
    proxy = proxy_to(gunicorn(PLAIN))
    page.goto(proxy.url)
    # Not by going there: Chromium shows a page of its own, and that races with the next visit.
    fetch = "() => fetch('/worker').then(answer => answer.status, error => error.name)"
    proxy.cut()
    assert page.evaluate(fetch) == "TypeError"
    proxy.restore()
    assert page.evaluate(fetch) == 200


def test_requests_of_one_client_take_turns_among_servers(
    gunicorn: Serve, proxy_to: Callable[..., Proxy]
) -> None:
    proxy = proxy_to(gunicorn(PLAIN), gunicorn(PLAIN), one_request=True)
    workers = [get(f"{proxy.url}/worker") for _ in range(4)]
    assert workers[:2] == workers[2:]
    assert len(set(workers)) == 2

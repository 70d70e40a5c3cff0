"""Events that wait for slow handlers: what they hold is counted, and little."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

from tests.e2e.hostile.conftest import MiB, Target
from tests.e2e.hostile.wire import head

LIMIT = 8 * MiB
CONFIG = {"CHSK_MAX_INBOUND_BYTES": LIMIT, "CHSK_WS_KALIVE": 3600}

COOKIES = "; ".join(f"cookie{number}={'x' * 200}" for number in range(30))


def post(target: Target, client_id: str, message: str) -> int:
    body = urlencode({"client-id": client_id, "ppstr": message}).encode()
    request = {
        "Content-Type": "application/x-www-form-urlencoded",
        "Content-Length": str(len(body)),
        "Cookie": COOKIES,
    }
    return target.request(head("/chsk", request, "POST") + body)[0]


def test_posts_with_many_cookies_count_with_their_heads(target: Target) -> None:
    """Each has a handler of its own that runs, so this is the most that an event may hold."""

    def posted(count: int) -> Counter[int]:
        with ThreadPoolExecutor(8) as pool:
            one = lambda number: post(target, f"client{number}", "[[:test/sleep 30] nil]")  # noqa: E731
            return Counter(pool.map(one, range(count)))

    before, counted = target.pss(), target.stats()["arriving"]
    assert posted(200) == {200: 200}
    counted = target.stats()["arriving"] - counted
    assert counted > 200 * 2 * len(COOKIES)
    assert target.pss() - before < 2 * counted
    assert set(posted(400)) == {200, 503}

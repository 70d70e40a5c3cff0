"""A cluster under fire: workers killed, connections cut, Redis restarted, and nothing lost.

    python -m tests.e2e.cluster_soak --users 200 --events 20000 --seconds 60 [--redis]

Four gunicorn workers behind a proxy that gives each request to the next one; half of the users are
held to long-polling; clients of Sente's kind listen beside some. A worker is killed every
three seconds, connections are cut all the time, in the end one worker after another restarts.
``--redis`` restarts Redis empty in the middle. Prints what came of it; ends with status 1 where an
event was lost without a word, came twice or out of order, where a request was answered with
anything but 200, or 503 and Retry-After, or where presence is not what is there.
"""

# ruff: noqa: E402 (patching comes first)

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import argparse
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from flask_chsk.client import links, web
from tests.e2e.storm import Stranger, User, storm
from tests.e2e.test_cluster import Cluster, start_cluster, worker_of
from tests.process import Redis, eventually

KILL = 10  # calls of a storm, three a second, between two kills
BESIDE = 20  # users that have a client of Sente's kind, too
FAULTS = (
    *("lost", "repeated", "reordered", "repeated_to_strangers", "reordered_to_strangers"),
    *("errors", "wrongly_present", "wrongly_absent"),
)


class Answers:
    """HTTP answers that our clients got, over either transport."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        request, read = web.Web.request, links._read_answer

        def counted(*args: Any, **more: Any) -> web.Answer:
            return self._note(request(*args, **more))

        def counted_upgrade(sock: Any) -> tuple[web.Answer, bytes]:
            answer, rest = read(sock)
            return self._note(answer), rest

        web.Web.request = counted  # type: ignore[method-assign]
        links._read_answer = counted_upgrade

    def _note(self, answer: web.Answer) -> web.Answer:
        later = " with Retry-After" if "retry-after" in answer.headers else ""
        self.seen[f"{answer.status}{later}"] += 1
        return answer

    @property
    def errors(self) -> int:
        """Those that should not be."""
        fine = ("200", "101", "503 with Retry-After")
        return sum(count for said, count in self.seen.items() if said not in fine)


def soak(cluster: Cluster, args: argparse.Namespace, folder: Path) -> Counter[str]:
    """What came of it, and how much of each fault."""
    answers = Answers()
    users = [User(cluster, f"user-{n}", ("ws", "ajax")[n % 2]) for n in range(args.users)]
    strangers = [
        Stranger(cluster, user.uid, ("ajax", "ws")[n // 2 % 2])
        for n, user in enumerate(users[:BESIDE])
    ]
    began = time.monotonic()
    calls_of_all = [0]

    def blow(calls: int) -> None:
        calls_of_all[0] = calls
        ill = cluster.servers[calls // KILL % len(cluster.servers)]
        if calls % KILL == 0:
            os.kill(worker_of(ill), signal.SIGKILL)
        if args.redis and calls == 5 * KILL + 5:
            cluster.redis.stop(signal.SIGKILL)
            time.sleep(1.0)
            cluster.redis = Redis(folder / "redis-2.log", cluster.redis.port)

    came = storm(
        cluster,
        users,
        blow,
        strangers=strangers,
        senders=args.senders,
        seconds=args.seconds,
        events=args.events,
        calm=60.0,
    )
    came["seconds"] = int(time.monotonic() - began)
    came["kills"] = calls_of_all[0] // KILL
    restarting = iter(cluster.servers)

    def restart(calls: int) -> None:
        if calls % KILL == 0 and (server := next(restarting, None)) is not None:
            server.kill(signal.SIGHUP)

    gaps = came["gaps"]
    for user in users:
        user.gaps = 0
    for name, count in storm(
        cluster, users, restart, strangers=strangers, senders=args.senders, seconds=15.0, calm=60.0
    ).items():
        came[name] = max(came[name], count) if name in FAULTS else came[name] + count
    for stranger in strangers:
        came["errors"] += sum(
            count for status, count in stranger.statuses.items() if status not in (200, 503)
        )
    came["errors"] += answers.errors
    print("answers", dict(answers.seen), flush=True)
    came["gaps_in_restarts"] = came["gaps"] - gaps
    present(cluster, users, strangers, came)
    for one in strangers:
        one.stop()
    for user in users[::3]:
        user.chsk.destroy()
    present(cluster, [user for n, user in enumerate(users) if n % 3], [], came)
    for user in users:
        user.chsk.destroy()
    return came


def present(cluster: Cluster, users: list[User], strangers: list[Stranger], came: Any) -> None:
    """Compare who is said to be there with who is, once it has settled."""
    wanted = {
        kind: {one.uid for one in [*users, *strangers] if one.type == kind}
        for kind in ("ws", "ajax")
    }
    said: dict[str, set[str]] = {}

    def settled() -> bool:
        who = cluster.get("/who")
        said.update({kind: set(who[kind]) for kind in wanted})
        return said == wanted

    try:
        eventually(settled, 40.0)
    except TimeoutError:
        for kind, uids in wanted.items():
            came["wrongly_present"] += len(said[kind] - uids)
            came["wrongly_absent"] += len(uids - said[kind])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--senders", type=int, default=6)
    parser.add_argument("--redis", action="store_true", help="restart Redis in the middle")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        redis = Redis(folder / "redis.log")
        cluster = start_cluster(folder, redis, LP_TIMEOUT="10")
        try:
            came = soak(cluster, args, folder)
            came["tracebacks"] = sum(server.tracebacks for server in cluster.servers)
        finally:
            cluster.stop()
            cluster.redis.stop()
        if any(came[what] for what in FAULTS):
            print(cluster.log)
    for what, count in sorted(came.items()):
        print(f"{what:24}{count:>8}")
    found = {what: came[what] for what in FAULTS if came[what]}
    print("FAULTS", found) if found else print("nothing lost, repeated or reordered")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

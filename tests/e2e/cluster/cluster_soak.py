"""A cluster under fire: workers killed, connections cut, Redis restarted, and nothing lost.

    python -m tests.e2e.cluster.cluster_soak --users 200 --events 20000 --seconds 60 [--redis]

Four gunicorn workers behind a proxy that gives each request to the next one; half of the users are
held to long-polling; clients of Sente's kind listen beside some. A worker is killed every
three seconds, connections are cut all the time, in the end one worker after another restarts.
``--redis`` restarts Redis empty in the middle. Prints what came of it; ends with status 1 where an
event was lost (without a word, where Redis lost it), came twice or out of order, where anybody was
told of a gap though Redis went on, where a request was answered with anything but 200, or 503 and
Retry-After in a restart, where presence is not what is there, or a coming or going was told twice.
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

from tests.e2e.cluster.storm import FAULTS, Stranger, User, comings, presence, storm
from tests.e2e.cluster.test_cluster import Cluster, start_cluster, worker_of
from tests.process import Redis

KILL = 10  # calls of a storm, three a second, between two kills
BESIDE = 20  # users that have a client of Sente's kind, too


def soak(cluster: Cluster, args: argparse.Namespace, folder: Path) -> Counter[str]:
    """What came of it, and how much of each fault."""
    users = [User(cluster, f"user-{n}", ("ws", "ajax")[n % 2]) for n in range(args.users)]
    strangers = [
        Stranger(cluster, user.uid, ("ajax", "ws")[n // 2 % 2])
        for n, user in enumerate(users[:BESIDE])
    ]
    began = time.monotonic()
    outages: list[float] = []
    kills = 0

    def blow(calls: int) -> None:
        nonlocal kills
        if calls % KILL == 0:
            os.kill(worker_of(cluster.servers[calls // KILL % len(cluster.servers)]), 9)
            kills += 1
        if args.redis and calls == 5 * KILL + 5:
            outages.append(time.monotonic())
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
        outages=outages,
    )
    came.update(seconds=int(time.monotonic() - began), kills=kills)
    if args.redis:  # they are told, and refused, and may be unknown for a moment
        for allowed in ("gaps", "absent", "refused"):
            came[f"{allowed}_by_redis"] = came.pop(allowed)
        for user in users:
            user.gaps.clear()
    restarting = iter(cluster.servers)

    def restart(calls: int) -> None:
        if calls % KILL == 0 and (server := next(restarting, None)) is not None:
            server.kill(signal.SIGHUP)

    restarts = storm(
        cluster, users, restart, strangers=strangers, senders=args.senders, seconds=15.0, calm=60.0
    )
    came["refused_in_restarts"] = restarts.pop("refused")
    for name, count in restarts.items():
        came[name] = max(came[name], count) if name in FAULTS else came[name] + count
    came += presence(cluster, [*users, *strangers], 40.0)
    for one in strangers:
        one.stop()
    for user in users[::3]:
        user.chsk.destroy()
    came += presence(cluster, [user for n, user in enumerate(users) if n % 3], 40.0)
    for user in users:
        user.chsk.destroy()
    came += presence(cluster, [], 40.0)
    came.update(comings(cluster))
    return came


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
        finally:
            cluster.stop()
            cluster.redis.stop()
        came["tracebacks"] = sum(server.tracebacks for server in cluster.servers)
        if any(came[what] for what in (*FAULTS, "tracebacks")):
            print(cluster.log)
    for what, count in sorted(came.items()):
        print(f"{what:24}{count:>8}")
    found = {what: came[what] for what in (*FAULTS, "tracebacks") if came[what]}
    print("FAULTS", found) if found else print("nothing lost, repeated or reordered")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

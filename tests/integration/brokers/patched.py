"""A process that gevent patched: a greenlet publishes, and so does a foreign native thread.

    python -m tests.integration.brokers.patched redis://… PREFIX

Prints what the broker's listener heard.
"""

# ruff: noqa: E402 (patching comes first)

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import sys

import gevent

from flask_chsk.brokers.urls import make
from flask_chsk.config import Config
from flask_chsk.hub import Hub
from tests.integration.brokers.conftest import Ears


def main(url: str, prefix: str) -> None:
    hub = Hub.of_process()
    broker = make(Config(broker_url=f"{url}?prefix={prefix}"))
    ears = Ears(broker, hub)
    broker.start(hub, ears)
    broker.ready()
    broker.clients.attach("ann", "1")
    broker.publish("u:ann", "[:from/greenlet]")
    pool = gevent.get_hub().threadpool
    ticks = []
    ticker = gevent.spawn(lambda: [ticks.append(gevent.sleep(0.001)) for _ in range(5)])
    offsets = pool.map(lambda n: broker.publish("u:ann", f"[:from/thread {n}]"), range(3))
    ticker.join()
    while len(ears.heard) < 4:
        gevent.sleep(0.01)
    assert sorted(offsets) == [push.offset for push in ears.heard[1:]]
    print(sorted(push.text for push in ears.heard), len(ticks))
    broker.stop()


if __name__ == "__main__":
    gevent.spawn(main, *sys.argv[1:]).get()

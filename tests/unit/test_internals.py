"""What is used of gevent beyond its documentation."""

from __future__ import annotations

import threading

import gevent

from flask_chsk.internals import hub_of_thread


def test_a_thread_that_never_waited_has_no_hub_and_gets_none() -> None:
    found: list[object] = []

    def look() -> None:
        found.extend([hub_of_thread(), hub_of_thread()])

    thread = threading.Thread(target=look)
    thread.start()
    thread.join(60)
    assert found == [None, None]


def test_the_hub_of_a_thread_is_gevents() -> None:
    hub = gevent.get_hub()
    assert hub_of_thread() is hub

"""Who has waited longest comes next."""

from __future__ import annotations

import threading

from flask_chsk.semaphore import Semaphore
from tests.process import eventually

LONG = 30.0  # seconds that nothing here takes


class Waiter:
    """A thread that waits for a semaphore, and then holds it."""

    def __init__(self, semaphore: Semaphore, timeout: float = LONG) -> None:
        before = len(semaphore._waiting)
        self.got: bool | None = None
        self._thread = threading.Thread(target=self._run, args=(semaphore, timeout))
        self._thread.start()
        eventually(lambda: self.got is not None or len(semaphore._waiting) > before)

    def _run(self, semaphore: Semaphore, timeout: float) -> None:
        self.got = semaphore.acquire(timeout)

    def end(self) -> bool:
        self._thread.join(LONG)
        assert self.got is not None
        return self.got


def test_so_many_hold_it_at_a_time() -> None:
    semaphore = Semaphore(2)
    assert [semaphore.acquire(0.0) for _ in range(3)] == [True, True, False]
    semaphore.release()
    assert semaphore.acquire(0.0)


def test_who_waits_comes_before_who_just_released_it() -> None:
    semaphore = Semaphore(1)
    semaphore.acquire()
    waiter = Waiter(semaphore)
    semaphore.release()
    assert not semaphore.acquire(0.0)
    assert waiter.end()


def test_the_longest_wait_ends_first() -> None:
    semaphore = Semaphore(1)
    semaphore.acquire()
    first, second = Waiter(semaphore), Waiter(semaphore)
    semaphore.release()
    assert first.end()
    assert second.got is None
    semaphore.release()
    assert second.end()


def test_who_gave_up_is_not_waited_for() -> None:
    semaphore = Semaphore(1)
    semaphore.acquire()
    assert not semaphore.acquire(0.01)
    semaphore.release()
    assert semaphore.acquire(0.0)


def test_it_is_released_at_the_end_of_a_block() -> None:
    semaphore = Semaphore(1)
    with semaphore:
        assert not semaphore.acquire(0.0)
    assert semaphore.acquire(0.0)

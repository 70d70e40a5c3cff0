"""A lock that several may hold at a time, in the order in which they ask for it.

Those of :mod:`threading` and gevent let whoever comes just then go first: a sender that calls again
and again kept others waiting for seconds.
"""

from __future__ import annotations

import threading
from collections import deque


class Semaphore:
    """A lock that *count* may hold at a time; the next one is who has waited longest.

    Its holders are greenlets in a process that gevent patched, else native threads.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: deque[threading.Lock] = deque()
        self._mutex = threading.Lock()

    def acquire(self, timeout: float = -1) -> bool:
        """Wait for it; False: *timeout* seconds went by."""
        with self._mutex:
            if self._free:
                self._free -= 1
                return True
            gate = threading.Lock()
            gate.acquire()
            self._waiting.append(gate)
        if gate.acquire(timeout=timeout):
            return True
        with self._mutex:
            if gate in self._waiting:
                self._waiting.remove(gate)
                return False
        return True  # it was handed over just now

    def release(self) -> None:
        """Hand it to who has waited longest."""
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._free += 1

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *args: object) -> None:
        self.release()

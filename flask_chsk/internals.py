"""The names of gevent that its documentation does not promise: no other module uses any.

``tests/matrix/internals.py`` looks at them with the lowest and the newest gevent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gevent._hub_local import get_hub_if_exists
from gevent.hub import Hub

if TYPE_CHECKING:
    from gevent._types import _IoWatcher as IoWatcher
    from gevent._types import _Loop as Loop
    from gevent._types import _TimerWatcher as TimerWatcher

__all__ = ["IoWatcher", "Loop", "TimerWatcher", "hub_of_thread"]


def hub_of_thread() -> Hub | None:
    """gevent's hub of this thread; None: it has none. `gevent.get_hub` would make one."""
    return get_hub_if_exists()

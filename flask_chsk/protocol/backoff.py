"""How long to wait before the next try: capped exponential, full jitter.

docs/client.rst, "When it connects again".
"""

from __future__ import annotations

import random
from collections.abc import Callable

BASE = 0.5  # the first wait is at most this long, in seconds
CAP = 5.0  # no wait is longer, for the first tries: a server that comes back is soon noticed
LATER = 100  # tries, about four minutes: whoever is away for longer is not asked so often
LATER_CAP = 30.0
STABLE = 5.0  # a connection that lasted this long starts the count anew


def exp_backoff(
    attempt: int,
    *,
    base: float = BASE,
    cap: float | None = None,
    random: Callable[[], float] = random.random,
) -> float:
    """Seconds to wait before try number *attempt* (0 is the first retry).

    Anything from 0 to ``min(cap, base * 2**attempt)``, evenly: a crowd that was cut off
    together does not come back together.

    :param cap: in seconds; None: 5 for the first 100 tries, then 30.
    """
    if cap is None:
        cap = CAP if attempt < LATER else LATER_CAP
    return random() * min(cap, base * 2.0 ** min(attempt, 32))

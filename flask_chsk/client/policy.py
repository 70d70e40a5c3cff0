"""Which transport to try, how long to wait before the next try, and when to give up.

Pure: it is told what happened and when, and answers questions. It knows no link and changes no
state of the client.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ..protocol.backoff import STABLE, exp_backoff
from ..protocol.session import EXPIRED, NORMAL, REPLACED, RESTART, SIGNED_OUT, TRY_LATER
from .link import Kind, LinkClosed

SPREAD = 2.0  # seconds over which to come back after a restart that names none
UPGRADE = 30.0  # seconds from a fallback to the next try of a WebSocket, then doubling
UPGRADE_CAP = 600.0
UPGRADE_SOON = 2.0  # the first wait where WebSockets have worked: then a cut led to Ajax
SHORT_LIVED = 2  # WebSockets in a row that were cut within STABLE: then polls for a while
HURRY = 1.0  # seconds between two waits that connect() cuts short

ID_TAKEN = 409  # another client has this client id
# Refusals of the client itself: the other transport would be refused too.
REFUSED = (401, 403)
# Statuses that only our server gives, or that mean the same over either transport.
_OF_THE_SERVER = (*REFUSED, ID_TAKEN, 429, 503)
# Close codes after which a client stays closed, and the reason that it tells:
# docs/protocol.rst, "Close codes".
FINAL = {NORMAL: "clean", REPLACED: "replaced", SIGNED_OUT: "signed-out"}


@dataclass(frozen=True)
class Options:
    """The numbers of a client, in seconds."""

    type: Literal["auto", "ws", "ajax"] = "auto"
    ws_kalive: float = 25.0
    ws_ping_timeout: float = 10.0
    connect_timeout: float = 5.0
    offline_queue: int = 0
    client_id: str | None = None  # the application's; None: a new one, replaced where it is taken
    backoff: Callable[[int], float] = exp_backoff


class Verdict(NamedTuple):
    """What follows when no link is left.

    *reason*: for ``last_close``. *renews*: it was refused, and is tried once more at once, with
    credentials that are asked for anew.
    """

    status: Literal["waiting", "closed", "refused"]
    reason: str
    renews: bool = False


class Policy:
    """The memory of one client of how its links fared."""

    def __init__(self, options: Options, random: Callable[[], float]) -> None:
        """
        :param random: evenly from 0 to 1.
        """
        self._options = options
        self._random = random
        self._auto = options.type == "auto"
        self._attempts = 0  # retries since a connection was stable
        self._hurried_at = float("-inf")  # when connect() last cut a wait short
        self._renewed = False  # refused since the last connection, and tried again
        self._last_kind: Kind | None = None  # the transport that worked last
        self._downgraded = False  # WebSockets fail where Ajax works
        self._short_lived = 0  # WebSockets in a row that were cut within STABLE
        self._confirmed_at = float("-inf")
        self._upgraded_at = float("-inf")  # when one link last took over from another
        self._upgrade_wait = UPGRADE

    # choice of transport -------------------------------------------------------------

    def next_kind(self) -> Kind:
        """The transport to try first."""
        if self._options.type != "auto":
            return self._options.type
        return "ajax" if self._downgraded else "ws"

    @property
    def polls_beside(self) -> bool:
        """Whether polls are tried beside a silent WebSocket: where none has worked yet."""
        return self._auto and self._last_kind != "ws"

    @property
    def wants_websocket(self) -> bool:
        """Whether a WebSocket is to be tried again later, because polls are only the fallback."""
        return self._downgraded

    def next_upgrade(self) -> float:
        """Seconds until a WebSocket is tried again; each time longer."""
        wait = self._upgrade_wait
        self._upgrade_wait = min(wait * 2, UPGRADE_CAP)
        return wait

    def is_blocked(self, kind: Kind, how: LinkClosed) -> bool:
        """Whether a proxy may block WebSockets, or cut them soon.

        Some ends only the server decides. Any other may be the fault of a proxy.
        """
        code = how.code or 0
        by_server = (
            code >= 4000 or code in (NORMAL, RESTART, TRY_LATER) or how.status in _OF_THE_SERVER
        )
        return self._auto and kind == "ws" and not by_server

    # what happened -------------------------------------------------------------------

    def confirmed(self, kind: Kind, now: float, *, takes_over: bool) -> None:
        """A link works.

        :param takes_over: another one worked until now.
        """
        if takes_over:
            self._upgraded_at = now
        self._confirmed_at = now
        self._renewed = False
        self._last_kind = kind
        self._downgraded = self._auto and kind == "ajax"
        if not self._downgraded and not self._short_lived:
            self._upgrade_wait = UPGRADE_SOON

    def confirmed_link_closed(self, kind: Kind, blocked: bool, now: float) -> bool:
        """The link that worked ended; whether polls are the better way for a while.

        They are where WebSockets are cut soon, several times in a row.
        """
        if kind == "ajax":
            return False
        if now - self._confirmed_at >= STABLE:
            self._short_lived = 0
            self._upgrade_wait = UPGRADE_SOON
        elif blocked:
            self._short_lived += 1
        if not blocked or self._short_lived < SHORT_LIVED:
            return False
        self._upgrade_wait = max(self._upgrade_wait, UPGRADE)
        return True

    def trial_closed(self, how: LinkClosed) -> None:
        """A link on trial ended."""
        if how.code == REPLACED:
            self._upgrade_wait = UPGRADE_SOON  # our own polls replaced it: WebSockets work

    def trials_failed(self) -> None:
        """No transport works, so nothing is known of WebSockets."""
        self._downgraded = False

    def stable(self) -> None:
        """A connection lasted: the next wait is a short one."""
        self._attempts = 0

    def reset(self) -> None:
        """The application opens or closes the connection."""
        self._attempts = 0
        self._renewed = False

    # the next try --------------------------------------------------------------------

    def judge(self, how: LinkClosed, now: float) -> Verdict:
        """Whether to try again, after the last link ended *how*."""
        if how.status in REFUSED:
            renews, self._renewed = not self._renewed, True
            return Verdict("waiting", how.why, True) if renews else Verdict("refused", "refused")
        if how.code == SIGNED_OUT and how.reason == EXPIRED:
            return Verdict("waiting", EXPIRED)  # each try asks for credentials anew
        # Where our own change of transport crossed a poll of ours, no other client replaced us.
        crossed = how.code == REPLACED and now - self._upgraded_at < STABLE
        final = None if how.code is None or crossed else FINAL.get(how.code)
        return Verdict("waiting", how.why) if final is None else Verdict("closed", final)

    def wait(self, how: LinkClosed, verdict: Verdict, *, renamed: bool) -> float:
        """Seconds until the next try; it may call the application's ``backoff``.

        :param renamed: the client has a new id, so the wait for the old one does not count.
        """
        if how.retry_after is not None and not renamed:
            return how.retry_after
        if verdict.renews:
            return 0.0
        if how.code == RESTART:
            return self._random() * _spread(how.reason)
        attempt = self._attempts
        self._attempts += 1
        return self._options.backoff(attempt)

    def may_hurry(self, now: float) -> bool:
        """Whether ``connect()`` may end a wait now; that counts as one."""
        if now - self._hurried_at < HURRY:
            return False
        self._hurried_at = now
        return True


def _spread(reason: str) -> float:
    """Seconds in the ``spread=4`` that a server's restart says."""
    found = re.search(r"spread=(\d{1,4})", reason)
    return float(found[1]) if found else SPREAD

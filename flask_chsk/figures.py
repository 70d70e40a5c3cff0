"""What ``chsk.stats()`` has: each counter and gauge with what it says.

A name that is counted anywhere in the package stands here, and in docs/metrics.rst; tests compare
the three. All of them are there from the start, as 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Family(NamedTuple):
    """Counters that differ in a number at the end of their names, such as ``closed_4002``."""

    metric: str  # its name where the number is a label
    label: str
    numbers: tuple[int, ...]  # there from the start; an application may cause others
    says: str


COUNTERS = {
    "opened": "Clients that were let in.",
    "closed": "Clients that are gone.",
    "events_in": "Events that came from clients.",
    "events_out": "Events that were published.",
    "dropped_absent": "Events to users or clients that are not there.",
    "unsent_after_commit": "Events of a committed transaction that the broker did not take.",
    "handler_errors": "Handlers that failed.",
    "unhandled": "Events that no handler took.",
    "refused_by_parse": "Events whose data `parse` refused.",
    "recv_dropped": "Events that `ch_recv` had no room for.",
    "repeated": "Repeated sends of a client, answered with the first reply.",
    "replies_undeliverable": "Replies whose WebSocket was gone.",
    "recovered": "Events that clients got from history.",
    "gaps": "Clients that were told `chsk/gap`.",
    "unpackable": "Events that a client's packer could not carry.",
    "dropped_slow": "Events that were dropped from the outbox of a slow client.",
    "too_slow": "Clients that were closed for an outbox above `CHSK_MAX_OUTBOX_BYTES`.",
    "stalled": "WebSockets that were closed because they took no byte for 10 seconds.",
    "pings_unanswered": "WebSockets that were closed because they did not answer a ping.",
    "protocol_errors": "WebSockets that broke the WebSocket protocol.",
    "flooding": "Messages above `CHSK_RATE`.",
    "inbox_full": "POSTs that were refused because of `CHSK_MAX_INBOX`.",
    "intake_full": "POSTs that were refused because of `CHSK_MAX_INBOUND_BYTES`.",
    "arrivals_given_up": "Unfinished messages that were dropped for `CHSK_MAX_INBOUND_BYTES`.",
    "takeovers_refused": "Polls that were refused because polls of one client chase each other.",
    "answers_unasked": "Answers of clients to questions that are not open.",
    "answers_dropped": "Answers to questions of other workers that were dropped: too many waited.",
    "closes_timed_out": "Clients that were told of a close before the response of the view ended.",
    "broker_epochs": "Times that Redis began anew.",
    "broker_subscriptions_lost": "Times that the subscription to Redis was lost.",
    "broker_repeated": "Messages from Redis that came a second time.",
    "broker_doubted": "Messages from Redis with an offset that cannot be.",
    "broker_malformed": "Messages from Redis that cannot be read.",
    "broker_foreign": "Messages from Redis with a schema that this version does not know.",
}

GAUGES = {
    "clients": "Clients of this worker.",
    "parked": "Polls that wait.",
    "uids": "Users with a client of this worker.",
    "uids_ws": "Users with a WebSocket to this worker.",
    "uids_ajax": "Users with a client of this worker that polls.",
    "inboxes": "Clients whose events are being handled or wait.",
    "asks": "Questions that are open.",
    "arriving": "Bytes that have come and wait for their handlers.",
    "closes_waiting": "Closes that wait for the response of a view.",
    "subscriptions": "Channels of Redis that this worker listens to.",
    "broker_clock_ahead": "Milliseconds by which this host's clock is ahead of that of Redis.",
    "broker_schema": "Number of the format of keys and messages in Redis; 0 without Redis.",
}

# Of several workers the largest tells; of all others the sum.
LARGEST = {"broker_clock_ahead", "broker_schema"}

FAMILIES = {
    "refused": Family(
        "refusals",
        "status",
        (400, 401, 403, 409, 413, 426, 429, 501, 503),
        "Requests that were answered with this HTTP status.",
    ),
    "errors": Family(
        "errors",
        "status",
        (400, 401, 404, 500, 503),
        "Events that were answered `:chsk/error` with this status.",
    ),
    "closed": Family(
        "closes",
        "code",
        (1000, 1002, 1003, 1007, 1009, 1011, 1012, 1013, 4000, 4001, 4002, 4003, 4004, 4005),
        "Connections that the server closed with this code.",
    ),
}

AT_START = {
    **dict.fromkeys((*COUNTERS, *GAUGES), 0),
    **{f"{name}_{n}": 0 for name, family in FAMILIES.items() for n in family.numbers},
}


def together(workers: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The figures of several workers as those of one."""
    found: dict[str, int] = {}
    for stats in workers:
        for name, value in stats.items():
            known = found.get(name, 0)
            found[name] = max(known, value) if name in LARGEST else known + value
    return found


def family_of(name: str) -> tuple[str, str] | None:
    """The family of a counter and its number, as ``("closed", "4002")``; None: it has none."""
    family, _, number = name.rpartition("_")
    return (family, number) if family in FAMILIES and number.isdecimal() else None

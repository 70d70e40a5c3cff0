"""Faults in one line each: a checker that lets one of them live is too weak.

A mutant names a function and a piece of its text, and what stands there instead. Where that text is
not found any more, the code has moved on: give the mutant the line that does the same now.
"""

from __future__ import annotations

import importlib
import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Mutant:
    """*old* in the text of a method, once, becomes *new*.

    :ivar method: ``"server.polls Polls.get"``: the module below ``flask_chsk``, and the method.
    """

    name: str
    method: str
    old: str
    new: str

    @contextmanager
    def lives(self) -> Iterator[None]:
        """The fault is in the package, until the end of the block."""
        module_name, method = self.method.split()
        class_name, name = method.split(".")
        module = importlib.import_module(f"flask_chsk.{module_name}")
        owner = getattr(module, class_name)
        original = getattr(owner, name)
        source = textwrap.dedent(inspect.getsource(original))
        found = source.count(self.old)
        assert found == 1, f"{self.old!r} stands {found} times in {self.method}"
        made: dict[str, Any] = {}
        exec(source.replace(self.old, self.new), module.__dict__, made)
        setattr(owner, name, made[name])
        try:
            yield
        finally:
            setattr(owner, name, original)


MUTANTS = [
    Mutant(
        "events that fell out of an outbox are not read again",
        "protocol.session ServerSession.fall_behind",
        "self.queued = self._covered(self.acked)",
        "pass",
    ),
    Mutant(
        "a client that comes back with an older cursor is not served again",
        "protocol.session ServerSession.resume",
        "self.fall_behind()",
        "pass",
    ),
    Mutant(
        "a page of history ends too early",
        "protocol.session ServerSession.caught_up",
        "for push in pushes:",
        "for push in list(pushes)[:3]:",
    ),
    Mutant(
        "an event that is for others is delivered",
        "protocol.session ServerSession.deliver",
        "push.exclude == (self.uid, self.client_id)",
        "False",
    ),
    Mutant(
        "a hole in a history is taken for whole",
        "brokers.memory.journal History.after",
        "bool(found) and found[0].before <= offset",
        "True",
    ),
    Mutant(
        "history comes in the order of channels",
        "brokers.memory.journal Journal.since",
        "found.sort(key=lambda push: push.offset)",
        "pass",
    ),
    Mutant(
        "history is never whole",
        "brokers.memory.journal Journal.since",
        "complete = oldest <= cursor <= end + 1",
        "complete = False",
    ),
    Mutant(
        "a client that was away for too long is not told",
        "brokers.memory.journal Journal.since",
        "complete = oldest <= cursor <= end + 1",
        "complete = cursor <= end + 1",
    ),
    Mutant(
        "nobody is told that a user went",
        "brokers.memory.clients MemoryClients.detach",
        "return 0 if self._table.of(uid) else self._next_generation()",
        "return 0",
    ),
    Mutant(
        "each client of a user is taken for the first",
        "brokers.memory.clients MemoryClients._let_in",
        "first, held = not clients, clients.get(client_id)",
        "first, held = True, clients.get(client_id)",
    ),
    Mutant(
        "a client takes what it has already",
        "client.cursor Cursor.advance",
        "offset <= self._offset",
        "False",
    ),
    Mutant(
        "a client does not tell of a gap",
        "client.session ClientSession._handshake",
        "if resumed and server.recovered is False:",
        "if False:",
    ),
    Mutant(
        "a WebSocket that began before polls had a cursor takes over",
        "client.session ClientSession._confirm",
        "if self.trial is not None:",
        "if False:",
    ),
    Mutant(
        "a send that comes again is handled again",
        "server.idempotency Idempotency.came_before",
        "return came",
        "return False",
    ),
    Mutant(
        "a client that is gone stays with the broker",
        "server.clients Clients._forget",
        "self._registration.detach(*connection.key, connection.token)",
        "pass",
    ),
    Mutant(
        "a parked poll is not woken",
        "transports.longpoll Poller.wake",
        "self._answer(",
        "(lambda last: None)(",
    ),
    Mutant(
        "what a socket does not take at once is lost",
        "transports.link Link.write",
        "deque((memoryview(data)[sent:],))",
        "deque((memoryview(data)[:0],))",
    ),
    Mutant(
        "a gap is taken for a page",
        "server.replay History._take_page",
        "if connection.gap_due or not page.complete:",
        "if False:",
    ),
    Mutant(
        "a client that changes its transport begins at now",
        "server.clients Clients._come_back",
        "one.resume(cursor)",
        "connection.start_at(watermark)",
    ),
]

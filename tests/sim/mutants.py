"""Faults in one line each: a checker that lets one of them live is too weak.

A mutant names a function and a piece of its text, and what stands there instead. Where that text is
not found any more, the code has moved on: give the mutant the line that does the same now.
"""

from __future__ import annotations

import hashlib
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
        ``"brokers.redis.scripts SINCE"``: a script of Redis.
    :ivar kind: of the world whose histories run it.
    :ivar seed: of a history that found it. Where the code has changed since, others may.
    """

    name: str
    method: str
    old: str
    new: str
    kind: str = "alone"
    seed: int = 0

    @contextmanager
    def lives(self) -> Iterator[None]:
        """The fault is in the package, until the end of the block."""
        module_name, method = self.method.split()
        class_name, _, name = method.partition(".")
        module = importlib.import_module(f"flask_chsk.{module_name}")
        owner = getattr(module, class_name)
        if not name:
            with self._in_script(owner):
                yield
            return
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

    @contextmanager
    def _in_script(self, script: Any) -> Iterator[None]:
        text, sha = script.text, script.sha
        found = text.count(self.old)
        assert found == 1, f"{self.old!r} stands {found} times in {self.method}"
        script.text = text.replace(self.old, self.new)
        script.sha = hashlib.sha1(script.text.encode(), usedforsecurity=False).hexdigest()
        script.heads.clear()
        try:
            yield
        finally:
            script.text, script.sha = text, sha
            script.heads.clear()


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
        seed=2,
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
        seed=6,
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
        seed=72,
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
        seed=4,
    ),
    Mutant(
        "a send that comes again is handled again",
        "server.idempotency Idempotency.came_before",
        "return came",
        "return False",
        seed=10,
    ),
    Mutant(
        "a client that is gone stays with the broker",
        "server.clients Clients._forget",
        "self._registration.detach(*connection.key, connection.token)",
        "pass",
        seed=1,
    ),
    Mutant(
        "a parked poll is not woken",
        "transports.longpoll Poller.wake",
        "self._answer(",
        "(lambda last: None)(",
        seed=2,
    ),
    Mutant(
        "what a socket does not take at once is lost",
        "transports.link Link.write",
        "deque((memoryview(data)[sent:],))",
        "deque((memoryview(data)[:0],))",
        seed=1,
    ),
    Mutant(
        "a gap is taken for a page",
        "server.replay History._take_page",
        "if connection.gap_due or not page.complete:",
        "if False:",
        seed=1,
    ),
    Mutant(
        "a client that changes its transport begins at now",
        "server.clients Clients._come_back",
        "one.resume(cursor)",
        "connection.start_at(watermark)",
    ),
    Mutant(
        "a hole in a history of Redis is taken for whole",
        "brokers.redis.scripts SINCE",
        "if tonumber(entry[2][2]) > at then return incomplete end",
        "",
        "cluster",
        seed=4,
    ),
    Mutant(
        "a client that was away from Redis for too long is not told",
        "brokers.redis.scripts SINCE",
        "if cursor > m.o + 1 or cursor < math.max(floor, m.now - m.window * 1000) then",
        "if cursor > m.o + 1 then",
        "cluster",
        seed=36,
    ),
    Mutant(
        "two workers handle one send",
        "brokers.redis.scripts CLAIM",
        "if held then return held end",
        "",
        "cluster",
        seed=10,
    ),
    Mutant(
        "a dead worker keeps its clients",
        "brokers.redis.scripts REAP",
        "local o = drop(m, uid, id, seen[i + 1], worker)",
        "local o = 0",
        "cluster",
        seed=1,
    ),
    Mutant(
        "what a lost subscription missed is not read",
        "brokers.redis.subscription Subscription._begin",
        "self._listener.resync_required()",
        "pass",
        "cluster",
    ),
    Mutant(
        "nobody is told of the gap of a new epoch",
        "brokers.redis.epoch Epoch.enter",
        "self._listener.reset(began)",
        "pass",
        "cluster",
    ),
    Mutant(
        "an emptied Redis is not told who is there",
        "brokers.redis.epoch Epoch.enter",
        "self._listener.reattach(silent=True)",
        "pass",
        "cluster",
        seed=34,
    ),
    Mutant(
        "a worker goes on with a client that another has",
        "server.clients Clients.taken_over",
        "if connection is not None and connection.token == token:",
        "if False:",
        "cluster",
        seed=24,
    ),
    Mutant(
        "a publish that was answered late is done twice",
        "brokers.redis.scripts PUBLISH",
        "if number == ARGV[7] then return done end",
        "",
        "cluster",
    ),
    Mutant(
        "a late answer of the broker gives a client its old name",
        "server.connection Connection.register",
        "if offset >= self.registered_at:",
        "if True:",
        "cluster",
        seed=22,
    ),
]

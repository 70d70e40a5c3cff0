"""A Redis in memory that runs the broker's scripts, with as much of Redis as these ask for.

Its clock is an argument and nothing in it depends on the order of a set, so a simulation can own
it. The contract tests hold it to the real Redis (``tests/integration/brokers``).
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from lupa import lua51
from redis.exceptions import ConnectionError as Cut
from redis.exceptions import NoScriptError, ResponseError
from redis.exceptions import TimeoutError as AnswerTimeout

from flask_chsk.brokers.redis.calls import Address
from flask_chsk.brokers.redis.scripts import Script

Reply = Any  # as redis-py reads it: bytes, int, None, a list of these, an error


class Client(Protocol):
    """The other end of a connection."""

    def receive(self, reply: Reply) -> None:
        """Redis has a reply or a message for it."""


class Stream:
    """Entries by their id, whose second part is 0."""

    def __init__(self) -> None:
        self.entries: dict[int, list[bytes]] = {}
        self.last = 0


class Model:
    """One Redis.

    :param clock: seconds since 1970.
    :param run_id: of this life of the server: another one is a restart.
    """

    def __init__(self, clock: Callable[[], float] = time.time, run_id: str = "run1") -> None:
        self.clock = clock
        self.run_id = run_id
        self.policy = "noeviction"
        self.evicted = 0
        self.data: dict[bytes, Any] = {}
        self.until: dict[bytes, int] = {}  # when keys expire, in milliseconds
        self.subscribers: dict[bytes, dict[Client, None]] = {}
        self._scripts: dict[str, str] = {}
        self._now = 0  # microseconds, of the command that runs
        self._lock = threading.RLock()

    # the server ------------------------------------------------------------------------------

    def execute(self, wire: Client | None, words: list[bytes]) -> Iterator[Reply]:
        """The replies to a command of a client."""
        with self._lock:
            self._now = round(self.clock() * 1e6)
            command = words[0].decode().upper()
            if command in ("SUBSCRIBE", "UNSUBSCRIBE"):
                assert wire is not None
                for channel in words[1:]:
                    heard_by = self.subscribers.setdefault(channel, {})
                    if command == "SUBSCRIBE":
                        heard_by[wire] = None
                    else:
                        heard_by.pop(wire, None)
                    yield [command.lower().encode(), channel, 1]
                return
            try:
                if command == "EVALSHA":
                    text = self._scripts.get(words[1].decode())
                    if text is None:
                        raise NoScriptError("No matching script")
                elif command == "EVAL":
                    text = words[1].decode()
                    self._scripts[hashlib.sha1(words[1]).hexdigest()] = text
                else:
                    yield self.do(command, *words[1:])
                    return
                count = int(words[2])
                yield self.run(text, words[3 : 3 + count], words[3 + count :])
            except ResponseError as error:
                yield error

    def forget(self, wire: Client) -> None:
        """A client is gone."""
        for heard_by in self.subscribers.values():
            heard_by.pop(wire, None)

    def run(self, text: str, keys: list[bytes], args: list[bytes]) -> Reply:
        """What a script returns."""
        return LUA.run(self, text, keys, args)

    def call(self, script: Script, *args: Any, base: str = "chsk:0:") -> Reply:
        """The same for a script of the broker's, asked by nobody."""
        words = words_of(("EVAL", script.text, 1, base, *args))
        [reply] = self.execute(None, words)
        if isinstance(reply, ResponseError):
            raise reply
        return reply

    def do(self, name: str, *args: Any) -> Reply:
        """One command."""
        command = getattr(self, f"_{name.lower()}", None)
        if command is None:
            raise ResponseError(f"the model has no {name}")
        return command(*words_of(args))

    # keys ------------------------------------------------------------------------------------

    def _get_key(self, key: bytes) -> Any:
        if self.until.get(key, 1 << 62) <= self._now // 1000:
            self._delete(key)
        return self.data.get(key)

    def _of(self, key: bytes, kind: type, make: bool = False) -> Any:
        value = self._get_key(key)
        if value is None:
            value = kind()
            if make:
                self.data[key] = value
        if not isinstance(value, kind):
            raise ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
        return value

    def _delete(self, key: bytes) -> bool:
        self.until.pop(key, None)
        return self.data.pop(key, None) is not None

    def _drop_empty(self, key: bytes, value: Any) -> None:
        if not value:
            self._delete(key)

    def _exists(self, *keys: bytes) -> int:
        return sum(self._get_key(key) is not None for key in keys)

    def _del(self, *keys: bytes) -> int:
        return sum(self._get_key(key) is not None and self._delete(key) for key in keys)

    _unlink = _del

    def _rename(self, old: bytes, new: bytes) -> bytes:
        if self._get_key(old) is None:
            raise ResponseError("ERR no such key")
        until = self.until.get(old)
        self._delete(new)
        self.data[new] = self.data[old]
        if until is not None:
            self.until[new] = until
        self._delete(old)
        return b"OK"

    def _pexpire(self, key: bytes, ms: bytes) -> int:
        if self._get_key(key) is None:
            return 0
        self.until[key] = self._now // 1000 + int(ms)
        return 1

    def _flushall(self) -> bytes:
        self.data.clear()
        self.until.clear()
        return b"OK"

    # the server's own ------------------------------------------------------------------------

    def _time(self) -> list[bytes]:
        return [b"%d" % part for part in divmod(self._now, 1_000_000)]

    def _info(self, section: bytes) -> bytes:
        return (
            f"run_id:{self.run_id}\r\nmaxmemory_policy:{self.policy}\r\n"
            f"evicted_keys:{self.evicted}\r\n"
        ).encode()

    def _publish(self, channel: bytes, message: bytes) -> int:
        wires = list(self.subscribers.get(channel, ()))
        for wire in wires:
            wire.receive([b"message", channel, message])
        return len(wires)

    # strings ---------------------------------------------------------------------------------

    def _get(self, key: bytes) -> bytes | None:
        return self._get_key(key)  # type: ignore[no-any-return]

    def _set(self, key: bytes, value: bytes, *px: bytes) -> bytes:
        self._delete(key)
        self.data[key] = value
        if px:
            assert px[0].upper() == b"PX"
            self._pexpire(key, px[1])
        return b"OK"

    # hashes ----------------------------------------------------------------------------------

    def _hset(self, key: bytes, *pairs: bytes) -> int:
        fields = self._of(key, dict, make=True)
        before = len(fields)
        fields.update(zip(pairs[::2], pairs[1::2], strict=True))
        return len(fields) - before

    def _hget(self, key: bytes, field: bytes) -> bytes | None:
        return self._of(key, dict).get(field)  # type: ignore[no-any-return]

    def _hmget(self, key: bytes, *fields: bytes) -> list[bytes | None]:
        return [self._of(key, dict).get(field) for field in fields]

    def _hgetall(self, key: bytes) -> list[bytes]:
        return [one for pair in self._of(key, dict).items() for one in pair]

    def _hkeys(self, key: bytes) -> list[bytes]:
        return list(self._of(key, dict))

    def _hlen(self, key: bytes) -> int:
        return len(self._of(key, dict))

    def _hexists(self, key: bytes, field: bytes) -> int:
        return int(field in self._of(key, dict))

    def _hdel(self, key: bytes, *fields: bytes) -> int:
        held = self._of(key, dict)
        gone = sum(held.pop(field, None) is not None for field in fields)
        self._drop_empty(key, held)
        return gone

    def _hincrby(self, key: bytes, field: bytes, by: bytes) -> int:
        fields = self._of(key, dict, make=True)
        fields[field] = b"%d" % (int(fields.get(field, b"0")) + int(by))
        return int(fields[field])

    def _hrandfield(self, key: bytes, count: bytes, withvalues: bytes) -> list[bytes]:
        """The first ones: any choice is as good."""
        pairs = list(self._of(key, dict).items())[: int(count)]
        return [one for pair in pairs for one in pair]

    # sets ------------------------------------------------------------------------------------

    def _sadd(self, key: bytes, *members: bytes) -> int:
        return self._hset(key, *(one for member in members for one in (member, b"")))

    def _srem(self, key: bytes, *members: bytes) -> int:
        return self._hdel(key, *members)

    def _smembers(self, key: bytes) -> list[bytes]:
        return self._hkeys(key)

    # sorted sets -----------------------------------------------------------------------------

    def _zadd(self, key: bytes, *words: bytes) -> int:
        option = words[0].upper()
        pairs = words[1:] if option in (b"NX", b"XX") else words
        members = self._of(key, ZSet, make=option != b"XX")
        before = len(members)
        for score, member in zip(pairs[::2], pairs[1::2], strict=True):
            if (option == b"NX" and member in members) or (
                option == b"XX" and member not in members
            ):
                continue
            members[member] = float(score)
        return len(members) - before

    def _zrem(self, key: bytes, *members: bytes) -> int:
        return self._hdel(key, *members)

    def _zscore(self, key: bytes, member: bytes) -> bytes | None:
        score = self._of(key, ZSet).get(member)
        return None if score is None else _number(score)

    def _zcard(self, key: bytes) -> int:
        return len(self._of(key, ZSet))

    def _ranked(self, key: bytes, low: bytes = b"-inf", high: bytes = b"+inf") -> list[Any]:
        pairs = [(score, member) for member, score in self._of(key, ZSet).items()]
        return [pair for pair in sorted(pairs) if float(low) <= pair[0] <= float(high)]

    def _zcount(self, key: bytes, low: bytes, high: bytes) -> int:
        return len(self._ranked(key, low, high))

    def _zrange(self, key: bytes, first: bytes, last: bytes, *more: bytes) -> list[bytes]:
        ranked = self._ranked(key)
        end = int(last) % len(ranked) if ranked else 0
        return _members(ranked[int(first) : end + 1], more)

    def _zrangebyscore(self, key: bytes, low: bytes, high: bytes, *more: bytes) -> list[bytes]:
        ranked = self._ranked(key, low, high)
        if b"LIMIT" in more:
            skip, count = (int(one) for one in more[more.index(b"LIMIT") + 1 :][:2])
            ranked = ranked[skip : skip + count]
        return _members(ranked, more)

    def _zrevrangebyscore(self, key: bytes, high: bytes, low: bytes, *more: bytes) -> list[bytes]:
        assert more[1:] == (b"LIMIT", b"0", b"1")
        return _members(self._ranked(key, low, high)[-1:], more)

    def _zremrangebyscore(self, key: bytes, low: bytes, high: bytes) -> int:
        return self._zrem(key, *(member for _, member in self._ranked(key, low, high)))

    def _zpopmin(self, key: bytes) -> list[bytes]:
        first = self._ranked(key)[:1]
        for _, member in first:
            self._zrem(key, member)
        return _members(first, (b"WITHSCORES",))

    # streams ---------------------------------------------------------------------------------

    def _xadd(self, key: bytes, id: bytes, *fields: bytes) -> bytes:
        stream = self._of(key, Stream, make=True)
        number = _entry(id)
        if number <= stream.last:
            raise ResponseError("ERR The ID specified in XADD is equal or smaller")
        stream.entries[number], stream.last = list(fields), number
        return id

    def _xrange(
        self, key: bytes, first: bytes, last: bytes, count: bytes, most: bytes
    ) -> list[list[Any]]:
        assert (last, count) == (b"+", b"COUNT")
        entries = self._of(key, Stream).entries
        above = -1 if first == b"-" else _entry(first.removeprefix(b"("))
        assert first == b"-" or first.startswith(b"(")
        found = [number for number in entries if number > above][: int(most)]
        return [[b"%d-0" % number, entries[number]] for number in found]

    def _xtrim(self, key: bytes, minid: bytes, first: bytes) -> int:
        assert minid == b"MINID"
        entries = self._of(key, Stream).entries
        number, _, second = first.partition(b"-")
        old = [one for one in entries if (one, 0) < (int(number), int(second))]
        for one in old:
            del entries[one]
        return len(old)

    def _xlen(self, key: bytes) -> int:
        return len(self._of(key, Stream).entries)


class ZSet(dict[bytes, float]):
    """A sorted set: scores by member."""


def _number(score: float) -> bytes:
    return f"{score:.17g}".encode()


def _entry(id: bytes) -> int:
    number, _, second = id.partition(b"-")
    assert second == b"0"
    return int(number)


def _members(ranked: Iterable[tuple[float, bytes]], more: tuple[bytes, ...]) -> list[bytes]:
    if b"WITHSCORES" in more:
        return [one for score, member in ranked for one in (member, _number(score))]
    return [member for _, member in ranked]


class Lua:
    """Runs scripts, each for the model that asks."""

    def __init__(self) -> None:
        self._runtime = lua51.LuaRuntime(encoding=None, unpack_returned_tuples=True)
        self._model: Model
        self._compiled: dict[str, Any] = {}
        self._lock = threading.RLock()
        set_up = self._runtime.eval(
            b"function(call) redis = {call = call,"
            b" error_reply = function(text) return {err = text} end} end"
        )
        set_up(self._call)

    def run(self, model: Model, text: str, keys: list[bytes], args: list[bytes]) -> Reply:
        with self._lock:
            script = self._compiled.get(text)
            if script is None:
                script = self._runtime.eval(b"function(KEYS, ARGV) %b\nend" % text.encode())
                self._compiled[text] = script
            self._model = model
            try:
                table = self._runtime.table_from
                answer = _from_lua(script(table(keys), table(args)))
            except lua51.LuaError as error:
                raise ResponseError(f"ERR {error}") from None
        if isinstance(answer, ResponseError):
            raise answer
        return answer

    def _call(self, name: bytes, *args: Any) -> Any:
        words = [arg if isinstance(arg, bytes) else f"{arg:.17g}".encode() for arg in args]
        return self._to_lua(self._model.do(name.decode(), *words))

    def _to_lua(self, reply: Reply) -> Any:
        if reply is None:
            return False
        if isinstance(reply, list):
            return self._runtime.table_from([self._to_lua(one) for one in reply])
        return reply


def _from_lua(value: Any) -> Reply:
    if lua51.lua_type(value) == "table":
        error = value[b"err"]
        if error is not None:
            return ResponseError(error.decode())
        found = []
        while (one := value[len(found) + 1]) is not None:
            found.append(_from_lua(one))
        return found
    if isinstance(value, bool):
        return 1 if value else None
    return int(value) if isinstance(value, float) else value


LUA = Lua()


class Wire:
    """A connection of redis-py to a model, for native threads."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.open = False
        self.inbox: deque[Reply] = deque()
        self._arrived = threading.Condition()

    def connect(self) -> None:
        self.open = True

    def disconnect(self) -> None:
        self.open = False
        self.model.forget(self)

    def send_packed_command(self, parts: Iterable[bytes]) -> None:
        self.send(packed_words(b"".join(parts)))

    def send_command(self, *words: Any) -> None:
        self.send(words_of(words))

    def send(self, words: list[bytes]) -> None:
        if not self.open:
            raise Cut("not connected")
        for reply in self.model.execute(self, words):
            self.receive(reply)

    def receive(self, reply: Reply) -> None:
        """A reply or a message arrives."""
        with self._arrived:
            self.inbox.append(reply)
            self._arrived.notify()

    def can_read(self, timeout: float) -> bool:
        with self._arrived:
            return self._arrived.wait_for(lambda: self.inbox, timeout or 0.0) != deque()

    def read_response(self, disconnect_on_error: bool = True) -> Reply:
        if not self.can_read(2.0):
            raise AnswerTimeout("no answer")
        reply = self.inbox.popleft()
        if isinstance(reply, Exception):
            raise reply
        return reply


def words_of(words: Iterable[Any]) -> list[bytes]:
    """The words of a command as bytes."""
    return [word if isinstance(word, bytes) else str(word).encode() for word in words]


def packed_words(data: bytes) -> list[bytes]:
    """The words of a command, as RESP has it."""
    head, _, rest = data.partition(b"\r\n")
    words = []
    for _ in range(int(head[1:])):
        size, _, rest = rest.partition(b"\r\n")
        words.append(rest[: int(size[1:])])
        rest = rest[int(size[1:]) + 2 :]
    assert not rest
    return words


def address(model: Model, prefix: str = "chsk") -> Address:
    """Of a model that native threads ask."""
    return Address(f"{prefix}:0:", "the model", lambda: Wire(model))

"""Connections to one Redis, and calls of scripts over them: each answered, failed or unknown.

redis-py's connections, without its client: that repeats commands whose answer was lost, and
waits where a caller should be told. Here nothing is repeated that could happen twice, and
while Redis is away a call fails at once. A connection serves one call at a time. Clock, tokens and
locks are the runtime's: under a patched server gevent's, else native.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import count
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit
from weakref import WeakSet

from ... import forks
from ...errors import BrokerError, BrokerUnavailable, ConfigError, PublishUnknown
from ...printable import printable
from ...semaphore import Semaphore
from .schema import refusal
from .scripts import HELLO, Script

try:
    import redis.connection
    from redis.exceptions import NoScriptError, RedisError, ResponseError
    from redis.exceptions import TimeoutError as AnswerTimeout

    from .internals import plain_parser, socket_of
except ImportError as error:  # the extra was not installed
    raise ConfigError(
        "CHSK_BROKER_URL redis://… needs redis-py: pip install 'Flask-Chsk[redis]'"
    ) from error

CONNECT = 1.0  # seconds to be connected: Redis is near, or away
ANSWER = 2.0  # seconds for an answer; a script takes microseconds
AWAY = 0.5  # seconds after a failure to connect in which nobody tries again
FRESH = 0.05  # seconds in which a resting connection is not asked whether it still stands
IDLE = 30.0  # seconds after which a resting connection is not trusted: firewalls forget them
CONNECTIONS = 16  # of a process, for calls; each call holds one for a round trip
FAILURES = (RedisError, OSError)
__all__ = ["FAILURES", "Address", "AnswerTimeout", "Connection", "Greeting", "Redis", "address_of"]
_SCRIPT = re.compile(  # where in which script, as Redis 7 and 6.2 put it
    r"( script: \w+, on @user_script:\d+\.?|Error running script .*@user_script: ?\d+: )"
)


class Runtime(Protocol):
    """Where clock, tokens and locks come from: the hub, or what a publisher has in its place."""

    def now(self) -> float: ...
    def token(self, size: int) -> str: ...
    def semaphore(self, count: int) -> Semaphore: ...


class Address(NamedTuple):
    """A Redis, and the keys in it that are ours."""

    base: str  # with which the names of keys and channels begin
    where: str  # the host or path, for messages
    connection: Callable[[], Any]  # makes one of redis-py's, which connects when it is told to


class Greeting(NamedTuple):
    """What Redis says to a new connection."""

    epoch: str
    offset: int
    policy: str  # what it does when its memory is full
    run: str  # the life of this server
    began: int  # the offset at which the epoch did
    clock: int  # of Redis, microseconds


class Connection:
    """A connection that was greeted.

    :param now: the time, which is that of its latest use.
    :param slot: with a number the name of each publish.
    """

    def __init__(self, wire: Any, greeting: Greeting, now: float, slot: str) -> None:
        self.wire = wire
        self.epoch = greeting.epoch
        self.run = greeting.run
        self.used = now
        self.slot = slot
        self.numbers = count(1)

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(*FAILURES):
            self.wire.disconnect()

    @property
    def stale(self) -> bool:
        """Whether the other end closed it (or said something unasked) while it rested."""
        try:
            return bool(self.wire.can_read(0))
        except FAILURES:
            return True


def address_of(url: str) -> Address:
    """What ``redis://…``, ``rediss://…`` or ``unix://…`` names.

    :raises ConfigError: where *url* cannot be used. It never quotes the URL: what is wrong with it
        may be the password, which then stands anywhere.
    """
    remedy = (
        "CHSK_BROKER_URL cannot be used: write redis://user:password@host:6379/0, with the"
        " number of a database in the end; percent-encode : / ? # [ ] @ in a password"
    )
    try:
        split = urlsplit(url)
        _ = split.port
    except ValueError:
        raise ConfigError(remedy) from None
    if split.scheme != "unix" and not re.fullmatch(r"/?\d*", split.path):
        raise ConfigError(remedy)
    query = dict(parse_qsl(split.query))
    prefix = query.pop("prefix", "chsk")
    try:
        rest = url.partition("?")[0] + f"?{urlencode(query)}"
        named = redis.connection.parse_url(rest)  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise ConfigError(f"{remedy} ({printable(str(error))})") from None
    kind = named.pop("connection_class", redis.connection.Connection)
    unix = issubclass(kind, redis.connection.UnixDomainSocketConnection)
    options = {
        "socket_connect_timeout": CONNECT,
        "socket_timeout": ANSWER,
        **({} if unix else {"socket_keepalive": True}),
        "protocol": 2,
        "parser_class": plain_parser(),
        **named,
    }
    try:
        kind(**options)  # connects to nothing
    except TypeError as error:
        raise ConfigError(
            f"CHSK_BROKER_URL cannot be used: one of {', '.join(query)} redis-py does not know"
        ) from error
    return Address(
        # Publish/subscribe is one space for all databases of a Redis, so the number is in it.
        base=f"{prefix}:{options.get('db', 0)}:",
        where=f"{options.get('host', options.get('path', 'localhost'))}",
        connection=partial(kind, **options),
    )


class Redis:
    """Scripts of one Redis, from any thread or greenlet of one hub.

    :param runtime: the hub, in a process that has one.
    :param limits: events, bytes and milliseconds of history, for the publish script; None
        from those who only publish.
    :param greeted: told of every new connection, before it is used.
    :param close_kept: milliseconds for which a close is kept for a client between two polls.
    :param worker: the process whose limits these are.
    :param known: the last offset that it knows; those of a new epoch are above it.
    """

    def __init__(
        self,
        address: Address,
        runtime: Runtime,
        limits: tuple[int, int, int] | None = None,
        close_kept: int = 0,
        greeted: Callable[[Greeting], None] = lambda greeting: None,
        worker: str = "",
        known: Callable[[], int] = lambda: 0,
    ) -> None:
        self.base, self.where, self._connection = address
        self.runtime = runtime
        self._limits = ("", "", "") if limits is None else limits
        self._close_kept = close_kept
        self._greeted = greeted
        self._worker = worker
        self._known = known
        self.epoch = ""  # of the counter, as the latest greeting said
        self.past: set[str] = set()  # epochs that are over
        self._idle: list[Connection] = []
        self._free = runtime.semaphore(CONNECTIONS)
        self._away_until = 0.0
        self._error = ""
        self._wires: WeakSet[Any] = WeakSet()
        self._parents = False
        forks.register(self)

    def forked(self) -> None:
        """These connections are the parent's: no answer to it is read here."""
        self._parents = True
        for wire in self._wires:
            sock = socket_of(wire)
            if sock is not None and sock.fileno() >= 0:
                forks.silence(sock.fileno())

    # connections -------------------------------------------------------------------------

    def connect(self) -> Connection:
        """A new connection, greeted.

        :raises BrokerUnavailable: none can be had.
        """
        if self._parents:
            forks.stay()
        wire = self._connection()
        self._wires.add(wire)
        try:
            wire.connect()
            greeting = self._hello(wire)
            if greeting.epoch in self.past:  # a Redis that is back, without what came between
                greeting = self._hello(wire, over=greeting.epoch)
        except FAILURES as error:
            with contextlib.suppress(*FAILURES):
                wire.disconnect()
            self._away_until = self.runtime.now() + AWAY
            if isinstance(error, ResponseError):
                self._error = f"Redis at {self.where} refuses: {_short(error)}"
            else:
                self._error = f"Redis at {self.where} is away: {_short(error)}"
            raise BrokerUnavailable(self._error) from error
        except BaseException:
            wire.disconnect()
            raise
        self._away_until = 0.0
        self.turn_to(greeting.epoch)
        self._greeted(greeting)
        return Connection(wire, greeting, self.runtime.now(), self.runtime.token(6))

    def _hello(self, wire: Any, over: str = "") -> Greeting:
        fresh = self.runtime.token(4)
        ours = (self._worker, self._known(), self._close_kept)
        answer = _run(wire, HELLO, self.base, (fresh, *self._limits, over, self.epoch, *ours))
        if answer[0] == b"schema":
            low, high = map(int, answer[1].split())
            self._away_until = self.runtime.now() + AWAY
            self._error = refusal(self.where, self.base, low, high, bool(answer[2]))
            raise BrokerUnavailable(self._error)
        epoch, offset, policy, run, began, clock = answer
        return Greeting(
            epoch.decode(), int(offset), policy.decode(), run.decode(), int(began), int(clock)
        )

    def turn_to(self, epoch: str) -> None:
        """The counter lives in *epoch* now; connections that know another are not used again."""
        if epoch in self.past:
            return
        if self.epoch not in ("", epoch):
            self.past.add(self.epoch)
        self.epoch = epoch

    @contextlib.contextmanager
    def _one(self) -> Iterator[Connection]:
        """A connection for one call; not used again where that failed half-way."""
        if not self._free.acquire(timeout=ANSWER):
            raise BrokerUnavailable(f"Redis at {self.where} is slow: {CONNECTIONS} calls wait")
        connection: Connection | None = None
        try:
            connection = self._rested()
            if connection is None:
                if self.runtime.now() < self._away_until:
                    raise BrokerUnavailable(self._error)
                connection = self.connect()
            yield connection
        except BaseException as error:
            if self._parents:
                forks.stay()
            if _is_replica(error):
                self.close()  # it is a replica now, and another may be at its address
            if connection is not None:
                if _goes_on(error):
                    self._idle.append(connection)
                else:
                    connection.close()
            raise
        else:
            connection.used = self.runtime.now()
            self._idle.append(connection)
        finally:
            self._free.release()

    def _rested(self) -> Connection | None:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:  # perhaps only now: other threads take from it, too
                return None
            rest = self.runtime.now() - connection.used
            good = rest < IDLE and connection.epoch == self.epoch
            if good and (rest < FRESH or not connection.stale):
                return connection
            connection.close()

    def close(self) -> None:
        """Close what rests; calls that follow connect anew."""
        while self._idle:
            with contextlib.suppress(IndexError):  # other threads take from it, too
                self._idle.pop().close()

    # calls -------------------------------------------------------------------------------

    def call(self, script: Script, *args: Any) -> Any:
        """What *script* returns. For scripts that may happen twice: it is repeated once.

        :raises BrokerUnavailable: Redis is away, refuses, or does not answer.
        """
        try:
            return self._call(script, args)
        except FAILURES:
            try:
                return self._call(script, args)
            except FAILURES as again:
                raise BrokerUnavailable(f"Redis at {self.where}: {_short(again)}") from again

    def _call(self, script: Script, args: Sequence[Any]) -> Any:
        with self._one() as connection, _refusals(self.where):
            try:
                return _run(connection.wire, script, self.base, args)
            except ResponseError as error:
                if not _is_lost(error):
                    raise
            self._greet(connection)
            return _run(connection.wire, script, self.base, args)

    def _greet(self, connection: Connection) -> None:
        """Begin a new epoch: all keys were deleted under a Redis that went on."""
        greeting = self._hello(connection.wire)
        connection.epoch = greeting.epoch
        self.turn_to(greeting.epoch)
        self._greeted(greeting)

    def publish(self, script: Script, *args: Any) -> Any:
        """The same for a script that must not happen twice; it gets slot and number.

        :raises BrokerUnavailable: it did not happen.
        :raises PublishUnknown: it may have happened.
        """
        slot, number, epoch = "", 0, ""
        lost: BaseException
        try:
            with self._one() as connection, _refusals(self.where):
                slot, number = connection.slot, next(connection.numbers)
                epoch = connection.epoch
                try:
                    return _run(connection.wire, script, self.base, (*args, slot, number))
                except ResponseError as error:
                    if not _is_lost(error):
                        raise
                self._greet(connection)
                return _run(connection.wire, script, self.base, (*args, slot, number))
        except FAILURES as error:
            lost = error  # sent, perhaps; Redis knows the number, if it is the same one
        self.close()  # what rests may be as dead
        with contextlib.suppress(BrokerUnavailable, *FAILURES), self._one() as connection:
            if connection.epoch == epoch:
                with _refusals(self.where):
                    return _run(connection.wire, script, self.base, (*args, slot, number))
        raise PublishUnknown(
            f"Redis at {self.where} did not answer ({_short(lost)}): the event may have been sent"
        ) from lost


def _run(wire: Any, script: Script, base: str, args: Sequence[Any]) -> Any:
    head = script.heads.get((base, len(args)))
    if head is None:
        head = _packed(f"*{len(args) + 4}\r\n".encode(), ("EVALSHA", script.sha, 1, base))
        script.heads[base, len(args)] = head
    wire.send_packed_command([_packed(head, args)])
    try:
        return wire.read_response()
    except NoScriptError:  # nothing happened: Redis does not know it yet
        wire.send_command("EVAL", script.text, 1, base, *args)
        return wire.read_response()


def _packed(head: bytes, args: Iterable[Any]) -> bytes:
    """A command as RESP has it, *args* behind *head*; redis-py's own takes thrice as long."""
    parts = [head]
    for arg in args:
        data = arg if type(arg) is bytes else str(arg).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


@contextlib.contextmanager
def _refusals(where: str) -> Iterator[None]:
    """What Redis says no to (out of memory, loading, a replica) did not happen."""
    try:
        yield
    except ResponseError as error:
        raise BrokerUnavailable(f"Redis at {where} refuses: {_short(error)}") from error


def _is_lost(error: ResponseError) -> bool:
    """Whether a script did nothing, for want of a counter or for the schema in use: HELLO says."""
    return str(error).startswith(("NOEPOCH", "SCHEMA"))


def _goes_on(error: BaseException) -> bool:
    """Whether a connection is as good as before, with an answer read to its end."""
    return isinstance(error, ResponseError | BrokerError) and not _is_replica(error)


def _is_replica(error: BaseException) -> bool:
    """Whether it is a replica that refused to write; Redis 6.2 has no error of its own for it."""
    cause = error.__cause__
    return isinstance(cause, ResponseError) and "read only replica" in str(cause)


def _short(error: BaseException) -> str:
    text = _SCRIPT.sub("", " ".join(str(error).split()))
    if "unauthenticated" in text:  # said of a command with more than ten arguments, as HELLO
        text = "Authentication required: put the password into the URL"
    return text[:200] or type(error).__name__

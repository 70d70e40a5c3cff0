"""Clients by the thousand in one thread: raw sockets, epoll, prepared bytes.

They are to cost less than any server they talk to; how the bytes come about is in dialects.py.
"""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Callable, Iterable
from time import perf_counter

from .dialects import EVENT_MARK, NOTHING, Dialect, Opening, Step, get

READ = 1 << 18
PATIENCE = 30.0  # seconds without any answer, after which a run is given up
TICK = 0.001  # seconds: epoll waits in whole milliseconds, so the last one is not slept


class Lost(Exception):
    """One scenario of one server cannot be measured: it closed a connection, or fell silent."""


class Client:
    """One connection and what it waits for."""

    __slots__ = (
        "answer",
        "got",
        "hears",
        "mark",
        "may_go",
        "on_mark",
        "opening",
        "request",
        "sent_at",
        "sock",
        "step",
        "tail",
    )

    def __init__(self, sock: socket.socket, opening: Opening) -> None:
        self.sock = sock
        self.opening: Opening | None = opening
        self.request: list[Step] = []
        self.step = 0
        self.mark = NOTHING
        self.tail = b""  # of what came, where half a mark may stand
        self.answer = b""  # while opening: all of it since the last step
        self.got = 0  # marks
        self.sent_at = 0.0
        self.may_go = False  # the server may hang up: it has said what it had to
        self.on_mark: Callable[[Client, int], object] | None = None
        self.hears = self  # where answers to its requests arrive


class Load:
    """The clients of one server."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.clients: list[Client] = []
        self._epoll = select.epoll()
        self._by_fd: dict[int, Client] = {}
        self._opened: Callable[[Client], object] = lambda client: None
        self._dialect = Dialect(lambda n: iter(()))  # type: ignore[arg-type,return-value]
        self.beside: Callable[[], object] | None = None  # called between reads

    # opening and closing ------------------------------------------------------------------------

    def open(
        self, dialect: Dialect, count: int, *, first: int = 0, at_once: int = 50
    ) -> list[Client]:
        """*count* clients, numbered from *first*, of which *at_once* open at the same time."""
        self._dialect = dialect
        made: list[Client] = []
        pending = iter(range(first, first + count))

        def more(_: object = None) -> None:
            n = next(pending, None)
            if n is not None:
                made.append(self._connect(dialect, n))

        left = count

        def opened(client: Client) -> None:
            nonlocal left
            left -= 1
            more()

        self._opened = opened
        for _ in range(min(count, at_once)):
            more()
        self.pump(lambda: left == 0)
        self.clients += made
        return made

    def _connect(self, dialect: Dialect, n: int) -> Client:
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        client = Client(sock, dialect.open(n))
        self._by_fd[sock.fileno()] = client
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        self._advance(client)
        return client

    def _advance(self, client: Client) -> None:
        """The next step of an opening."""
        assert client.opening is not None
        answer, client.answer, client.tail = client.answer, b"", b""
        while True:
            try:
                step = client.opening.send(answer) if client.mark else next(client.opening)
            except StopIteration as end:
                client.request = end.value
                client.opening = None
                client.mark = EVENT_MARK
                self._opened(client)
                return
            self._send(client, step.data)
            client.mark = step.mark
            if step.mark:
                return

    def close(self, clients: Iterable[Client] | None = None, *, abruptly: bool = False) -> None:
        """Hang up; *abruptly*: as where a network goes, by a reset."""
        for client in list(self.clients if clients is None else clients):
            self._epoll.unregister(client.sock.fileno())
            del self._by_fd[client.sock.fileno()]
            if abruptly:
                option = struct.pack("ii", 1, 0)
                client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
            client.sock.close()
        gone = set(map(id, self.clients if clients is None else clients))
        self.clients = [client for client in self.clients if id(client) not in gone]

    # moving bytes -------------------------------------------------------------------------------

    def _send(self, client: Client, data: bytes) -> None:
        while data:
            try:
                data = data[client.sock.send(data) :]
            except BlockingIOError:
                # Only a message larger than the socket's buffer: wait until there is room.
                select.select((), (client.sock,), (), PATIENCE)

    def pump(self, done: Callable[[], bool], until: float | None = None) -> bool:
        """Read until *done*, or the time is over; whether it was done."""
        poll = self._epoll.poll
        by_fd = self._by_fd
        last = perf_counter()
        while not done():
            wait = 1.0
            if until is not None:
                left = until - perf_counter()
                if left <= 0:
                    return False
                wait = min(max(0.0, left - TICK), 1.0)
            if self.beside is not None:
                self.beside()
                wait = min(wait, 0.005)
            ready = poll(wait)
            if ready:
                last = perf_counter()
            elif until is None and perf_counter() - last > PATIENCE:
                raise Lost(f"no answer from port {self.port} for {PATIENCE:g} s")
            for fd, _ in ready:
                client = by_fd.get(fd)
                if client is None:
                    continue
                try:
                    data = client.sock.recv(READ)
                except BlockingIOError:
                    continue
                except OSError:
                    data = b""
                if not data:
                    if client.may_go:
                        self._epoll.modify(fd, 0)
                        continue
                    raise Lost(f"the server on port {self.port} hung up: {client.answer!r}")
                self._received(client, data)
        return True

    def _received(self, client: Client, data: bytes) -> None:
        mark = client.mark
        if client.opening is not None:
            client.answer += data
            if mark in client.answer:
                self._advance(client)
            return
        ping = self._dialect.ping
        if ping and ping in data:
            self._send(client, self._dialect.pong)
        seen = client.tail + data if client.tail else data
        count = seen.count(mark)
        # The end may be the beginning of the next mark, but not behind a bracket: none has any.
        keep = len(mark) - 1
        client.tail = seen[-keep:] if seen[-1:] != b"]" else b""
        if count:
            client.got += count
            if client.on_mark is not None:
                client.on_mark(client, count)

    # what they do -------------------------------------------------------------------------------

    def ask(self, client: Client, replied: Callable[[Client], object]) -> None:
        """Send a request; *replied* is called with *client* at its answer."""
        client.step = 0
        client.sent_at = perf_counter()
        steps = client.request

        def answered(hearer: Client, count: int) -> None:
            hearer.tail = b""
            client.step += 1
            if client.step < len(steps):
                step = steps[client.step]
                hearer.mark = step.mark
                self._send(client, step.data)
            else:
                hearer.on_mark = None
                hearer.mark = EVENT_MARK
                replied(client)

        client.hears.on_mark = answered
        client.hears.mark = steps[0].mark
        self._send(client, steps[0].data)

    def ask_in_turn(self, clients: list[Client], seconds: float) -> list[float]:
        """Each client asks as soon as it was answered, for *seconds*; latencies in seconds."""
        latencies: list[float] = []
        until = perf_counter() + seconds
        asking = len(clients)

        def replied(client: Client) -> None:
            nonlocal asking
            now = perf_counter()
            latencies.append(now - client.sent_at)
            if now < until:
                self.ask(client, replied)
            else:
                asking -= 1

        for client in clients:
            self.ask(client, replied)
        self.pump(lambda: asking == 0)
        return latencies

    def ask_at_rate(self, clients: list[Client], rate: float, seconds: float) -> list[float]:
        """*rate* requests a second, whoever is free; latencies in seconds.

        A request that found no client free counts from when it was due.
        """
        latencies: list[float] = []
        free = list(clients)
        start = perf_counter()
        due = {}
        for number in range(int(rate * seconds)):
            when = start + number / rate
            self.pump(lambda: False, when)
            if not free:
                self.pump(lambda: bool(free))
            client = free.pop(0)
            due[client] = when

            def replied(client: Client) -> None:
                latencies.append(perf_counter() - due[client])
                free.append(client)

            self.ask(client, replied)
        self.pump(lambda: len(free) == len(clients))
        return latencies

    def count_events(self, clients: list[Client], wanted: int, path: str) -> float:
        """Have the server send events; seconds until *wanted* of them have come in all."""
        before = sum(client.got for client in clients)
        left = wanted

        def got(client: Client, count: int) -> None:
            nonlocal left
            left -= count

        for client in clients:
            client.mark, client.tail, client.on_mark = EVENT_MARK, b"", got
        start = perf_counter()
        with self.command(path) as finished:
            self.pump(lambda: left <= 0 and finished())
        for client in clients:
            client.on_mark = None
        came = sum(client.got for client in clients) - before
        if came != wanted:
            raise Lost(f"{came} events came, not {wanted}")
        return perf_counter() - start

    def command(self, path: str) -> Command:
        """A request of this process's own, beside the clients."""
        return Command(self, path)


class Command:
    """One GET whose answer is not waited for; called, it says whether that has come."""

    def __init__(self, load: Load, path: str) -> None:
        self._load = load
        self._path = path
        self._done = False

    def __enter__(self) -> Command:
        sock = socket.create_connection(("127.0.0.1", self._load.port), timeout=PATIENCE)
        sock.setblocking(False)

        def no_opening() -> Opening:
            return []
            yield  # pragma: no cover

        client = self._client = Client(sock, no_opening())
        client.opening = None
        client.mark = b"done"
        client.on_mark = self._finish
        self._load._by_fd[sock.fileno()] = client
        self._load._epoll.register(sock.fileno(), select.EPOLLIN)
        sock.send(get(self._path))
        return self

    def _finish(self, client: Client, count: int) -> None:
        self._done = client.may_go = True

    def __call__(self) -> bool:
        return self._done

    def __exit__(self, *args: object) -> None:
        self._load.close([self._client])

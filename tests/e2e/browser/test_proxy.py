"""The proxy of these tests, itself tested: against a server that echoes bytes."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.proxy import Proxy
from tests.process import eventually, free_port

PLAIN = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nupgrade: WebSocket\r\n\r\n"
BOUND = 30.0  # seconds any socket here may block


class Echo:
    """Sends back what it gets; keeps its connections so that a test can look at their ends."""

    def __init__(self, greeting: bytes = b"") -> None:
        self.greeting = greeting
        self.connections: list[socket.socket] = []
        self.ended: list[str] = []  # how: "closed" or "reset"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(BOUND)
            self.connections.append(connection)
            self._threads.append(
                threading.Thread(target=self._echo, args=[connection], daemon=True)
            )
            self._threads[-1].start()

    def _echo(self, connection: socket.socket) -> None:
        try:
            while data := connection.recv(65536):
                connection.sendall(self.greeting + data)
            self.ended.append("closed")
        except OSError:
            self.ended.append("reset")
        connection.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(BOUND)


@pytest.fixture
def start_echo() -> Iterator[Callable[..., Echo]]:
    started: list[Echo] = []

    def start(greeting: bytes = b"") -> Echo:
        started.append(Echo(greeting))
        return started[-1]

    yield start
    for echo in started:
        echo.close()


@pytest.fixture
def echo(start_echo: Callable[..., Echo]) -> Echo:
    return start_echo()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy(echo.port) as proxy:
        yield proxy


@pytest.fixture
def connect(proxy: Proxy) -> Iterator[Callable[[], socket.socket]]:
    opened: list[socket.socket] = []

    def connect() -> socket.socket:
        opened.append(socket.create_connection(("127.0.0.1", proxy.port), timeout=BOUND))
        return opened[-1]

    yield connect
    for sock in opened:
        sock.close()
    proxy.close()  # before the echo server, whose threads wait for the end of these


Connect = Callable[[], socket.socket]


def take(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := sock.recv(count - len(data))):
        data += more
    return data


def request(sock: socket.socket, head: bytes = PLAIN) -> bytes:
    sock.sendall(head)
    return take(sock, len(head))


def test_bytes_pass_both_ways(connect: Connect) -> None:
    client = connect()
    assert request(client) == PLAIN
    client.sendall(b"more")
    assert take(client, 4) == b"more"


def test_megabytes_pass_a_slow_reader(connect: Connect) -> None:
    client = connect()
    body = bytes(range(256)) * 8192
    writer = threading.Thread(target=client.sendall, args=[PLAIN + body])
    writer.start()
    assert take(client, len(PLAIN) + len(body)) == PLAIN + body
    writer.join()


def test_a_head_in_pieces_passes_whole(connect: Connect) -> None:
    client = connect()
    client.sendall(PLAIN[:10])
    client.sendall(PLAIN[10:-1])
    client.sendall(PLAIN[-1:])
    assert take(client, len(PLAIN)) == PLAIN


def test_the_end_of_one_side_reaches_the_other(connect: Connect, echo: Echo, proxy: Proxy) -> None:
    client = connect()
    request(client)
    client.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b""
    eventually(lambda: (echo.ended, proxy.open) == (["closed"], 0))


def test_a_cut_resets_both_ends_and_turns_away(connect: Connect, echo: Echo, proxy: Proxy) -> None:
    client = connect()
    request(client)
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with pytest.raises(ConnectionResetError):  # while connecting, or right after
        connect().recv(1)
    eventually(lambda: echo.ended == ["reset"])
    assert (proxy.open, proxy.accepted, proxy.turned_away) == (0, 1, 1)
    proxy.restore()
    assert request(connect()) == PLAIN


def test_what_hangs_arrives_after_all(connect: Connect, proxy: Proxy) -> None:
    old = connect()
    request(old)
    proxy.hang()
    new = connect()
    old.sendall(b"late")
    new.sendall(PLAIN)
    for client in (old, new):
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(BOUND)
    proxy.restore()
    assert (take(old, 4), take(new, len(PLAIN))) == (b"late", PLAIN)


def test_a_cut_loses_what_hung(connect: Connect, echo: Echo, proxy: Proxy) -> None:
    client = connect()
    request(client)
    proxy.hang()
    client.sendall(b"lost")
    proxy.cut()
    proxy.restore()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    eventually(lambda: echo.ended == ["reset"])


def test_the_server_does_not_hear_of_a_client_that_vanished(
    connect: Connect, echo: Echo, proxy: Proxy
) -> None:
    client = connect()
    request(client)
    proxy.vanish()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert request(connect()) == PLAIN  # the server had its time to hear
    assert echo.ended == []


def test_idle_connections_end_and_busy_ones_stay(connect: Connect, proxy: Proxy) -> None:
    idle, busy = connect(), connect()
    request(idle)
    proxy.idle = 2.0  # and a request takes some milliseconds
    idle.setblocking(False)
    closed = False
    while not closed:
        assert request(busy) == PLAIN
        with contextlib.suppress(BlockingIOError):
            closed = idle.recv(1) == b""
    assert request(busy) == PLAIN


def test_refused_upgrades_are_answered_with_the_status(connect: Connect, proxy: Proxy) -> None:
    proxy.upgrades, proxy.refusal = "refuse", 400
    client = connect()
    client.sendall(UPGRADE)
    expected = b"HTTP/1.1 400 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    assert take(client, 1000) == expected
    client.close()
    eventually(lambda: proxy.open == 0)
    assert request(connect()) == PLAIN
    assert (proxy.accepted, proxy.upgraded) == (2, 1)


def test_hanging_upgrades_get_no_answer(connect: Connect, echo: Echo, proxy: Proxy) -> None:
    proxy.upgrades = "hang"
    client = connect()
    client.sendall(UPGRADE)
    client.settimeout(0.1)
    with pytest.raises(TimeoutError):
        client.recv(1)
    assert (proxy.open, proxy.upgraded, echo.connections) == (1, 1, [])
    client.close()
    eventually(lambda: proxy.open == 0)


def test_stripped_upgrades_arrive_as_plain_requests(connect: Connect, proxy: Proxy) -> None:
    proxy.upgrades = "strip"
    client = connect()
    client.sendall(UPGRADE)
    client.shutdown(socket.SHUT_WR)
    assert take(client, 1000) == b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"


def test_muted_upgrades_bring_the_answers_head_alone(
    start_echo: Callable[..., Echo], proxy: Proxy
) -> None:
    head = b"HTTP/1.1 101 Yes\r\n\r\n"
    proxy.upgrades = "mute"
    proxy.backends = [start_echo(head).port]
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=BOUND) as client:
        client.sendall(UPGRADE)
        assert take(client, len(head)) == head
        client.sendall(b"frame")
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(1)


def test_connections_take_turns_among_backends(
    connect: Connect, start_echo: Callable[..., Echo], proxy: Proxy
) -> None:
    backends = [start_echo(), start_echo()]
    proxy.backends = [backend.port for backend in backends]
    for _ in range(4):
        assert request(connect()) == PLAIN
    assert [len(backend.connections) for backend in backends] == [2, 2]


def test_one_request_asks_the_server_to_close(connect: Connect, proxy: Proxy) -> None:
    proxy.one_request = True
    client = connect()
    client.sendall(PLAIN)
    client.shutdown(socket.SHUT_WR)
    assert take(client, 1000) == b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    assert request(connect(), UPGRADE) == UPGRADE


def test_a_backend_that_is_down_resets_the_client(connect: Connect, proxy: Proxy) -> None:
    proxy.backends = [free_port()]
    client = connect()
    with pytest.raises(ConnectionError):
        request(client)
        client.recv(1)
    eventually(lambda: proxy.open == 0)


def test_closing_twice_closes(proxy: Proxy) -> None:
    proxy.close()
    proxy.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port), timeout=BOUND)

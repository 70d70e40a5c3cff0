"""``flask chsk serve`` and ``chsk.run``: what they say, and how they end."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest
import websocket

from flask_chsk.cli import commands
from tests.peer import Closed, Peer
from tests.process import ROOT, START, WAIT, eventually
from tests.readme import named_blocks, write_application, write_files
from tests.servers import SECURE_KINDS, WsgiServer, running, trusting

APP = "tests.e2e.apps.served:app"
Serve = Callable[..., WsgiServer]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start a server of some kind; its log has no traceback at the end."""
    with ExitStack() as stack:

        def serve(kind: str = "flask-chsk-serve", app: str = APP, **env: str) -> WsgiServer:
            server = stack.enter_context(running(kind, app, tmp_path / "log", env))
            servers.append(server)
            return server

        servers: list[WsgiServer] = []
        yield serve
    for server in servers:
        assert server.tracebacks == 0, server.log


@contextmanager
def asked(server: WsgiServer, path: str) -> Iterator[HTTPResponse]:
    """An answer of which the body has not been read, on a connection that is kept."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=WAIT)
    with closing(connection):
        connection.request("GET", path)
        with connection.getresponse() as answer:
            yield answer


# how it ends ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("flask-chsk-serve", signal.SIGTERM),
        ("chsk-run", signal.SIGINT),
        ("flask-chsk-serve-tls", signal.SIGTERM),
    ],
)
def test_a_signal_closes_with_1012_and_the_exit_status_is_0(
    serve: Serve, kind: str, number: int, tmp_path: Path
) -> None:
    server = serve(kind)
    tls = trusting(tmp_path) if kind in SECURE_KINDS else None
    peer = Peer(server.port, tls=tls, uid="ann", v="1")
    peer.open()
    server.kill(number)
    with pytest.raises(Closed) as closed:
        peer.read()
    peer.cut()
    assert (closed.value.code, closed.value.reason) == (1012, "spread=2")
    assert server.stop(0) == 0


def test_a_request_that_runs_is_finished_and_no_other_is_taken(serve: Serve) -> None:
    server = serve()
    idle = HTTPConnection("127.0.0.1", server.port, timeout=WAIT)
    with closing(idle), asked(server, "/slow") as running:
        idle.request("GET", "/quick")
        with idle.getresponse() as answer:
            assert (answer.read(), answer.will_close) == (b"done", False)
        assert running.read(6) == b"begun "
        server.kill(signal.SIGTERM)
        assert idle.sock.recv(1) == b""  # told at once that it gets no other request
        assert is_refused(server.port)
        assert running.read() == b"done"
        assert server.stop(0) == 0


def test_a_request_that_does_not_end_is_cut_off_at_the_timeout(serve: Serve) -> None:
    server = serve(FLASK_CHSK_SERVE_GRACEFUL_TIMEOUT="0.5")
    with asked(server, "/endless") as answer:
        assert answer.read(5) == b"more "
        server.kill(signal.SIGTERM)
        assert server.stop(0) == 0


def test_a_second_ctrl_c_waits_for_nothing(serve: Serve) -> None:
    server = serve()
    with asked(server, "/endless") as answer:
        assert answer.read(5) == b"more "
        server.kill(signal.SIGINT)
        eventually(lambda: is_refused(server.port))
        assert server.running
        assert server.stop(signal.SIGINT) == 130


def is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), WAIT).close()
    except ConnectionRefusedError:
        return True
    return False


# what it serves ------------------------------------------------------------------------------


def test_a_websocket_of_the_applications_own_is_gevent_websockets(serve: Serve) -> None:
    server = serve()
    peer = Peer(server.port, uid="ann", v="1")
    peer.open()
    own = websocket.create_connection(f"ws://127.0.0.1:{server.port}/own", timeout=WAIT)
    own.send("hello")
    assert own.recv() == "own hello"
    assert peer.ask("[:chsk/ws-ping]") == "pong"
    server.kill(signal.SIGTERM)
    assert own.recv() == ""  # its close frame
    own.shutdown()
    peer.cut()
    assert server.stop(0) == 0


def test_a_websocket_without_a_route_is_answered_with_a_status(serve: Serve) -> None:
    server = serve()
    with socket.create_connection(("127.0.0.1", server.port), WAIT) as wire:
        wire.sendall(
            b"GET /nothing HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert wire.recv(1024).startswith(b"HTTP/1.1 404 ")


def test_who_speaks_no_tls_is_no_error_of_the_server(serve: Serve) -> None:
    server = serve("flask-chsk-serve-tls")
    with socket.create_connection(("127.0.0.1", server.port), WAIT) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with suppress(ConnectionResetError):
            while plain.recv(1024):
                pass


def test_each_request_is_in_the_access_log_a_websocket_too(serve: Serve) -> None:
    server = serve()
    with asked(server, "/quick?a=1") as answer:
        answer.read()
    peer = Peer(server.port, uid="ann", v="1")
    peer.open()
    server.wait_for_log(r'127\.0\.0\.1 .*"GET /quick\?a=1 HTTP/1\.1" 200 ')
    server.wait_for_log(r'"GET /chsk\?.* HTTP/1\.1" 101 ')
    peer.cut()


def test_what_happens_is_printed_where_it_is_asked_for(serve: Serve) -> None:
    server = serve(FLASK_CHSK_SERVE_TRACE="1")
    peer = Peer(server.port, uid="ann", v="1")
    peer.open()
    server.wait_for_log(rf"open    uid 'ann' client {peer.params['client-id']} ws\n")
    peer.cut()


# how it is started ---------------------------------------------------------------------------


def run(*command: str) -> tuple[int, str]:
    """How a command ends that does not serve: its status and its last words."""
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stderr


def test_a_port_in_use_is_an_error_of_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, said = run("-m", "flask", "--app", APP, "chsk", "serve", "--port", str(port))
    assert (status, said) == (
        1,
        f"Error: cannot listen on port {port} of 127.0.0.1: another program uses it. Choose"
        " another port (port=…, or flask chsk serve --port …)\n",
    )


def test_a_script_that_is_not_patched_says_how_to_start_it() -> None:
    status, said = run("-m", "tests.e2e.apps.served")
    assert status == 1
    assert "\n    flask --app tests.e2e.apps.served chsk serve\n" in said
    assert "\n    from gevent import monkey\n    monkey.patch_all()\n" in said


def test_the_command_starts_with_everything_patched(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "patched.py").write_text(
        "from gevent.monkey import is_module_patched\n"
        "print('patched', is_module_patched('threading'))\n"
        f"from {APP.partition(':')[0]} import app\n"
    )
    server = serve(app="patched", PYTHONPATH=f"{tmp_path}:{ROOT}")
    server.wait_for_log("patched True")
    assert "MonkeyPatchWarning" not in server.log


def test_flask_app_names_the_application(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flask", "chsk", "serve", "--port", "0"]
    server = WsgiServer(command, tmp_path / "log", {"FLASK_APP": APP})
    with asked(server, "/quick") as answer:
        assert answer.read() == b"done"
    assert server.stop() == 0


# what the guide shows -------------------------------------------------------------------------


@pytest.fixture
def guide(tmp_path: Path) -> Path:
    """A folder with the README's application, and what docs/servers.rst adds to it."""
    shown = named_blocks((ROOT / "docs/servers.rst").read_text(encoding="utf-8"))
    write_application(tmp_path)
    write_files({name: shown[name] for name in ("serve.py", "own.py")}, tmp_path)
    return tmp_path


def test_the_script_of_the_guide_serves_the_readmes_application(guide: Path) -> None:
    server = WsgiServer([sys.executable, str(guide / "serve.py")], guide / "log", {"PORT": "0"})
    with asked(server, "/") as answer:
        assert b"Your name" in answer.read()
    assert (server.stop(), server.tracebacks) == (0, 0)


def test_the_route_of_the_guide_has_a_websocket(serve: Serve, guide: Path) -> None:
    server = serve(app="own", PYTHONPATH=str(guide))
    own = websocket.create_connection(f"ws://127.0.0.1:{server.port}/echo", timeout=WAIT)
    own.send("hello")
    assert own.recv() == "hello"
    own.shutdown()


def test_the_guide_lists_every_option(guide: Path) -> None:
    listed = (ROOT / "docs/servers.rst").read_text(encoding="utf-8")
    for parameter in commands.commands["serve"].params:
        for option in (*parameter.opts, *parameter.secondary_opts):
            given = {"--access-log": "--no-access-log"}.get(option, option)  # the default
            assert option.startswith("-") and (len(option) == 2 or f"``{given}``" in listed)


# --reload ------------------------------------------------------------------------------------


def test_the_reloader_serves_what_has_changed_and_ends_gracefully(tmp_path: Path) -> None:
    app = tmp_path / "reloaded.py"
    code = f"from {APP.partition(':')[0]} import app\nVERSION = 1\n"
    code += "app.add_url_rule('/version', 'version', lambda: str(VERSION))\n"
    app.write_text(code)
    flask = [sys.executable, "-m", "flask", "--app", "reloaded", "--debug"]
    env = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    log = tmp_path / "log"
    server = WsgiServer([*flask, "chsk", "serve", "--port", "0"], log, env)
    try:
        peer = Peer(server.port, uid="ann", v="1")
        peer.open()
        app.write_text(code.replace("VERSION = 1", "VERSION = "))
        with pytest.raises(Closed) as closed:
            peer.read()
        peer.cut()
        assert closed.value.code == 1012
        eventually(lambda: server.log.count("Serving on") == 2, START)
        assert "SyntaxError" in server.log  # shown, and the next change is waited for
        app.write_text(code.replace("VERSION = 1", "VERSION = 2"))
        eventually(lambda: server.log.count("Serving on") == 3, START)
        server.port = int(server.wait_for_log(r"http://127\.0\.0\.1:(\d+)")[1])
        with asked(server, "/version") as answer:
            assert answer.read() == b"2"
    finally:
        assert server.stop() == 0

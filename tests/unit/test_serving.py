"""``chsk.run`` and ``flask chsk serve``: what is decided before anything listens."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from click.testing import Result
from flask import Flask

from flask_chsk import Chsk, ConfigError, UsageError, serving
from flask_chsk.serving import Handler, Options, Server


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Flask:
    """An application with channel sockets and a WebSocket of its own, not run by ``flask``."""
    monkeypatch.delenv("FLASK_RUN_FROM_CLI", raising=False)
    app = Flask("app")
    app.secret_key = "for tests"
    app.add_url_rule("/own", "own", lambda: "", websocket=True)
    app.add_url_rule("/plain", "plain", lambda: "")
    Chsk(app)
    return app


@pytest.fixture
def server(app: Flask) -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), app, app)
    yield server
    server.close()


UPGRADE = {"HTTP_UPGRADE": "WebSocket", "HTTP_CONNECTION": "Upgrade"}


@pytest.mark.parametrize(
    ("path", "headers", "by_itself"),
    [
        ("/chsk", UPGRADE, True),
        ("/own", UPGRADE, False),
        ("/nothing", UPGRADE, True),
        ("/plain", UPGRADE, True),
        ("/plain", {}, True),
        ("/own", {}, True),
    ],
)
def test_only_websockets_of_other_routes_are_gevent_websockets(
    app: Flask, server: Server, path: str, headers: dict[str, str], by_itself: bool
) -> None:
    with app.test_request_context(path, environ_overrides=headers) as context:
        handler: Any = SimpleNamespace(environ=context.request.environ)
    assert server.pre_start_hook(handler) is by_itself


def test_an_application_that_could_not_be_loaded_answers_by_itself() -> None:
    server = Server(("127.0.0.1", 0), None, lambda environ, start_response: [])
    handler: Any = SimpleNamespace(environ={"PATH_INFO": "/own", **UPGRADE})
    assert server.pre_start_hook(handler) is True
    server.close()


def test_a_connection_of_a_server_that_ends_gets_no_other_request(server: Server) -> None:
    server.ending = True
    handler = Handler.__new__(Handler)
    handler.server = server
    assert handler.read_requestline() == ""


@pytest.mark.parametrize(
    ("request_version", "headers", "status"),
    [
        ("HTTP/1.0", {}, "402"),
        ("HTTP/1.1", {}, "426"),
        ("HTTP/1.1", {"HTTP_SEC_WEBSOCKET_VERSION": "5"}, "400"),
        ("HTTP/1.1", {"HTTP_SEC_WEBSOCKET_VERSION": "13"}, "400"),
        ("HTTP/1.1", {"HTTP_SEC_WEBSOCKET_VERSION": "13", "HTTP_SEC_WEBSOCKET_KEY": "x"}, "400"),
    ],
)
def test_a_websocket_of_a_route_that_cannot_open_is_answered(
    server: Server, request_version: str, headers: dict[str, str], status: str
) -> None:
    said = []
    handler = Handler.__new__(Handler)
    handler.server, handler.request_version = server, request_version
    handler.environ = {"REQUEST_METHOD": "GET", **UPGRADE, **headers}
    handler.start_response = lambda status, headers: said.append(status)
    [body] = handler.upgrade_websocket() or []
    assert isinstance(body, bytes)
    assert said[0].startswith(status)


def test_a_peer_that_does_not_end_its_tls_handshake_is_not_waited_for(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(serving, "HANDSHAKE", 0.01)
    monkeypatch.setattr(
        server, "wrap_socket", lambda sock, server_side: gevent.sleep(60), raising=False
    )
    unused: Any = None
    with gevent.Timeout(30), caplog.at_level(logging.DEBUG, "flask_chsk"):
        server.wrap_socket_and_handle(unused, ("127.0.0.1", 7))
    assert "no TLS with ('127.0.0.1', 7): no handshake in 0.01 seconds" in caplog.text


# how it is started ---------------------------------------------------------------------------


def test_a_process_that_is_not_patched_is_told_how_to_start(app: Flask) -> None:
    with pytest.raises(UsageError, match=r"not patched.*\n\n    flask --app pytest chsk serve\n"):
        Chsk().run(app)


def test_a_process_that_is_patched_goes_on(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "is_patched", lambda: True)
    with pytest.raises(UsageError, match=r"call chsk\.init_app"):
        Chsk().run(Flask("other"))
    with pytest.raises(ConfigError, match="keyfile needs a certfile"):
        Chsk().run(app, keyfile="key.pem")
    with pytest.raises(ConfigError, match=r"no certificate in gone\.pem: .*No such file"):
        Chsk().run(app, certfile="gone.pem")


def test_debug_switches_reloader_and_debugger_on(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Options] = []
    monkeypatch.setattr(serving, "serve", lambda load, options: seen.append(options))
    Chsk().run(app)
    Chsk().run(app, debug=True)
    Chsk().run(app, use_debugger=False, port=8000)
    assert [(one.use_reloader, one.use_debugger, one.port) for one in seen] == [
        (False, False, 5000),
        (True, True, 5000),
        (True, False, 8000),
    ]


def test_a_call_while_flask_imports_the_script_does_nothing(
    app: Flask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FLASK_RUN_FROM_CLI", "true")
    Chsk().run(app)
    assert "if __name__ == '__main__'" in caplog.text


@pytest.mark.parametrize(
    ("main", "argv", "program"),
    [
        (None, ["/bin/flask", "chsk", "serve"], ["/bin/flask"]),
        ("flask.__main__", ["/flask/__main__.py", "chsk", "serve"], ["--module", "flask"]),
    ],
)
def test_the_command_is_started_again_as_it_was_but_patched(
    monkeypatch: pytest.MonkeyPatch, main: str | None, argv: list[str], program: list[str]
) -> None:
    spec = None if main is None else SimpleNamespace(name=main)
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=spec))  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "argv", argv)
    python, *words = serving.patched_again()
    start = words.index("gevent.monkey") - 1
    assert python == sys.executable
    assert words[start:] == ["-m", "gevent.monkey", *program, "chsk", "serve"]


def invoke(app: Flask, *args: str) -> Result:
    return app.test_cli_runner().invoke(args=["chsk", "serve", *args])


def test_the_command_has_the_options_of_flask_run(
    app: Flask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Options] = []
    monkeypatch.setattr(serving, "is_patched", lambda: True)
    monkeypatch.setattr(serving, "serve", lambda load, options: seen.append(options))
    monkeypatch.setenv("FLASK_DEBUG", "1")
    cert = tmp_path / "cert.pem"
    cert.touch()
    ran = invoke(app, "--host", "::1", "-p", "8000", "--cert", str(cert), "--no-debugger")
    assert (ran.exit_code, ran.output) == (0, "")
    assert seen == [
        Options(host="::1", port=8000, certfile=str(cert), use_reloader=True, use_debugger=False)
    ]


def test_what_is_wrong_is_an_error_of_one_line(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "is_patched", lambda: True)
    ran = invoke(app, "--key", __file__)
    assert ran.exit_code == 1
    assert ran.output.startswith("Error: keyfile needs a certfile")


def test_the_command_starts_again_where_it_is_not_patched(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Replaced(Exception):
        pass

    def execv(path: str, command: list[str]) -> None:
        assert command[0] == path == sys.executable
        raise Replaced

    monkeypatch.setattr("os.execv", execv)
    assert isinstance(invoke(app).exception, Replaced)


@pytest.mark.parametrize("port", [70_000, -1, "5000"])
def test_what_is_no_port_is_said(app: Flask, port: Any) -> None:
    server = Server(("127.0.0.1", port), app, app)
    with pytest.raises(UsageError, match=f"a port is an int from 0 to 65535, not {port!r}"):
        serving._listen(server, Options(port=port))


def test_a_host_that_is_not_found_is_said() -> None:
    def start() -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    fake: Any = SimpleNamespace(start=start)
    with pytest.raises(UsageError, match="cannot listen on my-host: Name or service not known"):
        serving._listen(fake, Options(host="my-host"))


# what it prints ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "tls", "shown"),
    [
        ("127.0.0.1", False, " * Serving on http://127.0.0.1:81 (Ctrl-C ends it)\n"),
        ("::1", True, " * Serving on https://[::1]:81 (Ctrl-C ends it)\n"),
        (
            "0.0.0.0",
            False,
            " * Serving on http://127.0.0.1:81, and on every other address of this machine"
            " (Ctrl-C ends it)\n",
        ),
    ],
)
def test_the_url_is_printed(
    host: str, tls: bool, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fake: Any = SimpleNamespace(start=lambda: None, ssl_enabled=tls, server_port=81)
    serving._listen(fake, Options(host=host, port=81, access_log=False))
    assert capsys.readouterr().err == shown


@pytest.mark.parametrize(("configured", "handlers"), [(True, 0), (False, 1)])
def test_the_access_log_is_printed_unless_the_application_does_so(
    configured: bool, handlers: int
) -> None:
    access, root = logging.Logger("access"), logging.Logger("root")
    access.parent = root
    if configured:
        root.addHandler(logging.NullHandler())
    serving._show(access, logging.INFO)
    assert (len(access.handlers), access.level) == (handlers, logging.INFO)

"""A process as Windows has it, near enough: ``python -m tests.windows`` serves and is its client.

What Python lacks there is taken away before flask_chsk is imported. It is no test on Windows.
"""

from __future__ import annotations

import _socket
import os
import socket
import sys
import threading

import gevent.socket  # noqa: F401  # as it is on the system that it was built for
import werkzeug.serving

ABSENT = {
    _socket: ["MSG_DONTWAIT", "AF_UNIX", "socketpair", "SO_REUSEPORT"],
    socket: ["MSG_DONTWAIT", "AF_UNIX", "SO_REUSEPORT", "send_fds", "recv_fds"],
    os: ["fork", "register_at_fork", "getuid", "geteuid"],
}
for module, names in ABSENT.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None  # type: ignore[assignment]

from flask import Flask  # noqa: E402

from flask_chsk import Chsk  # noqa: E402
from flask_chsk.client import ChannelSocket  # noqa: E402
from flask_chsk.publisher import Publisher  # noqa: E402

app = Flask(__name__)
app.secret_key = "secret"
chsk = Chsk(app, csrf=False)
said = threading.Event()


@chsk.on("chat/say")
def say(ev: object) -> dict[str, bool]:
    chsk.broadcast(["chat/said", "hello"])
    return {"ok": True}


def main() -> None:
    server = werkzeug.serving.make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = ChannelSocket(f"http://127.0.0.1:{server.port}/chsk")
    client.on("chat/said", lambda ev: said.set())
    client.wait_open()
    print("open by", client.state["type"])
    print("reply", client.request(["chat/say", "hello"])["ok"])
    print("push", said.wait(10))
    client.destroy()
    Publisher("redis://127.0.0.1:1/0").disconnect()
    server.shutdown()


if __name__ == "__main__":
    main()

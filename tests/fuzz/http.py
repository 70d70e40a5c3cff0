"""Requests of every shape get an answer of docs/protocol.rst, "Refusals", and no other.

    python -m tests.fuzz.http --count 1000000

The whole application in process: routing, parameters, cookies, headers, bodies, checks, sessions.
Only sockets are missing, so an upgrade that passes its checks ends as 501, and polls do not park.
Whatever is asked, an application's exception or a status of 500 and more, but for 501 and 503, ends
the run with the request.
"""

from __future__ import annotations

import argparse
import io
import logging
import random
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote_from_bytes

import gevent
from flask import Flask, request

from flask_chsk import Chsk
from flask_chsk.web.views import TEST_CLIENT
from tests.fuzz.watch import confine, watched

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
NAMES = [
    *"client-id packer v cursor resume n handshake? csrf-token uid ppstr udt binary? _ cb".split(),
]
WORDS = [
    b"",
    b"c1",
    b"c2",
    b"edn",
    b"json",
    b"1",
    b"0",
    b"true",
    b"nil",
    b"e7f3:1042",
    b"9" * 20,
    b"9" * 5000,
    b"-1",
    b"a.b",
    b"\0",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    "é😀\u2028".encode(),
    b"x" * 65,
    b"x" * 300,
    b"[[:test/echo 1] nil]",
    b'[[:test/echo 1] "c"]',
    b'[[:test/echo 1] :ajax {:key "k"}]',
    b"[[:chsk/batch [[:test/echo 1] [:a/b]]] nil]",
    b"[[:chsk/ws-ping] 1]",
    b'[[:chsk/answer ["x" 1]] nil]',
    b'[["test/echo",1],1]',
    b"[",
    b"+[[:a/b] 0]",
    b"-:chsk/ws-ping",
]
HEADERS = {
    "HTTP_ORIGIN": ["null", "", "http://localhost", "https://evil.example", "https://ok.example"],
    "HTTP_SEC_FETCH_SITE": ["same-origin", "cross-site", "same-site", "none", "\xff"],
    "HTTP_COOKIE": ["session=x", "session=.eJw.x.y", "=;;,", "a=\xff", "session=" + "x" * 5000],
    "HTTP_AUTHORIZATION": ["Bearer x", "Bearer", "bearer \xff", "Basic eA==", "Digest a=b,,=", "x"],
    "HTTP_X_CSRF_TOKEN": ["x", "\xff", ""],
    "HTTP_HOST": ["localhost", "", "a b", "\xff", "[::1]:80", "x:99999", "localhost:80"],
    "HTTP_CONTENT_ENCODING": ["gzip", "identity", ""],
    "HTTP_CONNECTION": ["Upgrade", "keep-alive, Upgrade", "close"],
    "HTTP_UPGRADE": ["websocket", "WebSocket", "h2c, websocket", "x"],
    "HTTP_SEC_WEBSOCKET_VERSION": ["13", "8", "", "13,13"],
    "HTTP_SEC_WEBSOCKET_KEY": [KEY, "", "x", KEY + " ", "\xff" * 24],
    "HTTP_SEC_WEBSOCKET_PROTOCOL": [
        "chsk.v1",
        "chsk.v1, auth.eA",
        "csrf.\xff",
        ",,",
        "auth.eHg",
        f"secret.{'s' * 22}",
    ],
    "HTTP_X_CHSK_SECRET": ["s" * 22, "s" * 22, "t" * 22, "s" * 21, "\xff" * 22, ""],
    "HTTP_X_CHSK_RESUME": ["x", "0.x", "f" * 16 + ".x", "\xff", ""],
    "HTTP_X_FORWARDED_FOR": ["1.2.3.4", "::1", "\xff"],
    "CONTENT_TYPE": [
        "application/x-www-form-urlencoded",
        "application/x-www-form-urlencoded; charset=utf-16",
        "application/octet-stream",
        "multipart/form-data; boundary=x",
        "multipart/form-data",
        "text/plain; charset=\xff",
        "\xff",
        "",
    ],
    "HTTP_TRANSFER_ENCODING": ["chunked"],
    "HTTP_REFERER": ["http://localhost/", "x", "\xff"],
    "REMOTE_ADDR": ["1.2.3.4", "::1", "", "fe80::1%eth0"],
}
METHODS = ["GET", "GET", "GET", "POST", "POST", "POST", "OPTIONS", "HEAD", "PUT", "DELETE"]


def make_app() -> Flask:
    app = Flask(__name__)
    app.secret_key = "of the fuzzer"
    app.config["PROPAGATE_EXCEPTIONS"] = True
    chsk = Chsk(
        app,
        csrf=False,
        allowed_origins=["https://ok.example"],
        max_message_bytes=4096,
        close_grace_ajax=0,
        recovery_seconds=1,
        rate=(1e6, 10**6),
        rate_per_address=(1e6, 10**6),
    )
    chsk.user_id(lambda: request.values.get("uid"))
    chsk.on("test/echo")(lambda ev: ev.data)
    return app


def requests(chance: random.Random) -> Iterator[dict[str, Any]]:
    """Endless WSGI environs."""
    while True:
        query = pairs(chance)
        body = pairs(chance)
        if chance.random() < 0.1:
            body = chance.choice(WORDS) * chance.choice((1, 1, 3, 200))
        elif chance.random() < 0.1:
            body = (
                b'--x\r\nContent-Disposition: form-data; name="ppstr"\r\n\r\n' + body + b"\r\n--x--"
            )
        environ: dict[str, Any] = {
            "REQUEST_METHOD": chance.choice(METHODS),
            "SCRIPT_NAME": chance.choice(("", "", "", "/sub")),
            "PATH_INFO": chance.choice(
                ("/chsk", "/chsk", "/chsk", "/chsk/", "/chsk/static/chsk.js")
            ),
            "QUERY_STRING": query.decode("latin-1"),
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": chance.choice(("HTTP/1.1", "HTTP/1.1", "HTTP/1.0")),
            "CONTENT_LENGTH": str(len(body)),
            "CONTENT_TYPE": "application/x-www-form-urlencoded",
            "HTTP_HOST": "localhost",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": chance.choice(("http", "https")),
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": False,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            TEST_CLIENT: True,
        }
        for _ in range(chance.choice((0, 1, 1, 2, 4))):
            name = chance.choice(list(HEADERS))
            environ[name] = chance.choice(HEADERS[name])
        if chance.random() < 0.2:  # a good upgrade, but for what else is wrong
            environ |= {
                "REQUEST_METHOD": "GET",
                "HTTP_CONNECTION": "Upgrade",
                "HTTP_UPGRADE": "websocket",
                "HTTP_SEC_WEBSOCKET_VERSION": "13",
                "HTTP_SEC_WEBSOCKET_KEY": KEY,
                "CONTENT_LENGTH": "",
            }
        if chance.random() < 0.05:
            length = chance.choice(("", "x", "-1", "0", "5", "99999999999", "9" * 30))
            environ["CONTENT_LENGTH"] = length
        yield environ


def pairs(chance: random.Random) -> bytes:
    """A query or a form: well-formed mostly, then damaged."""
    parts = [b"client-id=c%d" % chance.randint(1, 3)] if chance.random() < 0.8 else []
    if chance.random() < 0.5:
        parts.append(b"ppstr=" + quoted(chance.choice(WORDS)))
    for _ in range(chance.choice((0, 0, 1, 2, 5))):
        parts.append(quoted(chance.choice(NAMES).encode()) + b"=" + quoted(chance.choice(WORDS)))
    text = b"&".join(parts)
    if chance.random() < 0.2 and text:
        at = chance.randrange(len(text))
        text = (
            text[:at]
            + chance.choice((b"%", b"%zz", b"&", b"=", b"\xff", b"", b"+"))
            + text[at + 1 :]
        )
    return text


def quoted(data: bytes) -> bytes:
    return quote_from_bytes(data).encode()


def ask(app: Flask, environ: dict[str, Any]) -> int:
    """The status of the answer, whose body is read."""
    statuses: list[str] = []
    body = app.wsgi_app(environ, lambda status, headers, exc_info=None: statuses.append(status))  # type: ignore[arg-type,misc,return-value]
    try:
        for _ in body:
            pass
    finally:
        if hasattr(body, "close"):
            body.close()
    return int(statuses[0].split()[0])


def run(count: int, seed: int = 0) -> Counter[int]:
    """How often each status was the answer to *count* requests."""
    logging.getLogger("flask_chsk").setLevel(logging.CRITICAL)
    answers: Counter[int] = Counter()

    def go() -> None:
        app = make_app()
        chance = random.Random(seed)
        for number, environ in enumerate(watched(requests(chance), count)):
            shown = {**environ, "wsgi.input": environ["wsgi.input"].getvalue()}
            try:
                status = ask(app, environ)
                assert status < 500 or status in (501, 503), status
            except Exception as error:
                raise AssertionError(shown) from error
            answers[status] += 1
            if number % 50 == 0:
                gevent.sleep(0.001)  # connections come to their end

    gevent.spawn(go).get()
    return answers


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    confine()
    answers = run(options.count, options.seed)
    print(", ".join(f"{status}: {number}" for status, number in sorted(answers.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())

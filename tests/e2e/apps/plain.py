"""The smallest application: tests of the harness need a server, not a channel socket."""

from __future__ import annotations

import os

from flask import Flask, make_response, request
from flask.typing import ResponseReturnValue

app = Flask(__name__)


@app.get("/")
def visit() -> ResponseReturnValue:
    """Count this visitor's visits."""
    count = int(request.cookies.get("visits", 0)) + 1
    response = make_response(f"<title>Visit {count}</title><p>{os.environ.get('GREETING', '')}</p>")
    response.set_cookie("visits", str(count))
    return response


@app.get("/worker")
def worker() -> ResponseReturnValue:
    return str(os.getpid())


@app.get("/broken")
def broken() -> ResponseReturnValue:
    raise RuntimeError("as asked")

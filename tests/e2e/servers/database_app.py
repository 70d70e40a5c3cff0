"""An application whose pool holds one database connection, as small ones do."""

from __future__ import annotations

import os
from typing import Any

from flask import Flask, request
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import text
from sqlalchemy.pool import QueuePool

from flask_chsk import Chsk

app = Flask(__name__)
app.secret_key = "for tests"
app.config.update(
    CHSK_CSRF=False,
    SQLALCHEMY_DATABASE_URI=f"sqlite:///{os.environ['DATABASE']}",
    SQLALCHEMY_ENGINE_OPTIONS={
        "poolclass": QueuePool,
        "pool_size": 1,
        "max_overflow": 0,
        "pool_timeout": 2,
    },
)
db = SQLAlchemy(app)
chsk = Chsk(app)
waiting: list[Any] = []


@chsk.user_id
def user_id() -> str:
    """Who it is says the database: every request of a channel socket asks it."""
    row = db.session.execute(text("select :uid"), {"uid": request.values.get("uid")}).one()
    return str(row[0])


@chsk.on("test/later")
def later(ev: Any) -> None:
    db.session.execute(text("select 1"))
    ev.defer()
    waiting.append(ev)


@app.get("/query")
def query() -> str:
    return str(db.session.execute(text("select 42")).scalar_one())


@app.get("/waiting")
def how_many() -> str:
    return str(len(waiting))


@app.get("/answer")
def answer() -> str:
    for ev in waiting:
        ev.reply("now")
    chsk.broadcast(["test/now"])  # ends the polls
    return ""


@app.get("/stats")
def stats() -> dict[str, int]:
    return chsk.stats()

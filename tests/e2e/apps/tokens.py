"""The application of docs/guide.rst, "Tokens that expire", with tokens for a moment."""

from __future__ import annotations

import os
from typing import Any

from flask.typing import ResponseReturnValue

from flask_chsk import Chsk, EventMessage
from tests.integration.test_docs import blocks

names: dict[str, Any] = {"__name__": __name__}
GRACES = "close_grace_ws=30.0, close_grace_ajax=30.0"  # a machine that others use may stand still
exec(dict(blocks("guide.rst"))["tokens.py"].replace("Chsk(app)", f"Chsk(app, {GRACES})"), names)
names["LIFETIME"] = float(os.environ["LIFETIME"])
app, chsk = names["app"], names["chsk"]
presence: list[str] = []
assert isinstance(chsk, Chsk)


@chsk.on("chsk/uidport-open")
@chsk.on("chsk/uidport-close")
def came_or_went(ev: EventMessage) -> None:
    presence.append(f"{ev.id} {ev.uid}")


@chsk.on("test/echo")
def echo(ev: EventMessage) -> Any:
    return ev.data


@app.post("/send/<uid>/<int:number>")
def send(uid: str, number: int) -> ResponseReturnValue:
    return {"offset": chsk.send(uid, ["test/item", number])}


@app.post("/presence/<uid>")
def presence_of(uid: str) -> ResponseReturnValue:
    return [line.partition(" ")[0] for line in presence if line.endswith(f" {uid}")]


@app.post("/close/<uid>")
def close(uid: str) -> ResponseReturnValue:
    chsk.close(uid, reconnect=False)
    return {}

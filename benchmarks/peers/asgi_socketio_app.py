"""python-socketio as an ASGI application under uvicorn."""

from __future__ import annotations

import asyncio
import os
from typing import Any
from urllib.parse import parse_qs

import socketio

TEXT = "pushed " * 4

sio = socketio.AsyncServer(async_mode="asgi", ping_interval=300, ping_timeout=60)


@sio.event
async def connect(sid: str, environ: dict[str, Any]) -> None:
    uid = parse_qs(environ["QUERY_STRING"]).get("uid")
    if uid is not None:
        await sio.enter_room(sid, uid[0])


@sio.event
async def echo(sid: str, data: Any) -> Any:
    return data


async def broadcast(count: int, gap_ms: int) -> None:
    for number in range(count):
        await sio.emit("event", {"text": TEXT, "n": number})
        if gap_ms:
            await asyncio.sleep(gap_ms / 1000)


async def push(count: int, users: int) -> None:
    for number in range(count):
        await sio.emit("event", {"text": TEXT, "n": number}, to=f"u{number * 7919 % users}")
        if number % 20 == 19:
            await asyncio.sleep(0)


async def plain(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            happened = (await receive())["type"]
            await send({"type": f"{happened}.complete"})
            if happened == "lifespan.shutdown":
                return
    name, *numbers = scope["path"].strip("/").split("/")
    if name == "pid":
        body = str(os.getpid())
    else:
        await {"broadcast": broadcast, "push": push}[name](*map(int, numbers))
        body = "done"
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode()})


app = socketio.ASGIApp(sio, plain)

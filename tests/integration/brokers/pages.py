"""A page at workers that run in the process of the test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from flask import Flask
from werkzeug.test import TestResponse

from flask_chsk.security import RESUME_HEADER, SECRET_HEADER
from flask_chsk.web.views import TEST_CLIENT
from tests.peer import EDN
from tests.process import eventually

NOTHING: Mapping[str, str] = {}


class Page:
    """A page that polls, at whatever worker it is told to."""

    def __init__(self, worker: Flask, uid: str, client_id: str) -> None:
        self.worker = worker
        self.params = {"client-id": client_id, "uid": uid, "v": "1"}
        self.headers = {SECRET_HEADER: client_id * 11}
        self.cursor = ""
        self.numbers = 0
        self.heard: list[Any] = []
        self.recovered: bool | None = None
        self.connect(worker)

    def connect(self, worker: Flask) -> None:
        self.worker = worker
        extras = self._get({"handshake?": "1"})[0][1][3]
        self.cursor, self.recovered = extras["cursor"], extras["recovered"]
        self.headers[RESUME_HEADER] = extras["resume"]

    def say(self, event: str) -> None:
        answer = self.post(self.worker, event)
        assert answer.status_code == 200, answer.text

    def poll(self) -> list[Any]:
        """Poll once: all events that were heard up to now."""
        self.numbers += 1
        pushed, _, *third = self._get({"n": str(self.numbers)})
        if isinstance(pushed, list):
            self.heard += pushed
            epoch, _, offsets = third[0].partition(":")
            self.cursor = f"{epoch}:{sum(map(int, offsets.split(',')))}"
        return self.heard

    def until(self, event: list[Any]) -> list[Any]:
        """Poll until *event* was heard: all that was."""
        eventually(lambda: event in self.poll())
        return self.heard

    def get(self, worker: Flask, more: Mapping[str, str]) -> TestResponse:
        """What a GET of this page's is answered by *worker*."""
        query = urlencode({**self.params, "cursor": self.cursor, **more})
        return worker.test_client().get(
            f"/chsk?{query}", headers=self.headers, environ_overrides={TEST_CLIENT: True}
        )

    def post(self, worker: Flask, event: str, more: Mapping[str, str] = NOTHING) -> TestResponse:
        """What a POST of this page's is answered by *worker*."""
        return worker.test_client().post(
            "/chsk",
            data={**self.params, "ppstr": f"[{event} nil]", **more},
            headers=self.headers,
            environ_overrides={TEST_CLIENT: True},
        )

    def _get(self, more: dict[str, str]) -> list[Any]:
        answer = self.get(self.worker, more)
        assert answer.status_code == 200, answer.text
        message: list[Any] = EDN.unpack(answer.text)
        return message

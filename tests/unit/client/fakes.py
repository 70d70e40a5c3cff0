"""What stands around a transport in its unit tests: HTTP, threads, an owner."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from flask_chsk.client.endpoint import Endpoint
from flask_chsk.client.http_client import Answer, HttpClient, NoAnswer
from flask_chsk.client.link import Link, LinkClosed, Outgoing
from flask_chsk.client.options import Credentials
from flask_chsk.client.policy import Options
from flask_chsk.client.session import ClientSession
from flask_chsk.client.waiting import ThreadGroup
from flask_chsk.packers import make
from flask_chsk.protocol.wire import WIRES, Composer


class Inline(ThreadGroup):
    """Runs what it starts at once, in the caller."""

    def start(self, name: str, fn: Callable[[], object]) -> None:
        fn()


class Scripted(HttpClient):
    """Answers requests with what a test says, in turn; an exception is raised."""

    def __init__(self, *answers: Answer | NoAnswer) -> None:
        super().__init__()
        self.answers = list(answers)
        self.asked: list[tuple[str, dict[str, str], float]] = []  # method, parameters, timeout

    def request(self, method: str, url: str, **how: Any) -> Answer:
        query = urlsplit(url).query
        if isinstance(how.get("body"), bytes) and "binary%3F" not in query:
            query += "&" + how["body"].decode()
        params = {name: values[-1] for name, values in parse_qs(query).items()}
        self.asked.append((method, params, how["timeout"]))
        answer = self.answers.pop(0)
        if isinstance(answer, NoAnswer):
            raise answer
        if how.get("begun") is not None and answer.status == 200:
            how["begun"]()
        return answer


class Noted:
    """An owner that notes what transports report."""

    def __init__(self, words: dict[str, str] | None = None) -> None:
        self.told: list[Any] = []
        self.words = words or {}  # of messages
        self.polls = True

    def opened(self, link: Link) -> None:
        self.told.append("opened")

    def received(self, link: Link, data: Any) -> str | None:
        self.told.append(data)
        return self.words.get(data)

    def heard(self, link: Link) -> None:
        self.told.append("heard")

    def closed(self, link: Link, how: LinkClosed) -> None:
        self.told.append(how)

    def finished(self, transport: Any) -> None:
        self.told.append("finished")

    def may_poll(self) -> bool:
        return self.polls

    def post_answered(self, outgoing: Outgoing, data: Any) -> None:
        self.told.append((outgoing.name, data))

    def post_interrupted(self, outgoing: Outgoing) -> None:
        self.told.append((outgoing.name, "interrupted"))

    def post_failed(self, outgoing: Outgoing, reply: Any, details: Any = None) -> None:
        self.told.append((outgoing.name, reply, details))


class Bench:
    """One polling link, and all that is around it."""

    def __init__(self, *answers: Answer | NoAnswer, packer: str = "edn", **given: Any) -> None:
        self.session = ClientSession(
            Composer(make(packer), WIRES["1.21"]),
            Options(),
            random=lambda: 0.5,
            new_id=lambda: "id0",
        )
        self.http = Scripted(*answers)
        self.threads = Inline()
        self.lock = threading.RLock()
        credentials = Credentials(self.threads, given.pop("csrf_token", None), None)
        self.endpoint = Endpoint(
            "http://example.org/chsk",
            self.session,
            credentials,
            self.http,
            self.lock,
            25.0,
            given.pop("chsk_url", None),
            *(None, None, None),
        )
        self.owner = Noted(**given)
        self.link = Link("ajax", None)

    @property
    def parts(self) -> tuple[Any, ...]:
        """What a transport is made of."""
        return self.owner, self.link, self.endpoint, self.threads, self.lock

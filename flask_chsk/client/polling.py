"""A series of polls of a client; what it sends leaves by POSTs (posts.py).

It carries what the session decided, and reports what came; it decides nothing.
"""

from __future__ import annotations

import threading
import time

from ..interrupts import from_signal
from ..logs import logger
from ..protocol.session import ERROR, NORMAL, TIMEOUT
from .endpoint import Endpoint, refusal
from .http_client import Abort, Answer, NoAnswer, with_query
from .link import Link, LinkClosed, Outgoing, PostOwner
from .posts import Posts
from .requests import Requests
from .waiting import ThreadGroup

log = logger(__name__)

EMPTY = 0.5  # seconds: polls that end empty do not follow each other faster
TRIAL = 0.05  # seconds between two looks whether the trial of a WebSocket is over


class Polling:
    """Carries one link of kind ``"ajax"``; see :class:`~.link.Transport`."""

    def __init__(
        self,
        owner: PostOwner,
        link: Link,
        endpoint: Endpoint,
        threads: ThreadGroup,
        lock: threading.RLock,
        requests: Requests,
    ) -> None:
        self._owner = owner
        self._link = link
        self._endpoint = endpoint
        self._threads = threads
        self._lock = lock  # the owner's
        self._poll = Abort()
        self._ended = threading.Event()
        self._posts = Posts(owner, link, endpoint, threads, lock, requests, self._settle)

    def start(self) -> None:
        """Poll until the end."""
        self._threads.start("polls", self._run)

    def take(self, outgoing: Outgoing) -> bool:
        """Put an event in line; False where too many are."""
        return self._posts.take(outgoing)

    def flush(self) -> None:
        """Let what is in line leave."""
        self._posts.flush()

    def end(self, code: int) -> None:
        """Poll no more; what was taken still leaves."""
        self._ended.set()
        self._poll.abort()

    def restart(self) -> None:
        """Begin the poll anew."""
        self._poll.abort()

    def hurry(self) -> None:
        """End the POSTs that wait for replies."""
        self._posts.abort(waiting_only=True)

    def cut(self) -> None:
        """End at once, POSTs too, from any thread."""
        self.end(NORMAL)
        self._posts.abort()

    def _run(self) -> None:
        try:
            self._endpoint.ask_credentials()
            how = self._poll_until_ended()
        except BaseException as error:  # of the application's credentials or URL
            if from_signal(error):
                raise
            log.exception("polling failed")
            how = LinkClosed(message=repr(error))
        self._ended.set()
        self._settle()
        if how is not None:
            self._owner.closed(self._link, how)

    def _settle(self) -> None:
        """Tell the owner once polls and POSTs have ended."""
        with self._lock:
            if self._ended.is_set() and not self._posts.under_way:
                self._owner.finished(self)

    def _poll_until_ended(self) -> LinkClosed | None:
        """How the polls ended; None where :meth:`end` did it."""
        owner, link = self._owner, self._link
        while not self._ended.is_set():
            self._poll = Abort()
            if self._ended.is_set():
                break
            began = time.monotonic()
            try:
                answer = self._poll_once()
            except NoAnswer as error:
                if error.kind == "abort":
                    continue
                return LinkClosed(message=str(error))
            foreign = self._endpoint.foreign(answer)
            if answer.status != 200:
                return foreign or refusal(answer)
            word = owner.received(link, self._endpoint.message_of(answer))  # of HTML, too
            if foreign is not None:
                return foreign
            if word == ERROR:
                return LinkClosed(message="not a channel socket's answer")
            if word == TIMEOUT:
                self._ended.wait(EMPTY - (time.monotonic() - began))
            # A new poll would take the client back from a WebSocket on trial.
            while not owner.may_poll() and not self._ended.wait(TRIAL):
                pass
        return None

    def _poll_once(self) -> Answer:
        endpoint, link = self._endpoint, self._link
        timeout = endpoint.poll_timeout(link)
        return endpoint.http.request(
            "GET",
            with_query(endpoint.url(False), endpoint.link_params(link)),
            headers=endpoint.headers(False),
            timeout=timeout,
            abort=self._poll,
        )

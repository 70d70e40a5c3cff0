"""The POSTs of a polling client: each leaves when the server handled the one before.

Events without a reply leave together, where the server reads batches. An event with a reply leaves
alone, in a thread of its own, because its reply may take long.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial

from ..interrupts import from_signal
from ..logs import logger
from ..protocol.session import ERROR, TIMEOUT
from ..protocol.wire import Data
from .endpoint import Endpoint
from .http_client import Abort, Answer, NoAnswer, form, with_query
from .link import Link, Outgoing, PostOwner
from .requests import Requests
from .waiting import ThreadGroup

log = logger(__name__)

BATCH_BYTES = 65_536
MAX_QUEUE = 1000  # events; a server that is so far behind is as good as closed
TRIES = 5  # where the server says "later"
CONCURRENT = 32  # POSTs that wait for their replies at a time


class Posts:
    """What one polling link sends."""

    def __init__(
        self,
        owner: PostOwner,
        link: Link,
        endpoint: Endpoint,
        threads: ThreadGroup,
        lock: threading.RLock,
        requests: Requests,
        ended: Callable[[], object],
    ) -> None:
        """
        :param lock: the owner's.
        :param ended: called when a POST ended, or the line is empty.
        """
        self._owner = owner
        self._link = link
        self._endpoint = endpoint
        self._threads = threads
        self._lock = lock
        self._requests = requests
        self._ended = ended
        self._queue: deque[Outgoing] = deque()
        self._leaving = False  # a thread takes from the queue
        self._slots = threading.BoundedSemaphore(CONCURRENT)
        self._posts: dict[Abort, bool] = {}  # and whether they wait for a reply

    @property
    def under_way(self) -> bool:
        """Whether something leaves, or waits for its answer."""
        return self._leaving or bool(self._posts)

    def take(self, outgoing: Outgoing) -> bool:
        """Put an event in line; False where too many are, or the client is destroyed."""
        if len(self._queue) >= MAX_QUEUE or self._threads.ending.is_set():
            return False
        self._queue.append(outgoing)
        self._link.busy = True
        return True

    def flush(self) -> None:
        """Let what is in line leave."""
        with self._lock:
            if self._leaving or not self._queue:
                return
            self._leaving = True
        self._threads.start("posts", self._leave)

    def abort(self, *, waiting_only: bool = False) -> None:
        """Cut POSTs off.

        :param waiting_only: only those that wait for replies.
        """
        with self._lock:
            posts = [post for post, waits in self._posts.items() if waits or not waiting_only]
        for post in posts:
            post.abort()

    def _leave(self) -> None:
        while True:
            with self._lock:
                events = self._next()
                if not events:
                    self._link.busy = self._leaving = False
                    self._ended()
                    return
            if events[0].id is None:
                self._post(events)
                continue
            # Later events wait for the head of the answer: our server sends it when it handled
            # the event, and the reply in the body may take long. Sente's server has no such head.
            begun = threading.Event()
            self._slots.acquire()
            self._threads.start("post", partial(self._post_in_slot, events, begun.set))
            if self._endpoint.knows_batches:
                begun.wait(events[0].timeout)

    def _next(self) -> list[Outgoing]:
        """What leaves next, in one POST; nothing where the line is empty."""
        queue = self._queue
        while queue and not self._requests.is_wanted(queue[0]):
            queue.popleft()
        if not queue:
            return []
        events = [queue.popleft()]
        if events[0].id is None:
            most = self._endpoint.max_batch
            size = len(events[0].data)
            while queue and queue[0].id is None and len(events) < most:
                size += len(queue[0].data)
                if size > BATCH_BYTES:
                    break
                events.append(queue.popleft())
        return events

    def _post_in_slot(self, events: list[Outgoing], begun: Callable[[], object]) -> None:
        try:
            self._post(events, begun)
        finally:
            begun()
            self._slots.release()

    def _post(self, events: list[Outgoing], begun: Callable[[], object] | None = None) -> None:
        try:
            self._post_until_answered(events, begun)
        except BaseException as error:  # of the application's credentials or URL
            if from_signal(error):
                raise
            log.exception("a POST of %s failed", events[0].name)
            self._owner.post_failed(events[0], ERROR, {"message": repr(error)})

    def _post_until_answered(
        self, events: list[Outgoing], begun: Callable[[], object] | None
    ) -> None:
        owner, first = self._owner, events[0]
        data = self._requests.batch(events)
        for tries in range(1, TRIES + 1):
            if not self._requests.is_wanted(first):
                return
            try:
                answer = self._post_once(first, data, begun)
            except NoAnswer as error:
                log.warning("a POST of %s failed: %s", first.name, error)
                if error.kind == "timeout":
                    owner.post_failed(first, TIMEOUT)
                else:
                    owner.post_interrupted(first)
                return
            if (foreign := self._endpoint.foreign(answer)) is not None:
                details = {"status": answer.status, "message": foreign.message}
                owner.post_failed(first, ERROR, details)
                if answer.status == 200:  # a bad package to the application
                    owner.post_answered(first, self._endpoint.message_of(answer))
                return
            if answer.status == 200:
                owner.post_answered(first, self._endpoint.message_of(answer))
                return
            if not self._may_repeat(answer, tries):
                break
            if self._threads.ending.is_set():
                return
        log.warning("a POST of %s failed: HTTP %d %s", first.name, answer.status, answer.line)
        message = answer.line or f"HTTP {answer.status}"
        owner.post_failed(first, ERROR, {"status": answer.status, "message": message})

    def _may_repeat(self, answer: Answer, tries: int) -> bool:
        """After a refusal: see to credentials, or wait; whether to post again.

        The server did not look at the events, so they may be sent again.
        """
        if answer.status in (401, 403) and tries == 1:
            self._endpoint.ask_credentials()
            return True
        if answer.status in (429, 503) and tries < TRIES:
            wait = answer.retry_after
            self._threads.ending.wait(1.0 if wait is None else wait)
            return True
        return False

    def _post_once(self, first: Outgoing, data: Data, begun: Callable[[], object] | None) -> Answer:
        endpoint = self._endpoint
        waits = first.id is not None
        url, headers, params = endpoint.url(False), endpoint.headers(False), endpoint.post_params()
        if isinstance(data, bytes):
            url = with_query(url, {**params, "binary?": True})
            headers["Content-Type"] = "application/octet-stream"
            body = data
        else:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            body = form({**params, "ppstr": data})
        post = Abort()
        with self._lock:
            self._posts[post] = waits
            if self._threads.ending.is_set() and waits:
                post.abort()
        try:
            return endpoint.http.request(
                "POST",
                url,
                headers=headers,
                body=body,
                timeout=first.timeout if waits else endpoint.post_timeout,
                abort=post,
                begun=begun,
            )
        finally:
            with self._lock:
                del self._posts[post]
            self._ended()

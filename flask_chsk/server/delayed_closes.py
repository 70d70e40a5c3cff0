"""Delays what tells a page that it was closed until the response of the closing view has ended.

A page that hears ``signed-out`` goes elsewhere, and its browser then cancels the request that
signed it out, so the cookie of the answer is lost. A close therefore has two steps. The worker ends
delivery to the connections immediately. The close frame, or the answer to the parked poll, is sent
when the response has ended. The worker that runs the view tells the other workers, by the broker.
No client waits longer than :data:`TIMEOUT` seconds, even if that worker dies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from ..brokers.contract import Broker
from ..errors import ChskError
from ..hub import Hub, on_hub
from ..logs import logger
from ..protocol.push import CANONICAL
from ..protocol.session import CLOSED_BY_APP

log = logger(__name__)

TIMEOUT = 5.0  # seconds: a page waits no longer, however long the response takes
ARRIVAL = 0.25  # seconds for the response to reach the browser: it travels by another connection

PREFIX = "close "  # of the messages that workers send to each other about closes


class PendingResponse(NamedTuple):
    """A response of the worker *name* that has not ended."""

    name: str
    token: str

    @classmethod
    def of(cls, data: object) -> PendingResponse | None:
        """One from ``[name, token]``; None for anything else."""
        if isinstance(data, list) and len(data) == 2 and all(isinstance(one, str) for one in data):
            return cls(str(data[0]), str(data[1]))
        return None


class Close(NamedTuple):
    """A close as its event tells it: ``[:chsk/close {:code :reason :after}]``."""

    code: int
    reason: str
    after: PendingResponse | None

    @classmethod
    def read(cls, text: str) -> Close:
        """The close in an event; one by the application where it says no code that can be sent."""
        _, *more = CANONICAL.unpack(text)
        data = more[0] if more else None
        if isinstance(data, dict) and data.get("code") in range(4000, 5000):
            after = PendingResponse.of(data.get("after"))
            return cls(data["code"], str(data.get("reason", "")), after)
        return cls(CLOSED_BY_APP, "", None)


class DelayedCloses:
    """The responses of this worker that closes wait for, and the clients here that wait."""

    def __init__(self, hub: Hub, broker: Broker, counters: Counter[str]) -> None:
        self.hub = hub
        self._broker = broker
        self._counters = counters
        self._pending: dict[str, dict[str, None]] = {}  # our responses: token -> workers that wait
        self._waiting: dict[PendingResponse, list[Callable[[], object]]] = {}

    def __len__(self) -> int:
        """The number of clients here that wait."""
        return sum(map(len, self._waiting.values()))

    # the worker of the view ----------------------------------------------------------------

    def expect_response(self) -> PendingResponse:
        """Begin to wait for a response of this worker; from any thread."""
        response = PendingResponse(self._broker.name, self.hub.token(12))
        self.hub.run(self._expect, response)
        return response

    @on_hub
    def _expect(self, response: PendingResponse) -> None:
        self._pending[response.token] = {}
        self.hub.timer(TIMEOUT, partial(self._ended, response, timed_out=True))

    def response_ended(self, response: PendingResponse) -> None:
        """The server has sent the response; from any thread."""
        self.hub.call(self.hub.timer, ARRIVAL, partial(self._ended, response))

    def cancel(self, response: PendingResponse) -> None:
        """Wait no longer; from any thread."""
        self.hub.call(self._ended, response)

    @on_hub
    def _ended(self, response: PendingResponse, timed_out: bool = False) -> None:
        names = self._pending.pop(response.token, None)
        if names is None:
            return  # it ended before
        self._release(response, timed_out)
        for name in names:
            self.hub.background(self._tell, name, f"ended {response.name} {response.token}")

    # the workers of the connections --------------------------------------------------------

    @on_hub
    def when_ended(self, response: PendingResponse, tell_client: Callable[[], object]) -> None:
        """Call *tell_client* when *response* has ended; now, if it has. On the hub."""
        ours = response.name == self._broker.name
        if ours and response.token not in self._pending:
            tell_client()
            return
        waiting = self._waiting.get(response)
        if waiting is None:
            waiting = self._waiting[response] = []
            if not ours:
                self.hub.timer(TIMEOUT, partial(self._release, response, True))
                text = f"waits {self._broker.name} {response.token}"
                self.hub.background(self._tell, response.name, text)
        waiting.append(tell_client)

    @on_hub
    def release_all(self) -> None:
        """Tell all clients that wait: this worker ends. On the hub."""
        for response in list(self._waiting):
            self._release(response)

    @on_hub
    def _release(self, response: PendingResponse, timed_out: bool = False) -> None:
        for tell_client in self._waiting.pop(response, ()):
            self._counters["closes_timed_out"] += timed_out
            try:
                tell_client()
            except Exception:
                log.exception("a client could not be told that it was closed")

    # between workers -----------------------------------------------------------------------

    @on_hub
    def on_worker_message(self, text: str) -> None:
        """Another worker sent *text*, after :data:`PREFIX`. On the hub."""
        what, name, token, *_ = text.split()
        if what == "ended":
            self._release(PendingResponse(name, token))
        elif token in self._pending:
            self._pending[token][name] = None
        else:
            self.hub.background(self._tell, name, f"ended {self._broker.name} {token}")

    def _tell(self, name: str, text: str) -> None:
        try:
            self._broker.tell(name, PREFIX + text)
        except ChskError as error:
            log.debug("closed clients wait %g seconds: %s", TIMEOUT, error)

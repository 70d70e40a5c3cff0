"""A simulated page: the real :class:`ClientSession`, with links over the simulated network.

:class:`Page` carries out what the session decides, as ``client/engine.py`` does;
:class:`WebSocket` and :class:`Polling` do what ``client/websocket.py`` and
``client/polling.py`` do with threads.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from greenlet import greenlet

from flask_chsk.client import effects as e
from flask_chsk.client.endpoint import HANDSHAKE, SLACK
from flask_chsk.client.link import MAX_MESSAGE, Link, LinkClosed, Outgoing
from flask_chsk.client.policy import Options
from flask_chsk.client.polling import EMPTY, TRIAL
from flask_chsk.client.posts import TRIES
from flask_chsk.client.session import AT_REST, ClientSession
from flask_chsk.packers import make
from flask_chsk.protocol import frames
from flask_chsk.protocol.backoff import exp_backoff
from flask_chsk.protocol.event import Event
from flask_chsk.protocol.session import ERROR, NORMAL, TIMEOUT
from flask_chsk.protocol.wire import WIRES, Composer
from flask_chsk.values import Keyword

from .front import HEAD, Request
from .network import Answer, Call, Wire
from .runtime import START, Timer

if TYPE_CHECKING:
    from .world import World

LP_TIMEOUT = 60.0  # seconds, the client's default


class Page:
    """One client from its loading to its end; a reload makes another."""

    def __init__(self, world: World, name: str, uid: str | None, kind: Any, packer: str) -> None:
        self.world = world
        self.hub = world.hub
        self.name = name
        self.uid = uid  # of the cookie that its requests bring
        self.asleep = False
        self.slept = 0.0  # seconds that its clock stood still
        self.loaded = True
        self.secret = self.hub.token(16)
        self.packer = packer
        self.session = ClientSession(
            Composer(make(packer), WIRES["1.21"]),
            Options(type=kind, backoff=partial(exp_backoff, random=world.chance.random)),
            random=world.chance.random,
            new_id=lambda: self.hub.token(8),
            wall=START,
        )
        self.seen = world.checker.page(name)
        self.polls = 0
        self.lost_answers = 0  # of its next requests
        self._missed: list[Any] = []  # what came while it was asleep
        self._alarm: Timer | None = None
        self._slept_from = 0.0

    def now(self) -> float:
        """Seconds of the page's clock, which stands still while its machine sleeps."""
        return float(self.hub.loop.time) - self.slept

    @property
    def status(self) -> str:
        return str(self.session.state["status"])

    # what its user does ------------------------------------------------------------------

    def do(self, decide: Any, *args: Any) -> Any:
        """Let the session decide, and carry it out; nothing happens on a page that is gone."""
        if not self.loaded:
            return None
        self.session.wall = START + self.slept
        result = decide(*args, self.now())
        self._carry_out()
        self._set_alarm()
        return result

    def send(self, number: int, wants_reply: bool, key: bool) -> None:
        event = Event(Keyword("sim/echo" if wants_reply else "sim/note"), number)
        cb = (lambda reply: None) if wants_reply else None
        token = self.hub.token(6) if wants_reply and key else None
        outgoing = self.session.pack(event, cb, 10.0, key=token, waits=key)
        self.seen.sent(number, outgoing)
        self.do(self.session.send, outgoing)

    def sleep(self) -> None:
        """Its machine falls asleep."""
        self.asleep = True
        self._slept_from = self.hub.loop.time

    def wake(self) -> None:
        if self.asleep:
            self.asleep = False
            self.slept += self.hub.loop.time - self._slept_from
            missed, self._missed = self._missed, []
            for fn, args in missed:
                fn(*args)
            self._ring()

    def unload(self) -> None:
        """As a browser ends a page: without a word, its connections are closed."""
        for transport in self.transports():
            transport.unload()
        self.loaded = False
        self.seen.unloaded()

    def loses_answer(self) -> bool:
        self.lost_answers -= 1
        return self.lost_answers >= 0

    def transports(self) -> list[Any]:
        """Those of its links, and what still posts."""
        session = self.session
        links = dict.fromkeys(
            (session.link, session.trial, session.fallback_trial, session.previous)
        )
        return [link.transport for link in links if link is not None and link.transport is not None]

    # what comes --------------------------------------------------------------------------

    def awake(self, fn: Any, *args: Any) -> None:
        """Do it now, or when the machine wakes up."""
        if self.asleep:
            self._missed.append((fn, args))
        else:
            fn(*args)

    def received(self, link: Link, data: str | bytes) -> str | None:
        self.seen.frame(link, self.session.composer.read(data))
        return self.do(self.session.received, link, data)  # type: ignore[no-any-return]

    # carrying out --------------------------------------------------------------------------

    def _carry_out(self) -> None:
        while effects := self.session.take_effects():
            for effect in effects:
                self._carry_out_one(effect)
        self.seen.settled(self.session)

    def _carry_out_one(self, effect: Any) -> None:
        if isinstance(effect, e.Send):
            if not effect.link.transport.take(effect.outgoing):
                self.session.not_taken(effect.outgoing, self.now())
        elif isinstance(effect, e.Deliver):
            self.seen.delivered(effect.event, effect.pushed, self.session)
        elif isinstance(effect, e.Replied):
            self.seen.replied(effect.outgoing, effect.reply)
        elif isinstance(effect, e.Changed):
            self.seen.changed(effect.old, effect.new)
        elif isinstance(effect, e.Open):
            kind = WebSocket if effect.link.kind == "ws" else Polling
            effect.link.transport = transport = kind(self, effect.link)
            transport.start()
        elif isinstance(effect, e.End):
            effect.link.transport.end(effect.code)
        elif isinstance(effect, e.Asked):
            self.world.answer(self, effect.id, effect.event)
        elif isinstance(effect, e.Repoll):
            effect.link.transport.restart()

    def _set_alarm(self) -> None:
        due = self.session.next_due()
        if self._alarm is not None:
            self._alarm.stop()
            self._alarm = None
        if due is not None and self.loaded:
            # A little late: a time that is rounded down would ring before anything is due.
            self._alarm = self.hub.later(max(due - self.now(), 0.0) + 1e-6, self._ring)

    def _ring(self) -> None:
        if not self.asleep:
            self.do(lambda now: self.session.tick(now, START + self.slept))

    def request(self, link: Link | None, **more: Any) -> Request:
        """A request as this page makes them."""
        session = self.session
        cursor = None
        if link is not None:
            if link.kind == "ajax":
                link.cursor = session.cursor
            cursor = link.cursor
            self.polls += 1
        return Request(
            uid=self.uid,
            client_id=session.client_id,
            secret=self.secret,
            packer=self.packer,
            resume=session.resume,
            cursor=cursor,
            number=self.polls if link is not None else None,
            **more,
        )

    def go(self, fn: Any, *args: Any) -> None:
        """Run *fn*, which may wait."""
        self.hub.loop.run_callback(greenlet(partial(fn, *args), self.hub.gevent_hub).switch)

    def pause_if_asleep(self) -> None:
        """In a greenlet: wait until the machine is awake."""
        while self.asleep:
            self.hub.sleep(0.5)


class WebSocket:
    """A WebSocket of a page."""

    def __init__(self, page: Page, link: Link) -> None:
        self.wire: Wire | None = None
        self._page = page
        self._link = link
        self._reader = frames.FrameReader("client", MAX_MESSAGE)
        self._head = bytearray()
        self._opened = False
        self._over = False
        self._closing = False

    def start(self) -> None:
        self._page.go(self._connect)

    def _connect(self) -> None:
        page, link = self._page, self._link
        world = page.world
        self._link.has_credentials = True
        fate = world.fate_of_upgrade(page)
        if fate == "refused":
            page.hub.sleep(world.latency())
            self._lost(LinkClosed(1006, why="ws-error", error="refused"))
            return
        request = page.request(link)
        call = world.call(page, "websocket", request, self._wire)
        answer = call.wait(60.0, arrives=fate != "lost")
        page.pause_if_asleep()
        if answer.status != 101:
            self._lost(replace(_end_of(answer), why="ws-error"))

    def _wire(self) -> Wire:
        self.wire = self._page.world.wire(self, self._page)
        return self.wire

    # what the wire tells -------------------------------------------------------------------

    def arrived(self, data: bytes) -> None:
        self._page.awake(self._arrived, data)

    def _arrived(self, data: bytes) -> None:
        page = self._page
        if not self._opened:
            self._head += data
            if len(self._head) < len(HEAD):
                return
            data = bytes(self._head[len(HEAD) :])
            self._opened = True
            if self._over or not page.loaded:
                self._shut()
                return
            page.do(page.session.opened, self._link)
        for message in self._reader.feed(data) if data else ():
            if isinstance(message, str | bytes):
                if not self._over:
                    page.received(self._link, message)
            elif isinstance(message, frames.Close):
                if not self._closing:
                    self._close(frames.close_frame(message.code, masked=True))
                self._lost(LinkClosed(message.code, message.reason, "clean"))
                return
        if self._reader.failed is not None:
            page.world.checker.violated(f"{page.name} got a frame that is none")

    def ended(self, error: bool) -> None:
        self._page.awake(self._lost, LinkClosed(1006, why="unexpected"))

    # what the session wants ----------------------------------------------------------------

    def take(self, outgoing: Outgoing) -> bool:
        if self._closing or not self._opened or self.wire is None:
            return False
        data = outgoing.data
        build: Any = frames.text_frame if isinstance(data, str) else frames.binary_frame
        self.wire.put(build(data, masked=True))
        return True

    def end(self, code: int) -> None:
        if self._opened and not self._closing:
            self._close(frames.close_frame(code, masked=True))
        self._closing = self._over = True

    def restart(self) -> None:
        """Nothing: a WebSocket is pinged."""

    def unload(self) -> None:
        self._closing = self._over = True
        self._shut()

    def _close(self, frame: bytes) -> None:
        self._closing = True
        if self.wire is not None:
            self.wire.put(frame)
            self.wire.leave()

    def _shut(self) -> None:
        if self.wire is not None:
            self.wire.leave()

    def _lost(self, how: LinkClosed) -> None:
        if not self._over:
            self._over = self._closing = True
            self._shut()
            self._page.do(self._page.session.closed, self._link, how)


class Polling:
    """A series of polls of a page, and its POSTs, one at a time."""

    def __init__(self, page: Page, link: Link) -> None:
        self._page = page
        self._link = link
        self._queue: deque[Outgoing] = deque()
        self._leaving = False
        self._ended = False
        self.poll: Call | None = None
        self.posts: list[Call] = []

    def start(self) -> None:
        self._page.go(self._poll_on)

    def take(self, outgoing: Outgoing) -> bool:
        self._queue.append(outgoing)
        self._link.busy = True
        if not self._leaving:
            self._leaving = True
            self._page.go(self._leave)
        return True

    def end(self, code: int) -> None:
        self._ended = True
        self.restart()

    def restart(self) -> None:
        if self.poll is not None:
            self.poll.abort()

    def unload(self) -> None:
        self.end(NORMAL)
        for post in list(self.posts):
            post.abort()

    # polls ---------------------------------------------------------------------------------

    def _poll_on(self) -> None:
        page, link = self._page, self._link
        while not self._ended and page.loaded:
            page.pause_if_asleep()
            if self._ended:
                return
            began = page.now()
            shakes = bool(link.confirmations_left)
            timeout = (
                HANDSHAKE
                if shakes
                else max(LP_TIMEOUT, self._page.session.server.poll_seconds + SLACK)
            )
            request = page.request(link, handshake=page.session.asks_for_handshake(link))
            self.poll = page.world.call(page, "poll", request)
            fate = page.world.fate_of_request(page)
            if fate == "answer lost":
                self.poll.lose_answer()
            answer = self.poll.wait(timeout, arrives=fate != "lost")
            aborted, self.poll = self.poll.aborted, None
            page.pause_if_asleep()
            if aborted or self._ended:
                continue
            if answer.status != 200:
                self._ended = True
                page.do(page.session.closed, link, _end_of(answer))
                return
            said = page.received(link, self._text(answer))
            if said == ERROR:
                self._ended = True
                page.do(
                    page.session.closed, link, LinkClosed(message="not a channel socket's answer")
                )
                return
            if said == TIMEOUT and not self._ended:
                page.hub.sleep(max(0.0, EMPTY - (page.now() - began)))
            while not self._ended and self._trying():
                page.hub.sleep(TRIAL)

    def _trying(self) -> bool:
        trial = self._page.session.trial
        return trial is not None and trial.opened

    def _text(self, answer: Answer) -> str | bytes:
        binary = self._page.session.composer.packer.binary
        return answer.body if binary else answer.body.decode()

    # POSTs ---------------------------------------------------------------------------------

    def _leave(self) -> None:
        session = self._page.session
        while True:
            while self._queue and not session.requests.is_wanted(self._queue[0]):
                self._queue.popleft()
            if not self._queue or not self._page.loaded:
                self._link.busy = self._leaving = False
                return
            events = self._next_batch()
            if events[0].id is None:
                self._post(events)
            else:
                begun = self._page.hub.waiter()
                self._page.go(self._post, events, begun.set)
                begun.wait(events[0].timeout)

    def _next_batch(self) -> list[Outgoing]:
        events = [self._queue.popleft()]
        if events[0].id is None:
            most = self._page.session.server.max_batch
            while self._queue and self._queue[0].id is None and len(events) < most:
                events.append(self._queue.popleft())
        return events

    def _post(self, events: list[Outgoing], begun: Any = lambda done: None) -> None:
        try:
            self._post_until_answered(events, begun)
        finally:
            begun(True)

    def _post_until_answered(self, events: list[Outgoing], begun: Any) -> None:
        page = self._page
        session, outgoing = page.session, events[0]
        data = session.requests.batch(events)
        for tries in range(1, TRIES + 1):
            page.pause_if_asleep()
            if not session.requests.is_wanted(outgoing) or not page.loaded:
                return
            request = page.request(None, data=data)
            call = page.world.call(page, "post", request)
            call.began = partial(begun, True)
            fate = page.world.fate_of_request(page)
            if fate == "answer lost":
                call.lose_answer()
            self.posts.append(call)
            timeout = outgoing.timeout if outgoing.id is not None else LP_TIMEOUT
            answer = call.wait(timeout, arrives=fate != "lost")
            self.posts.remove(call)
            page.pause_if_asleep()
            if answer.status == 0:
                if call.timed_out:
                    page.do(lambda now: session.requests.reply(outgoing, TIMEOUT))
                else:
                    page.do(session.post_interrupted, outgoing)
                return
            if answer.status == 200:
                text = self._text(answer)
                page.do(lambda now, text=text: session.post_answered(outgoing, text))
                return
            if answer.status not in (429, 503) or tries == TRIES:
                break
            page.hub.sleep(1.0 if answer.retry_after is None else answer.retry_after)
            if page.status in AT_REST:
                return
        page.do(lambda now: session.requests.reply(outgoing, ERROR, {"status": answer.status}))


def _end_of(answer: Answer) -> LinkClosed:
    if answer.status == 0:
        return LinkClosed(message="no answer")
    return LinkClosed(
        status=answer.status, message=answer.body.decode(), retry_after=answer.retry_after
    )

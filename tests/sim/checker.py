"""What must hold in every history, whatever was cut, lost or late.

1. **Exactly once, or told.** Each event that is published while a page is owed it reaches the page
   once, or the page is told of a gap (``chsk/gap``), and for a reason: it was away for longer
   than the window, or its channels had more than is kept, or it is somebody else now.
2. **Order.** A page gets events in the order of their offsets, so all pages get one order.
3. **Presence alternates.** Of a user are told: came, went, came, …, each with a higher generation;
   and in the end what was told last is true.

4. **Cursors** never fall, and never pass the broker's counter.
5. **Sends** are handled once at most, those of one WebSocket in their order. Each that wants a
   reply gets its own, or is told why not.
6. **Nothing is left.** Each ask ends. No outbox is ever over its limit. When all is well again, all
   pages are open and have all, the broker's record says who is there, and no worker has events,
   asks or bytes left.

Also: a worker that takes the place of another costs each page one gap, and nothing is logged as an
error.

The checker knows what was published and what each page's application heard. It looks into neither
the server nor the session, but for the cursor, which the server is told too.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flask_chsk.brokers.contract import ANONYMOUS, EVERYONE
from flask_chsk.client.link import Link, Outgoing
from flask_chsk.protocol.event import Event
from flask_chsk.protocol.session import CLOSED_BY_APP, GAP, HANDSHAKE

from .runtime import START

SETTLED = 60.0  # seconds in which workers tell a new Redis who was there

_CURSOR = re.compile(r"([a-z0-9]+):([0-9]+)")
Cursor = tuple[str, int]


@dataclass
class Published:
    """One event; *to* are the members of its topic when it was published."""

    number: int
    channel: str
    epoch: str
    offset: int
    size: int
    kept: bool = True  # False: nobody was there, so it was dropped
    control: bool = False  # a close, or that somebody joined or left: for no application
    to: tuple[str, ...] = ()
    perhaps_to: tuple[str, ...] = ()  # whom it may reach besides
    exclude: tuple[str | None, str] | None = None


@dataclass
class Limits:
    """How much history there is."""

    seconds: float
    events: int
    bytes: int


class Checker:
    """Of one history."""

    no_answers: tuple[str, ...] = ("NoClient", "ClientGone", "AskTimeout")

    def __init__(self, clock: Callable[[], float], limits: Limits) -> None:
        self.violations: list[str] = []
        self.pages: list[PageSeen] = []
        self.clock = clock
        self.limits = limits
        self.published: list[Published] = []
        self._offsets: list[int] = []
        self._by_number: dict[int, Published] = {}
        # Send -> as whose it was handled, and by which worker.
        self._handled: dict[int, list[tuple[str | None, int]]] = {}
        self._asks: dict[int, None] = {}
        self.counter: Callable[[], Cursor] = lambda: ("", 0)  # the broker's, with its epoch
        self._sent: dict[int, Outgoing] = {}
        self._last_over: dict[Link, int] = {}  # the last send of a WebSocket that was handled
        self.unsure_until = 0.0  # whether another worker handles a send
        self.began_anew = 0.0  # when a broker of several workers lost its memory last
        self.left: dict[tuple[str | None, str], int] = {}  # when a user left a topic last
        self._here: dict[str, tuple[bool, int]] = {}  # user -> came, generation
        self.say: Callable[[str], object] = lambda text: None

    def violated(self, text: str) -> None:
        self.violations.append(text)
        self.say(f"!! {text}")

    # what the world tells ------------------------------------------------------------------

    def page(self, name: str) -> PageSeen:
        page = PageSeen(self, name)
        self.pages.append(page)
        return page

    def publishes(self, event: Published) -> None:
        """*event* has its offset: it is on its way."""
        if self._offsets and event.offset <= self._offsets[-1] and event.kept:
            self.violated(f"event {event.number} has an offset below that of one sent before")
        before = self._by_number.get(event.number)
        if before is not None:  # a worker that had no answer has asked again
            if before.kept and event.kept:
                self.violated(f"event {event.number} is published twice")
            if before.kept:
                return
            before.control = True  # the later try counts
        event.offset = max(event.offset, self._offsets[-1] if self._offsets else 0)
        self.published.append(event)
        self._offsets.append(event.offset)
        if not event.control:
            self._by_number[event.number] = event

    def handled(self, number: int, uid: str | None, worker: int) -> None:
        """A key holds for one user, and as long as the broker of a worker.

        :param uid: by the request's cookie.
        """
        before = self._handled.setdefault(number, [])
        if (uid, worker) in before and self.clock() > self.unsure_until:
            self.violated(f"send {number} was handled twice")
        before.append((uid, worker))
        link = self._sent[number].via
        if link is not None and link.kind == "ws" and self._sent[number].key is None:
            if number < self._last_over.get(link, 0):
                self.violated(f"send {number} was handled after a later one of its WebSocket")
            self._last_over[link] = number

    def sent(self, number: int, outgoing: Outgoing) -> None:
        self._sent[number] = outgoing

    def was_handled(self, number: int) -> bool:
        return number in self._handled

    def asks(self, number: int) -> None:
        self._asks[number] = None

    def answered(self, number: int, answer: Any) -> None:
        """*answer* is the number that was asked, or the name of an error."""
        del self._asks[number]
        self.say(f"{number} was answered with {answer}")
        if answer not in (number, *self.no_answers):
            self.violated(f"{number} was answered with {answer}")

    def presence(self, uid: str, came: bool, generation: int) -> None:
        before, last = self._here.get(uid, (False, 0))
        word = "came" if came else "went"
        if came == before:
            self.violated(f"{uid} {word}, and {word} again")
        if generation <= last:
            self.violated(f"{uid} {word} with generation {generation}, after {last}")
        self._here[uid] = came, generation

    def worker_ended(self) -> None:
        """A worker with a broker of its own ended: it tells nothing more, and the next all."""
        self._here.clear()

    # the end -------------------------------------------------------------------------------

    def all_is_level(self, connected: Mapping[str, bool]) -> None:
        """The network is well again, and for long: nothing is owed to anybody.

        :param connected: the users who are there, as the pages know it.
        """
        for page in self.pages:
            page.at_the_end()
        if self._asks:
            self.violated(f"asks have not ended: {list(self._asks)}")
        told = {uid for uid, (came, _) in self._here.items() if came}
        if told != set(connected):
            self.violated(f"told to be there: {sorted(told)}; there are: {sorted(connected)}")

    # what a page is owed -------------------------------------------------------------------

    def owed(self, page: PageSeen, above: int, below: float) -> list[Published]:
        """What *page* has to get, of the offsets between."""
        found = []
        for event in self.published[bisect_right(self._offsets, above) :]:
            if event.offset >= below:
                break
            if event.epoch == page.epoch and page.is_owed(event):
                found.append(event)
        return found

    def entries(self, page: PageSeen, above: int) -> list[Published]:
        """What the channels of *page* had after an offset, whoever it was for."""
        later = self.published[bisect_right(self._offsets, above) :]
        return [
            one
            for one in later
            if one.epoch == page.epoch and (page.listens_to(one) or page.left_after(one, above))
        ]

    def find(self, number: int) -> Published | None:
        return self._by_number.get(number)


@dataclass
class PageSeen:
    """What one page's application saw, and what it is owed."""

    checker: Checker
    name: str
    uid: str | None = None
    client_id: str = ""
    epoch: str = ""
    at: int = 0  # nothing at or below this offset is owed
    heard: bool = False  # a handshake
    somebody_since: int = 0  # the offset from which on it was who it is
    fresh: bool = True  # it may begin at now: it is new, or was told to begin anew
    over: bool = False
    must_be_told: str = ""  # of a gap, because
    just_told: bool = False  # of one, and no event came since
    sends: dict[str, int] = field(default_factory=dict)  # by the id of what waits for a reply
    # On their way, with the link that brings them.
    gaps: list[tuple[Link, str, int]] = field(default_factory=list)
    past: list[str] = field(default_factory=list)  # epochs that are over for it

    def is_owed(self, event: Published) -> bool:
        if event.control or event.exclude == (self.uid, self.client_id):
            return False
        return self.listens_to(event) and not self.has_left(event)

    def may_get(self, event: Published) -> bool:
        listens = self.listens_to(event) or self.uid in event.perhaps_to
        return listens and event.exclude != (self.uid, self.client_id)

    def left_after(self, event: Published, offset: int) -> bool:
        """Whether it is of a topic that its user left after *offset*: it takes a place in that."""
        return self.checker.left.get((self.uid, event.channel[2:]), 0) > offset

    def has_left(self, event: Published) -> bool:
        """Whether it is of a topic that its user has left since: then it is owed no more."""
        channel, uid = event.channel, self.uid
        left = self.checker.left.get((uid, channel[2:]), 0) if channel.startswith("t:") else 0
        return event.offset < left

    def listens_to(self, event: Published) -> bool:
        channel = event.channel
        if channel == EVERYONE:
            return True
        if channel == ANONYMOUS:
            return self.uid is None
        kind, _, rest = channel.partition(":")
        if kind == "u":
            return rest == self.uid
        if kind == "c":
            client_id, _, uid = rest.partition(":")
            return (uid or None, client_id) == (self.uid, self.client_id)
        return self.uid in event.to

    # from the page -------------------------------------------------------------------------

    def frame(self, link: Link, frame: tuple[Any, Any, Any]) -> None:
        """A message came, which the session has not seen yet: the offset of a gap is only here."""
        value, _, third = frame
        if isinstance(third, str) and isinstance(value, list):
            at = 0
            epoch, _, offsets = third.partition(":")
            for event, step in zip(value, offsets.split(","), strict=False):
                at += int(step)
                if isinstance(event, list) and event[:1] == [GAP]:
                    self.gaps.append((link, epoch, at))

    def delivered(self, event: Event, pushed: bool, session: Any) -> None:
        checker = self.checker
        if event.id == HANDSHAKE:
            self._shaken(event.data[0], session)
        elif event.id == GAP:
            self._gap(session)
        elif pushed:
            number = event.data[0]
            sent = checker.find(number)
            checker.say(f"{self.name} got event {number}")
            if sent is None:
                checker.violated(f"{self.name} got event {number}, which nobody sent")
            elif not self.may_get(sent):
                checker.violated(f"{self.name} got event {number}, which is not for it")
            elif sent.epoch != self.epoch:
                checker.violated(f"{self.name} got event {number} of another epoch")
            elif sent.offset <= self.at:
                checker.violated(f"{self.name} got event {number} twice, late or from before")
            else:
                self.just_told = False
                self._advance(sent.offset, f"event {number}")

    def _shaken(self, uid: str | None, session: Any) -> None:
        checker = self.checker
        server = session.server
        epoch, offset = _read(server.cursor)
        recovered = server.recovered
        checker.say(f"{self.name} is open as {uid or 'nobody'}, recovered: {recovered}")
        if self.must_be_told:
            checker.violated(f"{self.name} was not told of a gap: {self.must_be_told}")
        another = self.heard and (uid, session.client_id) != (self.uid, self.client_id)
        if recovered is True:
            # Where the broker began anew after the page was let in, a gap follows.
            if another or self.fresh:
                checker.violated(f"{self.name} is told that it missed nothing, and did")
        elif recovered is None:
            if not self.fresh:
                checker.violated(f"{self.name} begins anew, and nobody told it to")
            self._turn_to(epoch)
            self.at = offset
        else:
            # The link may have begun before the page heard more by another one, in another epoch
            # or as somebody else.
            begun_in, begun_at = _read(session.link.cursor)
            same = not another and epoch == self.epoch == begun_in
            if same and begun_at >= self.somebody_since:
                self._gap_has_a_reason(min(self.at, begun_at))
            self._turn_to(epoch)
            self.at = offset
            self.must_be_told = "the handshake said so"
        if offset > checker.clock() * 1e6 + 1e6:
            checker.violated(f"{self.name} begins in the future")
        if another:
            self.somebody_since = offset
        self.uid, self.client_id = uid, session.client_id
        self.heard, self.fresh = True, False

    def _gap(self, session: Any) -> None:
        checker = self.checker
        if self.must_be_told:
            self.must_be_told = ""
            self.just_told = True
            checker.say(f"{self.name} is told of a gap")
            return
        # What a link on trial brought is lost with the link.
        links = (session.link, session.trial, session.fallback_trial, session.previous)
        gaps = [
            (link, epoch, offset)
            for link, epoch, offset in self.gaps
            if link in links
            and (offset > self.at if epoch == self.epoch else epoch not in self.past)
        ]
        checker.say(f"{self.name} is told of a gap while it is open")
        if not gaps:
            checker.violated(f"{self.name} is told of a gap that no server told")
            return
        (_, epoch, offset), *self.gaps = gaps
        if epoch == self.epoch and not self.just_told:  # twice in a row costs nothing
            self._gap_has_a_reason(self.at)
        self.just_told = True
        self._turn_to(epoch)
        self.at = offset

    def _turn_to(self, epoch: str) -> None:
        if epoch != self.epoch:
            self.past.append(self.epoch)
            self.epoch = epoch

    def _gap_has_a_reason(self, since: int) -> None:
        checker = self.checker
        limits = checker.limits
        if checker.clock() - since / 1e6 > limits.seconds:
            return
        if checker.clock() < checker.began_anew + SETTLED:
            return
        counts: dict[str, tuple[int, int]] = {}
        for event in checker.entries(self, since):
            if not event.kept:
                return
            count, size = counts.get(event.channel, (0, 0))
            counts[event.channel] = count + 1, size + event.size
        if any(count > limits.events or size > limits.bytes for count, size in counts.values()):
            return
        checker.violated(f"{self.name} is told of a gap without a reason")

    def _advance(self, offset: int, why: str) -> None:
        missed = self.checker.owed(self, self.at, offset)
        if missed:
            self.checker.violated(f"{self.name} missed {_named(missed)}, and went on to {why}")
        self.at = max(self.at, offset)

    def settled(self, session: Any) -> None:
        """All that came together was told."""
        if self.must_be_told:
            self.checker.violated(f"{self.name} was not told of a gap: {self.must_be_told}")
            self.must_be_told = ""
        if session.cursor is None:
            return
        epoch, offset = _read(session.cursor)
        if self.heard and epoch == self.epoch:
            if offset < self.at:
                self.checker.violated(f"the cursor of {self.name} fell to {offset}")
            counting, last = self.checker.counter()
            if epoch == counting and offset > last + 1:  # one more: where a gap is told
                self.checker.violated(f"the cursor of {self.name} passed all events: {offset}")
        if self.heard and epoch == self.epoch and offset > self.at:
            self._advance(offset + 1, f"cursor {offset}")
            self.at = offset

    def changed(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        if old["status"] != new["status"]:
            close = new["last_close"]
            why = f" ({close['reason']} {close.get('code', '')})" if close else ""
            self.checker.say(f"{self.name} is {new['status']}{why}")
        close = new["last_close"]
        if close is not old["last_close"] and close.get("code") == CLOSED_BY_APP:
            self.fresh = True
        self.over = new["status"] in ("closed", "refused", "destroyed")

    # sends -----------------------------------------------------------------------------------

    def sent(self, number: int, outgoing: Outgoing) -> None:
        self.checker.sent(number, outgoing)
        if outgoing.id is not None:
            self.sends[outgoing.id] = number

    def replied(self, outgoing: Outgoing, reply: Any) -> None:
        assert outgoing.id is not None
        number = self.sends.pop(outgoing.id, None)
        if number is None:
            self.checker.violated(f"{self.name} got two replies to one send")
            return
        self.checker.say(f"{self.name} got {reply} as the reply to send {number}")
        if isinstance(reply, int):
            if reply != number:
                self.checker.violated(f"{self.name} got another send's reply")
            if not self.checker.was_handled(number):
                self.checker.violated(f"{self.name} got a reply to a send that was never handled")

    # the end ---------------------------------------------------------------------------------

    def unloaded(self) -> None:
        self.over = True
        self.sends.clear()

    def at_the_end(self) -> None:
        if self.over:
            return
        checker = self.checker
        if not self.heard:
            checker.violated(f"{self.name} never opened")
            return
        missed = checker.owed(self, self.at, float("inf"))
        if missed:
            checker.violated(f"{self.name} never got {_named(missed)}")
        if self.sends:
            checker.violated(
                f"{self.name} still waits for replies to {sorted(self.sends.values())}"
            )


def _named(events: list[Published]) -> str:
    return ", ".join(
        f"event {event.number} ({event.channel}{'' if event.kept else ', who was not there'})"
        for event in events
    )


def _read(cursor: Any) -> Cursor:
    found = _CURSOR.match(cursor or "")
    assert found is not None, cursor
    return found[1], int(found[2])


def wall(virtual: float) -> float:
    """The wall clock's time at a virtual one."""
    return START + virtual

"""What a client decides, with a clock turned by hand: no socket, no thread."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from flask_chsk.client.effects import (
    Asked,
    Changed,
    Deliver,
    Dropped,
    End,
    Open,
    Replied,
    Repoll,
    Send,
)
from flask_chsk.client.handshake import ServerInfo
from flask_chsk.client.link import Link, LinkClosed, Outgoing
from flask_chsk.client.policy import Options
from flask_chsk.client.session import ClientSession
from flask_chsk.errors import PackError
from flask_chsk.packers import make
from flask_chsk.protocol.event import Event
from flask_chsk.protocol.wire import WIRES, Composer
from flask_chsk.values import Keyword

SERVER = {
    "cursor": "e1:100",
    "resume": "token",
    "recovered": None,
    "kalive-ms": 25000,
    "lp-timeout-ms": 20000,
    "max-bytes": 1000,
    "server": "flask_chsk",
}


class World:
    """A session, its clock, and the server it believes to talk to."""

    def __init__(self, packer: str = "edn", **options: Any) -> None:
        self.now = 1000.0
        options.setdefault("backoff", lambda attempt: float(attempt + 1))
        cursor = options.pop("cursor", None)
        self.composer = Composer(make(packer), WIRES["1.21"])
        self.session = ClientSession(
            self.composer,
            Options(**options),
            random=lambda: 0.5,
            new_id=map("id{}".format, count()).__next__,
            wall=1_000_000.0,
            cursor=cursor,
        )

    # what happens ----------------------------------------------------------------------

    def call(self, name: str, *args: Any) -> Any:
        return getattr(self.session, name)(*args, self.now)

    def take(self, kind: Any) -> list[Any]:
        """The effects of one kind, the others dropped."""
        return [effect for effect in self.session.take_effects() if isinstance(effect, kind)]

    def told(self, *, pongs: bool = False) -> list[Any]:
        """What the application gets to know; of states only their names."""
        told: list[Any] = []
        for effect in self.session.take_effects():
            if isinstance(effect, Changed) and effect.old["status"] != effect.new["status"]:
                told.append(effect.new["status"])
            elif isinstance(effect, Deliver) and effect.event.id != "chsk/state":
                if pongs or effect.event.id != "chsk/ws-pong":
                    told.append((str(effect.event.id), effect.event.data))
            elif isinstance(effect, Replied):
                told.append((effect.outgoing.name, effect.reply))
        return told

    def connect(self) -> Link:
        """Begin, and give the link that is tried."""
        self.call("connect")
        return self.tried()

    def tried(self) -> Link:
        *_, opened = self.take(Open)
        link: Link = opened.link
        assert link is self.session.trial
        return link

    def open(self, *, uid: str | None = "ann", **server: Any) -> Link:
        """Connect, and have the link confirmed."""
        link = self.connect()
        self.confirm(link, uid=uid, **server)
        self.session.take_effects()
        return link

    def confirm(self, link: Link, *, uid: str | None = "ann", **server: Any) -> None:
        if link.kind == "ws":
            self.call("opened", link)
        self.shake(link, uid, **server)
        if link.kind == "ws":
            self.say(link, "pong", "ping")

    def shake(self, link: Link, uid: str | None = "ann", **server: Any) -> Any:
        more = {**SERVER, **{key.replace("_", "-"): value for key, value in server.items()}}
        return self.say(link, [Keyword("chsk/handshake"), [uid, None, {"hi": 1}, more]])

    def say(self, link: Link, value: Any, cb: Any = None, third: Any = None) -> Any:
        return self.call("received", link, self.composer.message(value, cb, third))

    def push(self, link: Link, *data: Any, third: str | None = None) -> None:
        self.say(link, [[Keyword("chat/said"), x] for x in data], None, third)

    def turn(self, seconds: float) -> None:
        """Let time pass, doing what is due when it is."""
        until = self.now + seconds
        while (due := self.session.next_due()) is not None and due <= until:
            self.now = max(due, self.now)
            self.session.tick(self.now)
        self.now = until

    def send(
        self, event: Any, cb: Any = None, timeout: float = 10.0, key: str | None = None
    ) -> tuple[bool, Outgoing]:
        outgoing = self.session.pack(Event(*event), cb, timeout, key=key)
        return self.call("send", outgoing), outgoing

    @property
    def status(self) -> str:
        return str(self.session.state["status"])

    @property
    def close(self) -> dict[str, Any]:
        return dict(self.session.state["last_close"])


def said(world: World) -> list[Any]:
    """The pushed data."""
    return [effect.event.data for effect in world.take(Deliver) if effect.pushed]


@pytest.fixture(params=["ws", "ajax"])
def world(request: pytest.FixtureRequest) -> World:
    """A session of one transport."""
    return World(type=request.param)


@pytest.fixture
def auto() -> World:
    """A session that takes what works."""
    return World()


# Opening --------------------------------------------------------------------------------


def test_a_websocket_is_confirmed_by_a_round_trip(auto: World) -> None:
    link = auto.connect()
    auto.call("opened", link)
    (ping,) = auto.take(Send)
    assert ping.outgoing.data == '[[:chsk/ws-ping] "ping"]'
    auto.shake(link)
    assert auto.status == "connecting"
    auto.say(link, "pong", "ping")
    assert auto.told() == ["open", ("chsk/handshake", ["ann", None, {"hi": 1}])]


def test_a_poll_is_confirmed_by_its_handshake() -> None:
    world = World(type="ajax")
    world.shake(world.connect())
    assert world.told() == ["open", ("chsk/handshake", ["ann", None, {"hi": 1}])]


def test_what_came_during_a_trial_counts_once_the_link_is_confirmed(auto: World) -> None:
    link = auto.connect()
    auto.shake(link)
    auto.push(link, 1, 2, third="e1:101,+1")
    assert said(auto) == []
    auto.say(link, "pong", "ping")
    assert said(auto) == [1, 2]
    assert auto.session.cursor == "e1:102"


def test_a_trial_goes_on_while_what_was_missed_comes_slowly(auto: World) -> None:
    link = auto.connect()
    auto.call("opened", link)
    auto.shake(link)
    for offset in (101, 102, 103):
        auto.turn(4.9)
        auto.push(link, offset, third=f"e1:{offset}")
    auto.say(link, "pong", "ping")
    assert said(auto) == [101, 102, 103]
    assert auto.session.link is link


def test_first_open_is_true_once(world: World) -> None:
    world.open()
    assert world.session.state["first_open"] is True
    world.call("reconnect")
    world.confirm(world.tried())
    assert (world.session.state["first_open"], world.session.state["ever_opened"]) == (False, True)


def test_sentes_nil_uid_is_none() -> None:
    world = World(type="ajax")
    world.say(world.connect(), [Keyword("chsk/handshake"), [Keyword("sente/nil-uid"), None]])
    assert (world.status, world.session.state["uid"]) == ("open", None)
    assert world.session.server.knows_batches is False


def test_the_state_of_an_opening_step_by_step(auto: World) -> None:
    link = auto.connect()
    before = dict(auto.session.state)
    auto.confirm(link)
    (changed,) = auto.take(Changed)
    assert (
        dict(changed.old)
        == before
        == {
            "status": "connecting",
            "type": "ws",
            "open": False,
            "ever_opened": False,
            "first_open": False,
            "uid": None,
            "csrf_token": None,
            "handshake_data": None,
            "last_ws_error": None,
            "last_ws_close": None,
            "last_close": None,
            "udt_next_reconnect": None,
        }
    )
    assert dict(changed.new) == {
        **before,
        "status": "open",
        "open": True,
        "ever_opened": True,
        "first_open": True,
        "uid": "ann",
        "handshake_data": {"hi": 1},
    }


# Falling back, and returning ------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [
        LinkClosed(1006, why="ws-error", error="refused"),
        LinkClosed(why="ws-error", status=400, error="HTTP 400"),
        LinkClosed(why="ws-error", status=502, error="HTTP 502"),
        LinkClosed(1002, why="ws-error", error="RSV bit"),
    ],
)
def test_where_websockets_fail_polls_are_tried_at_once(auto: World, how: LinkClosed) -> None:
    link = auto.connect()
    auto.call("closed", link, how)
    assert auto.tried().kind == "ajax"
    assert auto.close == {"udt": 1_001_000_000, "reason": "downgrading-ws-to-ajax"}


def test_a_websocket_that_says_nothing_is_given_up(auto: World) -> None:
    link = auto.connect()
    auto.confirm(link)
    auto.call("closed", link, LinkClosed(4002))
    auto.turn(1)
    link = auto.tried()
    auto.call("opened", link)
    auto.shake(link)  # but no pong: bytes pass one way only
    auto.turn(4.9)
    assert auto.take(Open) == []  # WebSockets worked: nothing is tried beside
    auto.turn(0.2)
    effects = auto.session.take_effects()
    assert End(link, 4000) in effects
    assert [effect.link.kind for effect in effects if isinstance(effect, Open)] == ["ajax"]


@pytest.mark.parametrize(
    "how",
    [
        LinkClosed(why="ws-error", status=401),
        LinkClosed(why="ws-error", status=403),
        LinkClosed(why="ws-error", status=429, retry_after=3.0),
        LinkClosed(why="ws-error", status=503, retry_after=3.0),
        LinkClosed(1012, "spread=4", "clean"),
        LinkClosed(4002, "too slow", "clean"),
    ],
)
def test_what_the_server_says_itself_changes_no_transport(auto: World, how: LinkClosed) -> None:
    link = auto.connect()
    auto.call("closed", link, how)
    auto.take(Open)
    auto.turn(auto.session.state["udt_next_reconnect"] / 1000 - 1_000_000 - auto.now)
    assert [effect.link.kind for effect in auto.take(Open)] == ["ws"]


def beside(world: World) -> tuple[Link, Link]:
    """A WebSocket that says nothing, and the polls that are tried beside it."""
    ws = world.connect()
    world.turn(0.9)
    assert world.take(Open) == []
    world.turn(0.2)
    (opened,) = world.take(Open)
    assert (opened.link.kind, world.session.trial) == ("ajax", ws)
    return ws, opened.link


def test_polls_are_tried_beside_a_websocket_that_says_nothing(auto: World) -> None:
    _, polls = beside(auto)
    assert auto.session.asks_for_handshake(polls) is False  # it evicts no WebSocket
    auto.shake(polls)
    assert (auto.session.link, auto.session.state["type"]) == (polls, "ajax")
    ws = auto.tried()
    auto.turn(6)
    assert End(ws, 4000) in auto.session.take_effects()
    assert (auto.status, auto.session.link) == ("open", polls)
    auto.turn(30)
    assert auto.tried().kind == "ws"


def test_a_slow_websocket_is_preferred(auto: World) -> None:
    ws, polls = beside(auto)
    auto.say(polls, Keyword("chsk/timeout"))  # the server has the WebSocket
    auto.confirm(ws)
    assert (auto.session.link, auto.session.fallback_trial) == (ws, None)
    assert End(polls, 1000) in auto.session.take_effects()


def test_a_websocket_that_comes_after_polls_takes_over(auto: World) -> None:
    _, polls = beside(auto)
    auto.shake(polls)
    ws = auto.tried()
    auto.confirm(ws, recovered=True, cursor="e1:100")
    assert (auto.session.link, auto.session.state["type"]) == (ws, "ws")


def test_a_websocket_that_began_without_a_cursor_is_tried_anew_when_polls_have_one(
    auto: World,
) -> None:
    first, polls = beside(auto)
    auto.shake(polls)
    ends = auto.session.take_effects()
    second = auto.session.trial
    assert second is not None
    assert (End(first, 1000) in ends, Open(second) in ends) == (True, True)
    assert (first.cursor, second.cursor) == (None, "e1:100")
    auto.push(polls, 1, third="e1:101")
    auto.take(Deliver)
    auto.confirm(first, cursor="e1:102")  # too late: it would skip what the polls may still bring
    assert (auto.session.link, auto.session.cursor) == (polls, "e1:101")


def test_once_the_websocket_has_failed_polls_ask_for_a_handshake(auto: World) -> None:
    ws, polls = beside(auto)
    auto.call("closed", ws, LinkClosed(1006))
    assert auto.session.asks_for_handshake(polls) is True
    auto.shake(polls)
    assert auto.session.link is polls


def test_where_polls_fail_beside_it_the_websocket_is_waited_for(auto: World) -> None:
    ws, polls = beside(auto)
    auto.call("closed", polls, LinkClosed(status=503, retry_after=7.0))
    assert auto.status == "connecting"
    auto.call("closed", ws, LinkClosed(1006))
    assert (auto.status, auto.close["status"]) == ("waiting", 503)
    assert auto.take(Open) == []


def test_disconnected_it_ends_both_that_are_tried(auto: World) -> None:
    ws, polls = beside(auto)
    auto.call("disconnect")
    assert {End(ws, 1000), End(polls, 1000)} <= {
        effect for effect in auto.session.take_effects() if isinstance(effect, End)
    }


def flap(world: World) -> Link:
    """Two WebSockets that are cut after 0.3 s; the link that is tried then."""
    world.open()
    world.turn(0.3)
    world.call("closed", world.session.link, LinkClosed(1006))
    world.turn(2)
    world.confirm(world.tried(), recovered=True)
    world.turn(0.3)
    world.session.take_effects()
    world.call("closed", world.session.link, LinkClosed(1006))
    return world.tried()


def test_websockets_that_are_cut_soon_give_way_to_polls(auto: World) -> None:
    link = flap(auto)
    assert link.kind == "ajax"
    for seconds in (30, 60, 120, 240, 480, 600, 600):
        auto.confirm(link, recovered=True)
        auto.session.take_effects()
        auto.turn(seconds - 0.1)
        assert auto.take(Open) == []
        auto.turn(0.2)
        auto.confirm(auto.tried(), recovered=True)
        assert auto.session.state["type"] == "ws"
        auto.turn(0.3)
        auto.session.take_effects()
        auto.call("closed", auto.session.link, LinkClosed(1006))
        link = auto.tried()
        assert link.kind == "ajax"


def test_after_a_websocket_that_lasted_the_next_cut_is_no_fallback(auto: World) -> None:
    auto.confirm(flap(auto), recovered=True)
    auto.session.take_effects()
    auto.turn(30.1)
    auto.confirm(auto.tried(), recovered=True)
    auto.turn(5)
    auto.call("closed", auto.session.link, LinkClosed(1006))
    assert auto.status == "waiting"


def test_over_polls_a_websocket_is_tried_again_ever_more_rarely(auto: World) -> None:
    link = fall_back(auto)
    tried: list[int] = []
    began = auto.now
    while len(tried) < 7:
        auto.turn(1)
        for opened in auto.take(Open):
            tried.append(round(auto.now - began))
            auto.call("closed", opened.link, LinkClosed(1006))
    assert tried == [30, 90, 210, 450, 930, 1530, 2130]
    assert (auto.status, auto.session.link) == ("open", link)


def test_where_a_websocket_has_worked_the_way_back_is_short(auto: World) -> None:
    auto.call("closed", auto.open(), LinkClosed(1006))
    auto.turn(1)
    fall_back(auto)
    tried: list[int] = []
    began = auto.now
    while len(tried) < 4:
        auto.turn(1)
        for opened in auto.take(Open):
            tried.append(round(auto.now - began))
            auto.call("closed", opened.link, LinkClosed(1006))
    assert tried == [2, 6, 14, 30]


def fall_back(world: World) -> Link:
    """Open over polls, WebSockets having failed."""
    world.call("closed", world.connect(), LinkClosed(1006))
    link = world.tried()
    world.confirm(link)
    world.session.take_effects()
    return link


def test_the_return_to_websocket_loses_and_doubles_nothing(auto: World) -> None:
    poll = fall_back(auto)
    auto.push(poll, 1, third="e1:101")
    auto.turn(30)
    (opened,) = auto.take(Open)
    ws = opened.link
    assert ws.cursor == "e1:101"
    auto.push(poll, 2, third="e1:102")
    auto.call("opened", ws)
    auto.shake(ws, recovered=True, cursor="e1:101")
    auto.push(ws, 2, 3, third="e1:102,+1")
    assert auto.session.link is poll
    auto.say(ws, "pong", "ping")
    effects = auto.session.take_effects()
    assert End(poll, 1000) in effects
    assert [e.event.data for e in effects if isinstance(e, Deliver) and e.pushed] == [2, 3]
    assert (auto.session.state["type"], auto.session.cursor) == ("ws", "e1:103")


def test_what_polls_took_leaves_before_what_the_websocket_gets(auto: World) -> None:
    poll = fall_back(auto)
    poll.busy = True  # a POST is under way
    auto.turn(30)
    ws = auto.tried()
    auto.confirm(ws, recovered=True, cursor="e1:100")
    auto.session.take_effects()
    _, outgoing = auto.send(["chat/say", 1])
    assert auto.take(Send) == [Send(poll, outgoing)]
    poll.busy = False
    _, outgoing = auto.send(["chat/say", 2])
    assert auto.take(Send) == [Send(ws, outgoing)]


def test_our_own_change_of_transport_is_no_replacement(auto: World) -> None:
    fall_back(auto)
    auto.turn(30)
    ws = auto.tried()
    auto.confirm(ws, recovered=True, cursor="e1:100")
    auto.call("closed", ws, LinkClosed(4001, "replaced", "clean"))
    assert auto.status == "waiting"


def test_where_neither_works_websockets_are_tried_first_again(auto: World) -> None:
    auto.call("closed", auto.connect(), LinkClosed(1006))
    auto.call("closed", auto.tried(), LinkClosed(message="unreachable"))
    assert auto.status == "waiting"
    auto.turn(1)
    assert auto.tried().kind == "ws"


# Ends -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "status", "reason", "wait"),
    [
        (1000, "closed", "clean", None),
        (1001, "waiting", "clean", 1.0),
        (1002, "waiting", "clean", 1.0),
        (1003, "waiting", "clean", 1.0),
        (1007, "waiting", "clean", 1.0),
        (1009, "waiting", "clean", 1.0),
        (1011, "waiting", "clean", 1.0),
        (1012, "waiting", "clean", 1.0),  # half of the two seconds
        (1013, "waiting", "clean", 1.0),
        (4000, "waiting", "clean", 1.0),
        (4001, "closed", "replaced", None),
        (4002, "waiting", "clean", 1.0),
        (4003, "waiting", "clean", 1.0),
        (4004, "waiting", "clean", 1.0),
        (4005, "closed", "signed-out", None),
    ],
)
def test_a_close_code_decides_what_is_next(
    world: World, code: int, status: str, reason: str, wait: float | None
) -> None:
    link = world.open()
    if link.kind == "ws":
        world.call("closed", link, LinkClosed(code, "why", "clean"))
    else:
        world.say(link, [[Keyword("chsk/close"), {"code": code, "reason": "why"}]])
    assert world.status == status
    assert world.close == {
        "udt": 1_001_000_000,
        "reason": reason,
        "code": code,
        "message": "why",
    }
    next_try = world.session.state["udt_next_reconnect"]
    assert next_try == (None if wait is None else 1_001_000_000 + wait * 1000)


def test_a_restart_spreads_its_clients(world: World) -> None:
    link = world.open()
    world.call("closed", link, LinkClosed(1012, "spread=20", "clean"))
    world.turn(9.9)
    assert world.take(Open) == []
    world.turn(0.2)
    world.tried()


def test_waits_grow_until_a_connection_was_stable(world: World) -> None:
    def waits() -> float:
        world.call("closed", world.session.link or world.session.trial, LinkClosed(1006))
        wait: float = world.session.state["udt_next_reconnect"] / 1000 - 1_000_000 - world.now
        world.turn(wait)
        return wait

    world.connect()
    assert [waits(), waits(), waits()] == [1, 2, 3]
    world.confirm(world.tried())
    assert waits() == 4  # it did not last
    world.confirm(world.tried())
    world.turn(5)
    assert waits() == 1


def test_a_refusal_is_asked_about_once_more_then_final(world: World) -> None:
    link = world.connect()
    world.call("closed", link, LinkClosed(status=403, message="CSRF token missing"))
    world.turn(0)
    link = world.tried()
    world.call("closed", link, LinkClosed(status=403, message="CSRF token missing"))
    assert world.status == "refused"
    assert world.close == {
        "udt": 1_001_000_000,
        "reason": "refused",
        "status": 403,
        "message": "CSRF token missing",
    }
    world.turn(1000)
    assert world.take(Open) == []
    assert world.connect() is world.session.trial


def test_an_id_that_somebody_else_holds_is_replaced(world: World) -> None:
    world.open()
    sent = world.send(["chat/say", 1], key="k")[1]
    before, cursor = world.session.client_id, world.session.cursor
    world.call("closed", world.session.link, LinkClosed())
    world.turn(1.0)
    world.call("closed", world.session.trial, LinkClosed(status=409, retry_after=7.0))
    assert world.status == "waiting"
    world.turn(2.0)
    assert (world.session.client_id, world.session.resume) == ("id1", None) != (before, None)
    assert world.tried().cursor == cursor  # so that the server says what was missed
    assert sent.key_scope != world.session._key_scope  # a keyed send was the old one's


def test_an_id_that_the_application_fixed_is_asked_for_again() -> None:
    world = World(type="ws", client_id="bot")
    link = world.connect()
    world.call("closed", link, LinkClosed(status=409, retry_after=7.0))
    world.turn(6.9)
    assert world.take(Open) == []
    world.turn(0.2)
    assert world.take(Open) and world.session.client_id == "bot"


def test_a_wait_that_the_server_asked_for_is_kept(world: World) -> None:
    link = world.connect()
    world.call("closed", link, LinkClosed(status=503, retry_after=7.0))
    world.turn(6.9)
    assert world.take(Open) == []
    world.turn(0.2)
    world.tried()


@pytest.mark.parametrize("how", ["connect", "woken"])
def test_a_wait_is_cut_short(world: World, how: str) -> None:
    world.call("closed", world.connect(), LinkClosed(status=503, retry_after=60.0))
    world.session.take_effects()
    world.call(how)
    world.tried()


def test_connect_cuts_one_wait_a_second_short(world: World) -> None:
    link = world.connect()
    for _ in range(10):
        world.call("closed", link, LinkClosed(status=503, retry_after=60.0))
        world.session.take_effects()
        world.call("connect")
        opened = world.take(Open)
        if not opened:
            break
        link = opened[0].link
    assert world.status == "waiting"
    world.turn(1.0)
    assert world.connect()


def test_closed_by_the_application_a_session_is_fresh(world: World) -> None:
    link = world.open()
    world.call("closed", link, LinkClosed(4003, "", "clean"))
    world.turn(1)
    assert world.tried().cursor is None


def test_the_late_end_of_an_old_link_is_nothing(world: World) -> None:
    old = world.open()
    world.call("reconnect")
    new = world.tried()
    world.call("closed", old, LinkClosed(1006))
    assert (world.session.trial, world.status) == (new, "connecting")
    assert world.say(old, "pong", "ping") is None


def test_reconnect_begins_at_once(world: World) -> None:
    old = world.open()
    world.call("reconnect")
    effects = world.session.take_effects()
    assert End(old, 3000) in effects
    assert world.close == {"udt": 1_001_000_000, "reason": "requested-reconnect"}
    assert world.status == "connecting"


def test_disconnected_it_rests_until_connect(world: World) -> None:
    link = world.open()
    world.call("disconnect")
    assert End(link, 1000) in world.session.take_effects()
    assert (world.status, world.session.next_due()) == ("closed", None)
    assert world.close == {"udt": 1_001_000_000, "reason": "requested-disconnect"}
    assert world.connect() is world.session.trial


def test_destroyed_it_stays_so(world: World) -> None:
    world.open()
    world.call("destroy")
    world.call("connect")
    world.call("reconnect")
    assert (world.status, world.session.next_due()) == ("destroyed", None)


def test_a_cut_is_an_unexpected_end(world: World) -> None:
    link = world.open()
    world.call("cut")
    assert End(link, 3001) in world.session.take_effects()
    assert (world.status, world.close["reason"]) == ("waiting", "unexpected")


# Sending --------------------------------------------------------------------------------


def test_a_reply_finds_its_item(world: World) -> None:
    link = world.open()
    _, one = world.send(["chat/say", 1], cb=print)
    _, two = world.send(["chat/say", 2], cb=print)
    assert [say.outgoing.data for say in world.take(Send)] == [
        '[[:chat/say 1] "c1"]',
        f'[[:chat/say 2] "{two.id}"]',
    ]
    world.say(link, {"ok": 2}, two.id)
    world.say(link, None, one.id)
    world.say(link, "again", one.id)
    assert world.take(Replied) == [Replied(two, {"ok": 2}), Replied(one, None)]


def test_an_event_without_data_is_its_id_alone(world: World) -> None:
    world.open()
    world.send(["chat/hello"])
    (say,) = world.take(Send)
    assert say.outgoing.data == "[[:chat/hello] nil]"


def test_a_reply_that_does_not_come_times_out(world: World) -> None:
    link = world.open()
    world.send(["chat/slow"], cb=print, timeout=3)
    _, outgoing = world.send(["chat/say"], cb=print, timeout=2)
    world.turn(1.9)
    assert world.told() == []
    world.turn(0.2)
    assert world.told() == [("chat/say", "chsk/timeout")]
    world.say(link, "late", outgoing.id)
    world.turn(1)
    assert world.told() == [("chat/slow", "chsk/timeout")]


def test_a_reply_that_is_lost_with_its_websocket_is_told() -> None:
    world = World(type="ws")
    link = world.open()
    world.send(["chat/say"], cb=print)
    world.take(Send)
    world.call("closed", link, LinkClosed(1006))
    assert world.told() == [("chat/say", "chsk/closed"), "waiting"]


def test_posts_answer_for_themselves() -> None:
    world = World(type="ajax")
    link = world.open()
    _, outgoing = world.send(["chat/say"], cb=print)
    world.call("closed", link, LinkClosed(1006))
    assert world.told() == ["waiting"]
    world.session.post_answered(outgoing, "[{:ok true} nil]")
    assert world.told() == [("chat/say", {"ok": True})]


def test_an_answer_to_a_post_that_is_rubbish_is_an_error() -> None:
    world = World(type="ajax")
    world.open()
    _, outgoing = world.send(["chat/say"], cb=print)
    world.session.post_answered(outgoing, "<html>")
    assert world.told() == [("chsk/bad-package", "<html>"), ("chat/say", "chsk/error")]


@pytest.mark.parametrize("packer", ["edn", "json"])
def test_the_three_words_are_keywords_whatever_the_packer(packer: str) -> None:
    world = World(packer, type="ws")
    link = world.open()
    _, outgoing = world.send(["chat/say"], cb=print)
    details = {"status": 404, "message": "no handler"}
    world.say(link, Keyword("chsk/error"), outgoing.id, details)
    (replied,) = world.take(Replied)
    assert replied == Replied(outgoing, "chsk/error", details)
    assert type(replied.reply) is Keyword


def test_sent_while_closed_it_is_told_so(world: World) -> None:
    assert world.send(["chat/say"], cb=print)[0] is False
    assert world.told() == [("chat/say", "chsk/closed")]
    world.connect()
    assert world.send(["chat/say"])[0] is False


def test_sends_wait_in_line_where_that_is_wanted(world: World) -> None:
    world = World(type=world.session.options.type, offline_queue=2)
    assert world.send(["chat/say", 0])[0] is False  # closed: nobody tries to open it
    link = world.connect()
    sent = [world.send(["chat/say", n], cb=print)[0] for n in (1, 2, 3)]
    assert sent == [True, True, False]
    world.confirm(link)
    assert [say.outgoing.data[:14] for say in world.take(Send) if say.outgoing.id] == [
        "[[:chat/say 1]",
        "[[:chat/say 2]",
    ]


def test_what_timed_out_in_line_is_not_sent(world: World) -> None:
    world = World(type=world.session.options.type, offline_queue=2)
    link = world.connect()
    world.send(["chat/say", 1], cb=print, timeout=1)
    world.send(["chat/say", 2])
    world.turn(2)
    world.confirm(link)
    said = [say.outgoing.data for say in world.take(Send) if say.outgoing.name == "chat/say"]
    assert said == ["[[:chat/say 2] nil]"]


def request(world: World, data: Any, timeout: float = 10.0) -> Outgoing:
    outgoing = world.session.pack(Event("chat/say", data), print, timeout, waits=True)
    world.call("send", outgoing)
    return outgoing


def says(world: World) -> list[Any]:
    """The data that left."""
    return [say.outgoing.data[12:-7] for say in world.take(Send) if say.outgoing.name == "chat/say"]


def test_a_request_waits_for_the_first_connection_and_the_next(world: World) -> None:
    link = world.connect()
    request(world, 1)
    world.confirm(link)
    assert says(world) == ["1"]
    world.call("closed", link, LinkClosed(1012, "spread=2"))
    request(world, 2)
    world.turn(2)
    world.confirm(world.tried(), recovered=True)
    assert says(world) == ["2"]


def test_a_request_waits_where_its_websocket_is_closing() -> None:
    world = World(type="ws")
    link = world.open()
    outgoing = request(world, 1)
    assert world.take(Send)
    world.call("not_taken", outgoing)  # which the transport says
    world.call("closed", link, LinkClosed(1012, "spread=2"))
    world.turn(2)
    world.confirm(world.tried(), recovered=True)
    assert says(world) == ["1"]


def test_a_request_that_waited_in_vain_says_why(world: World) -> None:
    link = world.connect()
    outgoing = request(world, 1, timeout=1.0)
    world.turn(1)
    assert world.take(Replied) == [Replied(outgoing, "chsk/timeout", {"message": "not open yet"})]
    world.confirm(link)
    assert says(world) == []


def test_a_request_does_not_wait_where_nobody_connects(world: World) -> None:
    request(world, 1)
    assert world.told() == [("chat/say", "chsk/closed")]
    world.connect()
    request(world, 2)
    world.call("disconnect")
    assert world.told() == [("chat/say", "chsk/closed"), "closed"]


def test_a_request_waits_for_the_user_who_made_it(world: World) -> None:
    world.call("closed", world.open(), LinkClosed(1006))
    outgoing = request(world, 1)
    world.turn(1)
    world.confirm(world.tried(), uid="bob", recovered=False)
    effects = world.session.take_effects()
    assert Dropped(outgoing, "the user changed") in effects
    assert Replied(outgoing, "chsk/closed", {"message": "the user changed"}) in effects


def test_a_request_of_whoever_signed_in_is_theirs(world: World) -> None:
    world.call("closed", world.open(), LinkClosed(1006))
    anns = request(world, 1)
    world.call("reconnect")
    request(world, 2)
    world.confirm(world.tried(), uid="bob", recovered=False)
    effects = world.session.take_effects()
    assert Dropped(anns, "the user changed") in effects
    said = [
        e.outgoing.data for e in effects if isinstance(e, Send) and e.outgoing.name == "chat/say"
    ]
    assert [data[12:13] for data in said] == ["2"]


def test_requests_take_no_place_of_sends_that_wait() -> None:
    world = World(type="ws", offline_queue=1)
    world.connect()
    request(world, 0)
    assert [world.send(["chat/say", n])[0] for n in (1, 2)] == [True, False]


def test_a_thousand_requests_may_wait() -> None:
    world = World(type="ws")
    world.connect()
    for n in range(1100):
        request(world, n)
    assert len(world.take(Replied)) == 100


def test_disconnected_what_waits_in_line_is_told(world: World) -> None:
    world = World(type=world.session.options.type, offline_queue=2)
    world.connect()
    world.send(["chat/say"], cb=print)
    world.call("disconnect")
    assert world.told() == [("chat/say", "chsk/closed"), "closed"]


def test_what_is_too_big_for_the_server_is_refused_here(world: World) -> None:
    world.open()
    with pytest.raises(PackError, match="of the 1000 that the server takes"):
        world.send(["chat/say", "é" * 500])


def test_events_leave_in_batches(world: World) -> None:
    world.open()
    items = [world.send(["chat/say", n])[1] for n in (1, 2)]
    assert (
        world.session.requests.batch(items) == "[[:chsk/batch [[:chat/say 1] [:chat/say 2]]] nil]"
    )
    assert world.session.requests.batch(items[:1]) == "[[:chat/say 1] nil]"


def test_a_batch_has_no_more_than_the_server_takes(world: World) -> None:
    world.open()
    assert world.session.server.max_batch == 64
    for said, most in ((2, 2), (1000, 64), (0, 64), ("x", 64)):
        assert ServerInfo({"max-batch": said}).max_batch == most
    assert ServerInfo({}).max_batch == 1  # Sente's servers know no batches


def cut_with_a_keyed_send(world: World, timeout: float = 200.0) -> Link:
    """Send with a key, lose the connection before the reply, and give the next link."""
    link = world.open()
    _, outgoing = world.send(["chat/pay", 1], cb=print, timeout=timeout, key="k1")
    world.call("closed", link, LinkClosed(1006))
    if link.kind == "ajax":
        world.call("post_interrupted", outgoing)
    world.turn(1)
    return world.tried()


def sent_again(world: World) -> list[Any]:
    return [say.outgoing.data for say in world.take(Send) if say.outgoing.name == "chat/pay"]


def test_a_send_with_a_key_is_sent_again_after_a_cut(world: World) -> None:
    link = cut_with_a_keyed_send(world)
    world.confirm(link, recovered=True)
    assert sent_again(world) == ['[[:chat/pay 1] "c1" {:key "k1"}]']
    world.say(link, "paid", "c1")
    assert world.told() == [("chat/pay", "paid")]


def test_a_key_holds_for_one_user(world: World) -> None:
    link = cut_with_a_keyed_send(world)
    world.session.take_effects()
    world.confirm(link, uid="bob")
    assert ("chat/pay", "chsk/closed") in world.told()


def test_a_key_holds_for_one_life_of_the_server(world: World) -> None:
    link = cut_with_a_keyed_send(world)
    world.confirm(link, recovered=False, cursor="e2:1")
    assert sent_again(world) == []


def test_a_key_does_not_hold_for_ever(world: World) -> None:
    link = cut_with_a_keyed_send(world)
    world.now += 100
    world.confirm(link, recovered=True)
    assert ("chat/pay", "chsk/closed") in world.told()


def test_a_post_with_a_key_that_failed_is_sent_again_a_little_later() -> None:
    world = World(type="ajax")
    world.open()
    _, outgoing = world.send(["chat/pay", 1], cb=print, key="k1")
    world.session.take_effects()
    world.call("post_interrupted", outgoing)
    assert sent_again(world) == []
    world.turn(1)
    assert sent_again(world) == ['[[:chat/pay 1] "c1" {:key "k1"}]']


def test_disconnected_nothing_is_sent_again(world: World) -> None:
    cut_with_a_keyed_send(world)
    world.call("disconnect")
    assert world.told() == [("chat/pay", "chsk/closed"), "closed"]


# Receiving ------------------------------------------------------------------------------


def test_an_event_is_delivered_once(world: World) -> None:
    link = world.open()
    world.push(link, 1, 2, third="e1:101,+3")
    world.push(link, 2, 3, third="e1:104,+1")
    world.push(link, 3, third="e1:105")
    assert said(world) == [1, 2, 3]
    assert world.session.cursor == "e1:105"


def test_a_new_epoch_begins_a_new_count(world: World) -> None:
    link = world.open()
    world.push(link, 1, third="e2:3")
    assert (said(world), world.session.cursor) == ([1], "e2:3")


def test_an_empty_frame_tells_how_far_there_is_nothing(world: World) -> None:
    link = world.open()
    assert world.say(link, Keyword("chsk/timeout"), None, "e1:120") == "chsk/timeout"
    assert world.session.cursor == "e1:120"
    world.say(link, Keyword("chsk/timeout"), None, "e1:110")
    world.say(link, Keyword("chsk/timeout"), None, "e9:130")
    assert world.session.cursor == "e1:120"


@pytest.mark.parametrize("third", [None, "nonsense", "e1:", "e1:1,2", 7, ["e1:101"]])
def test_events_without_offsets_are_delivered(world: World, third: Any) -> None:
    link = world.open()
    world.push(link, 1, third=third)
    assert (said(world), world.session.cursor) == ([1], "e1:100")


def test_a_handshake_that_recovered_keeps_the_cursor(world: World) -> None:
    link = world.open()
    world.push(link, 1, third="e1:101")
    world.call("cut")
    world.turn(1)
    link = world.tried()
    assert link.cursor == "e1:101"
    world.confirm(link, recovered=True, cursor="e1:104")
    world.push(link, 2, third="e1:102")
    assert said(world) == [2]


def test_what_could_not_be_recovered_is_told_as_a_gap(world: World) -> None:
    world.open()
    world.call("cut")
    world.turn(1)
    link = world.tried()
    world.session.take_effects()
    world.confirm(link, recovered=False, cursor="e2:7")
    assert world.told() == [
        "open",
        ("chsk/handshake", ["ann", None, {"hi": 1}]),
        ("chsk/gap", None),
    ]
    assert world.session.cursor == "e2:7"


def test_a_client_begins_at_the_cursor_of_its_page() -> None:
    world = World(cursor="e1:7.signed")
    link = world.connect()
    assert link.cursor == "e1:7.signed"
    world.confirm(link, cursor="e1:7")
    world.push(link, 1, third="e1:9")
    assert said(world) == [1]
    world.say(link, [[Keyword("chsk/gap"), {"reason": "page"}]], None, "e1:12")
    assert world.told() == [("chsk/gap", {"reason": "page"})]
    world.call("cut")
    world.turn(1)
    assert world.tried().cursor == "e1:12"


def test_a_client_whose_page_was_closed_shows_its_cursor_no_more() -> None:
    world = World(cursor="e1:7.signed")
    link = world.connect()
    world.confirm(link, cursor="e1:7")
    world.call("closed", link, LinkClosed(4003, "closed by the application", "clean", True))
    world.turn(1)
    assert world.tried().cursor is None


def test_a_gap_of_a_live_connection_is_told(world: World) -> None:
    link = world.open()
    world.say(link, [[Keyword("chsk/gap"), None]], None, "e1:200")
    assert (world.told(), world.session.cursor) == ([("chsk/gap", None)], "e1:200")


def test_an_ask_is_handed_on_and_answered(world: World) -> None:
    link = world.open()
    world.say(link, [[Keyword("chsk/ask"), ["id1", [Keyword("chat/where"), 1]]]], None, "e1:101")
    assert world.take(Asked) == [Asked("id1", Event(Keyword("chat/where"), 1))]
    world.session.answer("id1", world.now, value={"x": 2})
    world.session.answer("id2", world.now, error="no handler")
    assert [say.outgoing.data for say in world.take(Send)] == [
        '[[:chsk/answer ["id1" {:x 2}]] nil]',
        '[[:chsk/answer ["id2" nil "no handler"]] nil]',
    ]


def test_a_ping_is_answered(world: World) -> None:
    link = world.open()
    world.say(link, Keyword("chsk/ws-ping"), None, "e1:130")
    effects = world.session.take_effects()
    assert [effect.outgoing.data for effect in effects if isinstance(effect, Send)] == [
        "[[:chsk/ws-pong] nil]"
    ]
    assert Deliver(Event(Keyword("chsk/ws-ping"))) in effects
    assert world.session.cursor == "e1:130"


@pytest.mark.parametrize("text", ["<html>", "", "[", "nil", "{}", "[]"])
def test_rubbish_is_a_bad_package(world: World, text: str) -> None:
    link = world.open()
    assert world.call("received", link, text) == "chsk/error"
    assert world.told() == [("chsk/bad-package", text)]
    assert world.status == "open"


@pytest.mark.parametrize(
    "value",
    [None, 1, "text", [], [[]], [None], [1, 2], [["a"]], [[None, 1]], {}, [["chsk/handshake", 1]]],
)
def test_odd_messages_do_no_harm(world: World, value: Any) -> None:
    link = world.open()
    world.say(link, value)
    assert (world.status, world.session.cursor) == ("open", "e1:100")


# Keep-alive -----------------------------------------------------------------------------


def test_silence_is_pinged_then_ended() -> None:
    world = World(type="ws")
    link = world.open()
    world.turn(24.9)
    assert world.take(Send) == []
    world.turn(0.2)
    assert [say.outgoing.data for say in world.take(Send)] == ['[[:chsk/ws-ping] "ping"]']
    world.turn(9.8)
    assert world.status == "open"
    world.turn(0.2)
    assert End(link, 4000) in world.session.take_effects()
    assert (world.close["reason"], world.close["code"]) == ("ws-ping-timeout", 4000)


def test_any_message_is_life() -> None:
    world = World(type="ws")
    link = world.open()
    for _ in range(4):
        world.turn(24)
        world.push(link, 1)
    world.turn(24)
    world.call("heard", link)
    world.turn(24)
    assert world.take(Send) == []


def test_a_pong_is_told_and_ends_the_wait() -> None:
    world = World(type="ws")
    link = world.open()
    world.turn(25)
    world.say(link, "pong", "ping")
    world.turn(24)
    assert (world.told(pongs=True), world.status) == ([("chsk/ws-pong", None)], "open")


def test_woken_it_probes_what_is_open(world: World) -> None:
    link = world.open()
    world.session.tick(world.now, 1_000_010.0)
    if link.kind == "ajax":
        assert world.take(Repoll) == [Repoll(link)]
        return
    assert [say.outgoing.data for say in world.take(Send)] == ['[[:chsk/ws-ping] "ping"]']
    world.turn(3.1)
    assert world.close["reason"] == "ws-ping-timeout"


def test_woken_it_retries_at_once(world: World) -> None:
    world = World(type=world.session.options.type, backoff=lambda attempt: 30.0)
    world.call("closed", world.connect(), LinkClosed(1006))
    world.session.take_effects()
    world.session.tick(world.now, 1_000_010.0)
    world.tried()


def test_a_session_at_rest_has_nothing_due(world: World) -> None:
    assert world.session.next_due() is None


def test_effects_are_taken_once(world: World) -> None:
    world.open()
    assert world.session.take_effects() == []

"""What the real Sente put on the wire, played again: our server instead of its own.

The client's half of each recorded trace (tests/vectors) is sent byte by byte. The server's half
is compared value by value after unpacking: handshakes, replies, pushes, statuses, closes, and the
event messages that the application saw. Waits are shortened, ours and the server's alike, by
``SCALES``. Where docs/protocol.rst asks for better than Sente does, the difference is listed
here, with its reason; whatever is not listed is equal.
"""

from __future__ import annotations

import http.client
import json
import select
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qsl

import pytest
import websocket

from flask_chsk.packers.edn import EdnPacker
from flask_chsk.values import Keyword
from tests.e2e.wire.conftest import Wire
from tests.unit.packers import typed

EDN = EdnPacker()
VECTORS = Path(__file__).parents[2] / "vectors"
# Of the recorded times; the server's deadlines have a quarter of a second of grain. What fails, as
# the machine may have stood still, is played again in the times of the recording.
SCALES = (0.4, 1.0)
PATIENCE = 30.0  # seconds for anything that is to come

# The servers of the recordings, and how ours is set up for the same.
RECORDED = {"ws_kalive": 1.0, "ws_ping_timeout": 1.5, "lp_timeout": 1.5, "reply_timeout": 1.5}
RECORDED |= {"close_grace_ws": 2.5, "close_grace_ajax": 5.0}
GENERATIONS = {"sente-1.21": "1.21", "sente-1.20.0": "1.18", "sente-1.16.2": "1.0"}
GENERATIONS |= {"sente-1.5.0": "1.0"}


def times(scale: float) -> dict[str, float]:
    """The settings of a server at which time passes so."""
    return {name: max(seconds * scale, 0.3) for name, seconds in RECORDED.items()}


# Where ours differ ------------------------------------------------------------------------


@dataclass(frozen=True)
class Ours:
    """What our server answers instead, and why."""

    why: str
    replies: tuple[str, ...] = ()  # messages over a WebSocket
    status: int = 200
    body: str | None = None  # of an HTTP answer, as EDN


OPEN = 0  # in place of a close code
TOLD = "a client that asked is told at once, not left to its timeout"
BAD = "bad packages become events, never a 500"
NO_ID = "a client id is asked of everybody, and its lack is the client's fault"
PREFIX = "messages of older generations are read by every one"

# Trace -> what was sent, see `Player.label` -> ours.
DIFFERENCES: dict[str, dict[str, Ours]] = {
    "sente-1.21/03_ws_echo": {
        '[[:test/double-reply] "dbl"]': Ours("one reply", ('[:one "dbl"]',)),
    },
    "sente-1.21/05_ws_server_ping": {"close": Ours("codes of our own say why", status=4000)},
    "sente-1.21/06_ws_client_ping": {
        '[:chsk/ws-ping "z"]': Ours(TOLD, ('[:chsk/error "z"]',)),
    },
    "sente-1.21/10_ajax_post": {
        "POST [[:chsk/ws-ping] :ajax]": Ours("a ping is answered there too", body='["pong" nil]'),
    },
    "sente-1.21/11_ws_bad_messages": {
        "[:test/echo 1]": Ours(TOLD, ("[:chsk/error 1]",)),
        '[[:unns 1] "cb1"]': Ours(TOLD, ('[:chsk/error "cb1"]',)),
        '[["str" 1] "cb2"]': Ours(TOLD, ('[:chsk/error "cb2"]',)),
        '[[:a/b 1 2] "cb3"]': Ours(TOLD, ('[:chsk/error "cb3"]',)),
        '[nil "cb4"]': Ours(TOLD, ('[:chsk/error "cb4"]',)),
        '[[] "cb5"]': Ours(TOLD, ('[:chsk/error "cb5"]',)),
        '[[:test/echo #foo/bar 1] "tag"]': Ours(
            "tags nobody knows are carried", ('[#foo/bar 1 "tag"]',)
        ),
        '[[:chsk/handshake ["x" nil]] "hs"]': Ours(
            "the chsk namespace is the server's", ('[:chsk/error "hs"]',)
        ),
        '+[[:test/echo 1] "oldplus"]': Ours(PREFIX, ('[1 "oldplus"]',)),
        '[[:test/echo "bin"] "bin1"]': Ours("text in a binary frame is text", ('["bin" "bin1"]',)),
    },
    "sente-1.21/12_ajax_bad_messages": {
        "POST [[:test/echo ": Ours(BAD, body="[:chsk/dummy-cb-200 nil]"),
        'POST "str"': Ours(BAD, body="[:chsk/dummy-cb-200 nil]"),
        "POST [:test/echo 1]": Ours(TOLD, body="[:chsk/error nil]"),
        "POST [[:unns 1] :ajax]": Ours(TOLD, body="[:chsk/error nil]"),
        "POST [nil :ajax]": Ours(TOLD, body="[:chsk/error nil]"),
        "POST #unknown/tag 1": Ours(BAD, body="[:chsk/dummy-cb-200 nil]"),
        "POST nothing": Ours("no message: the answer says how to send one", status=400),
        "POST [[:test/echo 1] nil] of nobody": Ours(NO_ID, status=400),
        "POST [[:test/echo 1] :ajax] of nobody": Ours(NO_ID, status=400),
        "POST nothing of nobody": Ours(NO_ID, status=400),
    },
    "sente-1.21/13_missing_client_id": {
        "GET of nobody": Ours(NO_ID, status=400),
        "GET uid=x of nobody": Ours(NO_ID, status=400),
    },
    "sente-1.21/14_csrf": {
        "GET uid=cs csrf-token=wrong X-CSRF-Token": Ours("the header decides", status=101),
        "GET uid=x of nobody": Ours(NO_ID, status=400),
    },
    "sente-1.21/16_server_close": {
        "GET uid=cl2 by poll": Ours("a poll is ended by an answer", body="[:chsk/timeout nil]"),
        "GET uid=cl2 by poll2": Ours(
            "closed is closed: who comes again is greeted",
            body='[[:chsk/handshake ["cl2" nil nil]] nil]',
        ),
    },
    "sente-1.21/20_lp_two_polls_same_client_id": {
        "GET uid=cc by poll1": Ours("a newer poll releases the older", body="[:chsk/timeout nil]"),
    },
    "sente-1.21/21_lp_grace": {
        "GET uid=lg by p3": Ours(
            "a poller that hung up is gone after the grace",
            body='[[:chsk/handshake ["lg" nil nil]] nil]',
        ),
    },
    "sente-1.20.0/01_ws_basic": {'[[:unns 1] "c3"]': Ours(TOLD, ('[:chsk/error "c3"]',))},
    "sente-1.20.0/02_ws_server_ping": {
        "close": Ours("1.18 never pongs, and its bytes do not tell it from 1.19", status=OPEN)
    },
    "sente-1.20.0/03_ajax": {
        "POST [[:unns 1] 0]": Ours(TOLD, body="[:chsk/error]"),
        "GET uid=x of nobody": Ours(NO_ID, status=400),
    },
    "sente-1.16.2/01_ws_basic": {
        '+[[:chsk/ws-ping] "p1ng"]': Ours("who asks is answered", ('+["pong" "p1ng"]',)),
        '[[:test/echo :plain] "c2"]': Ours(PREFIX, ('+[:plain "c2"]',)),
        '+[[:unns 1] "c3"]': Ours(TOLD, ('+[:chsk/error "c3"]',)),
    },
    "sente-1.16.2/03_ajax": {
        "POST +[[:unns 1] 0]": Ours(TOLD, body="-:chsk/error"),
        "POST +[[:a": Ours(BAD, body="-:chsk/dummy-cb-200"),
        "GET uid=x of nobody": Ours(NO_ID, status=400),
    },
    "sente-1.5.0/01_ws_basic": {
        '+[[:chsk/ws-ping] "p1ng"]': Ours("who asks is answered", ('+["pong" "p1ng"]',)),
        '[[:test/echo :plain] "c2"]': Ours(PREFIX, ('+[:plain "c2"]',)),
        '+[[:unns 1] "c3"]': Ours(TOLD, ('+[:chsk/error "c3"]',)),
    },
    "sente-1.5.0/03_ajax": {
        "POST +[[:test/no-reply] 0]": Ours("a request ends", body="-:chsk/timeout"),
        "POST +[[:unns 1] 0]": Ours(TOLD, body="-:chsk/error"),
        "POST +[[:a": Ours(BAD, body="-:chsk/dummy-cb-200"),
        "GET uid=x of nobody": Ours(NO_ID, status=400),
        "GET deny=1": Ours("it knew no authorization", status=401),
    },
}


# Trace -> events that our application sees and Sente's did not, and the other way round.
OURS_ONLY: dict[str, list[str]] = {
    "sente-1.21/11_ws_bad_messages": [
        "[:test/echo #foo/bar 1]",
        '[:chsk/bad-event [:chsk/handshake ["x" nil]]]',
        "[:test/echo 1]",  # + and -: older generations
        "[:test/echo 1]",
        '[:test/echo "bin"]',
    ],
}
SENTES_ONLY: dict[str, list[str]] = {
    "sente-1.21/10_ajax_post": ["[:chsk/ws-ping]"],  # our server answers itself
    "sente-1.21/11_ws_bad_messages": ['[:chsk/handshake ["x" nil]]'],
    "sente-1.16.2/01_ws_basic": ["[:chsk/bad-event arbage]"],
}
# What cannot be read is a bad package to us; to Sente it is nothing, nil or its first letter.
UNREADABLE = [
    "[:chsk/bad-event nil]",
    "[:chsk/bad-event]",
    "[:chsk/bad-event \\s]",
    "[:chsk/bad-event :chsk/bad-package]",
]


def unpacked(text: str) -> Any:
    """A message, and the prefix of its generation."""
    prefix = text[:1] if text[:1] in ("+", "-") else ""
    return prefix, typed(EDN.unpack(text[len(prefix) :]))


def pushed(text: str) -> list[Any] | None:
    """The events of a push; None for another message."""
    bare = text.startswith("-")
    message = EDN.unpack(text.lstrip("+-"))
    value = message if bare else message[0]
    if type(value) is list and value and type(value[0]) is list:
        return [typed(event) for event in value]
    return None


def is_ping(text: str) -> bool:
    return ":chsk/ws-ping" in text


def read_response(sock: socket.socket) -> tuple[int, str | None, str]:
    """Status, content type and body."""
    response = http.client.HTTPResponse(sock)
    response.begin()
    return response.status, response.headers["Content-Type"], response.read().decode()


# The player -------------------------------------------------------------------------------


@dataclass
class Open:
    """A connection of the player, and what it still has to bring."""

    sock: socket.socket
    ws: Any = None
    label: str = ""
    request: bytes = b""
    expected: list[Any] = field(default_factory=list)  # messages that are no pushes
    events: list[Any] = field(default_factory=list)  # events that are
    ended: int | None = None  # the close code that came


class Player:
    """Plays the client's half of one trace."""

    def __init__(self, trace: str, wire: Wire, scale: float) -> None:
        self.trace = trace
        self.wire = wire
        self.scale = scale
        self.open: dict[str, Open] = {}
        self.sockets: list[socket.socket] = []
        self.surplus: list[Any] = []  # events that polls brought early
        self.differences = DIFFERENCES.get(trace, {})
        self.client_ids: set[str] = set()
        self.used: set[str] = set()  # differences that were met
        text = (VECTORS / f"{trace}.jsonl").read_text(encoding="utf-8")
        self.lines = [json.loads(line) for line in text.splitlines()]

    def play(self) -> None:
        now = 0.0
        lines = [line for line in self.lines if line["dir"] != "server-log"]
        for line in lines:
            if line["dir"] == ">":
                time.sleep(max(line["t"] - now, 0) * self.scale)
            now = line["t"]
            step = f"{line['dir']} {line['kind']}"
            act = self.STEPS.get(step)
            if act is None:
                assert line["kind"] in ("note", "meta"), step
                continue
            try:
                act(self, line)
            except Exception as error:
                raise AssertionError(f"at {line['t']}: {json.dumps(line)[:400]}") from error
        for each in self.open.values():
            if each.ws is not None and each.ended is None and each.sock.fileno() >= 0:
                self.finish(each)
        assert self.used == set(self.differences), "listed, but not met"

    def label(self, head: str, body: str) -> str:
        """What a request says, without ids and times: the method, then the message or query."""
        method, target = head.split()[:2]
        params = dict(parse_qsl(f"{target.partition('?')[2]}&{body}", True))
        self.client_ids.add(params.get("client-id", ""))
        whose = "" if params.get("client-id") else " of nobody"
        if method == "POST":
            return f"POST {params.get('ppstr', 'nothing')}{whose}"
        told = [f"{k}={v}" for k, v in params.items() if k not in ("client-id", "udt", "_")]
        told += [h for h in ("X-CSRF-Token",) if f"\n{h}:" in head]
        return " ".join(["GET", *told]) + whose

    def ours(self, label: str) -> Ours | None:
        if label in self.differences:
            self.used.add(label)
        return self.differences.get(label)

    def connect(self, request: bytes) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.wire.port), PATIENCE)
        self.sockets.append(sock)
        sock.sendall(request)
        return sock

    # Steps --------------------------------------------------------------------------------

    def request(self, line: dict[str, Any]) -> None:
        head, body = line["head"], line.get("body") or ""
        request = (head + body).encode()
        sock = self.connect(request)
        label = self.label(head, body)
        if f"{label} by {line['conn']}" in self.differences:
            label += f" by {line['conn']}"
        old = self.open.get(line["conn"])
        if old is not None and old.ws is None and not line["conn"].startswith("poll1"):
            old.sock.close()
        self.open[line["conn"]] = Open(sock, label=label, request=request)

    def response(self, line: dict[str, Any]) -> None:
        one = self.open[line["conn"]]
        ours = self.ours(one.label)
        if ours is None and line["kind"] == "http-no-response":
            assert select.select([one.sock], [], [], 2 * times(self.scale)["lp_timeout"])[0] == []
            return
        status, text = line.get("status", 200), line.get("body") or ""
        if ours is not None:
            status, text = ours.status, ours.body or ""
        if status >= 400:
            got, kind, body = read_response(one.sock)
            assert (got, kind) == (status, "text/plain; charset=utf-8"), body
            assert body.count("\n") == 1 and "Traceback" not in body
            return
        events = pushed(text)
        if events is None:
            got, kind, body = read_response(one.sock)
            assert (got, kind) == (status, "application/edn"), body
            assert unpacked(body) == unpacked(text)
            return
        end = time.monotonic() + PATIENCE
        while len(self.surplus) < len(events):
            assert time.monotonic() < end, f"missing: {events[len(self.surplus) :]}"
            got, kind, body = read_response(one.sock)
            assert (got, kind) == (200, "application/edn")
            self.surplus += pushed(body) or []
            if len(self.surplus) < len(events):  # the first of a batch leaves at once
                one.sock = self.connect(one.request)
        assert self.surplus[: len(events)] == events
        del self.surplus[: len(events)]

    def upgraded(self, line: dict[str, Any]) -> None:
        one = self.open[line["conn"]]
        ours = self.ours(one.label)
        status = line["status"] if ours is None else ours.status
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += one.sock.recv(1)
        assert int(head.split()[1]) == status, head
        if status == 101:
            one.ws = websocket.WebSocket()
            one.ws.sock, one.ws.connected = one.sock, True
            if line["status"] != 101:
                assert "chsk/handshake" in one.ws.recv()

    def say(self, line: dict[str, Any]) -> None:
        one = self.open[line["conn"]]
        if line["kind"] == "ws-binary":
            one.ws.send_binary(line["text"].encode())
        elif line["kind"] == "ws-PING":
            one.ws.ping(line["text"])
        else:
            one.ws.send(line["text"])
        one.label = line["text"]
        ours = self.ours(line["text"])
        if ours is not None:
            one.expected += map(unpacked, ours.replies)

    def hear(self, line: dict[str, Any]) -> None:
        one = self.open[line["conn"]]
        if is_ping(line["text"]) and "server_ping" not in self.trace:
            return  # when they come is not this trace's business
        if line["kind"] == "ws-PONG":
            self.settle(one)
            while (frame := one.ws.recv_frame()).opcode != websocket.ABNF.OPCODE_PONG:
                assert is_ping(frame.data.decode())
            assert frame.data.decode() == line["text"]
            return
        events = pushed(line["text"])
        if events is not None:
            one.events += events
        elif one.label not in self.differences or one.label == "close":
            one.expected.append(unpacked(line["text"]))
        following = self.lines[self.lines.index(line) + 1]
        if following["dir"] == "<" and following["kind"] == "ws-text":
            return  # what comes in one go may come in another order
        self.settle(one)

    def settle(self, one: Open) -> None:
        """Read until all that was expected has come, and nothing else."""
        end = time.monotonic() + PATIENCE
        while one.expected or one.events:
            assert time.monotonic() < end, f"missing: {one.expected} {one.events}"
            text = one.ws.recv()
            events = pushed(text)
            if events is not None:
                assert one.events[: len(events)] == events, text
                del one.events[: len(events)]
            elif is_ping(text) and unpacked(text) not in one.expected:
                continue
            else:
                assert one.expected, text
                assert unpacked(text) == one.expected.pop(0), text

    def close(self, line: dict[str, Any]) -> None:
        one = self.open[line["conn"]]
        if one.ended is None:
            one.ws.send_close(line["code"], line["reason"].encode())

    def finish(self, one: Open) -> None:
        """See that nothing more comes than what was expected, and that all was read."""
        self.settle(one)
        one.ws.ping("last")
        while (frame := one.ws.recv_frame()).opcode == websocket.ABNF.OPCODE_TEXT:
            assert is_ping(frame.data.decode()), frame.data

    def closed(self, line: dict[str, Any]) -> None:
        one = self.open[line["conn"]]
        self.settle(one)
        ours = self.ours("close")
        if ours is not None and ours.status == OPEN:
            return
        end = time.monotonic() + PATIENCE
        while True:
            assert time.monotonic() < end, "still open"
            frame = one.ws.recv_frame()
            if frame.opcode == websocket.ABNF.OPCODE_CLOSE:
                break
            assert is_ping(frame.data.decode()), frame.data
        one.ended = int.from_bytes(frame.data[:2], "big")
        assert one.ended == (line["code"] if ours is None else ours.status)

    def eof(self, line: dict[str, Any]) -> None:
        assert self.open[line["conn"]].sock.recv(1) == b""

    def cut(self, line: dict[str, Any]) -> None:
        self.open[line["conn"]].sock.close()

    # What the application saw ---------------------------------------------------------------

    def seen_by_sentes(self) -> list[Any]:
        """What Sente's application saw of this trace's clients: events, and who sent them."""
        logged = [EDN.unpack(line["text"]) for line in self.lines if line["dir"] == "server-log"]
        return [
            (entry["ev"], entry["uid"], entry["cb?"])
            for entry in logged
            if "ev" in entry
            and entry["cid"] in self.client_ids
            and not entry["ev"][0].startswith("chsk/uidport")
        ]

    def seen_by_ours(self) -> list[Any]:
        """The same of ours."""
        return [
            (EDN.unpack(entry["ev"]), entry["uid"], entry["cb"])
            for entry in self.wire.get("/seen")
            if entry["cid"] in self.client_ids
        ]

    STEPS: ClassVar[dict[str, Callable[[Player, dict[str, Any]], None]]] = {
        "> http-request": request,
        "< http-response": response,
        "note http-no-response": response,
        "< raw-non-http-bytes": response,
        "> ws-upgrade-request": request,
        "< ws-upgrade-response": upgraded,
        "> ws-text": say,
        "> ws-binary": say,
        "> ws-PING": say,
        "< ws-text": hear,
        "< ws-PONG": hear,
        "> ws-close": close,
        "< ws-close": closed,
        "< tcp-eof": eof,
        "> tcp-close": cut,
    }


# The traces -------------------------------------------------------------------------------

TRACES = [
    f"{generation}/{path.stem}"
    for generation in GENERATIONS
    for path in sorted((VECTORS / generation).glob("*.jsonl"))
]
# The log of 1.5.0 names neither users nor clients.
COMPARED = [trace for trace in TRACES if "1.5.0" not in trace]
Played = dict[str, tuple[Player, Exception | None]]


def play(player: Player) -> tuple[str, tuple[Player, Exception | None]]:
    try:
        player.play()
    except Exception as error:
        return player.trace, (player, error)
    finally:
        for sock in player.sockets:
            sock.close()
    return player.trace, (player, None)


@pytest.fixture(scope="module")
def played(serve: Callable[..., Wire]) -> Played:
    """All traces, played beside each other: they are different users."""
    done: Played = {}
    left = TRACES
    for scale in SCALES:
        wires: dict[str, Wire] = {}
        players = []
        for trace in left:
            name = "csrf" if "csrf" in trace else trace.partition("/")[0]
            if name not in wires:
                mine = {"csrf": True} if name == "csrf" else {"wire": GENERATIONS[name]}
                wires[name] = serve(scale=scale, **mine, **times(scale))
            players.append(Player(trace, wires[name], scale))
        with ThreadPoolExecutor(8) as pool:
            done |= dict(pool.map(play, players))
        left = [trace for trace, (player, error) in done.items() if error or differs(player)]
    return done


@pytest.mark.parametrize("trace", TRACES)
def test_our_server_answers_as_sente_does(trace: str, played: Played) -> None:
    _, error = played[trace]
    if error is not None:
        raise error


def without(seen: list[Any], texts: list[str]) -> list[Any]:
    """*seen* without the last of each of *texts*."""
    rest = [(typed(event), *more) for event, *more in seen]
    for text in reversed(texts):
        event = typed(EDN.unpack(text))
        last = max((at for at, entry in enumerate(rest) if entry[0] == event), default=None)
        assert last is not None, f"listed, but not seen: {text}"
        del rest[last]
    return rest


def readable(seen: list[Any]) -> list[Any]:
    """*seen* without what could not be read."""
    unreadable = [typed(EDN.unpack(text)) for text in UNREADABLE]
    bad = typed(Keyword("chsk/bad-package"))
    return [entry for entry in seen if entry[0] not in unreadable and entry[0][1][0] != bad]


def differs(player: Player) -> bool:
    """Whether our application saw something else than Sente's."""
    if player.trace not in COMPARED:
        return False
    try:
        wanted, ours = seen_by_both(player)
    except AssertionError:
        return True
    return wanted != ours


def seen_by_both(player: Player) -> tuple[list[Any], list[Any]]:
    """What is to be compared of what Sente's application saw, and ours."""
    trace = player.trace
    wanted = readable(without(player.seen_by_sentes(), SENTES_ONLY.get(trace, [])))
    ours = readable(without(player.seen_by_ours(), OURS_ONLY.get(trace, [])))
    if trace.startswith("sente-1.16.2"):  # read no callback where there was no prefix
        ours = [(event, uid, None) for event, uid, _ in ours]
        wanted = [(event, uid, None) for event, uid, _ in wanted]
    return wanted, ours


@pytest.mark.parametrize("trace", COMPARED)
def test_our_application_sees_what_sentes_saw(trace: str, played: Played) -> None:
    player, error = played[trace]
    if error is not None:
        pytest.skip("it did not come so far")
    wanted, ours = seen_by_both(player)
    assert ours == wanted


def test_users_come_and_go_in_turn(played: Played) -> None:
    for player in {id(player.wire): player for player, _ in played.values()}.values():
        turns: dict[str, list[str]] = {}
        for entry in player.wire.get("/seen"):
            if entry["ev"].startswith("[:chsk/uidport"):
                turns.setdefault(entry["uid"], []).append(entry["ev"].split()[0])
        for turn in turns.values():
            pattern = ["[:chsk/uidport-open", "[:chsk/uidport-close"] * len(turn)
            assert turn == pattern[: len(turn)]

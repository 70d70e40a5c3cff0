"""Peers that no honest client resembles: each comes, does one bad thing, and is gone."""

from __future__ import annotations

import random
import socket
import urllib.request
from collections import Counter
from itertools import count

import gevent

from tests.e2e.hostile.wire import Wire, head, text, upgrade
from tests.fuzz import frames
from tests.fuzz.packers import EDN, EDN_BITS, damaged

PATIENCE = 3.0  # seconds that one of them stays at most, so that there are many
_numbers = count()


class Rude:
    """What they did, and how often; as many at a time as run :meth:`go`."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.did: Counter[str] = Counter()
        self._over = False
        self._dice = random.Random()
        self._texts = damaged(EDN, EDN_BITS, self._dice)

    def go(self) -> None:
        deeds = [
            self.rubbish_frames,
            self.rubbish_events,
            self.rubbish_requests,
            self.slow_head,
            self.slow_body,
            self.slow_reader,
            self.flood,
            self.silence,
            self.hung_up_poll,
        ]
        while not self._over:
            deed = random.choice(deeds)
            wire = Wire(self.port)
            wire.socket.settimeout(PATIENCE)
            try:
                deed(wire, f"rude-{next(_numbers)}")
            except (OSError, AssertionError):
                pass  # refused, closed or not answered: as it should be
            finally:
                self.did[deed.__name__] += 1
                random.choice((wire.reset, wire.socket.close))()

    def end(self) -> None:
        """Let each finish what it is at."""
        self._over = True

    def rubbish_frames(self, wire: Wire, name: str) -> None:
        wire.open(f"/chsk?client-id={name}")
        while wire.try_send(frames.stream(self._dice, "server")):
            gevent.sleep(0.1)

    def rubbish_events(self, wire: Wire, name: str) -> None:
        wire.open(f"/chsk?client-id={name}&v=1")
        for _ in range(30):
            rubbish = next(self._texts).encode("utf-8", "surrogatepass")
            wire.send(text(rubbish) + text(b"[" + rubbish + b" nil]"))
            gevent.sleep(0.05)

    def rubbish_requests(self, wire: Wire, name: str) -> None:
        request = bytearray(upgrade(f"/chsk?client-id={name}"))
        for _ in range(5):
            request[random.randrange(len(request))] = random.randrange(256)
        wire.send(bytes(request))
        wire.answer()

    def slow_head(self, wire: Wire, name: str) -> None:
        self._drip(wire, upgrade(f"/chsk?client-id={name}"))

    def slow_body(self, wire: Wire, name: str) -> None:
        form = {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": "1000"}
        wire.send(head(f"/chsk?client-id={name}", {**form}, "POST"))
        self._drip(wire, b"ppstr=%5B%5B%3Atest%2Fecho")

    def slow_reader(self, wire: Wire, name: str) -> None:
        """Much is pushed to one who takes a few bytes at a time, with little room for them."""
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        uid = f"slow-{random.randrange(100)}"
        wire.open(f"/chsk?client-id={name}&uid={uid}{random.choice(('', '&v=1'))}")
        url = f"http://127.0.0.1:{self.port}/say/{uid}/20?size=20000"
        urllib.request.urlopen(url, data=b"", timeout=30).close()
        for _ in range(20):
            wire.socket.recv(500)
            gevent.sleep(PATIENCE / 20)

    def flood(self, wire: Wire, name: str) -> None:
        wire.open(f"/chsk?client-id={name}")
        wire.send(text("[[:test/echo 1] 1]") * 500)
        for _ in range(random.choice((0, 500))):
            wire.read()

    def silence(self, wire: Wire, name: str) -> None:
        wire.open(f"/chsk?client-id={name}&v=1")
        gevent.sleep(PATIENCE)

    def hung_up_poll(self, wire: Wire, name: str) -> None:
        for _ in range(2):
            wire.send(head(f"/chsk?client-id={name}", {"Connection": "keep-alive"}))
            gevent.sleep(random.random())

    @staticmethod
    def _drip(wire: Wire, data: bytes) -> None:
        for byte in data[:30]:
            if not wire.try_send(bytes([byte])):
                return
            gevent.sleep(PATIENCE / 30)

"""A channel socket on the command line: ``python -m flask_chsk.client URL [EVENT]``.

It prints events as they come, one a line, and sends what is typed. Events are EDN
(``[:chat/say {:text "hi"}]``) or JSON (``["chat/say", {"text": "hi"}]``). Replies are
printed as ``[:chat/say.cb reply]``. Everything else goes to standard error.
"""

from __future__ import annotations

import argparse
import logging
import re
import ssl
import sys
import threading
from collections.abc import Sequence
from functools import partial
from queue import Empty
from typing import Any

from .. import packers
from ..errors import BadEvent, ChannelClosed, ConfigError, PackError, UnpackError
from ..printable import printable
from ..protocol.event import Event, assert_event
from ..protocol.session import CLOSED, GAP, TIMEOUT, cb_success
from ..values import Keyword
from .channel import ChannelSocket
from .dispatch import EventMsg
from .effects import State
from .waiting import Queue

DONE, FAILED, USAGE, REFUSED, LATE = 0, 1, 2, 3, 4

CODES = """\
exit codes:
  0  done
  1  the reply was an error
  2  a mistake in the arguments, or an event that is none
  3  not connected: refused, closed, or not reached within the timeout
  4  no reply, or with --once no event, within the timeout
"""


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = argparse.ArgumentParser(
        "python -m flask_chsk.client",
        description="Listen and talk to a channel socket.",
        epilog=CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("url", help="of the channel socket, such as https://example.org/chsk")
    add("event", nargs="?", help="to send when open, in EDN or JSON")
    add("--type", choices=("auto", "ws", "ajax"), default="auto")
    add("--packer", default="edn", help="what is spoken, and printed (default: edn)")
    add("--once", action="store_true", help="end after the reply to EVENT, or the first event")
    add("--timeout", type=float, metavar="SECONDS", help="(default: 10 for openings and replies)")
    add("--header", action="append", default=[], metavar="NAME:VALUE")
    add("--cookie", action="append", default=[], metavar="NAME=VALUE")
    add("--param", action="append", default=[], metavar="NAME=VALUE", help="with every request")
    add("--csrf-token")
    add("--auth", metavar="TOKEN", help="a bearer token")
    add("--insecure", action="store_true", help="do not verify the server's certificate")
    add("-v", "--verbose", action="store_true", help="say what happens, on standard error")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run, and return the exit code."""
    args = parser().parse_args(argv)
    logging.basicConfig(
        stream=sys.stderr,
        format="%(message)s",
        level=logging.DEBUG if args.verbose else logging.ERROR,
    )
    try:
        event = None if args.event is None else read(args.event)
        chsk = ChannelSocket(
            args.url,
            args.type,
            args.packer,
            csrf_token=args.csrf_token,
            auth=args.auth,
            headers=pairs(args.header, ":"),
            cookies=pairs(args.cookie, "="),
            params=pairs(args.param, "="),
            ssl_context=ssl._create_unverified_context() if args.insecure else None,
            connect=False,
        )
        return Terminal(chsk, args.packer, args.once, args.timeout).run(event)
    except (ConfigError, BadEvent, PackError) as error:
        _say(error)
        return USAGE
    except KeyboardInterrupt:
        return 130


def pairs(texts: list[str], between: str) -> dict[str, str]:
    """``NAME=VALUE`` texts as a mapping.

    :raises ConfigError: for a text without *between*.
    """
    found = {}
    for text in texts:
        name, sign, value = text.partition(between)
        if not sign:
            raise ConfigError(f"{text!r}: expected NAME{between}VALUE")
        found[name.strip()] = value.strip()
    return found


def read(text: str) -> Event:
    """The event in a line of EDN or JSON.

    :raises BadEvent: for anything else.
    """
    try:
        return assert_event(packers.make("json", max_values=None).unpack(text))
    except UnpackError:
        pass
    try:
        return assert_event(packers.make("edn", max_values=None).unpack(text))
    except UnpackError as error:
        raise BadEvent(f"{text.strip()}: {error}") from error


class Terminal:
    """A channel socket on standard input and output."""

    def __init__(self, chsk: ChannelSocket, packer: str, once: bool, timeout: float | None) -> None:
        self._chsk = chsk
        made = packers.make(packer)
        self._packer = packers.make("edn") if made.binary else made
        self._once = once
        self._timeout = timeout
        self._asked = False  # an event was sent: with --once its reply ends the program
        self._ends: Queue[int] = Queue()  # exit codes; the first counts

    def run(self, event: Event | None) -> int:
        """Connect, send *event*, and run until the end; returns the exit code."""
        chsk = self._chsk
        chsk.on("*", self._got)
        chsk.on(GAP, lambda ev: _say("events were missed"))
        chsk.watch(self._changed)
        try:
            chsk.connect()
            try:
                chsk.wait_open(self._timeout or 10.0)
            except ChannelClosed as error:
                _say(error)
                return REFUSED
            if event is not None:
                self._asked = True
                self._send(event)
            if not self._once:
                threading.Thread(target=self._type, daemon=True).start()
            return self._wait()
        finally:
            chsk.destroy()

    def _wait(self) -> int:
        limit = self._timeout if self._once and not self._asked else None
        try:
            return self._ends.get(timeout=limit)
        except Empty:
            _say("no event came")
            return LATE

    def _print(self, event: Any) -> None:
        print(_escaped(self._packer.pack(event)), flush=True)

    def _got(self, ev: EventMsg) -> None:
        if ev.id.startswith("chsk/"):
            return
        id = Keyword(ev.id)
        self._print([id] if ev.data is None else [id, ev.data])
        if self._once and not self._asked:
            self._ends.put(DONE)

    def _changed(self, old: State, new: State) -> None:
        if new["status"] == old["status"]:
            return
        if new["open"]:
            _say(f"open over {new['type']}, uid {new['uid']!r}")
        elif new["status"] in ("closed", "refused"):
            _say(self._chsk)
            self._ends.put(REFUSED)

    def _type(self) -> None:
        for line in sys.stdin:
            if line.strip():
                try:
                    self._send(read(line))
                except (BadEvent, PackError) as error:
                    _say(error)

    def _send(self, event: Event) -> None:
        self._chsk.send(event, self._timeout or 10.0, partial(self._replied, event.id))

    def _replied(self, id: str, reply: Any) -> None:
        self._print([Keyword(f"{id}.cb"), reply])
        if self._once:
            codes = {CLOSED: REFUSED, TIMEOUT: LATE}
            self._ends.put(DONE if cb_success(reply) else codes.get(reply, FAILED))


def _say(what: object) -> None:
    print(printable(str(what)), file=sys.stderr)


def _escaped(text: Any) -> str:
    """*text*, EDN or JSON of the server, without characters that a terminal would obey."""
    return "".join(one if one.isprintable() else _escape(one) for one in text)


def _escape(character: str) -> str:
    return re.sub("(....)", r"\\u\1", character.encode("utf-16-be", "surrogatepass").hex())


if __name__ == "__main__":
    sys.exit(main())

"""Programs that tests start: servers, Redis, nginx.

Each runs in a session of its own, writes its log to a file, and is gone when the test is: asked
first, then killed with everything it started. Nothing here knows what it runs.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parent.parent
START = 60.0  # seconds for a server to answer: two busy cores, a cold cache
WAIT = 30.0  # seconds for what takes a moment: a machine that others use may stand still for some
STOP = 30.0  # seconds to end by itself; above the drain of any server here


def eventually(condition: Callable[[], object], timeout: float = WAIT) -> object:
    """Wait until *condition* gives something true, and return that.

    :raises TimeoutError: naming the last value it gave.
    """
    end = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"after {timeout} s still {value!r}")
        time.sleep(0.02)
    return value


def missing(what: str) -> NoReturn:
    """Skip a test for want of a program; fail it under CI, where nobody reads of skipped tests."""
    if os.environ.get("CI"):
        pytest.fail(f"missing: {what}")
    pytest.skip(f"missing: {what}")


def program(name: str) -> str:
    """The path of an installed program; see :func:`missing` for what becomes of the others."""
    # Users other than root do not have nginx in their PATH.
    search = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    return shutil.which(name, path=search) or missing(name)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on; for programs that cannot choose their own.

    Below 32768, from where Linux takes the ports of connections: none of those gets it meanwhile.
    """
    while True:
        port = 10_000 + secrets.randbelow(22_768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Process:
    """A started program, its log, and its end."""

    def __init__(
        self, command: Sequence[str], log: Path, env: Mapping[str, str | None] | None = None
    ) -> None:
        """
        :param env: added to this process's own; None takes a variable away.
        """
        self.command = list(command)
        self.log_path = log
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("CHSK_", "FLASK_"))}
        wanted = {**inherited, "PYTHONUNBUFFERED": "1", **(env or {})}
        with log.open("ab") as out:
            self._popen = subprocess.Popen(
                self.command,
                cwd=ROOT,
                env={name: value for name, value in wanted.items() if value is not None},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    @property
    def tracebacks(self) -> int:
        return self.log.count("Traceback (most recent call last)")

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the program alone, not to what it started, and do not wait."""
        self._popen.send_signal(number)

    def wait_for_log(self, pattern: str, timeout: float = START) -> re.Match[str]:
        """Wait for a line of the log; the match is the whole log's last."""

        def last_match() -> re.Match[str] | None:
            found = list(re.finditer(pattern, self.log))
            if not found and not self.running:
                raise RuntimeError(f"{self.command} ended by itself:\n{self.log}")
            return found[-1] if found else None

        try:
            match = eventually(last_match, timeout)
        except TimeoutError as error:
            raise TimeoutError(f"no {pattern!r} from {self.command}:\n{self.log}") from error
        assert isinstance(match, re.Match)
        return match

    def stop(self, number: int = signal.SIGTERM, timeout: float = STOP) -> int:
        """Ask it to end, and kill it and its children if it has not after *timeout* seconds.

        The result is its exit status, -9 where it had to be killed; a second call does nothing.
        """
        if self.running:
            self.kill(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(timeout)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # whatever it left behind
        return self._popen.wait()


class Server(Process):
    """A process that serves HTTP on 127.0.0.1 and says so in its log.

    Let the command bind port 0: the log tells which it became, and nobody can take it in between.
    """

    def __init__(
        self, command: Sequence[str], log: Path, env: Mapping[str, str | None] | None = None
    ) -> None:
        super().__init__(command, log, env)
        try:
            self.port = int(self.wait_for_log(r"http://127\.0\.0\.1:(\d+)")[1])
            eventually(self._answers, START)
        except BaseException:
            self.stop(timeout=0)
            raise

    @property
    def url(self) -> str:
        """Without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    def _answers(self) -> bool:
        if not self.running:
            raise RuntimeError(f"{self.command} ended by itself:\n{self.log}")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/is-anybody-there")  # any status will do
            connection.getresponse().read()
            return True
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


class Redis(Process):
    """A Redis of its own on 127.0.0.1, in memory only; *port* brings one back where it was.

    What *options* say holds instead: ``"--appendonly", "yes"``.
    """

    def __init__(self, log: Path, port: int = 0, *options: str) -> None:
        self.port = port or free_port()
        command = [program("redis-server"), "--bind", "127.0.0.1", "--port", str(self.port)]
        command += ["--save", "", "--appendonly", "no", "--dir", str(log.parent), *options]
        super().__init__(command, log)
        try:
            self.wait_for_log("Ready to accept connections")
        except BaseException:
            self.stop(timeout=0)
            raise

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

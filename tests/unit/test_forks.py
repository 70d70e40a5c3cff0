"""What a forked child lets go of; no process is forked here: the child's part is called."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from typing import Any
from weakref import WeakSet

import gevent
import pytest

from flask_chsk import forks
from flask_chsk.errors import UsageError


class Owner:
    """Something that a child must not share."""

    def __init__(self, error: Exception | None = None) -> None:
        self.forked_times = 0
        self.error = error

    def forked(self) -> None:
        self.forked_times += 1
        if self.error is not None:
            raise self.error


class Greenlet:
    """What can be switched to."""

    def __init__(self) -> None:
        self.switched = 0

    def switch(self) -> None:
        self.switched += 1

    throw = switch


@pytest.fixture(autouse=True)
def _a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What tests register is not this process's, and what it registered is not theirs."""
    monkeypatch.setattr(forks, "_owners", WeakSet())
    monkeypatch.setattr(forks, "_greenlets", WeakSet())
    monkeypatch.setattr(forks, "_parents", [])
    monkeypatch.setattr(forks, "_caller", None)


# Owners ------------------------------------------------------------------------------------


def test_a_child_lets_go_of_all_that_is_registered_once() -> None:
    owners = [Owner(), Owner()]
    for owner in owners:
        forks.register(owner)
    forks._in_child()
    forks._in_child()  # a child of the child
    assert [owner.forked_times for owner in owners] == [1, 1]


def test_an_error_of_one_does_not_keep_the_others(caplog: pytest.LogCaptureFixture) -> None:
    owners = [Owner(OSError("no")) for _ in range(3)]
    for owner in owners:
        forks.register(owner)
    forks._in_child()
    assert [owner.forked_times for owner in owners] == [1, 1, 1]
    assert caplog.text.count("error after a fork") == 3


def test_a_child_keeps_what_was_its_parents() -> None:
    owner = Owner()
    forks.register(owner)
    forks._in_child()
    assert forks._parents == [owner]  # to free it could wake what it holds


def test_what_is_gone_is_not_told() -> None:
    forks.register(Owner())
    forks._in_child()
    assert forks._parents == []


# Greenlets ---------------------------------------------------------------------------------


def test_a_greenlet_that_stays_behind_is_never_switched_to_in_a_child() -> None:
    stays, goes_on = Greenlet(), Greenlet()
    forks.stay_behind(stays)
    forks._in_child()
    for one in (stays, goes_on):
        one.switch()
        one.throw()
    assert (stays.switched, goes_on.switched) == (0, 2)


def test_the_greenlet_that_forked_goes_on() -> None:
    def fork() -> tuple[bool, bool, Any]:
        current = gevent.getcurrent()
        forks.stay_behind(current)
        forks._in_child()
        return forks.by_greenlet(), forks.is_caller(), vars(current).get("switch")

    assert gevent.spawn(fork).get(timeout=60) == (True, True, None)
    assert not forks.is_caller()  # here it is another


def test_a_thread_that_forked_is_no_greenlet() -> None:
    forks._in_child()
    assert (forks.by_greenlet(), forks.is_caller()) == (False, True)


def test_a_process_that_is_no_child_has_no_caller() -> None:
    assert (forks.by_greenlet(), forks.is_caller()) == (False, False)


# Calls to what is the parent's -------------------------------------------------------------


def test_a_thread_that_calls_what_is_the_parents_is_told() -> None:
    with pytest.raises(UsageError, match="this is the parent process's"):
        forks.stay()


def test_who_forked_is_told() -> None:
    def fork() -> None:
        forks._in_child()
        forks.stay()

    with pytest.raises(UsageError, match="connects anew"):
        gevent.spawn(fork).get(timeout=60)


def test_a_copy_of_another_greenlet_waits_for_ever() -> None:
    copy = gevent.spawn(forks.stay)
    for _ in range(3):
        gevent.sleep(0)
        assert not copy.ready()
        gevent.get_hub().loop.run_callback(copy.switch)  # as what it waited for would do
    copy.kill(timeout=60)


# Sockets -----------------------------------------------------------------------------------


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[socket.socket]]:
    """The ends that silenced descriptors get, but for a listener: no port is opened here."""
    ends = [*socket.socketpair(), socket.socket(socket.AF_UNIX)]
    ends[0].setblocking(False)
    monkeypatch.setattr(forks, "_silent", ends)
    yield ends
    for end in ends:
        end.close()


def test_a_silenced_descriptor_says_nothing_and_its_peer_hears_nothing(
    silent: list[socket.socket],
) -> None:
    ours, peer = socket.socketpair()
    kept = socket.socket(fileno=os.dup(ours.fileno()))  # the parent's copy
    with ours, peer, kept:
        forks.silence(ours.fileno())
        peer.sendall(b"to the parent")
        assert select.select([ours], [], [], 0)[0] == []
        peer.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.recv(1)  # no end: the connection is the parent's, and stands
        assert kept.recv(100) == b"to the parent"


def test_a_silenced_listener_gets_the_end_of_a_listener(silent: list[socket.socket]) -> None:
    ours, peer = socket.socketpair()
    with ours, peer:
        forks.silence(ours.fileno(), listens=True)
        assert os.path.sameopenfile(ours.fileno(), silent[2].fileno())


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("127.0.0.1", 80), ("0.0.0.0", 80), True),
        (("127.0.0.1", 80), ("::", 80, 0, 0), True),
        (("127.0.0.1", 80), ("127.0.0.1", 81), False),
        ("/run/a", "/run/a", True),
        ("/run/a", "/run/b", False),
    ],
)
def test_of_an_ip_address_the_port_counts(one: Any, other: Any, same: bool) -> None:
    assert (forks._place(one) == forks._place(other)) is same

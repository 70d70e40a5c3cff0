"""A client's life: let in, given transports, checked, closed or lost, and forgotten."""

from __future__ import annotations

from typing import Any

import pytest

from flask_chsk.errors import Refused
from flask_chsk.protocol import session as s
from flask_chsk.protocol.push import Push
from flask_chsk.security import Began
from flask_chsk.server.clients import ClosedWhileAway
from flask_chsk.server.connection import State
from flask_chsk.server.delayed_closes import Close, PendingResponse

from .fakes import FakeTransport, Office, texts, told


@pytest.fixture
def office() -> Office:
    return Office(close_grace_ws=2.0, close_grace_ajax=5.0, ws_kalive=25.0, max_clients_per_uid=2)


def close(office: Office, code: int = 4003, reason: str = "go", after: Any = None) -> None:
    """A close of ann's connections goes by."""
    text = f'[:chsk/close {{:code {code} :reason "{reason}"'
    text += f' :after ["{after.name}" "{after.token}"]}}]' if after else "}]"
    office.broker.publish("u:ann", text)


# To be let in ---------------------------------------------------------------------------


def test_a_client_is_absent_until_it_has_a_transport(office: Office) -> None:
    entered = office.enter()
    assert entered.connection.state is State.ABSENT
    assert entered.is_latest
    office.clients.attach_socket(entered.connection, FakeTransport())
    assert entered.connection.state is State.WS


def test_a_client_that_gets_no_transport_is_forgotten(office: Office) -> None:
    connection = office.enter().connection
    office.hub.sleep(3.0)
    assert connection.gone
    assert office.presence == [("open", "ann"), ("close", "ann")]


def test_the_later_of_two_openings_counts(office: Office) -> None:
    first = office.enter()
    second = office.enter()
    assert first.connection is second.connection
    assert (first.is_latest, second.is_latest) == (False, True)


def test_an_anonymous_client_is_its_secrets_own(office: Office) -> None:
    office.connect(None, "c1", digest="one")
    with pytest.raises(Refused) as refused:
        office.enter(None, "c1", digest="another")
    assert refused.value.status == 409
    with pytest.raises(Refused):
        office.clients.check_may_act(office.opening(None, "c1", digest="another"))
    office.clients.check_may_act(office.opening(None, "c1", digest="one"))


def test_a_user_has_so_many_clients_and_no_more(office: Office) -> None:
    for client_id in ("c1", "c2"):
        office.connect("ann", client_id)
    with pytest.raises(Refused) as refused:
        office.enter("ann", "c3")
    assert refused.value.status == 429
    office.connect("ann", "c2")  # it comes back
    office.connect("bob", "c3")


def test_nobody_is_let_in_while_the_worker_drains(office: Office) -> None:
    office.clients.drain()
    with pytest.raises(Refused) as refused:
        office.enter()
    assert refused.value.status == 503


def test_who_was_asked_for_before_a_lapse_asks_again(office: Office) -> None:
    opening = office.opening()
    office.worker.resync_required()
    with pytest.raises(Refused) as refused:
        office.clients.enter(opening, "ws")
    assert refused.value.status == 503
    office.enter()


def test_a_close_reaches_who_was_asked_for_before_it(office: Office) -> None:
    opening = office.opening()
    close(office)
    entered = office.clients.enter(opening, "ws")
    assert entered is not None
    assert entered.connection.gone


def test_a_handshake_says_where_the_client_is_and_what_it_may_do(office: Office) -> None:
    entered = office.enter(resume=lambda began: f"token of {began}")
    text = office.clients.handshake(entered)
    offset = entered.connection.session.acked
    assert f':cursor "{office.broker.epoch}:{offset}"' in str(text)
    assert f':resume "token of {entered.began}"' in str(text)
    assert ":recovered nil" in str(text)


def test_a_client_that_comes_back_with_its_cursor_has_missed_nothing(office: Office) -> None:
    one = office.connect()
    cursor = f"{office.broker.epoch}:{one.session.acked}"
    office.clients.lost(one, told_by(one))
    office.worker.sending.send("ann", ["a/b", 1])
    entered = office.enter(cursor=cursor, trusted=True)
    assert (entered.connection, entered.recovered) == (one, True)
    assert texts(one) == ["[:a/b 1]"]


def test_a_client_whose_cursor_is_not_trusted_begins_now(office: Office) -> None:
    one = office.connect()
    cursor = f"{office.broker.epoch}:{one.session.acked}"
    office.clients.lost(one, told_by(one))
    office.worker.sending.send("ann", ["a/b", 1])
    entered = office.enter(cursor=cursor)
    assert entered.recovered is False
    assert texts(entered.connection) == []


def told_by(connection: Any) -> Any:
    return connection.transport


# Transports -----------------------------------------------------------------------------


def test_a_new_socket_replaces_the_old_one(office: Office) -> None:
    one = office.connect()
    old = told_by(one)
    office.connect()
    assert old.told == [(s.REPLACED, "replaced by a newer connection of this client")]
    assert one.state is State.WS


def test_the_loss_of_an_old_socket_is_no_loss(office: Office) -> None:
    one = office.connect()
    old = told_by(one)
    office.connect()
    office.clients.lost(one, old)
    assert one.state is State.WS


def test_a_client_that_polls_is_counted_as_such(office: Office) -> None:
    one = office.connect()
    assert office.registry.connected_uids.ws == {"ann"}
    office.clients.lost(one, told_by(one))
    office.poll()
    assert office.registry.connected_uids.ws == set()
    assert office.registry.connected_uids.ajax == {"ann"}


def test_a_socket_on_trial_serves_once_it_has_said_something(office: Office) -> None:
    one = office.poll()
    waiter = office.park(one)
    trial = FakeTransport()
    office.clients.try_socket(one, trial)
    assert one.state is State.PARKED
    assert office.clients.pass_trial(one, trial)
    assert one.state is State.WS
    assert waiter.value == b"[:chsk/timeout nil]"  # its poll ends
    assert trial.told == ["wake"]


def test_of_two_sockets_on_trial_the_later_one_stays(office: Office) -> None:
    one = office.poll()
    first, second = FakeTransport(), FakeTransport()
    office.clients.try_socket(one, first)
    office.clients.try_socket(one, second)
    assert first.told == [(s.TRY_LATER, "said nothing while its client was here")]
    assert not office.clients.pass_trial(one, first)
    assert office.clients.pass_trial(one, second)


def test_a_client_that_begins_anew_leaves_its_socket_on_trial(office: Office) -> None:
    one = office.poll()
    trial = FakeTransport()
    office.clients.try_socket(one, trial)
    office.poll(cursor="another:1", trusted=True)
    assert trial.told == [(s.TRY_LATER, "its client began anew by another request")]
    assert not office.clients.pass_trial(one, trial)


def test_a_trial_that_is_lost_leaves_the_polls(office: Office) -> None:
    one = office.poll()
    trial: Any = FakeTransport()
    office.clients.try_socket(one, trial)
    office.clients.lost(one, trial)
    assert (one.state, one.trial) == (State.BETWEEN_POLLS, None)


def test_a_client_whose_events_cannot_be_packed_is_closed(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    one = office.connect()
    office.clients.unsendable(one, told_by(one), ValueError("no"))
    assert told(one) == [(s.INTERNAL_ERROR, "what waits cannot be packed")]
    assert "uid 'ann'" in caplog.text


# Deadlines ------------------------------------------------------------------------------


def test_a_lost_client_is_kept_for_its_grace(office: Office) -> None:
    one = office.connect()
    office.clients.lost(one, told_by(one))
    office.hub.sleep(1.9)
    assert not one.gone
    office.hub.sleep(0.2)
    assert one.gone
    assert office.presence == [("open", "ann"), ("close", "ann")]
    assert office.registry.get("ann", "c1") is None


def test_a_client_that_comes_back_within_its_grace_was_not_gone(office: Office) -> None:
    one = office.connect()
    office.clients.lost(one, told_by(one))
    office.hub.sleep(1.0)
    assert office.connect() is one
    office.hub.sleep(10.0)
    assert not one.gone
    assert office.presence == [("open", "ann")]


def test_a_client_between_polls_is_kept_for_another_grace(office: Office) -> None:
    one = office.poll()
    office.hub.sleep(4.9)
    assert not one.gone
    office.hub.sleep(0.2)
    assert one.gone


def test_a_parked_poll_keeps_its_client(office: Office) -> None:
    one = office.poll()
    office.park(one)
    office.hub.sleep(100.0)
    assert one.state is State.PARKED


def test_a_silent_socket_is_pinged_and_then_closed(office: Office) -> None:
    one = office.connect()
    office.hub.sleep(26.0)
    assert texts(one)[0].startswith("[:chsk/ws-ping nil")
    office.hub.sleep(12.0)
    assert told(one)[-1] == (s.PING_UNANSWERED, "ping unanswered")


def test_a_socket_that_takes_nothing_is_closed(office: Office) -> None:
    one = office.connect()
    told_by(one).is_stalled = True
    office.hub.sleep(1.0)
    assert told(one) == [(s.TOO_SLOW, "took no byte for 10 seconds")]


# Closes ---------------------------------------------------------------------------------


def test_a_close_ends_the_transport_and_the_client(office: Office) -> None:
    one = office.connect()
    socket = told_by(one)
    close(office, 4005, "signed out")
    assert socket.told == ["flush", (4005, "signed out")]
    assert one.gone


def test_a_close_of_one_client_leaves_the_others(office: Office) -> None:
    one, two = office.connect("ann", "c1"), office.connect("ann", "c2")
    office.clients.close("ann", "c1", 4003)
    assert (one.gone, two.gone) == (True, False)


def test_a_client_of_sentes_is_closed_as_sente_does(office: Office) -> None:
    socket = told_by(office.connect(v1=False, digest=""))
    office.clients.close("ann", None, s.CLOSED_BY_APP)
    assert socket.told == ["flush", (s.NORMAL, "")]


CLOSED = '[:chsk/close {:code 4003 :reason "go"}]'


def test_a_client_between_polls_hears_its_close_with_the_next_one(office: Office) -> None:
    one = office.poll()
    office.broker.publish("u:ann", CLOSED)
    assert one.gone
    with pytest.raises(ClosedWhileAway) as away:
        office.enter(kind="poll")
    assert away.value.close == Close(4003, "go", None)
    assert office.enter(kind="poll") is not None


def test_a_client_that_was_let_in_again_hears_no_earlier_close(office: Office) -> None:
    office.poll()
    office.broker.publish("u:ann", CLOSED)
    office.poll()
    assert office.enter(kind="poll") is not None


@pytest.mark.parametrize(("grace", "kept"), [(5.0, 10.0), (60.0, 60.0)])
def test_a_close_is_kept_as_long_as_a_poll_may_be_away(grace: float, kept: float) -> None:
    office = Office(close_grace_ajax=grace)
    office.poll()
    office.broker.publish("u:ann", CLOSED)
    office.hub.time += kept - 0.1
    office.broker.sweep()
    with pytest.raises(ClosedWhileAway):
        office.enter(kind="poll")
    office.broker.publish("u:ann", CLOSED)
    office.hub.time += kept + 0.1
    office.broker.sweep()
    assert office.enter(kind="poll") is not None


def test_a_client_is_told_of_its_close_when_the_response_has_ended(office: Office) -> None:
    one = office.connect()
    socket = told_by(one)
    response = office.worker.delayed_closes.expect_response()
    close(office, 4005, "signed out", after=response)
    assert one.gone
    assert socket.told == ["flush", "mute"]
    office.worker.delayed_closes.response_ended(response)
    office.hub.sleep(1.0)
    assert socket.told == ["flush", "mute", (4005, "signed out")]


def test_a_broker_that_noted_the_close_of_a_poller_says_so(office: Office) -> None:
    attach = office.broker.clients.attach

    def closed(*args: Any, **more: Any) -> Any:
        return attach(*args, **more)._replace(
            missed_close='[:chsk/close {:code 4005 :reason "out"}]'
        )

    office.broker.clients.attach = closed
    with pytest.raises(ClosedWhileAway) as away:
        office.enter(kind="poll")
    assert away.value.close == Close(4005, "out", None)


# To be forgotten ------------------------------------------------------------------------


def test_a_client_that_another_worker_has_is_sent_there(office: Office) -> None:
    one = office.connect()
    socket = told_by(one)
    office.worker.client_taken_over("ann", "c1", "an older token")
    assert not one.gone
    office.worker.client_taken_over("ann", "c1", one.token)
    assert one.gone
    assert socket.closing
    office.hub.work()
    assert office.presence == [("open", "ann")]  # that worker says when they go


def test_a_user_goes_with_the_last_client(office: Office) -> None:
    one, two = office.connect("ann", "c1"), office.connect("ann", "c2")
    office.clients.close("ann", "c1", 4003)
    office.hub.work()
    assert office.presence == [("open", "ann")]
    office.clients.close("ann", "c2", 4003)
    office.hub.work()
    assert office.presence == [("open", "ann"), ("close", "ann")]
    assert (one.gone, two.gone) == (True, True)


def test_a_new_epoch_is_a_gap_for_every_client(office: Office) -> None:
    one = office.connect()
    one.session.deliver(Push("u:ann", "[:a/b 1]", one.session.queued + 1))
    office.clients.begin_epoch("next", 5)
    assert texts(one) == ["[:chsk/gap nil]"]
    assert one.session.rules.epoch == "next"


def begins_anew(office: Office, **more: Any) -> int:
    """The broker began anew, and workers have yet to say who is a member; where the epoch began."""
    attach = office.broker.clients.attach

    def attached(*args: Any, **kwargs: Any) -> Any:
        return attach(*args, **kwargs)._replace(whole=False, **more)

    office.broker.clients.attach = attached
    began: int = office.broker.watermark()
    office.clients.begin_epoch(office.broker.epoch, began)
    office.hub.time += 1
    return began


def test_a_client_that_polls_begins_where_the_epoch_does(office: Office) -> None:
    office.connect("ann", "c9")
    began = begins_anew(office)
    office.broker.publish("u:ann", "[:a/b 1]")
    office.broker.watermark = lambda: began  # this worker has not heard of the event yet
    before = Began(began, began)
    entered = office.enter(kind="poll", cursor="before:5", trusted=True, began=before)
    session = entered.connection.session
    assert (entered.recovered, session.acked, entered.began) == (False, began, before)
    assert session.needs_replay
    office.worker.history.catch_up(entered.connection)
    office.hub.work()
    assert texts(entered.connection) == ["[:a/b 1]"]


@pytest.mark.parametrize(
    ("kind", "cursor", "trusted"),
    [("ws", "before:5", True), ("poll", "before:5", False), ("poll", None, True)],
)
def test_others_begin_at_the_present(
    office: Office, kind: str, cursor: str | None, trusted: bool
) -> None:
    began = begins_anew(office)
    entered = office.enter(kind=kind, cursor=cursor, trusted=trusted)
    assert entered.connection.session.acked > began + 500_000


@pytest.mark.parametrize(
    ("joined", "restored", "holds"),
    [(0, 0, True), (0, 10, True), (0, 30, False), (15, 0, False), (None, 0, False)],
)
def test_a_cursor_holds_once_the_broker_knows_the_topics(
    office: Office, joined: int | None, restored: int, holds: bool
) -> None:
    """All offsets count from the beginning of the epoch, and the cursor is 20 later."""
    began = office.broker.watermark()
    topics = {} if joined is None else {"news": began + joined}
    begins_anew(office, topics=topics, restored=began + restored)
    office.worker.registration.unsaid = lambda uid: ["news"]  # type: ignore[method-assign]
    cursor = f"{office.broker.epoch}:{began + 20}"
    assert office.enter(kind="poll", cursor=cursor, trusted=True).recovered is holds


def test_after_a_lapse_every_client_reads_from_history(office: Office) -> None:
    one = office.connect()
    office.clients.resync()
    assert one.session.needs_replay


# The end --------------------------------------------------------------------------------


def test_clients_are_drained_and_then_sent_away(office: Office) -> None:
    one = office.connect()
    office.clients.drain()
    assert told(one) == ["drain"]
    office.clients.send_away()
    assert told(one) == ["drain", "wake", (s.RESTART, "spread=2")]
    assert office.clients.sent_away


def test_clients_that_were_sent_away_have_the_time_that_they_were_told(office: Office) -> None:
    one = office.connect()
    office.clients.send_away()
    office.clients.lost(one, told_by(one))
    office.hub.sleep(3.9)
    assert not one.gone
    office.hub.sleep(0.2)
    assert one.gone


def test_a_pending_response_is_named_by_its_worker(office: Office) -> None:
    response = office.worker.delayed_closes.expect_response()
    assert isinstance(response, PendingResponse)
    assert response.name == office.broker.name


# Its identity expires -----------------------------------------------------------------------


def test_a_socket_whose_identity_has_expired_is_closed(office: Office) -> None:
    now = office.hub.now()
    one = office.connect("ann", "c1", expires_at=now + 60)
    two = office.connect("ann", "c2")
    office.clients.expiries.sweep(now + 59)
    assert not told_by(one).closing
    office.clients.expiries.sweep(now + 60)
    assert told_by(one).told[-1] == (4005, "expired")
    assert not told_by(two).closing


def test_a_client_comes_back_within_its_grace_and_has_not_been_away(office: Office) -> None:
    now = office.hub.now()
    one = office.connect(expires_at=now + 60)
    cursor = f"{office.broker.epoch}:{one.session.acked}"
    office.clients.expiries.sweep(now + 60)
    office.clients.lost(one, told_by(one))
    office.worker.sending.send("ann", ["a/b", 1])
    entered = office.enter(cursor=cursor, trusted=True, expires_at=now + 120)
    office.clients.attach_socket(one, FakeTransport())
    assert (entered.connection, entered.recovered) == (one, True)
    assert texts(one) == ["[:a/b 1]"]
    office.clients.expiries.sweep(now + 119)
    assert not told_by(one).closing
    assert office.presence == [("open", "ann")]


def test_one_that_does_not_come_back_is_forgotten_after_its_grace(office: Office) -> None:
    now = office.hub.now()
    one = office.connect(expires_at=now + 60)
    office.clients.expiries.sweep(now + 60)
    office.clients.lost(one, told_by(one))
    office.hub.sleep(3.0)
    assert one.gone
    assert office.presence == [("open", "ann"), ("close", "ann")]
    assert len(office.clients.expiries) == 0


def test_a_socket_on_trial_expires_with_its_client(office: Office) -> None:
    now = office.hub.now()
    one = office.poll()
    office.enter(expires_at=now + 60)
    trial = FakeTransport()
    office.clients.try_socket(one, trial)
    office.clients.expiries.sweep(now + 60)
    assert (one.trial, trial.told) == (None, [(4005, "expired")])


def test_a_client_that_is_forgotten_does_not_expire(office: Office) -> None:
    one = office.connect(expires_at=office.hub.now() + 60)
    office.clients.close("ann", "c1")
    assert one.gone
    assert len(office.clients.expiries) == 0


def test_two_openings_that_read_at_once_both_tell_of_the_gap(office: Office) -> None:
    """Seed 435 of the cluster: only the earlier one told of it, and the page took the later one."""
    one = office.poll()
    cursor = f"{office.broker.epoch}:{one.session.acked}"
    later = office.enter(cursor=cursor, trusted=True)
    assert ":recovered true" in str(office.clients.handshake(later))
    one.start_at(office.broker.watermark() + 1)  # the earlier one found a gap meanwhile
    assert ":recovered false" in str(office.clients.handshake(later))

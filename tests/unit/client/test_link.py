"""A link and what goes over it, as they begin."""

from __future__ import annotations

from typing import Any

import pytest

from flask_chsk.client.link import Link, LinkClosed, Outgoing


@pytest.mark.parametrize(("kind", "proofs"), [("ws", 2), ("ajax", 1)])
def test_a_link_is_on_trial_until_it_has_proven_itself(kind: Any, proofs: int) -> None:
    link = Link(kind, "e1/7")
    assert (link.kind, link.cursor, link.confirmations_left) == (kind, "e1/7", proofs)
    assert not (link.opened or link.busy or link.pinging or link.has_credentials)
    assert repr(link) == f"<Link {kind} confirmations_left={proofs}>"


def test_a_link_that_just_ended_was_not_expected_to() -> None:
    how = LinkClosed()
    assert (how.code, how.why, how.status) == (None, "unexpected", None)


def test_an_event_on_its_way_was_given_to_no_link_yet() -> None:
    outgoing = Outgoing("chat/say", None, "[:chat/say 1]", id="1")
    assert (outgoing.via, outgoing.lost, outgoing.waits, outgoing.key) == (None, False, False, None)
    assert repr(outgoing) == "<Outgoing chat/say id='1'>"

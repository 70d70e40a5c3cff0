"""What servers say of themselves, and what odd ones say."""

from __future__ import annotations

from typing import Any

import pytest

from flask_chsk.client.handshake import Handshake, ServerInfo
from flask_chsk.values import Keyword


def test_a_server_of_sente_tells_nothing_of_itself() -> None:
    uid, csrf_token, data, server = Handshake.read(["ann", "token"])
    assert (uid, csrf_token, data) == ("ann", "token", None)
    assert (server.knows_batches, server.max_batch, server.max_bytes) == (False, 1, None)
    assert (server.poll_seconds, server.cursor, server.recovered) == (0.0, None, None)
    assert server.resume("known") == "known"


def test_ours_tells_its_limits() -> None:
    told = {"max-batch": 8, "max-bytes": 1000, "lp-timeout-ms": 20_000, "cursor": "e:1"}
    server = Handshake.read(["ann", None, {"hi": 1}, {**told, "recovered": True, "resume": "t"}])[3]
    assert (server.knows_batches, server.max_batch, server.max_bytes) == (True, 8, 1000)
    assert (server.poll_seconds, server.cursor, server.recovered) == (20.0, "e:1", True)
    assert server.resume("known") == "t"


@pytest.mark.parametrize("told", ["x", 7, [], None, {"max-batch": "8", "max-bytes": -1}])
def test_odd_limits_are_none(told: Any) -> None:
    server = ServerInfo(told)
    assert server.max_batch in (1, 64)
    assert server.max_bytes is None


@pytest.mark.parametrize("nil", ["sente/nil-uid", "taoensso.sente/nil-uid"])
def test_sentes_nil_uid_is_none_and_a_user_of_that_name_is_not(nil: str) -> None:
    assert Handshake.read([Keyword(nil)]).uid is None
    assert Handshake.read([nil]).uid == nil

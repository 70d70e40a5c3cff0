"""What is used of redis-py beyond its documentation."""

from __future__ import annotations

import pytest
import redis.connection

from flask_chsk.brokers.redis.internals import plain_parser, socket_of


def test_answers_are_read_in_python_whatever_is_installed() -> None:
    assert "hiredis" not in plain_parser().__name__.lower()
    redis.connection.Connection(parser_class=plain_parser())  # which connects to nothing


def test_without_its_private_parser_redis_py_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("redis._parsers._RESP2Parser")
    assert plain_parser() is redis.connection.DefaultParser


def test_a_connection_that_is_not_made_yet_has_no_socket() -> None:
    assert socket_of(redis.connection.Connection()) is None

"""Which numbers of the format are understood, and what is said of others."""

from __future__ import annotations

from flask_chsk.brokers.redis.schema import SCHEMA, refusal, understood


def test_neighbours_are_understood_and_no_others() -> None:
    numbers = range(SCHEMA - 3, SCHEMA + 4)
    assert [n for n in numbers if understood(n)] == [SCHEMA - 1, SCHEMA, SCHEMA + 1]


def test_workers_of_another_number_have_to_end_first() -> None:
    words = refusal("host", "chsk:0:", 7, 7, alive=True)
    assert words.startswith("workers with schema 7 serve at the Redis at host, this process has")
    assert words.endswith("end those workers first, or deploy a version between")


def test_keys_of_another_number_are_named_by_their_pattern() -> None:
    words = refusal("host", "chsk:0:", 7, 9, alive=False)
    assert words.startswith("the keys chsk:0:* of the Redis at host have schema 7 to 9, this")
    assert "delete these keys" in words


def test_keys_without_a_number_are_before_numbers() -> None:
    assert "have schema before numbers, " in refusal("host", "chsk:0:", -1, -1, alive=False)

"""Caches whose keys peers choose."""

from __future__ import annotations

from flask_chsk.packers.cache import Cache, Memo


def test_a_cache_forgets_rather_than_grows() -> None:
    cache: Cache[str, int] = Cache()
    for n in range(cache.SIZE * 3):
        cache.put(str(n), n)
    assert len(cache) <= cache.SIZE
    assert cache[str(n)] == n
    cache.put("x" * (cache.LONGEST + 1), 1)
    assert "x" * (cache.LONGEST + 1) not in cache


def test_a_memo_makes_a_value_once() -> None:
    made: list[str] = []

    def upper(text: str) -> str | None:
        made.append(text)
        return text.upper() if text.isalpha() else None

    memo = Memo(upper)
    assert [memo["a"], memo["a"], memo["b"]] == ["A", "A", "B"]
    assert made == ["a", "b"]
    assert [memo["1"], memo["1"]] == [None, None]
    assert "1" not in memo  # peers choose keys: only what is of use is kept

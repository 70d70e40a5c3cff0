"""The path to what cannot be packed."""

from __future__ import annotations

from typing import Any

import pytest

from flask_chsk.errors import PackError
from flask_chsk.packers.faults import FaultFinder
from flask_chsk.values import Tagged

NATIVE = frozenset([int, str, list, dict, set, Tagged])


def pack(value: Any) -> None:
    """Packs numbers over 0, text and what is made of these."""
    if isinstance(value, list | set | range):
        for item in value:
            pack(item)
    elif isinstance(value, dict):
        pack([*value, *(item for item in value.values() if item is not None)])
    elif isinstance(value, Tagged):
        pack(value.value)
    elif not isinstance(value, str) and not (isinstance(value, int) and value > 0):
        raise PackError(f"{value!r} will not do")


def plainer(value: Any) -> Any:
    if isinstance(value, range):
        return [*value]
    raise PackError(f"what is {value!r}?")


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (1, None),
        ({"a": [1, {2}]}, None),
        (0, "data: 0 will not do"),
        ([1, [2, 0]], "data[1][1]: 0 will not do"),
        ({"a": {"b": -1}}, 'data["a"]["b"]: -1 will not do'),
        ({1: {2: 0}}, "data[1][2]: 0 will not do"),
        ({"a": {0: 1}}, 'data["a"]: key 0: 0 will not do'),
        ([{-5}], "data[0]{-5}: -5 will not do"),
        (Tagged("t", [0]), "data.value[0]: 0 will not do"),
        ([1.5], "data[0]: what is 1.5?"),
        ([range(1, 3)], None),
        ([range(3)], "data[0][0]: 0 will not do"),
    ],
)
def test_a_fault_is_found_with_its_path(value: Any, fault: str | None) -> None:
    assert FaultFinder(pack, plainer, NATIVE, 5).find(value, "data") == fault


def test_nesting_is_looked_into_as_deep_as_it_may_be() -> None:
    finder = FaultFinder(pack, plainer, NATIVE, 3)
    assert finder.find([[[1]]], "data") is None
    assert finder.find([[[[1]]]], "data") == "data[0][0][0]: nested over 3 deep, or inside itself"
    circle: list[Any] = []
    circle.append(circle)
    assert "inside itself" in str(finder.find(circle, "data"))


def test_a_long_path_is_cut() -> None:
    value: Any = 0
    for _ in range(60):
        value = {"abcdef": value}
    found = FaultFinder(pack, plainer, NATIVE, 100).find(value, "data")
    assert found is not None and found.endswith("…: 0 will not do") and len(found) < 330

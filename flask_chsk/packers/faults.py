"""The path to what cannot be packed: ``data["lines"][3]["price"]``, and why.

Looked for only when packing failed, by packing the parts of the value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any

from ..errors import PackError
from ..values import Tagged
from .excerpts import short, shown

# The steps of a path, the last first, and what is wrong at its end.
Fault = tuple[list[str], str]


class FaultFinder:
    """Finds the first thing in a value that does not pack.

    :param pack: packs a value, and raises where that cannot be.
    :param plainer: what ``pack`` makes of a value whose type it does not write.
    :param native: the types that it writes.
    """

    def __init__(
        self,
        pack: Callable[[Any], object],
        plainer: Callable[[Any], Any],
        native: frozenset[type],
        max_depth: int,
    ) -> None:
        self._pack = pack
        self._plainer = plainer
        self._native = native
        self._max_depth = max_depth

    def find(self, value: Any, root: str) -> str | None:
        """The path, which starts with *root*, and why; None: all of *value* packs."""
        found = self._fault(value, self._max_depth)
        if found is None:
            return None
        steps, why = found
        return f"{short(root + ''.join(reversed(steps)), 300)}: {why}"

    def _fault(self, value: Any, depth: int) -> Fault | None:
        # Each step is made of what is on the path alone.
        too_deep = f"nested over {self._max_depth} deep, or inside itself"
        if depth < 0:
            return [], too_deep
        children: Iterable[tuple[Any, Any]]
        step: Callable[[Any], str] = "[{}]".format
        if isinstance(value, Mapping):
            if found := self._fault_of_keys(value):
                return found
            children, step = value.items(), _key_step
        elif isinstance(value, list | tuple):
            children = enumerate(value)
        elif isinstance(value, Set):
            children, step = ((item, item) for item in value), _member_step
        elif type(value) is Tagged and Tagged in self._native:
            children, step = [(None, value.value)], _tag_step
        else:
            return self._fault_of_one(value, depth)
        if depth == 0:
            return [], too_deep
        for at, item in children:
            if found := self._fault(item, depth - 1):
                found[0].append(step(at))
                return found
        return None

    def _fault_of_keys(self, keys: Iterable[Any]) -> Fault | None:
        for key in keys:
            try:
                self._pack({key: None})
            except Exception as exc:
                return [], f"key {shown(key)}: {exc}"
        return None

    def _fault_of_one(self, value: Any, depth: int) -> Fault | None:
        try:
            self._pack(value)
        except Exception as exc:
            if type(value) not in self._native:
                try:
                    value = self._plainer(value)
                except PackError as why:
                    return [], str(why)
                if found := self._fault(value, depth - 1):
                    return found
            return [], str(exc)
        return None


def _key_step(key: Any) -> str:
    return f'["{short(key)}"]' if isinstance(key, str) else f"[{shown(key)}]"


def _member_step(member: Any) -> str:
    return f"{{{shown(member)}}}"


def _tag_step(_: Any) -> str:
    return ".value"

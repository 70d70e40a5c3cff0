"""Events, ``[id, data?]``, and the rules for them (docs/protocol.rst, "Events from clients").

An id is a namespaced keyword: ``"chat/say"``, on the wire ``:chat/say``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeGuard

from ..errors import BadEvent
from ..values import Keyword

# What EDN reads back as one namespaced keyword: no white space, delimiters or quotes, no digit
# before the name, and no colon but alone inside.
_NOT = r"\s,;\"()\[\]{}\\@^`~"
_ID = re.compile(rf"(?!.*(?:::|:/|:\Z))[^{_NOT}/:#][^{_NOT}]*/[^{_NOT}/:0-9][^{_NOT}/]*")
_ID_LENGTH = 255
_known_ids: dict[str, Keyword] = {}


class Event(NamedTuple):
    """One event: a namespaced *id* and any *data*."""

    id: Keyword
    data: Any = None


def is_event_id(x: object) -> TypeGuard[str]:
    """Whether *x* is a namespaced id, such as ``"chat/say"``."""
    return isinstance(x, str) and (
        x in _known_ids or (len(x) <= _ID_LENGTH and _ID.fullmatch(x) is not None)
    )


def is_event(x: object) -> bool:
    """Whether *x* is ``[id]`` or ``[id, data]`` with a namespaced id."""
    return isinstance(x, list | tuple) and 1 <= len(x) <= 2 and is_event_id(x[0])


def as_event(x: Any) -> Event:
    """*x* as an :class:`Event`; what is none comes back as ``["chsk/bad-event", x]``."""
    return _event(x) if is_event(x) else Event(_keyword("chsk/bad-event"), x)


def assert_event(x: Any) -> Event:
    """*x* as an :class:`Event`.

    :raises BadEvent: saying what is wrong with it.
    """
    if is_event(x):
        return _event(x)
    if is_event_id(x):
        raise BadEvent(f'an event is one argument, ["{x}", data], not {_short(x)}')
    if not isinstance(x, list | tuple):
        raise BadEvent(f'an event is ["ns/name", data], not {_short(x)}')
    if not 1 <= len(x) <= 2:
        raise BadEvent(
            f"an event has an id and at most one datum, not {len(x)} elements: {_short(x)}; put"
            ' several into a dict, ["chat/said", {"who": …, "text": …}]'
        )
    raise BadEvent(f'an event id is namespaced, such as "chat/say", not {_short(x[0])}')


def assert_whole(call: str, event: Any, more: Sequence[Any]) -> None:
    """Refuse arguments after the event: mostly its data, as in ``emit(id, data)``.

    :param call: how it is called right, with ``{}`` for the event.
    :raises BadEvent: showing that call.
    """
    if more:
        shown = f'["{event}", data]' if is_event_id(event) else '["ns/name", data]'
        raise BadEvent(
            f"an event is one argument: {call.format(shown)}; what follows it is given by name"
        )


def _event(x: Any) -> Event:
    return Event(_keyword(x[0]), x[1] if len(x) == 2 else None)


def _keyword(id: str) -> Keyword:
    keyword = _known_ids.get(id)
    if keyword is None:
        keyword = id if isinstance(id, Keyword) else Keyword(id)
        if len(_known_ids) < 4096:  # ids are few and made by programmers; peers may make more
            _known_ids[keyword] = keyword
    return keyword


def _short(x: object) -> str:
    text = repr(x)
    return text if len(text) <= 80 else text[:77] + "..."

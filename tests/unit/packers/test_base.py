"""What all packers share: limits, conveniences, and errors with a path."""

from __future__ import annotations

import enum
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest

from flask_chsk.errors import PackError, UnpackError
from flask_chsk.packers import BuiltinPacker
from flask_chsk.packers.edn import EdnPacker
from flask_chsk.packers.json import JsonPacker
from flask_chsk.values import Keyword

Make = Callable[..., BuiltinPacker[Any]]
BOTH = pytest.mark.parametrize("make_packer", [EdnPacker, JsonPacker])


class Foo:
    pass


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Mode(str, enum.Enum):
    FAST = "fast"


@dataclass
class Order:
    id: int
    lines: list[Any]


Point = namedtuple("Point", "x y")


# Limits -----------------------------------------------------------------------------------


@BOTH
def test_size_is_counted_in_bytes(make_packer: Make) -> None:
    packer = make_packer(max_bytes=6)
    assert packer.unpack('"éé"') == "éé"
    assert packer.unpack('"éé"'.encode()) == "éé"
    for text in ('"ééa"', '"12345"'):
        for data in (text, text.encode()):
            with pytest.raises(UnpackError, match="over 6 bytes"):
                packer.unpack(data)


@BOTH
def test_nesting_is_read_to_the_limit_and_no_further(make_packer: Make) -> None:
    packer = make_packer(max_depth=3)
    assert packer.unpack("[[[]]]") == [[[]]]
    with pytest.raises(UnpackError, match="nested too deep"):
        packer.unpack("[[[[]]]]")


@BOTH
def test_wide_is_not_deep(make_packer: Make) -> None:
    packer = make_packer()
    assert packer.unpack(packer.pack([[[]]] * 500)) == [[[]]] * 500


@BOTH
def test_what_is_written_leaves_room_for_the_envelope(make_packer: Make) -> None:
    packer = make_packer()
    value: Any = []
    for _ in range(95):
        value = [value]
    packed = packer.pack(value)
    frame = packer.array([packer.array([packer.array([packed])]), packer.pack("cb")])
    assert packer.unpack(frame) == [[[value]], "cb"]
    with pytest.raises(PackError, match="nested over 96 deep"):
        packer.pack([value])


@BOTH
def test_a_hundred_thousand_brackets_are_refused(make_packer: Make) -> None:
    for text in ("[" * 100_000, "[" * 100_000 + "]" * 100_000):
        with pytest.raises(UnpackError):
            make_packer().unpack(text)


@BOTH
def test_a_nearly_full_stack_is_no_crash(make_packer: Make) -> None:
    packer = make_packer()
    value: Any = []
    for _ in range(90):
        value = [value]
    text = packer.pack(value)
    raised = set()

    def dig() -> None:
        with suppress(RecursionError):
            dig()
        for call, data in ((packer.unpack, text), (packer.pack, value)):
            try:
                call(data)
            except (PackError, UnpackError) as exc:
                raised.add(type(exc))
            except RecursionError:
                pass  # so full that our own handler could not be called

    dig()
    assert raised <= {PackError, UnpackError}


@BOTH
@pytest.mark.parametrize("data", [b"\xff", b'"\xed\xa0\x80"', '"\ud800"', "", b"", "  "])
def test_what_is_no_utf8_or_nothing_is_refused(make_packer: Make, data: str | bytes) -> None:
    with pytest.raises(UnpackError):
        make_packer().unpack(data)


# Conveniences -----------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Color.RED, "red"),
        (Level.HIGH, 3),
        (Mode.FAST, "fast"),
        ({Mode.FAST: Level.HIGH, Color.RED: 1}, {"fast": 3, "red": 1}),
        (date(2026, 11, 23), "2026-11-23"),
        (Order(7, [Order(8, [])]), {"id": 7, "lines": [{"id": 8, "lines": []}]}),
        (Point(1, 2), [1, 2]),
        (OrderedDict(a=1), {"a": 1}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (type("Text", (str,), {})("a"), "a"),
        (type("Int", (int,), {})(5), 5),
        (type("Float", (float,), {})(0.5), 0.5),
        ([Color.RED, (Color.RED,)], ["red", ["red"]]),
    ],
    ids=repr,
)
def test_known_types_are_made_plain(make_packer: Make, value: Any, plain: Any) -> None:
    packer = make_packer()
    assert packer.pack(value) == packer.pack(plain)


@BOTH
def test_what_becomes_equal_is_refused(make_packer: Make) -> None:
    with pytest.raises(PackError, match="data: a map has keys that become equal"):
        make_packer().pack({Color.RED: 1, "red": 2})


@BOTH
def test_pack_default_makes_the_unknown_known(make_packer: Make) -> None:
    def default(value: Any) -> Any:
        return {"foo": [date(2026, 1, 1)]} if isinstance(value, Foo) else value.no_such_thing

    packer = make_packer(pack_default=default)
    assert packer.pack([Foo()]) == packer.pack([{"foo": ["2026-01-01"]}])
    with pytest.raises(
        PackError, match=r"data\[0\]: object of type object: pack_default said"
    ) as e:
        packer.pack([object()])
    assert isinstance(e.value.__cause__, AttributeError)


@BOTH
def test_pack_default_may_leave_a_value_unknown(make_packer: Make) -> None:
    with pytest.raises(PackError, match=r"^data: object of type Foo: pass what it is made of"):
        make_packer(pack_default=lambda value: NotImplemented).pack(Foo())


NAIVE, AWARE = datetime(2026, 1, 1, 12), datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


class OwnDatetime(datetime):
    """A type of its own, as pandas' Timestamp is."""


@BOTH
@pytest.mark.parametrize(
    ("default", "known"),
    [
        (lambda value: value.replace(tzinfo=timezone.utc), AWARE),
        (lambda value: value.isoformat(), NAIVE.isoformat()),
        (lambda value: {"at": [value.year]}, {"at": [2026]}),
    ],
)
def test_pack_default_is_asked_for_datetimes_without_a_zone(
    make_packer: Make, default: Any, known: Any
) -> None:
    packer = make_packer(pack_default=default)
    own = OwnDatetime(2026, 1, 1, 12)
    assert packer.pack([{"a": NAIVE, "b": own}]) == packer.pack([{"a": known, "b": known}])
    assert packer.pack([AWARE]) == make_packer().pack([AWARE])
    if not isinstance(known, dict):
        try:
            written = packer.pack({known: 1, "b": 2})
        except PackError:
            written = None  # JSON has no keys that are no strings
        if written is not None:
            assert packer.pack({NAIVE: 1, "b": 2}) == written


@BOTH
@pytest.mark.parametrize(
    ("default", "why"),
    [
        (None, ""),
        (lambda value: NotImplemented, ""),
        (lambda value: value, ""),
        (lambda value: None, ": pack_default returned None"),
        (lambda value: 1 / 0, ": pack_default said ZeroDivisionError"),
    ],
)
def test_a_datetime_that_stays_without_a_zone_is_refused(
    make_packer: Make, default: Any, why: str
) -> None:
    remedy = 'naive datetime; give it a zone, .* CHSK_NAIVE_DATETIMES, such as to "UTC"'
    for value in ([NAIVE], [OwnDatetime(2026, 1, 1)]):
        with pytest.raises(PackError, match=rf"^data\[0\]: {remedy}{why}"):
            make_packer(pack_default=default).pack(value)
    with pytest.raises(PackError, match=rf"^data: key .*{remedy}{why}"):
        make_packer(pack_default=default).pack({NAIVE: 1})


@BOTH
def test_a_pack_default_that_goes_round_in_circles_is_ended(make_packer: Make) -> None:
    with pytest.raises(PackError):
        make_packer(pack_default=lambda value: [value]).pack(NAIVE)


@BOTH
def test_the_error_of_a_check_is_its_text(make_packer: Make) -> None:
    packer = make_packer()
    assert packer.pack([ValueError("too short"), AssertionError("no")]) == packer.pack(
        ["too short", "no"]
    )
    with pytest.raises(PackError, match="object of type KeyError"):
        packer.pack(KeyError("secret"))


@BOTH
def test_a_pack_default_that_never_ends_is_ended(make_packer: Make) -> None:
    with pytest.raises(PackError, match=r"data\[0\]: nested"):
        make_packer(pack_default=lambda value: Foo()).pack([Foo()])


@BOTH
def test_subclasses_of_datetime_uuid_and_decimal_are_taken_as_these(make_packer: Make) -> None:
    packer = make_packer()

    class Moment(datetime):
        pass

    class Id(UUID):
        pass

    class Price(Decimal):
        pass

    utc = timezone.utc
    assert packer.pack(Moment(2026, 1, 1, tzinfo=utc)) == packer.pack(
        datetime(2026, 1, 1, tzinfo=utc)
    )
    assert packer.pack(Id(int=1)) == packer.pack(UUID(int=1))
    assert packer.pack(Price("1.50")) == packer.pack(Decimal("1.50"))


# Errors -----------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Foo(), "data: object of type Foo"),
        ({"when": [0, 1, 2, Foo()]}, 'data["when"][3]: object of type Foo'),
        ({Keyword("a"): ({"b": Foo},)}, 'data["a"][0]["b"]: object of type type'),
        ({"id": 1, "o": Order(1, [Foo()])}, 'data["o"]["lines"][0]: object of type Foo'),
        (
            [1, {Foo: 2}],
            "data[1]: key <class 'tests.unit.packers.test_base.Foo'>: object of type type",
        ),
        (
            {"at": datetime(2026, 1, 1)},
            'data["at"]: naive datetime; give it a zone, as datetime.now(timezone.utc) does',
        ),
        (
            ["ok", "\ud800"],
            "data[1]: 'utf-8' codec can't encode character '\\ud800' in position 1:",
        ),
        ([lambda: 1], "data[0]: object of type function"),
        ((x for x in "ab"), "data: object of type generator"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_errors_name_the_path(make_packer: Make, value: Any, message: str) -> None:
    with pytest.raises(PackError) as caught:
        make_packer().pack(value)
    assert str(caught.value).startswith(message)


@BOTH
def test_the_path_may_start_with_another_word(make_packer: Make) -> None:
    with pytest.raises(
        PackError, match=r"^reply\[0\]: object of type Foo: pass what it is made of"
    ):
        make_packer().pack([Foo()], root="reply")


@BOTH
@pytest.mark.parametrize("wrap", [lambda x: [x, x], lambda x: {"a": x}, lambda x: {"b": [x]}])
def test_what_contains_itself_is_refused(make_packer: Make, wrap: Callable[[Any], Any]) -> None:
    value: list[Any] = []
    value.append(wrap(value))
    with pytest.raises(PackError, match="nested over 96 deep, or inside itself"):
        make_packer().pack(value)


@BOTH
def test_only_pack_errors_leave(make_packer: Make) -> None:
    class Hostile:
        def __getattribute__(self, name: str) -> Any:
            raise ZeroDivisionError(name)

    class Lying(dict[str, int]):
        def items(self) -> Any:
            raise KeyError("no")

    far = datetime.max.replace(tzinfo=timezone(timedelta(hours=-5)))
    for value in (Hostile(), [Hostile()], {"a": Hostile()}, 10**5000, [-(10**5000)]):
        with pytest.raises(PackError):
            make_packer().pack(value)
    for value in (Lying(a=1), far):
        with suppress(PackError):
            make_packer().pack(value)

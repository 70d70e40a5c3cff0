"""EDN, as Clojure's own reader and printer understand it: the default packer (docs/packers.rst).

Reading: one regular expression cuts the text into tokens in C, one loop per collection turns them
into values. Two things are narrower than in Clojure: a text is one form and nothing after it,
and what would be equal in Python (``1`` and ``1.0``, ``:a`` and ``"a"``) does not stand in one map
or set. Unknown tags are kept as `Tagged`; metadata is read and dropped; what Clojure's EDN reader
refuses (quoting, reader conditionals, ``#"regex"``) is refused.
"""

from __future__ import annotations

import re
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from itertools import islice
from json import JSONDecoder
from json.encoder import encode_basestring as _quoted
from operator import itemgetter, length_hint
from types import NoneType
from typing import Any, ClassVar, NoReturn
from uuid import UUID

from ..errors import PackError, UnpackError
from ..values import Char, FrozenMap, Keyword, StrKey, Symbol, Tagged
from .cache import Cache, Memo
from .conversions import PackDefault
from .excerpts import short, shown
from .limits import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_VALUES,
    VALUE_BYTES,
    too_many_values,
    too_much_referred,
    weight,
)
from .numbers import (
    LONG,
    LONGEST_NUMBER,
    MOST_BITS,
    TOO_MANY_BITS,
    check_decimal,
    check_fraction,
    decimal_of,
)
from .reading import read_map, read_ratio, read_set
from .texts import check_char, is_char, unwritable, uuid_of
from .walk import LIKE_KEYWORD, WalkingPacker

Tags = Mapping[str, Callable[[Any], Any]]

# What texts are made of -------------------------------------------------------------------
# The first three stand inside [] of a regular expression.

_SPACE = "\t-\r\x1c- ,\u1680\u2000-\u2006\u2008-\u200a\u2028\u2029\u205f\u3000"  # Java's; comma
_MACRO = r'"();\[\]{}\\^'
_END = _SPACE + _MACRO + "@`~"  # ends a token; the last three stand in no token at all

# After a repetition: never go back into it. Without, each one costs 150 bytes while it is matched.
_ATOMIC = "+" if sys.version_info >= (3, 11) else ""

_TOKEN = re.compile(
    rf"""
    [{_SPACE}]*(
      [^{_END}#0-9+-][^{_END}]*      # keyword, symbol, nil: first, since most tokens are
    | "[^"\\]*(?:\\.[^"\\]*)*{_ATOMIC}"?      # string; unterminated only at the very end
    | [\[\]{{}}()]
    | [+-]?\d[^{_END}\#]*            # number
    | [^{_END}#][^{_END}]*           # symbols such as + and ->x
    | \#(?:[{{_\#^]|[^{_END}]*)      # set, discard, ##Inf, metadata; or a tag
    | \\.[^{_END}]*                  # character
    | ;[^\n\r]*                      # comment
    | [^{_SPACE}]                    # nothing that begins a form
    | \Z                             # so an empty token ends every text, trailing space or not
    )""",
    re.DOTALL | re.VERBOSE,
)
_STRING = re.compile(rf'"[^"\\]*(?:\\.[^"\\]*)*{_ATOMIC}"', re.DOTALL)

_NAME = rf"[^{_END}/0-9][^{_END}/]*"
_NAMESPACE = rf"[^{_END}/\x85][^{_END}\x85]*"  # \x85: what the dot in Clojure's pattern leaves out
_KEYWORD = re.compile(rf"/|[^{_END}/]+|{_NAMESPACE}/(?:/|{_NAME})")
_SYMBOL = re.compile(rf"(?!\#|[+-]?\d)(?:/|{_NAME}|{_NAMESPACE}/(?:/|{_NAME}))")
_BAD_COLONS = re.compile(r"::|:/|\A:|:\Z")

_INT = re.compile(
    r"([+-]?)(?:(0|[1-9][0-9]*)|0[xX]([0-9A-Fa-f]+)|0([0-7]+)|([1-9][0-9]?)[rR]([0-9A-Za-z]+)|0[0-9]+)N?"
)
_SIGNED = re.compile(r"[+-][0-9]+")
_FLOAT = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?(M)?")
_RATIO = re.compile(r"([+-]?[0-9]+)/([0-9]+)")

_INST = re.compile(
    r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2})(?:T([0-9]{2})(?::([0-9]{2})(?::([0-9]{2})(?:\.([0-9]+))?)?"
    r")?)?)?)?(?:Z|([+-])([0-9]{2}):([0-9]{2}))?"
)
# As Clojure prints it, and we: this one is read in C.
_USUAL_INST = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-5][0-9]\.[0-9]{3}[+-]00:00"
)

_STRING_OF_ESCAPES = re.compile(
    rf"""
    "[^"\\]*(?:\\(?:
      [tnrbf\\"] | u[0-9a-fA-F]{{4}} | [0-3][0-7]{{2}} | [0-7]{{1,2}}(?=[{_SPACE}{_MACRO}\#])
    )[^"\\]*)*{_ATOMIC}"
    """,
    re.VERBOSE,
)
_CHARS = {
    "newline": "\n",
    "space": " ",
    "tab": "\t",
    "backspace": "\b",
    "formfeed": "\f",
    "return": "\r",
}
_CHAR_NAMES = {char: name for name, char in _CHARS.items()}
_CODE = re.compile(r"u([0-9a-fA-F]{4})|o([0-7]{1,3})")

_WORDS: dict[str, Any] = {"nil": None, "true": True, "false": False}
_FLOATS = {"Inf": float("inf"), "-Inf": float("-inf"), "NaN": float("nan")}


def _is_keyword(text: str) -> bool:
    return _KEYWORD.fullmatch(text) is not None and (
        ":" not in text or _BAD_COLONS.search(text) is None
    )


def _is_symbol(text: str) -> bool:
    return (
        _SYMBOL.fullmatch(text) is not None
        and (":" not in text or _BAD_COLONS.search(text) is None)
        and text not in _WORDS
    )


# Reading ----------------------------------------------------------------------------------
# Collections take their items from one iterator that they all share; *depth* is how many levels
# may still be opened.


class _Context:
    """What holds for one message: its tags, and how much its namespaces may still add."""

    __slots__ = ("room", "tags")

    def __init__(self, tags: Tags, room: int) -> None:
        self.tags = tags
        self.room = room


class _Atoms(Cache[str, Any]):
    """Tokens that come often and their values: names, which peers may make up, and these."""

    def __init__(self) -> None:
        super().__init__()
        self.clear()

    def clear(self) -> None:
        super().clear()
        self.update(_WORDS)
        self.update((str(n), n) for n in range(-256, 256))


_atoms = _Atoms()


def _items(tokens: Iterator[str], closer: str, depth: int, context: _Context) -> list[Any]:
    """The forms up to *closer*, which is taken too."""
    if depth < 0:
        raise UnpackError("nested too deep")
    items: list[Any] = []
    append = items.append
    atoms = _atoms
    for token in tokens:
        value = atoms.get(token, token)
        if value is not token:
            append(value)
        elif token == closer:
            return items
        else:
            lead = token[:1]
            if lead == '"':
                append(_unescaped(token) if "\\" in token else token[1:-1])
            elif lead == "[":
                append(_items(tokens, "]", depth - 1, context))
            elif lead == "{":
                append(_map(_items(tokens, "}", depth - 1, context)))
            elif "1" <= lead <= "9":
                if len(token) < 20 and token.isdecimal() and token.isascii():
                    append(int(token))
                else:
                    append(_number(token))
            elif token == "#_":
                _form(tokens, depth - 1, context)
            elif lead != ";":
                append(_value(token, tokens, depth, context))
    raise AssertionError("the empty token ends every text")


def _refuse_many(tokens: list[str], most: int) -> None:
    """Refuse more than *most* values; what is left out, tags and comments count as such."""
    closers = sum(map(tokens.count, ")]}"))
    if len(tokens) - 1 - closers > most or len(tokens) > 2 * most + 1:
        raise too_many_values(most)


def _form(tokens: Iterator[str], depth: int, context: _Context) -> Any:
    """The next form, which a tag, a discard or the like needs."""
    if depth < 0:
        raise UnpackError("nested too deep")
    for token in tokens:
        if token == "#_":
            _form(tokens, depth - 1, context)
        elif token[:1] != ";":
            return _value(token, tokens, depth, context)
    raise AssertionError("the empty token ends every text")


def _value(token: str, tokens: Iterator[str], depth: int, context: _Context) -> Any:
    """The form that begins with *token*."""
    lead = token[:1]
    if lead == '"':
        return _unescaped(token) if "\\" in token else token[1:-1]
    if lead == "[":
        return _items(tokens, "]", depth - 1, context)
    if lead == "(":
        return _items(tokens, ")", depth - 1, context)
    if lead == "{":
        return _map(_items(tokens, "}", depth - 1, context))
    if lead == "#":
        return _dispatched(token, tokens, depth, context)
    if lead == "\\":
        return _char(token)
    if lead == "^":
        return _without_metadata(tokens, depth, context)
    if lead == "":
        raise UnpackError("the text ends too early")
    if lead in ")]}":
        raise UnpackError(f"unmatched {token}")
    return _atom(token)


def _atom(token: str) -> Any:
    if token in _WORDS:
        return _WORDS[token]
    if token[0].isdecimal() or (token[0] in "+-" and token[1:2].isdecimal()):
        return _number(token)
    name = _named(Symbol, token) if token[0] != ":" else _named(Keyword, token[1:])
    _atoms.put(token, name)
    return name


def _named(kind: type[Keyword | Symbol], text: str) -> Keyword | Symbol:
    if not (_is_keyword(text) if kind is Keyword else _is_symbol(text)):
        raise UnpackError(f"invalid {kind.__name__.lower()}: {short(text)}")
    return kind(text)


def _number(token: str) -> int | float | Decimal | Fraction:
    if len(token) > LONGEST_NUMBER:
        raise UnpackError(f"a number of more than {LONGEST_NUMBER} characters")
    if "1" <= token[1:2] <= "9" and len(token) < 20 and _SIGNED.fullmatch(token):
        return int(token)
    if "." not in token and (match := _INT.fullmatch(token)):
        sign, decimal, hexadecimal, octal, radix, digits = match.groups()
        if decimal:
            number = int(decimal)
        elif hexadecimal:
            number = int(hexadecimal, 16)
        elif octal:
            number = int(octal, 8)
        elif radix:
            number = int(digits, int(radix))
        else:  # 08
            raise UnpackError(f"invalid number: {short(token)}")
        if number.bit_length() > MOST_BITS:
            raise UnpackError(TOO_MANY_BITS)
        return -number if sign == "-" else number
    if match := _FLOAT.fullmatch(token):
        return float(token) if match[1] is None else decimal_of(token[:-1])
    if match := _RATIO.fullmatch(token):
        if match[2].strip("0") == "":
            raise UnpackError("division by zero")
        return read_ratio(int(match[1]), int(match[2]))
    raise UnpackError(f"invalid number: {short(token)}")


_decode_json = JSONDecoder(strict=False).raw_decode


def _unescaped(token: str) -> str:
    """The string literal *token*, which has a backslash in it."""
    # Most escapes are JSON's too, and that decoder is written in C. Of what it takes, only \/ is
    # not EDN; what it refuses (octal escapes) is looked at here.
    if "\\/" in token and "\\/" in token.replace("\\\\", ""):
        raise UnpackError("unsupported escape in a string")
    try:
        text, end = _decode_json(token)
    except ValueError:
        pass
    else:
        if end == len(token):
            return _paired(text) if "\\u" in token else text
    if not _STRING_OF_ESCAPES.fullmatch(token):
        if not _STRING.fullmatch(token):
            raise UnpackError("unterminated string")
        raise UnpackError("unsupported escape in a string")
    # Python's own escapes, of which these are some: likewise in C, however many there are.
    text = token[1:-1].encode("ascii", "backslashreplace").decode("unicode_escape")
    return _paired(text) if "\\u" in token else text


def _paired(text: str) -> str:
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise UnpackError("half of a surrogate pair in a string") from None


def _char(token: str) -> Char:
    name = token[1:]
    char = None
    if is_char(name):
        char = Char(name)
    elif name in _CHARS:
        char = Char(_CHARS[name])
    elif match := _CODE.fullmatch(name):
        code = int(match[1], 16) if match[1] else int(match[2], 8)
        if not 0xD800 <= code <= 0xDFFF and (match[1] or code <= 0o377):
            char = Char(chr(code))
    if char is not None:
        _atoms.put(token, char)
        return char
    raise UnpackError(f"unsupported character: {short(token)}")


def _map(items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise UnpackError("a map needs an even number of forms")
    for key in items[::2]:
        if type(key) is not Keyword:
            return read_map(items[::2], items[1::2])
    pairs = iter(items)
    result = dict(zip(pairs, pairs))  # noqa: B905 (even already)
    if len(result) * 2 != len(items):
        raise UnpackError("a map has a key twice")
    return result


def _dispatched(token: str, tokens: Iterator[str], depth: int, context: _Context) -> Any:
    """The form that begins with ``#``."""
    if token == "#{":
        return read_set(_items(tokens, "}", depth - 1, context))
    if token == "##":
        name = _form(tokens, depth - 1, context)
        if type(name) is Symbol and name in _FLOATS:
            return _FLOATS[name]
        raise UnpackError("unknown symbolic value: not ##Inf, ##-Inf or ##NaN")
    if token == "#^":
        return _without_metadata(tokens, depth, context)
    if token[1:2] == ":":
        return _namespaced_map(token[2:], tokens, depth, context)
    tag = token[1:]
    read = context.tags.get(tag)
    if read is None and (not tag[:1].isalpha() or not _is_symbol(tag)):
        raise UnpackError(f"no form begins with {short(token)}")
    value = _form(tokens, depth - 1, context)
    return Tagged(tag, value) if read is None else read(value)


def _without_metadata(tokens: Iterator[str], depth: int, context: _Context) -> Any:
    metadata = _form(tokens, depth - 1, context)
    if not isinstance(metadata, str | dict) or type(metadata) is Char:
        raise UnpackError("metadata must be a map, a symbol, a keyword or a string")
    value = _form(tokens, depth - 1, context)
    if type(value) not in (list, dict, set, Symbol):
        raise UnpackError("metadata stands before a collection or a symbol only")
    return value


def _namespaced_map(namespace: str, tokens: Iterator[str], depth: int, context: _Context) -> Any:
    """``#:a{:b 1 :c/d 2 :_/e 3}``, as Clojure's printer may write ``{:a/b 1 :c/d 2 :e 3}``."""
    if not _is_symbol(namespace) or "/" in namespace or next(tokens) != "{":
        raise UnpackError("a namespaced map is #:namespace{…}")
    items = _items(tokens, "}", depth - 1, context)
    whole = "\x85" not in namespace
    added = weight(namespace) + 1
    for i in range(0, len(items), 2):
        kind, key = type(items[i]), items[i]
        if kind is Keyword or kind is Symbol:
            if "/" not in key or key == "/":
                # Both parts are well-formed, which need not be found out for each key again.
                if not whole or "0" <= key[0] <= "9":
                    raise UnpackError(f"invalid {kind.__name__.lower()}: {short(key)}")
                context.room -= added
                if context.room < 0:
                    raise too_much_referred()
                items[i] = kind(f"{namespace}/{key}")
            elif key.startswith("_/"):
                items[i] = _named(kind, key[2:])
    return _map(items)


def _read_inst(value: Any) -> datetime:
    if type(value) is not str:
        raise UnpackError(f"not an instant: {shown(value)}")
    if _USUAL_INST.fullmatch(value):
        return datetime.fromisoformat(value)
    match = _INST.fullmatch(value)
    if not match:
        raise UnpackError(f"not an instant: {shown(value)}")
    year, month, day, hour, minute, second, fraction, sign, zone_hours, zone_minutes = (
        match.groups()
    )
    seconds = int(second or 0)
    if seconds > (60 if minute == "59" else 59):  # a leap second is the next one, as in Java
        raise UnpackError(f"not an instant: {value}")
    moment = datetime(
        int(year),
        int(month or 1),
        int(day or 1),
        int(hour or 0),
        int(minute or 0),
        tzinfo=timezone.utc,
    )
    if seconds or fraction:
        moment += timedelta(seconds=seconds, microseconds=int(f"{fraction or 0:<06}"[:6]))
    if sign:
        if zone_hours > "23" or zone_minutes > "59":
            raise UnpackError(f"not an instant: {value}")
        offset = timedelta(hours=int(zone_hours), minutes=int(zone_minutes))
        moment -= -offset if sign == "-" else offset
    return moment


def _read_bytes(value: Any) -> bytes:
    if type(value) is not str:
        raise UnpackError("bytes are a string of base64")
    return b64decode(value, validate=True)


# Writing ----------------------------------------------------------------------------------


def _write_name_key(key: str) -> str | None:
    return ":" + key if LIKE_KEYWORD.fullmatch(key) else None


def _write_keyword(keyword: Keyword) -> str:
    if not _is_keyword(keyword):
        raise unwritable(keyword)
    return ":" + keyword


def _write_int(value: int) -> str:
    if value in LONG:
        return repr(value)
    if value.bit_length() > MOST_BITS:
        raise PackError(TOO_MANY_BITS)
    return f"{value}N"


def _write_float(value: float) -> str:
    text = repr(value)
    if text[-1] in "fn":
        return {"inf": "##Inf", "-inf": "##-Inf", "nan": "##NaN"}[text]
    return text


def _write_symbol(value: Symbol) -> str:
    if not _is_symbol(value):
        raise unwritable(value)
    return str(value)


def _write_char(value: Char) -> str:
    check_char(value)
    if value in _CHAR_NAMES:
        return "\\" + _CHAR_NAMES[value]
    return "\\" + value if value.isprintable() else f"\\u{ord(value):04x}"


def _write_decimal(value: Decimal) -> str:
    check_decimal(value)
    return f"{value!s}M"


def _write_fraction(value: Fraction) -> str:
    if value.denominator == 1:
        return _write_int(value.numerator)
    check_fraction(value)
    return f"{value.numerator}/{value.denominator}"


def _write_inst(value: datetime) -> str:
    moment = value.astimezone(timezone.utc).replace(tzinfo=None)
    # Milliseconds, as Clojure prints them, wherever they are enough.
    unit = "microseconds" if moment.microsecond % 1000 else "milliseconds"
    return f'#inst "{moment.isoformat(timespec=unit)}-00:00"'


def _write_uuid(value: UUID) -> str:
    return f'#uuid "{value}"'


def _write_bytes(value: bytes) -> str:
    return f'#chsk/bytes "{b64encode(value).decode()}"'


def _refuse_bytes(value: bytes) -> NoReturn:
    raise PackError("bytes, which EDN has not: use another packer, or base64")


_SCALARS: dict[type, Callable[[Any], str]] = {
    str: _quoted,
    StrKey: _quoted,
    Keyword: Memo(_write_keyword).__getitem__,
    NoneType: {None: "nil"}.__getitem__,
    bool: {True: "true", False: "false"}.__getitem__,
    int: _write_int,
    float: _write_float,
    Symbol: _write_symbol,
    Char: _write_char,
    Decimal: _write_decimal,
    Fraction: _write_fraction,
    datetime: _write_inst,
    UUID: _write_uuid,
    bytes: _refuse_bytes,
}


class EdnPacker(WalkingPacker[str]):
    """EDN text. With *bytes_tag* it carries bytes, as ``#chsk/bytes "<base64>"``."""

    name = "edn"
    content_type = "application/edn"
    native: ClassVar[frozenset[type]] = frozenset(
        [*_SCALARS, list, tuple, dict, FrozenMap, set, frozenset, Tagged]
    )
    scalars = _SCALARS
    name_key = staticmethod(Memo(_write_name_key).__getitem__)

    def __init__(
        self,
        *,
        max_bytes: int = MAX_BYTES,
        max_depth: int = MAX_DEPTH,
        max_values: int | None = MAX_VALUES,
        pack_default: PackDefault | None = None,
        bytes_tag: bool = False,
    ) -> None:
        super().__init__(
            max_bytes=max_bytes,
            max_depth=max_depth,
            max_values=max_values,
            pack_default=pack_default,
        )
        self._tags: dict[str, Callable[[Any], Any]] = {"inst": _read_inst, "uuid": uuid_of}
        if bytes_tag:
            self._tags["chsk/bytes"] = _read_bytes
            self._scalars[bytes] = self._key_scalars[bytes] = _write_bytes
        self._context = _Context(self._tags, 0)  # of messages without namespaced maps

    def array(self, parts: Iterable[str]) -> str:
        """``[a b]`` of the texts ``a`` and ``b``."""
        return f"[{' '.join(parts)}]"

    def _unpack(self, text: str) -> tuple[Any, int]:
        most = self.max_values
        if len(text) <= 4 * most:
            tokens = _TOKEN.findall(text)
        else:  # slower, but ends in time: each value has at most two
            matches = iter(_TOKEN.scanner(text).match, None)  # type: ignore[attr-defined]
            tokens = [*islice(map(itemgetter(1), matches), 2 * most + 2)]
        if len(tokens) > most:
            _refuse_many(tokens, most)
        if len(tokens) > 1 and tokens[-2][:1] == '"' and not _STRING.fullmatch(tokens[-2]):
            start = len(text) - len(tokens[-2])
            raise UnpackError(f"unterminated string, at character {start}")
        context, room = self._context, 0
        if "#:" in text:
            room = self._room(len(text))
            context = _Context(self._tags, room)
        remaining = iter(tokens)
        try:
            forms = _items(remaining, "", self.max_depth, context)
            if len(forms) != 1:
                raise UnpackError("more than one form" if forms else "no form")
        except UnpackError as exc:
            last = len(tokens) - length_hint(remaining) - 1
            starts = (match.start(1) for match in _TOKEN.finditer(text))
            at = next(start for i, start in enumerate(starts) if i == last)
            raise UnpackError(f"{exc}, at character {at}") from None
        return forms[0], len(text) + room - context.room + VALUE_BYTES * len(tokens)

    def _pack(self, value: Any) -> str:
        text = self._any(value, self.max_pack_depth)
        if not text.isascii():
            text.encode()  # refuses halves of surrogate pairs
        return text

    def _set(self, members: list[str]) -> str:
        return f"#{{{' '.join(members)}}}"

    def _map(self, parts: list[str]) -> str:
        return f"{{{' '.join(parts)}}}"

    def _tag(self, tag: Any) -> tuple[str, str]:
        if not isinstance(tag, str) or not tag[:1].isalpha() or not _is_symbol(tag):
            raise PackError(f"{shown(tag)} is no tag")
        if tag in self._tags:
            raise PackError(f"the tag {tag} has a type of its own")
        return f"#{tag} ", ""

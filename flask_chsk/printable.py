"""Words of a peer, made fit for a log, a terminal or an error message.

Whoever opens a channel socket chooses event ids, user names, and what errors quote. Shown as they
came, they could forge lines, hide text or command a terminal, and be as long as a message.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

MOST = 500  # characters shown: some lines of a terminal


def printable(text: str, most: int = MOST) -> str:
    """*text* with everything escaped that is not a visible character, line breaks too, and cut."""
    cut = f"… ({len(text)} characters)" if len(text) > most else ""
    text = text[:most]
    if not text.isprintable():
        text = "".join(one if one.isprintable() else _escaped(one) for one in text)
    return str(text) + cut


def shown(value: object, show: Callable[[Any], str] = repr) -> str:
    """*value* in one printable line; its type, where it breaks when it is looked at."""
    try:
        return printable(show(value))
    except Exception:  # a value of the application's: rows of a session that is gone, say
        return f"<{type(value).__name__}>"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def error_line(error: BaseException, most: int = 300) -> str:
    """What an error says, or else its type, in one printable line."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # an error of the application that cannot even say what it is
        text = ""
    return printable(text, most) or type(error).__name__


# A password may hold a slash that should have been escaped; a path of a page may hold an @.
_USER = re.compile(r"^((?:http|ws)s?://[^:/?#@]*:)[^/?#]*(?=@)|^(\w+://[^:@]*:).*(?=@)", re.DOTALL)
_SECRET = re.compile(r"([?&;][^=&;]*(?:auth|key|pass|secret|token)[^=&;]*=)[^&;]*", re.IGNORECASE)


def masked(url: str) -> str:
    """*url* without the password in it, and without what a parameter calls secret."""
    url = _USER.sub(lambda found: f"{found[1] or found[2]}***", url)
    return _SECRET.sub(r"\1***", url)

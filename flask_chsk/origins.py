"""Origins as browsers send them, and the lists of those that may come (RFC 6454).

It compares text and resolves no name. Whether a request may bring cookies is decided elsewhere.
"""

from __future__ import annotations

import re

NULL = "null"  # of sandboxed frames, data: URLs and some files: of any page that wants to
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([^:\[\]]*|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?|\[[0-9a-f:.]+\]")
_PORTS = {"http": ":80", "https": ":443"}
_PAGES = {"ws": "http", "wss": "https"}  # some programs name the scheme of the socket


def normal(origin: str) -> str:
    """*origin* as it is compared: in lower case, without a default port, ``wss`` as ``https``."""
    origin = origin.lower()
    scheme, separator, host = origin.partition("://")
    if not separator:
        return origin
    scheme = _PAGES.get(scheme, scheme)
    return f"{scheme}://{host.rstrip('/').removesuffix(_PORTS.get(scheme, ' '))}"


def matches(origin: str, allowed: tuple[str, ...]) -> bool:
    """Whether *origin* is one of *allowed*, or a subdomain of one such as ``https://*.a.org``."""
    given = normal(origin)
    if given in allowed:
        return True
    scheme, _, host = given.partition("://")
    for one in allowed:
        start, _, parent = one.partition("://*.")
        name = host.removesuffix(f".{parent}")
        if parent and start == scheme and name != host and _HOST.fullmatch(name):
            return True
    return False


def on_this_machine(origin: str) -> bool:
    """Whether *origin* is of a server on the browser's own machine, as in development."""
    found = _ORIGIN.fullmatch(normal(origin))
    return found is not None and found[2] in _LOOPBACK


def entry(given: str) -> str:
    """One entry of a list of origins, as :func:`matches` compares it.

    :raises ValueError: for what no browser sends, with what to write instead.
    """
    origin = normal(given)
    if origin == NULL:
        return origin
    if origin == "*":
        raise ValueError('stands for any origin alone: write "*" in place of the list')
    found = _ORIGIN.fullmatch(origin)
    if found is None or "/" in found[2]:
        raise ValueError(
            "is no origin; write scheme and host, with the port where it is not the default,"
            ' such as "https://app.example.org"'
        )
    scheme, host = found[1], found[2]
    if scheme not in _PORTS:  # of an app: capacitor://localhost, app://, file://
        if "*" in host:
            raise ValueError("has a wildcard, which only http and https may have")
        if not re.fullmatch(r"[a-z0-9._-]*", host):
            raise ValueError("is no origin: an app sends its scheme and host, nothing else")
        return origin
    if not host.isascii():
        raise ValueError(f"is not what browsers send: write {_ascii(origin)!r}")
    parent = host.removeprefix("*.")
    if "*" in parent or (parent != host and "." not in parent and parent != "localhost"):
        raise ValueError(
            'has a wildcard for more than subdomains of one domain: "https://*.example.org" is'
            " possible (without https://example.org itself); list others one by one"
        )
    if not _HOST.fullmatch(parent):
        raise ValueError("has no host name; write it as the browser's address bar shows it")
    return origin


def _ascii(origin: str) -> str:
    scheme, _, host = origin.partition("://")
    try:
        return f"{scheme}://{host.encode('idna').decode()}"
    except UnicodeError:
        return f"{scheme}://xn--…"

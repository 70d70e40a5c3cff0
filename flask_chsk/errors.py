"""Every exception of the package, by whose fault it is.

Yours (raised at once, in the caller, before anything is sent): :class:`ConfigError`,
:class:`UsageError`, :class:`BadEvent`, :class:`PackError`.
The peer's (answered on the wire, never raised to you): :class:`UnpackError`,
:class:`ProtocolError`, :class:`Refused`.
Circumstance (raised, because only you know what to do then): :class:`AskError`,
:class:`BrokerError`, and the Python client's :class:`RequestError`.
"""

from __future__ import annotations


class ChskError(Exception):
    """Base of everything this package raises on purpose."""


# Yours ---------------------------------------------------------------------------------


class ConfigError(ChskError, ValueError):
    """A setting is unknown, or its value cannot work; the message names it."""


class UsageError(ChskError, RuntimeError):
    """A call that cannot work where it stands; the message says what to do instead."""


class BadEvent(ChskError, ValueError):
    """Not an event: ``[id, data?]`` with a namespaced id such as ``"chat/say"``."""


class PackError(ChskError, TypeError):
    """A value no packer can carry; the message names the path to it.

    For example ``data["when"][3]: object of type Foo``.
    """


# The peer's ----------------------------------------------------------------------------


class UnpackError(ChskError, ValueError):
    """Text or bytes that are not one well-formed message of this packer."""


class ProtocolError(ChskError):
    """A WebSocket peer broke RFC 6455; *code* is the close code it deserves."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Refused(ChskError):
    """A request that is answered with a status and one line (docs/protocol.rst, "Refusals")."""

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


# Circumstance --------------------------------------------------------------------------


class AskError(ChskError):
    """An ask that got no answer."""


class NoClient(AskError):
    """Nobody to ask: that user has no client that could answer."""


class ClientGone(AskError):
    """The last client that was asked went away before it answered."""


class AskTimeout(AskError, TimeoutError):
    """No answer within the timeout."""


class AskFailed(AskError):
    """The client answered with an error (its handler raised, or it has none)."""


class BrokerError(ChskError):
    """The broker could not do what was asked."""


class BrokerUnavailable(BrokerError):
    """The broker cannot be reached; nothing was sent."""


class PublishUnknown(BrokerError):
    """The broker's answer was lost: the event may or may not have been sent."""


class RequestError(ChskError):
    """A request of the Python client that got no reply."""


class ReplyTimeout(RequestError, TimeoutError):
    """No reply within the timeout."""


class ChannelClosed(RequestError):
    """The channel socket was not open, or closed before the reply."""


class ReplyError(RequestError):
    """The server answered ``:chsk/error``; *status* and *message* where it gave them."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status

"""Which handler takes an event, and what surrounds it.

Pure: no greenlet, no Flask. Handlers are found by id; ``"*"`` takes what no other takes.
Before- and after-functions and error handlers work as Flask's do.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NoReturn

from ..errors import ConfigError, UsageError
from ..plain import plain
from ..protocol.event import Event, assert_whole, is_event_id
from ..protocol.uids import as_uid

REST = "*"


class Reply(Exception):
    """Raised in a handler: ends it early, with *value* as the reply."""

    def __init__(self, value: Any = None) -> None:
        super().__init__(value)
        self.value = value


class EventMessage:
    """One event as a handler gets it.

    ``event``, ``id``, ``data``; ``uid`` (None for anonymous) and ``client_id`` of who sent
    it; ``request``, the Flask request: of the handshake on WebSocket, of the POST on Ajax,
    None for ``chsk/uidport-…``; ``wants_reply``. ``generation``, of ``chsk/uidport-…`` only:
    rises with each coming and going of a user, so that of two which different workers handle
    the later one can be told.
    """

    __slots__ = (
        "_channel",
        "_deferred",
        "_replied",
        "client_id",
        "data",
        "event",
        "generation",
        "request",
        "uid",
    )

    def __init__(
        self,
        event: Event,
        uid: str | None,
        client_id: str | None,
        channel: Channel | None = None,
        request: Any = None,
        generation: int | None = None,
    ) -> None:
        self.event = event
        self.data = event.data  # what ``parse`` made of it, where the handler has one
        self.uid = uid
        self.client_id = client_id
        self.request = request
        self.generation = generation
        self._channel = channel
        self._replied = False
        self._deferred = False

    def __repr__(self) -> str:
        return f"<EventMessage {self.id} uid={self.uid!r} client_id={self.client_id!r}>"

    @property
    def id(self) -> str:
        """The event's id, such as ``"chat/say"``."""
        return self.event.id

    @property
    def wants_reply(self) -> bool:
        """Whether the client waits for a reply that was not given yet."""
        return not self._replied and self._channel is not None and self._channel.wants_reply

    @property
    def deferred(self) -> bool:
        """Whether :meth:`defer` was called."""
        return self._deferred

    def defer(self) -> None:
        """Keep the reply open when the handler returns; :meth:`reply` later, from anywhere.

        After ``CHSK_REPLY_TIMEOUT`` seconds the client gets ``chsk/timeout``.
        """
        self._deferred = True

    def reply(self, value: Any = None) -> bool:
        """Answer the client; False where it did not ask, has its reply, or is gone.

        :raises PackError: naming the path to what cannot be packed.
        """
        if not self.wants_reply or self._channel is None:
            return False
        sent = self._channel.reply(value)
        self._replied = True
        self._channel.replied(self, value)
        return sent

    def _give_up(self) -> None:
        """No reply will come: a later one is too late."""
        self._replied = True

    def push(self, event: Any, *more: NoReturn) -> int | None:
        """Send *event* to the very client that sent this one, anonymous ones too."""
        assert_whole("ev.push({})", event, more)
        return None if self._channel is None else self._channel.push(event)

    def send(self, uid: Any, event: Any, *more: NoReturn, **options: Any) -> int | None:
        """As ``chsk.send``."""
        assert_whole("ev.send(uid, {})", event, more)
        if self._channel is None:
            return None
        return self._channel.send(as_uid(uid), event, **options)

    @property
    def connected_uids(self) -> Any:
        """As ``chsk.connected_uids``."""
        return None if self._channel is None else self._channel.connected_uids


class Channel:
    """What an event message can do; the server's half is in replies.py."""

    wants_reply = False

    def reply(self, value: Any) -> bool:
        """Answer once."""
        raise NotImplementedError

    def replied(self, ev: EventMessage, value: Any) -> None:
        """*ev* was answered, by whatever way."""

    def push(self, event: Any) -> int | None:
        """Send to this client."""
        raise NotImplementedError

    def send(self, uid: Any, event: Any, **options: Any) -> int | None:
        """Send to a user."""
        raise NotImplementedError

    @property
    def connected_uids(self) -> Any:
        """Who is there."""
        raise NotImplementedError


Function = Callable[..., Any]


class RefusedByParse(Exception):
    """What a handler's ``parse`` raised and no error handler took: its ``__cause__``."""


@dataclass(frozen=True)
class Handler:
    """One registered function. *concurrent*: not held back by this client's other events."""

    fn: Function
    concurrent: bool = False
    parse: Function | None = None
    modules: tuple[Router, ...] = ()  # which it was registered with, the innermost first


class Router:
    """The functions of one module: its handlers by id, and what surrounds them."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}
        self.before: list[Function] = []
        self.after: list[Function] = []
        self.errors: dict[type[BaseException], Function] = {}

    def add(self, id: str, handler: Handler) -> None:
        """Let *handler* take *id*.

        :raises ConfigError: where another function has taken it.
        """
        known = self.handlers.setdefault(id, handler)
        if known == handler:
            return  # registered again, as by a second create_app()
        taken = getattr(known.fn, "__qualname__", known.fn)
        again = taken == getattr(handler.fn, "__qualname__", handler.fn)
        remedy = "; define it once, outside of create_app(), or make one Chsk for each application"
        raise ConfigError(f"{id!r} has a handler already: {taken}{remedy if again else ''}")

    def include(self, module: Router) -> None:
        """Take another module's handlers in; what surrounds them there still does."""
        for id, handler in module.handlers.items():
            self.add(id, replace(handler, modules=(*handler.modules, module)))

    def find(self, id: str) -> Handler | None:
        """The handler that takes *id*."""
        handler = self.handlers.get(id)
        if handler is None and not id.startswith("chsk/ws-p"):  # keep-alive: by its very id
            handler = self.handlers.get(REST)
        return handler

    def nearest(self, id: str, most: int) -> list[str]:
        """Ids that have handlers, those most like *id* first."""
        return difflib.get_close_matches(id[:255], self.handlers, most, cutoff=0)

    def run(self, handler: Handler, ev: EventMessage) -> Any:
        """The reply that *handler* makes of *ev*.

        :raises RefusedByParse: for data that its ``parse`` refuses.
        :raises Exception: what no error handler took.
        """
        if handler.parse is not None:
            try:
                ev.data = handler.parse(ev.data)
            except Reply as reply:
                return reply.value
            except Exception as error:
                for module in (*handler.modules, self):
                    refused = _error_handler(module.errors, error)
                    if refused is not None:
                        return refused(ev, error)
                raise RefusedByParse from error
        fn = handler.fn
        for module in handler.modules:
            fn = partial(module._run, fn)
        return self._run(fn, ev)

    def _run(self, fn: Function, ev: EventMessage) -> Any:
        try:
            return self._around(fn, ev)
        except Reply as reply:
            return reply.value
        except Exception as error:
            handler = _error_handler(self.errors, error)
            if handler is None:
                raise
            return handler(ev, error)

    def _around(self, fn: Function, ev: EventMessage) -> Any:
        value: Any = None
        for before in self.before:
            value = before(ev)
            if value is not None:
                break
        else:
            value = fn(ev)
        for after in reversed(self.after):
            reply = after(ev, value)
            if reply is None and value is not None:
                name = getattr(after, "__qualname__", after)
                raise UsageError(
                    f"@after_event {name} returned None in place of the reply to {ev.id}: return"
                    " the value, or raise Reply(None)"
                )
            value = reply
        return value


class Handlers:
    """Handlers of one module, registered later, as blueprints are.

    ::

        chat = Handlers("chat")

        @chat.on("say")             # takes "chat/say"
        def say(ev): ...

        chsk.register(chat)
    """

    def __init__(self, prefix: str | None = None) -> None:
        if prefix is not None and not is_event_id(f"{prefix}/x"):
            raise ConfigError(f'a prefix is the namespace of ids, such as "chat", not {prefix!r}')
        self._prefix = prefix
        self._router = Router()

    def on(
        self, id: str, *, concurrent: bool = False, parse: Function | None = None
    ) -> Callable[[Function], Function]:
        """Register the decorated function for events of *id*; ``"*"``: for all others.

        :param concurrent: run it beside this client's other handlers, not after them.
        :param parse: makes ``ev.data`` (for example a pydantic model's
            ``model_validate``). What it raises goes to the error handlers; where none takes it,
            the event is answered with status 400.
        :raises ConfigError: for an id that is none, or that another function has taken.
        """
        if not isinstance(id, str):
            given = getattr(id, "__qualname__", id)
            raise ConfigError(f'on() takes an event id: @chsk.on("chat/say"), not {given!r}')
        full = id if id == REST or self._prefix is None or "/" in id else f"{self._prefix}/{id}"
        if full != REST and not is_event_id(full):
            raise ConfigError(f'an event id is namespaced, such as "chat/say", not {id!r}')

        if parse is not None:
            plain(parse, f"parse of {full}", takes="data")

        def register(fn: Function) -> Function:
            plain(fn, f'@on("{full}")', takes="ev")
            self._router.add(full, Handler(fn, concurrent, parse))
            return fn

        return register

    def before_event(self, fn: Function) -> Function:
        """Register *fn(ev)* to run before each handler; a value that is not None ends."""
        self._router.before.append(plain(fn, "@before_event", takes="ev"))
        return fn

    def after_event(self, fn: Function) -> Function:
        """Register *fn(ev, value)* to run after each handler; it returns the reply.

        None in place of another value is an error, since a function that forgets its ``return``
        would take every reply away; ``raise Reply(None)`` where it is meant.
        """
        self._router.after.append(plain(fn, "@after_event", takes="ev, value"))
        return fn

    def errorhandler(self, exception: type[BaseException]) -> Callable[[Function], Function]:
        """Register the decorated *fn(ev, error)*; what it returns is the reply.

        :raises ConfigError: for what is no class of exceptions, such as an HTTP status.
        """
        if not (isinstance(exception, type) and issubclass(exception, BaseException)):
            raise ConfigError(
                f"errorhandler() takes a class of exceptions, not {exception!r}: for a status"
                " take its class, such as werkzeug.exceptions.NotFound"
            )

        def register(fn: Function) -> Function:
            role = f"@errorhandler({exception.__name__})"
            self._router.errors[exception] = plain(fn, role, takes="ev, error")
            return fn

        return register

    def register(self, handlers: Handlers) -> None:
        """Take another module's handlers in; its before, after and error functions too.

        Those hold for its own ids only. A second call with the same module changes nothing.
        """
        self._router.include(handlers._router)


def _error_handler(
    handlers: Mapping[type[BaseException], Function], error: Exception
) -> Function | None:
    for cls in type(error).__mro__:
        if cls in handlers:
            return handlers[cls]
    return None


def is_event_msg(x: object) -> bool:
    """Whether *x* is what a handler gets."""
    return isinstance(x, EventMessage)

"""Names of Flask-SocketIO: the AttributeError for one says what to use here."""

from __future__ import annotations

_OURS = {
    "emit": 'chsk.send(uid, ["chat/said", data]), or chsk.broadcast(["chat/said", data]) to all',
    "event": '@chsk.on("chat/say")',
    "on_event": 'chsk.on("chat/say")(handler)',
    "on_error": "@chsk.errorhandler(Exception)",
    "on_error_default": "@chsk.errorhandler(Exception)",
    "on_namespace": 'Handlers("chat"), and chsk.register(handlers)',
    "join_room": "chsk.join(uid, topic)",
    "leave_room": "chsk.leave(uid, topic)",
    "rooms": "chsk.members(topic)",
    "disconnect": "chsk.close(uid)",
    "call": 'chsk.ask(uid, ["page/confirm", data])',
    "start_background_task": "threading.Thread or gevent.spawn, with app.app_context() inside",
    "sleep": "time.sleep, or gevent.sleep in a process that is not patched",
}


def no_attribute(owner: object, name: str) -> AttributeError:
    """The error for an attribute that *owner* has not."""
    text = f"{type(owner).__name__!r} object has no attribute {name!r}"
    ours = _OURS.get(name)
    return AttributeError(f"{text}: use {ours}" if ours else text, name=name, obj=owner)

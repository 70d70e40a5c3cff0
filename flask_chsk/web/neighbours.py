"""What other extensions are told of the channel sockets, whichever of them is initialised first.

They are told at the application's first request, when all of them are there.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Flask, request_started


class Neighbours:
    """The other extensions of one application.

    Flask-WTF exempts our views: we check the token ourselves, on GET and WebSocket too, and let it
    be as old as its session. Flask-Login answers 401 and sends nobody to its login page: neither
    a script nor the caller of a handler could show that page.
    """

    def __init__(self, app: Flask) -> None:
        self.blueprints: list[Blueprint] = []
        request_started.connect(self._tell, app)

    def _tell(self, sender: Flask, **_: Any) -> None:
        csrf = sender.extensions.get("csrf")
        login_manager = getattr(sender, "login_manager", None)
        for blueprint in self.blueprints:
            if csrf is not None:
                csrf.exempt(blueprint)
            if login_manager is not None:
                login_manager.blueprint_login_views.setdefault(blueprint.name, None)
        request_started.disconnect(self._tell, sender)  # last: another thread may have a request

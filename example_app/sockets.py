"""The one channel socket of this application, and who may open it."""

from __future__ import annotations

from flask import session

from flask_chsk import Chsk

chsk = Chsk()


@chsk.authorize
def signed_in() -> bool:
    """Only who signed in: ``session["uid"]`` is also how `chsk.send` finds them."""
    return "uid" in session

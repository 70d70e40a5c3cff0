"""Tells whether the script that runs was imported a second time, as a module.

``python app.py`` runs it as ``__main__``. ``from app import chsk`` in another module then runs it
again, and the handlers of that module belong to the second ``chsk``, which serves nobody.
"""

from __future__ import annotations

import sys


def imported_again() -> str | None:
    """The name by which the running script was imported; None where it was not."""
    main = sys.modules.get("__main__")
    path = getattr(main, "__file__", None)
    if path is None:
        return None
    for name, module in list(sys.modules.items()):
        if module is not main and getattr(module, "__file__", None) == path:
            return name
    return None

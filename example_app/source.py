"""Shows the example's own files, so that each button can say where its code is."""

from __future__ import annotations

import re
from pathlib import Path

from flask import Blueprint, abort, render_template, url_for
from flask.typing import ResponseReturnValue
from markupsafe import Markup

blueprint = Blueprint("source", __name__)

HERE = Path(__file__).parent
FILES = {
    path.relative_to(HERE).as_posix(): path
    for pattern in ("*.py", "static/*.js", "static/*.css", "templates/*.html")
    for path in sorted(HERE.glob(pattern))
}


@blueprint.get("/source/<path:name>")
def show(name: str) -> ResponseReturnValue:
    """One file, each line with an anchor."""
    if name not in FILES:
        abort(404)
    lines = FILES[name].read_text(encoding="utf-8").splitlines()
    return render_template("source.html", name=name, names=list(FILES), lines=lines)


@blueprint.app_template_global()
def code(name: str, function: str) -> Markup:
    """A link to a function's first line.

    :raises LookupError: a page points to what is no longer there.
    """
    head = re.compile(rf"\s*(?:async )?(?:def|function) {function}\(")
    for number, line in enumerate(FILES[name].read_text(encoding="utf-8").splitlines(), 1):
        if head.match(line):
            href = url_for("source.show", name=name, _anchor=f"L{number}")
            label = f"{name.rpartition('/')[2]}:{number}"
            return Markup('<a class="code" href="{}">{} <span>{}</span></a>').format(
                href, function, label
            )
    raise LookupError(f"no {function} in {name}")

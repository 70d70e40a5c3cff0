"""What the README shows, as files."""

from __future__ import annotations

import re
from pathlib import Path

from tests.process import ROOT

README = (ROOT / "README.rst").read_text(encoding="utf-8")
BLOCK = re.compile(r"\.\. code-block:: \w+\n   :name: (\S+)\n\n((?:   .*\n|\n)+)")
SHOWN = {
    name: re.sub(r"^   ", "", text, flags=re.M).strip() + "\n"
    for name, text in BLOCK.findall(README)
}


def write_application(folder: Path) -> None:
    """Write the application, its page and its tests into *folder*."""
    app = SHOWN["app.py"] + "\n\n" + SHOWN["orders.py"]
    for name, text in {**SHOWN, "app.py": app}.items():
        if name != "orders.py":
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

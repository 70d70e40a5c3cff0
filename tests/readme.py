"""What the README and the documentation show, as files."""

from __future__ import annotations

import re
from pathlib import Path

from tests.process import ROOT

BLOCK = re.compile(
    r"\.\. code-block:: \w+\n(?:   :caption: .+\n)?   :name: (\S+)\n\n((?:   .*\n|\n)+)"
)


def named_blocks(text: str) -> dict[str, str]:
    """The code blocks of a page that have a name, by that name."""
    return {
        name: re.sub(r"^   ", "", code, flags=re.M).strip() + "\n"
        for name, code in BLOCK.findall(text)
    }


README = (ROOT / "README.rst").read_text(encoding="utf-8")
QUICKSTART = (ROOT / "docs/quickstart.rst").read_text(encoding="utf-8")
SHOWN = named_blocks(README) | named_blocks(QUICKSTART)  # the page includes what the README shows


def write_files(files: dict[str, str], folder: Path) -> None:
    """Write *files*, each text under its name, into *folder*."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def write_application(folder: Path) -> None:
    """Write the application, its page and its tests into *folder*."""
    app = SHOWN["app.py"] + "\n\n" + SHOWN["orders.py"]
    write_files({**SHOWN, "app.py": app}, folder)
    (folder / "orders.py").unlink()


def files_after(blocks: dict[str, str], step: int) -> dict[str, str]:
    """The files of a page in steps, as they are after *step*: each block at the end of its file.

    A block is named ``STEP/PATH``, or ``WORD-STEP/PATH``: names are unique in the documentation.
    """
    files: dict[str, str] = {}
    for name, code in blocks.items():
        number, _, path = name.partition("/")
        if int(number.rpartition("-")[2]) <= step:
            files[path] = f"{files[path]}\n\n{code}" if path in files else code
    return files

"""What PyInstaller asks for: where the hook of this package lies (entry point in setup.py)."""

from __future__ import annotations

from pathlib import Path


def hook_dirs() -> list[str]:
    """The folder of ``hook-flask_chsk.py``."""
    return [str(Path(__file__).parent)]

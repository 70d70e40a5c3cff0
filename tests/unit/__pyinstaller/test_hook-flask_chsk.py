"""What PyInstaller is told: all packers, which are imported by name, and the browser's client."""

from __future__ import annotations

import importlib
import pkgutil
import runpy
import sys
import types
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

import flask_chsk.packers
from flask_chsk.packers.builtin import BUILTIN

PACKAGE = Path(str(flask_chsk.__file__)).parent


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the hook says, with PyInstaller's two functions as they are documented."""
    hooks = types.ModuleType("PyInstaller.utils.hooks")
    vars(hooks).update(
        collect_submodules=lambda name: [
            one.name
            for one in pkgutil.iter_modules(importlib.import_module(name).__path__, f"{name}.")
        ],
        collect_data_files=lambda name, includes: [
            (str(path), str(Path(name, path.relative_to(PACKAGE)).parent))
            for pattern in includes
            for path in PACKAGE.glob(pattern)
        ],
    )
    monkeypatch.setitem(sys.modules, "PyInstaller", types.ModuleType("PyInstaller"))
    monkeypatch.setitem(sys.modules, "PyInstaller.utils", types.ModuleType("PyInstaller.utils"))
    monkeypatch.setitem(sys.modules, "PyInstaller.utils.hooks", hooks)
    points = entry_points(group="pyinstaller40", name="hook-dirs")
    point, *_ = [one for one in points if one.module.startswith("flask_chsk.")]
    (folder,) = point.load()()
    return runpy.run_path(str(Path(folder) / "hook-flask_chsk.py"))


def test_every_packer_is_taken_along(found: dict[str, Any]) -> None:
    wanted = {f"flask_chsk.packers.{place.module}" for place in BUILTIN.values()}
    assert wanted <= set(found["hiddenimports"])


def test_the_files_of_the_browsers_client_are_taken_along(found: dict[str, Any]) -> None:
    names = {Path(source).name for source, _ in found["datas"]}
    assert {"chsk.js", "chsk.d.ts", "edn.js", "msgpack.js", "transit.js"} <= names
    assert {target for _, target in found["datas"]} == {"flask_chsk/static"}

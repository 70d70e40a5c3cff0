"""Each module of the package has its test module: ``hub.py`` has ``test_hub.py``."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

UNIT = Path(__file__).parent
PACKAGE = UNIT.parents[1] / "flask_chsk"


def modules() -> set[str]:
    """The modules of the package, but for those that only gather the names of others."""
    paths = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    return {path for path in paths if not path.endswith("__init__.py")}


def has_tests(module: str) -> bool:
    path = PurePosixPath(module)
    return (UNIT / path.with_name(f"test_{path.name}")).exists()


def test_each_module_has_its_test_module() -> None:
    without = {module for module in modules() if not has_tests(module)}
    assert without == set(), "add a test module of the same name in tests/unit"


def test_a_module_is_found_where_its_folder_is() -> None:
    assert "packers/edn.py" in modules()
    assert has_tests("packers/edn.py") and has_tests("hub.py")
    assert not has_tests("packers/hub.py")

"""The smoke test, over Pythons and over the lowest and the newest versions of what we depend on.

    python -m tests.matrix [--python 3.12] [--versions lowest]

Makes the wheel, and for each Python that this machine has an environment with exactly the lowest
versions that setup.py allows, and one with the newest that pip gives. In each it runs
``internals.py`` and ``smoke.py``, with the newest versions the latter also as a program that
PyInstaller makes. Says which Pythons it did not find; ends with 1 where something failed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from email import message_from_string
from functools import cache
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from tests.process import ROOT
from tests.readme import write_application

PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
VERSIONS = ("lowest", "newest")
EXTRAS = ("gunicorn", "redis", "client", "prometheus", "speedups")
PROGRAMS = [Path(__file__).with_name(name) for name in ("internals.py", "smoke.py")]
LEFTOVERS = (
    "__pycache__ .git .venv* *.egg-info build dist node_modules .*_cache .hypothesis".split()
)


@cache
def interpreter(version: str) -> str | None:
    """A Python of this *version* that can make environments; None: this machine has none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [sys.executable, shutil.which(f"python{version}"), f"/usr/bin/python{version}"]
    candidates += sorted(map(str, pyenv.glob(f"{version}.*/bin/python")), reverse=True)
    probe = "import ensurepip, ssl, sys; print('%d.%d' % sys.version_info[:2])"
    for candidate in candidates:
        if candidate and Path(candidate).exists():
            ran = subprocess.run([candidate, "-c", probe], capture_output=True, text=True)
            if ran.stdout.strip() == version:
                return candidate
    return None


def make_wheel(folder: Path) -> Path:
    """Built from a copy, so that the checkout stays clean."""
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*LEFTOVERS))
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder]
    subprocess.run([*build, source], check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    return wheel


def metadata_of(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return archive.read(name).decode()


def floors(metadata: str, python: str) -> dict[str, str]:
    """The lowest version that each dependency may have on *python*."""
    requires = message_from_string(metadata).get_all("Requires-Dist", [])
    found: dict[str, str] = {}
    for requirement in map(Requirement, requires):
        marker = requirement.marker
        if marker and not any(
            marker.evaluate({"extra": extra, "python_version": python}) for extra in ("", *EXTRAS)
        ):
            continue
        for specifier in requirement.specifier:
            if specifier.operator == ">=":
                lowest = found.get(requirement.name, "0")
                found[requirement.name] = max(lowest, specifier.version, key=Version)
    return found


def environment(folder: Path, python: str, wheel: Path, versions: str) -> Path:
    """The Python of a new environment with the package in it."""
    subprocess.run([interpreter(python), "-m", "venv", folder], check=True)
    constraints = folder / "constraints.txt"
    lowest = floors(metadata_of(wheel), python) if versions == "lowest" else {}
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in lowest.items()))
    own = folder / "bin/python"
    install = [own, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "-qq"]
    wanted = [f"{wheel}[{','.join(EXTRAS)}]"]
    if versions == "newest":
        wanted.append("pyinstaller")
    subprocess.run([*install, "-c", constraints, *wanted], check=True, timeout=600)
    return own


def smoke(python: Path | str, app: Path) -> bool:
    """Whether it works there; what it says is printed."""
    ours = ("CHSK", "FLASK", "GUNICORN", "PYTHON")
    env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return all(
        subprocess.run([python, program, app], cwd=app, env=env, timeout=300).returncode == 0
        for program in PROGRAMS
    )


def combinations(pythons: list[str], versions: list[str]) -> Iterator[tuple[str, str]]:
    for python in pythons:
        if interpreter(python) is None:
            print(f"Python {python}: skipped, this machine has none", flush=True)
        else:
            yield from ((python, version) for version in versions)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", action="append", choices=PYTHONS)
    parser.add_argument("--versions", action="append", choices=VERSIONS)
    options = parser.parse_args()
    failed = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = make_wheel(folder)
        app = folder / "app"
        write_application(app)
        for python, versions in combinations(
            options.python or [*PYTHONS], options.versions or [*VERSIONS]
        ):
            print(f"Python {python}, {versions} versions:", flush=True)
            began = time.monotonic()
            try:
                own = environment(folder / f"{python}-{versions}", python, wheel, versions)
                good = smoke(own, app)
            except subprocess.SubprocessError as error:
                print(f"   {error}")
                good = False
            if not good:
                failed.append(f"{python} {versions}")
            print(
                f"   {'good' if good else 'FAILED'}, {time.monotonic() - began:.0f} s", flush=True
            )
    if failed:
        print(f"failed: {', '.join(failed)}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())

"""What pip installs, and what importing it does: nothing yet."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import flask_chsk
from tests.matrix.__main__ import EXTRAS, PYTHONS, floors
from tests.process import ROOT

OPTIONAL = (
    "flask_login flask_wtf gunicorn msgpack prometheus_client pydantic redis sqlalchemy urllib3"
    " websockets"
)
CACHES = "__pycache__ .mypy_cache .pytest_cache .ruff_cache .hypothesis"
LEFTOVERS = f"{CACHES} .git .venv* *.egg-info build dist node_modules".split()


class Distributions(NamedTuple):
    """Names of the files in each, below the sdist's own folder."""

    sdist: frozenset[str]
    wheel: frozenset[str]
    metadata: str
    files: list[Path]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """The sdist, and the wheel built from it; from a copy, so that the checkout stays clean."""
    source, built = tmp_path_factory.mktemp("source") / "copy", tmp_path_factory.mktemp("built")
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*LEFTOVERS))
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", built, source],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    [sdist], [wheel] = built.glob("*.tar.gz"), built.glob("*.whl")
    with tarfile.open(sdist) as tar, zipfile.ZipFile(wheel) as archive:
        [metadata] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Distributions(
            frozenset(name.partition("/")[2] for name in tar.getnames()),
            frozenset(archive.namelist()),
            archive.read(metadata).decode(),
            [sdist, wheel],
        )


def package_files() -> frozenset[str]:
    """Every file of the package, as the distributions name them."""
    return frozenset(
        str(path.relative_to(ROOT))
        for path in (ROOT / "flask_chsk").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )


def test_the_wheel_holds_the_package_and_nothing_else(distributions: Distributions) -> None:
    inside = {name for name in distributions.wheel if ".dist-info/" not in name}
    assert inside == package_files()


def test_the_sdist_holds_the_package(distributions: Distributions) -> None:
    assert package_files() - distributions.sdist == set()


@pytest.mark.parametrize("name", ["py.typed", "static/chsk.js", "static/chsk.d.ts"])
def test_types_and_javascript_are_installed(distributions: Distributions, name: str) -> None:
    assert f"flask_chsk/{name}" in distributions.wheel


def test_bundlers_find_the_client_and_each_packer_with_its_types() -> None:
    static = ROOT / "flask_chsk/static"
    exports = json.loads((static / "package.json").read_text(encoding="utf-8"))["exports"]
    paths = {
        path for one in exports.values() for path in ([one] if type(one) is str else one.values())
    }
    assert [path for path in paths if not (static / path).exists()] == []
    typed = {path.name for path in static.glob("*.d.ts")}
    assert typed == {Path(path).name for path in paths if path.endswith(".d.ts")}


def test_the_licence_travels_with_both(distributions: Distributions) -> None:
    assert "LICENSE" in distributions.sdist
    assert any(re.search(r"\.dist-info/(licenses/)?LICENSE$", name) for name in distributions.wheel)


@pytest.mark.parametrize(
    "name",
    "CHANGES.rst CONTRIBUTING.rst Makefile README.rst SECURITY.rst scripts/demo.sh"
    " tests/conftest.py".split(),
)
def test_the_sdist_can_be_tested(distributions: Distributions, name: str) -> None:
    assert name in distributions.sdist


def test_pypi_accepts_both_and_renders_the_readme(distributions: Distributions) -> None:
    command = [sys.executable, "-m", "twine", "--no-color", "check", "--strict"]
    checked = subprocess.run([*command, *distributions.files], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_one_version_everywhere(distributions: Distributions) -> None:
    changes = (ROOT / "CHANGES.rst").read_text(encoding="utf-8")
    newest = re.search(r"^Version (\S+)$", changes, re.MULTILINE)
    built = re.search(r"^Version: (\S+)$", distributions.metadata, re.MULTILINE)
    assert newest is not None and built is not None
    browsers = json.loads((ROOT / "flask_chsk/static/package.json").read_text(encoding="utf-8"))
    assert newest[1] == built[1] == browsers["version"] == flask_chsk.__version__


def test_the_extras_that_make_installs_exist(distributions: Distributions) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    installed = set(re.findall(r"\$\(VENV\)/\.(\w+)", makefile)) - {"python"}
    extras = re.findall(r"^Provides-Extra: (\S+)$", distributions.metadata, re.MULTILINE)
    assert installed - set(extras) == set()  # pip only warns of an extra that is not there


def test_every_extra_for_users_installs_what_the_package_imports(
    distributions: Distributions,
) -> None:
    lines = message_from_string(distributions.metadata).get_all("Requires-Dist", [])
    wanted: dict[str, set[str]] = {}
    for requirement in map(Requirement, lines):
        for extra in EXTRAS:
            if requirement.marker and requirement.marker.evaluate({"extra": extra}):
                wanted.setdefault(extra, set()).add(requirement.name)
    assert wanted == {
        "gunicorn": {"gunicorn"},
        "redis": {"redis"},
        "client": {"urllib3"},
        "prometheus": {"prometheus-client"},
        "speedups": {"websockets"},
    }
    source = "".join(path.read_text() for path in (ROOT / "flask_chsk").rglob("*.py"))
    imported = set(re.findall(r"^\s*(?:from|import) (\w+)", source, re.MULTILINE))
    # gunicorn is a server: it imports us
    assert {"prometheus_client", "redis", "urllib3", "websockets"} <= imported


def test_extras_and_packages_that_users_are_told_to_install_exist(
    distributions: Distributions,
) -> None:
    extras = re.findall(r"^Provides-Extra: (\S+)$", distributions.metadata, re.MULTILINE)
    paths = [*(ROOT / "flask_chsk").rglob("*.py"), *(ROOT / "docs").glob("*.rst")]
    texts = [path.read_text() for path in [*paths, *ROOT.glob("*.rst")]]
    hint = re.compile(r"pip install (?:--no-cache-dir )?('[^']+'|[\w-]+\[[^\]]*\]|[\w-]+)")
    told = [word for text in texts for word in hint.findall(text)]
    ours = [re.fullmatch(r"'(?:[Ff]lask-[Cc]hsk|\.)\[([\w,]+)\]'", word) for word in told]
    assert {extra for one in ours if one for extra in one[1].split(",")} <= {*extras}
    others = {word for word, one in zip(told, ours, strict=True) if one is None}
    assert others == {"flask-chsk", "tzdata", "'gunicorn[gevent]'"}


#: The first versions without a fault that is known and that an application could meet here.
MENDED = {
    "Flask": "3.1.1",  # CVE-2025-47278: the oldest of SECRET_KEY_FALLBACKS signed
    "Werkzeug": "3.1.4",  # CVE-2025-66221: device names of Windows as paths
    "gevent": "23.9.0",  # CVE-2023-41419: smuggled requests in pywsgi
    "gunicorn": "23.0",  # CVE-2024-1135 and CVE-2024-6827: smuggled requests
    "redis": "4.5.5",  # CVE-2023-28858 and CVE-2023-28859: the answer of another command
    "urllib3": "2.6",  # CVE-2025-66418 and CVE-2025-66471: answers that inflate without limit
}


@pytest.mark.parametrize("python", PYTHONS)
def test_no_floor_has_a_fault_that_is_known(distributions: Distributions, python: str) -> None:
    lowest = floors(distributions.metadata, python)
    assert lowest.keys() == {*MENDED, "gevent-websocket", "prometheus-client", "websockets"}
    assert {n: v for n, v in lowest.items() if Version(v) < Version(MENDED.get(n, "0"))} == {}


def run(code: str) -> str:
    """What a fresh, unpatched Python prints, where every warning is an error."""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    return done.stdout


def test_import_and_init_app_start_nothing() -> None:
    code = """
import gc, os, threading
import flask, gevent.monkey, greenlet, gevent._hub_local
before = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else None

import flask_chsk
app = flask.Flask("app")
app.secret_key = "secret"
flask_chsk.Chsk(app)

main = greenlet.getcurrent()
others = [o for o in gc.get_objects() if isinstance(o, greenlet.greenlet) and o is not main]
print("threads", threading.active_count())
print("greenlets", others)
print("hub", gevent._hub_local.get_hub_if_exists())
print("patched", gevent.monkey.is_module_patched("socket"))
print("descriptors", before is None or before == os.listdir("/proc/self/fd"))
"""
    assert run(code).splitlines() == [
        "threads 1",
        "greenlets []",
        "hub None",
        "patched False",
        "descriptors True",
    ]


def test_without_its_extras_the_package_works() -> None:
    code = f"""
import sys
sys.modules.update(dict.fromkeys({OPTIONAL!r}.split()))  # None: importing it fails
import flask, flask_chsk
app = flask.Flask("app")
app.secret_key = "secret"
flask_chsk.Chsk(app)
print([name for name in flask_chsk.__all__ if not hasattr(flask_chsk, name)])
"""
    assert run(code) == "[]\n"


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import flask_chsk", "flask gevent werkzeug flask_chsk.server.worker"),
        ("import flask_chsk.errors", "flask gevent werkzeug flask_chsk.server.worker"),
        (
            "from flask_chsk.publisher import Publisher; Publisher('redis://127.0.0.1:1')",
            "flask gevent werkzeug flask_chsk.server.worker",
        ),
        ("import flask_chsk.client", "flask werkzeug flask_chsk.server.worker flask_chsk.brokers"),
    ],
    ids=["package", "errors", "publisher", "client"],
)
def test_an_import_loads_no_more_than_it_uses(code: str, absent: str) -> None:
    shown = f"{code}; import sys; print([n for n in {absent.split()!r} if n in sys.modules])"
    assert run(shown) == "[]\n"


def test_every_public_name_is_found_where_type_checkers_look_for_it() -> None:
    tree = ast.parse((ROOT / "flask_chsk/__init__.py").read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    for node in imports:
        module = import_module(f"flask_chsk.{node.module}")
        for alias in node.names:
            assert getattr(flask_chsk, alias.name) is getattr(module, alias.name)
    assert {alias.name for node in imports for alias in node.names} == set(flask_chsk.__all__)


def test_a_name_that_the_package_does_not_have_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'flask_chsk' has no attribute 'Chsks'"):
        flask_chsk.Chsks  # type: ignore[attr-defined]  # noqa: B018
    assert set(flask_chsk.__all__) - set(dir(flask_chsk)) == set()

"""Packers by their names."""

from __future__ import annotations

import sys

import pytest

from flask_chsk.errors import ConfigError, UnpackError
from flask_chsk.packers.builtin import BUILTIN, builtin
from flask_chsk.packers.by_name import make
from flask_chsk.packers.edn import EdnPacker
from flask_chsk.packers.json import JsonPacker


@pytest.mark.parametrize("name", BUILTIN)
def test_each_builtin_packer_has_the_name_it_is_made_by(name: str) -> None:
    assert builtin(name)().name == name == make(name).name


@pytest.mark.parametrize(
    ("name", "kind", "content_type"),
    [("edn", EdnPacker, "application/edn"), ("json", JsonPacker, "application/json")],
)
def test_packers_are_made_by_name(name: str, kind: type, content_type: str) -> None:
    packer = make(name, max_bytes=5)
    assert type(packer) is kind
    assert (packer.name, packer.content_type, packer.binary) == (name, content_type, False)
    with pytest.raises(UnpackError, match="over 5 bytes"):
        packer.unpack("[1 2 3]")


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        make("ednn")
    assert str(caught.value) == (
        "no packer 'ednn': there are edn, json, transit, msgpack, gzip, and each but gzip with"
        " gzip- before its name; one of your own goes by its name once"
        " flask_chsk.packers.custom.register() has it, which comes before chsk.init_app(app)"
    )


@pytest.mark.parametrize("name", ["gzip-gzip", "gzip-", "gzip-none", ""])
def test_gzip_goes_around_another_packer_only(name: str) -> None:
    with pytest.raises(ConfigError, match="no packer"):
        make(name)


@pytest.mark.parametrize("name", ["gzip-edn", "gzip-msgpack", "gzip-json", "gzip-transit"])
def test_gzip_goes_around_each_packer_by_its_name(name: str) -> None:
    packer = make(name, max_bytes=5000)
    assert (packer.name, packer.binary) == (name, True)
    assert packer.unpack(packer.pack(["a" * 4000])) == ["a" * 4000]
    with pytest.raises(UnpackError, match="over 5000 bytes"):
        packer.unpack(make(name).pack(["a" * 6000]))


def test_no_install_is_advised_for_what_installs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flask_chsk.packers.msgpack", None)
    with pytest.raises(ImportError) as caught:
        make("msgpack")
    assert "pip install" not in str(caught.value)

"""Packers by name that are not among ours: one's own, and gzip around another."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator

import pytest
from flask import Flask

from flask_chsk import Chsk, ConfigError
from flask_chsk.client import ChannelSocket
from flask_chsk.packers import custom
from tests.e2e.client.literals import Literals
from tests.process import ROOT, eventually


@pytest.fixture(autouse=True)
def literals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(custom, "_registered", {})
    custom.register(Literals())
    yield


def test_it_is_the_example_of_the_docs() -> None:
    example = (ROOT / "tests/e2e/client/literals.py").read_text().partition("import ast")[2]
    docs = textwrap.dedent((ROOT / "docs/packers.rst").read_text().partition("import ast")[2])
    assert example.replace("\n\n\n", "\n\n").strip() in docs.replace("\n    ", "\n")


def test_one_that_is_registered_too_late_is_told_of_register() -> None:
    custom._registered.clear()
    with pytest.raises(ConfigError, match=r"register\(\) has it, which comes before"):
        Chsk(Flask(__name__), packers=["edn", "literals"])


@pytest.mark.parametrize("type", ["ws", "ajax"])
@pytest.mark.parametrize("packer", ["literals", "gzip-literals", "gzip-msgpack"])
def test_it_carries_replies_pushes_and_batches(
    open_client: Callable[..., ChannelSocket], packer: str, type: str
) -> None:
    chsk = open_client(packer=packer, type=type, uid=f"{packer} {type}")
    said: list[object] = []
    chsk.on("chat/said", lambda ev: said.append(ev.data))
    long = "a" * 5000
    assert chsk.request(["test/echo", {"a": [1, None, long]}]) == {"a": [1, None, long]}
    for number in range(5):
        chsk.send(["chat/say", number])
    eventually(lambda: said == [0, 1, 2, 3, 4])

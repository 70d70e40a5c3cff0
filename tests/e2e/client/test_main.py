"""``python -m flask_chsk.client``."""

from __future__ import annotations

import json
import subprocess
import sys
from uuid import uuid4

import pytest

from flask_chsk.client.__main__ import main
from tests.e2e.client.conftest import TestServer
from tests.process import ROOT, eventually


def run(*arguments: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "flask_chsk.client", *arguments]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    return ran.returncode, ran.stdout, ran.stderr


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (["--type", "ws"], "[:test/echo.cb {:a [1 nil]}]\n"),
        (["--type", "ajax"], "[:test/echo.cb {:a [1 nil]}]\n"),
        (["--packer", "json"], '["test/echo.cb",{"a":[1,null]}]\n'),
    ],
)
def test_once_with_an_event_prints_its_reply(
    server: TestServer, arguments: list[str], printed: str
) -> None:
    code, out, err = run(server.url, "[:test/echo {:a [1 nil]}]", "--once", *arguments)
    assert (code, out) == (0, printed), err


def test_exit_codes_say_what_became_of_it(
    server: TestServer, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = {
        "an error": main([server.url, "[:test/fail]", "--once"]),
        "no event": main([server.url, "nonsense"]),
        "no URL": main(["/chsk"]),
        "nobody there": main(["http://127.0.0.1:9/chsk", "--once", "--timeout", "0.2"]),
        "no reply": main([server.url, "[:test/never]", "--once", "--timeout", "0.2"]),
        "no push": main([server.url, "--once", "--timeout", "0.2"]),
    }
    assert codes == {
        "an error": 1,
        "no event": 2,
        "no URL": 2,
        "nobody there": 3,
        "no reply": 4,
        "no push": 4,
    }
    assert (
        capsys.readouterr().out == "[:test/fail.cb :chsk/error]\n[:test/never.cb :chsk/timeout]\n"
    )


def test_it_prints_what_is_pushed_and_sends_what_is_typed(server: TestServer) -> None:
    uid = uuid4().hex
    command = [sys.executable, "-m", "flask_chsk.client", server.url, "--packer", "json"]
    with subprocess.Popen(
        [*command, "--param", f"uid={uid}"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        assert process.stderr.readline() == f"open over ws, uid {uid!r}\n"
        print("[:test/echo 7]", file=process.stdin, flush=True)
        assert json.loads(process.stdout.readline()) == ["test/echo.cb", 7]
        (said,) = server.post(f"say/{uid}/1")
        assert json.loads(process.stdout.readline()) == ["test/pushed", said]
        server.post(f"close/{uid}/0")
        eventually(lambda: process.poll() is not None)
        assert process.returncode == 3

"""The smoke test of ``make matrix``, with what is installed here: other versions need a network."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.matrix.__main__ import smoke
from tests.readme import write_application


def test_the_readmes_application_works_with_what_is_installed(tmp_path: Path) -> None:
    write_application(tmp_path)
    assert smoke(sys.executable, tmp_path)

"""Closes are counted, and told once a minute of each kind."""

from __future__ import annotations

import logging
from collections import Counter

import pytest

from flask_chsk.server.close_log import REPLACED, CloseLog
from flask_chsk.server.trace import Trace


def test_refusals_are_warnings_and_daily_closes_are_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counters: Counter[str] = Counter()
    closes = CloseLog(counters, Trace())
    with caplog.at_level(logging.INFO, "flask_chsk.server.close_log"):
        for code, reason in ((4004, "flooding"), (1000, ""), (1013, REPLACED), (1013, "later")):
            closes.note("ann", "a1", code, reason)
            closes.note("ann", "a1", code, reason)
    levels = [record.levelname for record in caplog.records]
    assert levels == ["WARNING", "INFO", "INFO", "WARNING"]
    assert "normally" in caplog.text
    assert counters == {"closed_4004": 2, "closed_1000": 2, "closed_1013": 4}

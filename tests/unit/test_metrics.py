"""Figures for Prometheus, in one process; tests/e2e/servers/test_metrics.py has several workers."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from importlib import import_module, reload
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics

from flask_chsk import Chsk, ConfigError, UsageError, metrics
from flask_chsk.figures import AT_START, COUNTERS, FAMILIES, GAUGES
from flask_chsk.metrics import ChskCollector


def new_app() -> tuple[Flask, Chsk]:
    app = Flask("app")
    app.secret_key = "secret"
    return app, Chsk(app)


def registry_of(app: Flask) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(ChskCollector(app))
    return registry


def test_figures_are_those_of_stats() -> None:
    app, chsk = new_app()
    registry = registry_of(app)
    value: Callable[..., float | None] = registry.get_sample_value
    assert value("chsk_clients") == value("chsk_events_in_total") == 0

    @chsk.on("a/b")
    def ab(ev: Any) -> None: ...

    ann = chsk.test_client(uid="ann")
    ann.send(["a/b"])
    ann.send(["a/b"])
    chsk.test_client(uid="ann")
    assert (value("chsk_clients"), value("chsk_uids")) == (2, 1)
    assert (value("chsk_events_in_total"), value("chsk_opened_total")) == (2, 2)


def test_statuses_and_codes_are_labels() -> None:
    app, _ = new_app()
    registry = registry_of(app)
    app.extensions["chsk"].count_refusal(451)
    value = registry.get_sample_value
    assert value("chsk_refusals_total", {"status": "451"}) == 1
    assert value("chsk_refusals_total", {"status": "429"}) == 0
    assert value("chsk_closes_total", {"code": "4002"}) == 0
    assert value("chsk_errors_total", {"status": "404"}) == 0


def test_each_figure_has_its_name_from_the_start() -> None:
    app, _ = new_app()
    names = {metric.name for metric in registry_of(app).collect()}
    families = {f"chsk_{family.metric}" for family in FAMILIES.values()}
    assert names == {f"chsk_{name}" for name in (*COUNTERS, *GAUGES)} | families
    assert len(names) == len(COUNTERS) + len(GAUGES) + len(FAMILIES)


def test_the_names_and_words_are_right_in_open_metrics() -> None:
    app, _ = new_app()
    text = openmetrics(registry_of(app)).decode()
    assert "# HELP chsk_gaps Clients that were told `chsk/gap`.\n# TYPE chsk_gaps counter\n" in text
    assert text.endswith("# EOF\n")


def test_nothing_is_started_by_asking() -> None:
    app, _ = new_app()
    list(registry_of(app).collect())
    assert app.extensions["chsk"].running() is None


def test_an_application_without_a_channel_socket_is_refused() -> None:
    with pytest.raises(UsageError, match=r"call chsk\.init_app\(app\) first"):
        ChskCollector(Flask("app"))


def test_without_prometheus_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigError, match=r"pip install 'Flask-Chsk\[prometheus\]'"):
        reload(import_module("flask_chsk.metrics"))


class Noted:
    """In place of a metric: notes what it is told."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.name: str = args[0]
        self.value = 0.0
        self.children: dict[str, Noted] = {}

    def inc(self, amount: float) -> None:
        assert amount > 0 or not self.value
        self.value += amount

    def set(self, value: float) -> None:
        self.value = value

    def labels(self, value: str) -> Noted:
        return self.children.setdefault(value, Noted(self.name))


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """What writes the figures of an application with a client, with metrics that only note."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setattr(metrics, "Counter", Noted)
    monkeypatch.setattr(metrics, "Gauge", Noted)
    app, chsk = new_app()
    files: Any = ChskCollector(app)._files
    files.chsk, files.app = chsk, app
    return files


def test_a_worker_adds_what_is_new(files: Any) -> None:
    files.write()
    for number in (1, 2):
        files.chsk.test_client(uid="ann")
        files._state.count_refusal(429)
        files._state.running().hub.run(files.write)
        assert files._counters["opened"].value == files._gauges["clients"].value == number
        assert files._families["refused"].children["429"].value == number
    assert files._written.keys() == AT_START.keys()


def test_several_collectors_of_an_application_write_each_figure_once(files: Any) -> None:
    files.chsk.test_client(uid="ann")
    for _ in range(3):  # say, one for each scrape
        registry_of(files.app)
    worker = files._state.running()
    worker.hub.run(worker._call_followers)
    assert len(files._state.followers) == 1
    assert files._counters["opened"].value == 1


def test_a_child_process_begins_anew(files: Any) -> None:
    files.write()
    files.forked()
    assert files._written == {}


def test_what_cannot_be_written_is_logged(
    files: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(value: float) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(files._gauges["clients"], "set", fail)
    with caplog.at_level(logging.WARNING):
        files.write()
    assert "the figures for Prometheus cannot be written: OSError('disk full')" in caplog.text


def test_figures_are_written_at_the_end_of_the_worker(files: Any) -> None:
    files.chsk.test_client(uid="ann")
    worker = files._state.running()
    worker.hub.run(worker.end)
    assert files._families["closed"].children["1012"].value == files._state.stats()["closed_1012"]
    assert files._gauges["clients"].value == files._state.stats()["clients"]

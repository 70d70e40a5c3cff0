"""What docs/metrics.rst says of OpenTelemetry, by its applications."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from flask_chsk.errors import ReplyError
from flask_chsk.testing import make_client
from tests.integration.test_docs import blocks

BLOCKS = dict(blocks("metrics.rst"))


def test_each_event_is_a_trace_of_its_own() -> None:
    names: dict[str, Any] = {"__name__": "traced"}
    exec(BLOCKS["traced.py"], names)
    app, exporter = names["app"], InMemorySpanExporter()
    names["provider"].add_span_processor(SimpleSpanProcessor(exporter))

    @names["chsk"].on("order/fail")
    @names["traced"]
    def fail(ev: Any) -> None:
        raise ValueError("no such order")

    app.test_client().get("/")
    clients = [make_client(app, uid=uid) for uid in ("ann", "bob")]
    for client in clients:
        assert client.request(["order/add", 1]) == {"ok": True}
    with pytest.raises(ReplyError):
        clients[0].request(["order/fail"])

    spans = {span.context.span_id: span for span in exporter.get_finished_spans()}
    parents = {None: None, **{id: span.name for id, span in spans.items()}}
    told = [
        (span.name, parents[span.parent and span.parent.span_id], span.status.is_ok)
        for span in exporter.get_finished_spans()
    ]
    assert told == [
        ("GET /", None, True),
        *[("save", "order/add", True), ("order/add", None, True)] * 2,
        ("order/fail", None, False),
    ]
    users = [span.attributes["enduser.id"] for span in spans.values() if span.name == "order/add"]
    assert users == ["ann", "bob"]


def test_figures_are_observed() -> None:
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider([reader]))
    names: dict[str, Any] = {"__name__": "measured"}
    exec(BLOCKS["measured.py"], names)
    make_client(names["app"], uid="ann")
    data: Any = reader.get_metrics_data()
    observed = {
        metric.name: metric.data.data_points[0].value
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
    }
    assert (observed["chsk.clients"], observed["chsk.opened"], observed["chsk.gaps"]) == (1, 1, 0)

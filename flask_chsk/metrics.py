"""Figures for Prometheus: a collector for ``prometheus_client``.

One process reads its figures when Prometheus asks. Under several workers each writes its own into
the files of ``PROMETHEUS_MULTIPROC_DIR``, once a second, and whichever is asked gives the sums.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from flask import Flask

from . import forks
from .errors import ConfigError, UsageError
from .figures import AT_START, COUNTERS, FAMILIES, GAUGES, LARGEST, family_of
from .logs import RateLimitedLogger, logger
from .state import State

try:
    from prometheus_client import CollectorRegistry, Counter, Gauge
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.multiprocess import MultiProcessCollector
    from prometheus_client.registry import Collector
except ImportError as error:  # the extra was not installed
    raise ConfigError(
        "flask_chsk.metrics needs prometheus_client: pip install 'Flask-Chsk[prometheus]'"
    ) from error

__all__ = ["ChskCollector"]

PREFIX = "chsk_"

log = logger(__name__)
rate_limited = RateLimitedLogger(log)


class ChskCollector(Collector):
    """The figures of one application's channel sockets, as ``chsk_…``.

    ::

        registry = CollectorRegistry()
        registry.register(ChskCollector(app))

    Under several workers, make it in each of them (so, where the application is made), and set
    ``PROMETHEUS_MULTIPROC_DIR`` before ``prometheus_client`` is imported.

    :raises UsageError: where *app* has no channel socket.
    """

    def __init__(self, app: Flask) -> None:
        state = app.extensions.get("chsk")
        if state is None:
            raise UsageError("this application has no chsk: call chsk.init_app(app) first")
        self._state: State = state
        self._files = _files_of(state) if "PROMETHEUS_MULTIPROC_DIR" in os.environ else None

    def describe(self) -> Iterator[Metric]:
        """The names, for the registry."""
        return _metrics(AT_START)

    def collect(self) -> Iterator[Metric]:
        """The figures of now; of several workers, of up to a second ago."""
        if self._files is None:
            yield from _metrics(self._state.stats())
            return
        worker = self._state.running()
        if worker is not None:
            worker.hub.run(self._files.write)
        written: Any = MultiProcessCollector(CollectorRegistry())  # type: ignore[no-untyped-call]
        for metric in written.collect():
            if metric.name.startswith(PREFIX):
                yield metric


def _metrics(stats: Mapping[str, int]) -> Iterator[Metric]:
    for name, says in COUNTERS.items():
        yield CounterMetricFamily(PREFIX + name, says, stats[name])
    for name, says in GAUGES.items():
        yield GaugeMetricFamily(PREFIX + name, says, stats[name])
    families = {
        name: CounterMetricFamily(PREFIX + family.metric, family.says, labels=[family.label])
        for name, family in FAMILIES.items()
    }
    for name, value in stats.items():
        if found := family_of(name):
            families[found[0]].add_metric([found[1]], value)
    yield from families.values()


def _files_of(state: State) -> _Files:
    """What writes the figures of an application: one, however many collectors show them."""
    for follower in state.followers:
        files = getattr(follower, "__self__", None)
        if isinstance(files, _Files):
            return files
    return _Files(state)


class _Files:
    """Writes this worker's figures where the other workers find them."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._written: dict[str, int] = {}
        self._counters = {
            name: Counter(PREFIX + name, says, registry=None) for name, says in COUNTERS.items()
        }
        self._gauges = {
            name: Gauge(
                PREFIX + name,
                says,
                registry=None,
                multiprocess_mode="livemax" if name in LARGEST else "livesum",
            )
            for name, says in GAUGES.items()
        }
        self._families = {
            name: Counter(PREFIX + family.metric, family.says, [family.label], registry=None)
            for name, family in FAMILIES.items()
        }
        state.followers.append(self.write)
        forks.register(self)

    def forked(self) -> None:
        """This is a child process, whose figures begin anew."""
        self._written.clear()

    def write(self) -> None:
        """Write what has changed; on the hub."""
        try:
            for name, value in self._state.stats().items():
                if value != self._written.get(name):
                    self._write(name, value, value - self._written.get(name, 0))
                    self._written[name] = value
        except Exception as error:
            rate_limited.warning("write", "the figures for Prometheus cannot be written: %r", error)

    def _write(self, name: str, value: int, more: int) -> None:
        if name in self._gauges:
            self._gauges[name].set(value)
        elif name in self._counters:
            self._counters[name].inc(more)
        elif found := family_of(name):
            self._families[found[0]].labels(found[1]).inc(more)

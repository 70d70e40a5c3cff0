"""Figures as a table, as JSON that a later run can be held against, and as a chart.

Of each figure the median of its rounds is shown, and half the distance between the second lowest
and the second highest round as a share of it: ± 5 % says that all but two of the rounds were that
near to each other. Of three rounds and fewer, all count.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

BEGIN, END = ".. benchmarks: begin", ".. benchmarks: end"
Results = dict[str, Any]


def machine() -> dict[str, str]:
    """What the figures were made on."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "processor": model,
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
    }


def add(results: Results, name: str, measured: dict[str, Any]) -> None:
    """Put one pass of a scenario to what the pass before it has measured."""
    whole = results["scenarios"].setdefault(name, measured)
    if whole is measured:
        return
    for peer, figures in measured["peers"].items():
        so_far = whole["peers"].setdefault(peer, figures)
        if so_far is not figures:
            for figure, values in figures["samples"].items():
                so_far["samples"][figure] += values


def spread(samples: Iterable[float]) -> float:
    """How far rounds lie apart, as a share of their median."""
    ordered = sorted(samples)
    if len(ordered) > 3:
        ordered = ordered[1:-1]
    middle = median(ordered)
    return (ordered[-1] - ordered[0]) / 2 / middle if middle else 0.0


def shown(value: float) -> str:
    """*value* with as many digits as mean something."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def cell(samples: list[float]) -> str:
    """A figure with its spread."""
    text = shown(median(samples))
    return f"{text} ± {spread(samples):.0%}".replace("%", " %") if len(samples) > 1 else text


def lines(results: Results) -> list[list[str]]:
    """All figures: one row for each scenario and server."""
    rows = []
    for scenario in results["scenarios"].values():
        for peer in scenario["peers"].values():
            cells = [
                f"{name} {cell(peer['samples'][name])} {unit}"
                for name, unit in scenario["unit"].items()
                if name in peer["samples"]
            ]
            rows.append([scenario["title"], peer["label"], "; ".join(cells)])
    return rows


def text_table(rows: list[list[str]]) -> str:
    """*rows* for a terminal; the first column is said once."""
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    out, before = [], None
    for first, second, rest in rows:
        said = "" if first == before else first
        before = first
        out.append(f"{said:<{widths[0]}}  {second:<{widths[1]}}  {rest}")
    return "\n".join(out)


# The table of the documentation: what one would compare ----------------------------------------

ROWS = [
    ("edn", "cpu", "event with reply, EDN", "µs"),
    ("json", "cpu", "event with reply, JSON", "µs"),
    ("ajax json", "cpu", "event with reply by Ajax, JSON", "µs"),
    ("latency", "p99", "its p99 at 500 a second", "ms"),
    ("paced", "cpu", "one delivery of a broadcast to 200, 50 ms apart", "µs"),
    ("burst", "cpu", "the same in a burst", "µs"),
    ("push", "cpu", "push to one of 2,000 users", "µs"),
    ("redis", "push", "through Redis: a push, where it is heard", "µs"),
    ("redis", "publish", "the same, where it is sent", "µs"),
    ("redis", "p99", "its p99 at 200 a second", "ms"),
    ("large", "cpu", "echo of 64 KB", "µs"),
    ("connects", "cpu", "connect and handshake", "µs"),
    ("idle", "1,000", "idle WebSocket, of 1,000", "KB"),
    ("idle", "5,000", "idle WebSocket, of 5,000", "KB"),
    ("idle", "10,000", "idle WebSocket, of 10,000", "KB"),
    ("poll", "1,000", "parked poll, of 1,000", "KB"),
    ("poll", "5,000", "parked poll, of 5,000", "KB"),
]
COLUMNS = {
    "flask_chsk": "flask_chsk",
    "flask-socketio": "Flask-SocketIO, gevent-websocket",
    "flask-socketio simple": "Flask-SocketIO, simple-websocket",
    "python-socketio": "python-socketio, uvicorn",
    "socket.io": "socket.io, Node",
    "flask-sock": "flask-sock, no protocol",
    "raw": "raw gevent loop",
}


def samples(results: Results, scenario: str, peer: str, figure: str) -> list[float]:
    """The rounds of one figure; none where it was not measured."""
    for name in (scenario, f"{scenario} peers"):
        peers = results["scenarios"].get(name, {}).get("peers", {})
        if peer in peers:
            found: list[float] = peers[peer]["samples"].get(figure, [])
            return found
    return []


# And the rest, each with all that was measured
DETAILS = (
    "ajax json",
    "latency",
    "redis",
    "poll",
    "grow event",
    "grow broadcast",
    "storm",
    "tabs",
    "absent",
    "mixed",
)


def rst_table(results: Results) -> str:
    """The comparison as a list-table, and what it was made with."""
    columns = [c for c in COLUMNS if any(samples(results, s, c, f) for s, f, _, _ in ROWS)]
    out = [
        ".. list-table::",
        "   :header-rows: 1",
        "",
        *_row("CPU time of the server, or memory", *(COLUMNS[column] for column in columns)),
    ]
    for scenario, figure, title, unit in ROWS:
        cells = [samples(results, scenario, column, figure) for column in columns]
        if not any(cells):
            continue
        out += _row(f"{title}, {unit}", *(cell(values) if values else "–" for values in cells))
    made = results["machine"]
    out += [
        "",
        f"``{results['command']}`` on {made['cores']} cores of {made['processor']},"
        f" {made['system']}, Python {made['python']}, {results['date']}. Median of the rounds and"
        " their spread; lower is better. –: not measured there.",
    ]
    return "\n".join(out)


def rst_details(results: Results) -> str:
    """The other scenarios and the parts alone, as list-tables."""
    wanted = {name: one for name, one in results["scenarios"].items() if name in DETAILS}
    out = [".. list-table::", "   :header-rows: 1", "", *_row("Work", "Server", "Figures")]
    before = None
    for title, label, figures in lines({"scenarios": wanted}):
        out += _row("" if title == before else title, label, figures)
        before = title
    out += ["", ".. list-table::", "   :header-rows: 1", "", *_row("A part alone", "µs of CPU")]
    for name, value in results["micro"].items():
        out += _row(name, shown(value))
    return "\n".join(out)


def _row(first: str, *rest: str) -> list[str]:
    return [f"   * - {first}".rstrip(), *(f"     - {cell}" for cell in rest)]


def insert(path: Path, text: str) -> None:
    """Put *text* between the markers of a file.

    :raises ValueError: where it has none.
    """
    whole = path.read_text(encoding="utf-8")
    head, begin, rest = whole.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no lines {BEGIN!r} and {END!r} in {path}")
    path.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}", encoding="utf-8")


# The chart -------------------------------------------------------------------------------------

PANELS = [
    ("edn", "cpu", "event with reply, µs of CPU"),
    ("paced", "cpu", "one delivery of a paced broadcast, µs of CPU"),
    ("burst", "cpu", "one delivery in a burst, µs of CPU"),
    ("connects", "cpu", "connect and handshake, µs of CPU"),
    ("idle", "1,000", "idle WebSocket, KB"),
]


def chart(results: Results) -> str:
    """Bars as SVG, one panel for each kind of work; ours is the dark one."""
    y = 8
    body: list[str] = []
    for scenario, figure, title in PANELS:
        bars: list[tuple[str, float, bool]] = []
        for column, label in COLUMNS.items():
            values = samples(results, scenario, column, figure)
            if not values and scenario == "edn":
                values = samples(results, "json", column, figure)
            if values:
                bars.append((label, median(values), column == "flask_chsk"))
        if not bars:
            continue
        longest = max(value for _, value, _ in bars)
        body.append(f'<text x="8" y="{y + 14}" class="title">{escape(title)}</text>')
        y += 24
        for label, value, ours in bars:
            width = max(2.0, 380 * value / longest)
            kind = "ours" if ours else "peer"
            body.append(f'<text x="252" y="{y + 12}" class="label">{escape(label)}</text>')
            body.append(
                f'<rect x="260" y="{y}" width="{width:.1f}" height="15" rx="2" class="{kind}"/>'
            )
            body.append(
                f'<text x="{266 + width:.1f}" y="{y + 12}" class="value">{shown(value)}</text>'
            )
            y += 20
        y += 14
    style = (
        "text{font:12px sans-serif;fill:#333}.title{font-weight:bold}"
        ".label{text-anchor:end}.ours{fill:#1b6ac9}.peer{fill:#b9c4d0}"
        "@media(prefers-color-scheme:dark){text{fill:#ddd}.peer{fill:#5a6672}}"
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {y}" role="img"'
            ' aria-label="CPU time and memory beside other libraries; lower is better">',
            f"<style>{style}</style>",
            *body,
            "</svg>",
            "",
        ]
    )


# Comparison with an earlier run ----------------------------------------------------------------


def compare(before: Results, now: Results) -> list[str]:
    """What changed by more than the two runs' spreads explain."""
    out = []
    for name, scenario in now["scenarios"].items():
        for peer, figures in scenario["peers"].items():
            for figure, values in figures["samples"].items():
                old = samples(before, name, peer, figure)
                if not old or not median(old):
                    continue
                change = median(values) / median(old) - 1
                if abs(change) > spread(values) + spread(old) + 0.02:
                    out.append(
                        f"{scenario['title']}, {figures['label']}, {figure}:"
                        f" {shown(median(old))} -> {shown(median(values))} ({change:+.0%})"
                    )
    return out


def of_before(results: Results) -> Results:
    """What the earlier commit of a run with ``--before`` did, as if today's had done it."""
    scenarios = {
        name: {**scenario, "peers": {"flask_chsk": scenario["peers"]["before"]}}
        for name, scenario in results["scenarios"].items()
        if "before" in scenario["peers"]
    }
    return {**results, "scenarios": scenarios}


def save(path: Path, results: Results) -> None:
    """Write *results* so that a later run can be compared."""
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

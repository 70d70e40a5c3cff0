"""Measure it all: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import signal
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from . import micro, report
from .load import Lost
from .scenarios import SCENARIOS, Figures, Scenario, Steps
from .servers import HERE, LOAD_CPU, PEERS_ALL, ROOT, NotHere, Peer, before


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end, too
    if LOAD_CPU is not None:
        os.sched_setaffinity(0, {LOAD_CPU})
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the servers inherit it

    results: report.Results = {
        "date": date.today().isoformat(),
        "command": " ".join(["make bench", *_arguments(sys.argv[1:])]),
        "machine": report.machine(),
        "scenarios": {},
        "missing": {},
    }
    last = None
    if options.against.exists():
        last = json.loads(options.against.read_text(encoding="utf-8"))
    started = time.monotonic()
    peers = [peer for peer in PEERS_ALL if _chosen(peer, options)]
    if options.before:
        try:
            peers.insert(0, before(options.before))
        except NotHere as why:
            sys.exit(str(why))
    for peer in peers:
        try:
            peer.install()
        except NotHere as why:
            results["missing"][peer.name] = str(why)
    for number in range(2):
        for scenario in SCENARIOS:
            if number >= scenario.passes or not _wanted(scenario, options):
                continue
            measured = _measure(scenario, peers, options.rounds, results["missing"])
            if not measured["peers"]:
                continue
            report.add(results, scenario.name, measured)
            rows = report.lines({"scenarios": {scenario.name: measured}})
            print(f"[{time.monotonic() - started:.0f} s]\n{report.text_table(rows)}\n", flush=True)
    if not options.scenario:
        results["micro"] = micro.figures()
        print(micro.table(results["micro"]))
    for peer, why in results["missing"].items():
        print(f"not measured: {peer}: {why}")
    print(f"\n{(time.monotonic() - started) / 60:.1f} minutes")
    nothing = ["nothing that the spread does not explain"]
    if options.before:
        changes = report.compare(report.of_before(results), results) or nothing
        print(f"\nagainst {options.before} in this run:", *changes, sep="\n  ")
        return 0  # with an earlier commit beside it, a run is for comparison alone
    if last is not None:
        changes = report.compare(last, results) or nothing
        where = "" if last["machine"] == results["machine"] else ", on another machine"
        print(f"\nagainst the run of {last['date']}{where}:", *changes, sep="\n  ")
    if options.scenario or options.peer:
        return 0  # a part replaces no whole
    report.save(options.json, results)
    docs = ROOT / "docs"
    tables = f"{report.rst_table(results)}\n\n{report.rst_details(results)}"
    report.insert(docs / "benchmarks.rst", tables)
    (docs / "benchmarks.svg").write_text(report.chart(results), encoding="utf-8")
    print(f"written: {options.json}, docs/benchmarks.*; README.rst quotes some by hand")
    return 0


def _arguments(given: list[str]) -> list[str]:
    """*given* as ``make`` takes them."""
    return [f'ARGS="{shlex.join(given)}"'] if given else []


def _options() -> Any:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--scenario", help="only these, by the beginning of their names: edn,burst")
    parser.add_argument("--peer", help="only these servers: flask_chsk,raw")
    parser.add_argument("--rounds", type=int, help="of each scenario and pass")
    parser.add_argument("--json", type=Path, default=HERE / "results.json", help="where to keep it")
    parser.add_argument(
        "--against", type=Path, default=HERE / "results.json", help="an earlier run to compare with"
    )
    parser.add_argument(
        "--before", metavar="COMMIT", help="measure flask_chsk at this commit, too; write nothing"
    )
    return parser.parse_args()


def _chosen(peer: Peer, options: Any) -> bool:
    return not options.peer or peer.name in options.peer.split(",")


def _wanted(scenario: Scenario, options: Any) -> bool:
    wanted = (options.scenario or "").split(",")
    return any(scenario.name.startswith(one) for one in wanted)


class Turn(NamedTuple):
    """One server in a scenario."""

    peer: Peer
    figures: Figures
    steps: Steps


def _measure(
    scenario: Scenario, peers: list[Peer], wanted: int | None, missing: dict[str, str]
) -> dict[str, Any]:
    """All servers of one scenario, in turn, round by round."""
    turns = [
        Turn(peer, figures := Figures(), scenario.run(peer, figures, scenario.kind))
        for peer in peers
        if scenario.kind in peer.speaks
        and (not scenario.only or ("flask_chsk" if peer.ours else peer.name) in scenario.only)
        and peer.name not in missing
    ]
    rounds = wanted or scenario.rounds
    going = list(turns)
    try:
        for number in range(rounds + 1):  # the first step is the way to the first round
            for turn in list(going):
                _progress(f"{scenario.name} {number}/{rounds} {turn.peer.name}")
                try:
                    next(turn.steps)
                except StopIteration:
                    going.remove(turn)
                except NotHere as why:
                    missing[turn.peer.name] = str(why)
                    going.remove(turn)
                except (Lost, OSError) as why:
                    missing[f"{turn.peer.name}, {scenario.name}"] = str(why)
                    going.remove(turn)
    finally:
        for turn in turns:
            turn.steps.close()  # ends its server
        _progress("")
    return {
        "title": scenario.title,
        "unit": scenario.unit,
        "peers": {
            turn.peer.name: {"label": turn.peer.label, "samples": turn.figures.samples}
            for turn in turns
            if turn.figures.samples
        },
    }


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text:70}\r", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

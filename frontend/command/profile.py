"""`profile`: runs a model's step and tells where its time goes, by kernel and by layer."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from gradloom.command.grammar import TARGET, Command, add_step_options, require_ending, seconds
from gradloom.command.show import write
from gradloom.command.targets import inspection


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="TARGET", help="a model or a graph, see above")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to write (default: standard output)")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write a bar chart")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="write a trace for Perfetto or Chrome")
    parser.add_argument("--seconds", type=seconds, default=1.0, metavar="S", help="time to measure for (default: 1)")
    add_step_options(parser)


def _run(options: argparse.Namespace) -> None:
    require_ending("--svg", options.svg, ".svg")
    require_ending("--trace", options.trace, ".json")
    measured = inspection(options.target, options).profile(seconds=options.seconds)
    if options.svg is not None:
        write(measured.svg(), options.svg)
    if options.trace is not None:
        measured.save_trace(options.trace)
    write(json.dumps(measured.json(), indent=1) if options.json else measured.text(), options.output)


COMMAND = Command(
    name="profile",
    summary="measure where a step's time goes, by kernel and by layer",
    usage="TARGET [options]",
    description="Run a step on drawn data and print time, GFLOP/s and GB/s of each kernel and\n"
    f"each layer, beside what this machine can do.\n\n{TARGET}",
    examples="""\
  python -m gradloom profile train.py:model --batch-size 128
  python -m gradloom profile train.py:model --mode predict --svg times.svg
  python -m gradloom profile train.py:model --trace step.json
""",
    add_options=_add_options,
    run=_run,
)

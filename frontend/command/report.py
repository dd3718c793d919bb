"""`report`: writes everything about a model's step into one HTML file."""

from __future__ import annotations

import argparse
from pathlib import Path

from gradloom.command.grammar import TARGET, Command, add_step_options
from gradloom.command.targets import inspection
from gradloom.inspection.report import check_path


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="TARGET", help="a model or a graph, see above")
    parser.add_argument("--output", type=Path, default=Path("report.html"), metavar="FILE", help="default: report.html")
    parser.add_argument("--profile", action="store_true", help="run the step, too, and add its times")
    add_step_options(parser)


def _run(options: argparse.Namespace) -> None:
    check_path(options.output)
    shown = inspection(options.target, options)
    shown.save(options.output, profile=shown.profile() if options.profile else None)
    print(options.output)


COMMAND = Command(
    name="report",
    summary="write all stages, memory and times into one HTML file",
    usage="TARGET [options]",
    description=f"Write a page that needs no network: all stages, memory and, if asked for, times.\n\n{TARGET}",
    examples="""\
  python -m gradloom report train.py:model --output report.html --profile
  python -m gradloom report train.py:model --mode predict --batch-size 1
""",
    add_options=_add_options,
    run=_run,
)

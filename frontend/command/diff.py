"""`diff`: what changes from one stage of a model to another, or from one model or graph to another."""

from __future__ import annotations

import argparse
import difflib
from pathlib import Path

from gradloom.command.errors import CommandError
from gradloom.command.grammar import TARGET, Command, add_step_options, one_of
from gradloom.command.show import write
from gradloom.command.targets import inspection, is_graph, load_graph
from gradloom.inspection import GRAPH_STAGES, STAGES, GraphStage, Stage
from gradloom.inspection.alignment import aligned_texts

BETWEEN = {"from": "simplified", "to": "fused"}
"""The stages of one target that are compared, unless others are asked for."""

CONTEXT = 3
"""Unchanged lines around each change."""


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="TARGET", help="a model or a graph, see above")
    parser.add_argument("other", metavar="OTHER", nargs="?", help="another one, to compare with")
    for option, default in BETWEEN.items():
        parser.add_argument(
            f"--{option}", type=one_of(GRAPH_STAGES), metavar="STAGE", help=f"of one target (default: {default})"
        )
    parser.add_argument(
        "--stage", type=one_of(STAGES), metavar="STAGE", help="of two targets (default: fused, files as they are)"
    )
    parser.add_argument("--all", action="store_true", help="of one target: also changes that are like others")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to write (default: standard output)")
    add_step_options(parser)


def _run(options: argparse.Namespace) -> None:
    given = vars(options)
    if options.other is None:
        if options.stage is not None:
            raise CommandError("Expected --from and --to for one target, --stage for two. Received: --stage")
        before, after = (given[option] or default for option, default in BETWEEN.items())
        write(inspection(options.target, options).diff(before, after).text(folded=not options.all), options.output)
        return
    if any(given[option] for option in BETWEEN):
        raise CommandError("Expected --stage for two targets, --from and --to for one. Received: --from or --to")
    stages = _stage(options.target, options), _stage(options.other, options)
    if isinstance(stages[0], GraphStage) and isinstance(stages[1], GraphStage):
        texts = aligned_texts(stages[0].graph, stages[1].graph)
    else:
        texts = stages[0].text(), stages[1].text()
    before, after = texts[0].splitlines(), texts[1].splitlines()
    lines = difflib.unified_diff(before, after, options.target, options.other, n=CONTEXT, lineterm="")
    write("\n".join(lines) or "no difference", options.output)


def _stage(target: str, options: argparse.Namespace) -> Stage:
    """The stage that is compared; of a file, unless a stage is asked for, the graph as it stands there."""
    if options.stage is None and is_graph(target):
        graph = load_graph(target)
        return GraphStage("file", lambda: graph)
    return inspection(target, options).stage(options.stage or "fused")


COMMAND = Command(
    name="diff",
    summary="show what changes between stages, models or graphs",
    usage="TARGET [OTHER] [options]",
    description="Show what changes from one stage of a model to a later one, with the rules that\n"
    "did it; or from one target to another: their graphs are aligned by structure,\n"
    f"so that only what computes something else shows, however it is numbered.\n\n{TARGET}",
    examples="""\
  python -m gradloom diff train.py:model --from simplified --to fused
  python -m gradloom diff before.ir after.ir
  python -m gradloom diff train.py:model other.py:model --stage scheduled
""",
    add_options=_add_options,
    run=_run,
)

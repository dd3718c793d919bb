"""`show`: prints, draws or writes stages of a model's way to machine code."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from gradloom.command.errors import CommandError
from gradloom.command.grammar import TARGET, Command, add_step_options, one_of
from gradloom.command.targets import GRAPH_FILE, inspection, is_graph
from gradloom.compiler.ir import Graph
from gradloom.inspection import GRAPH_STAGES, STAGES, GraphStage, Inspection, Stage
from gradloom.runtime.files import published

FORMATS = {"text": (".txt", GRAPH_FILE, ".ll", ".s"), "dot": (".dot", ".gv"), "svg": (".svg",), "json": (".json",)}
"""Formats, and the endings of files that are written in them unless `--format` says otherwise."""

ENDINGS = {"llvm": ".ll", "assembly": ".s"}
"""Endings of files of stages that have a language of their own."""

COMMON = (".txt", ".dot", ".gv", ".svg", ".json")
"""Endings of files of any stage."""


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="TARGET", help="a model or a graph, see above")
    parser.add_argument(
        "--stage", type=one_of(STAGES), default="fused", metavar="STAGE", help="one of the stages (default: fused)"
    )
    parser.add_argument(
        "--format", type=one_of(tuple(FORMATS)), metavar="F", help="text, dot, svg, json (default: as FILE ends)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to write (default: standard output)")
    parser.add_argument("--dump", type=Path, metavar="DIR", help="write all stages that changed something, numbered")
    parser.add_argument("--prepare", action="store_true", help="what is computed once per set of weights")
    add_step_options(parser)


def _run(options: argparse.Namespace) -> None:
    form = options.format or format_of(options.output, options.stage)
    shown = _prepared(options) if options.prepare else inspection(options.target, options)
    if options.dump is not None:
        _dump(shown, options.dump)
        return
    if options.stage == "gradient" and options.mode is None and not is_graph(options.target):
        _require_gradient(shown)
    write(formatted(shown.stage(options.stage), form), options.output)


def _require_gradient(shown: Inspection) -> None:
    """Raise an error for the stages of a prediction, which were chosen as the model can do nothing else."""
    if "gradient" not in shown.stages:
        raise CommandError(
            f"{shown.title}: Expected a compiled model (model.compile) for its stage gradient. Received: one that is "
            "not compiled"
        )


def _prepared(options: argparse.Namespace) -> Inspection:
    """The stages of what a prediction prepares."""
    if is_graph(options.target):
        raise CommandError(f"Expected a model with --prepare. Received: {options.target}, a graph")
    if options.mode not in (None, "predict"):
        raise CommandError(f"Expected mode predict with --prepare. Received: --mode {options.mode}")
    options.mode = "predict"
    prepare = inspection(options.target, options).prepare
    if prepare is None:
        raise CommandError(f"{options.target}: nothing is prepared: its predictions read the weights as they are")
    return prepare


def format_of(output: Path | None, stage: str) -> str:
    """The format that a file's ending stands for; raises `CommandError` for one in which this stage is not written."""
    suffix = "" if output is None else output.suffix.lower()
    if not suffix:
        return "text"
    own = GRAPH_FILE if stage in GRAPH_STAGES else ENDINGS.get(stage)
    fitting = {form: [one for one in suffixes if one in (own, *COMMON)] for form, suffixes in FORMATS.items()}
    for form, suffixes in fitting.items():
        if suffix in suffixes:
            return form
    known = ", ".join(one for suffixes in fitting.values() for one in suffixes)
    raise CommandError(
        f"--output: Expected a file ending in {known} for the stage {stage}, or --format. Received: {output}"
    )


def formatted(stage: Stage, form: str) -> str:
    """A stage in one of the formats."""
    if form == "dot":
        return stage.dot()
    if form == "svg":
        return stage.svg()
    return json.dumps(stage.json(), indent=1) if form == "json" else stage.text()


def _dump(shown: Inspection, folder: Path) -> None:
    """Write numbered files: stages that are no graphs, and graphs where a stage or a pass left another one."""
    folder.mkdir(parents=True, exist_ok=True)
    kept: list[tuple[str, Stage | Graph]] = []
    for name, made in _in_order(shown):
        same = kept and _graph_of(made) is not None and _graph_of(made) == _graph_of(kept[-1][1])
        if same:
            # The later one knows its stage, from which compiling goes on.
            kept[-1] = (kept[-1][0], made)
        else:
            kept.append((name, made))
    for number, (name, made) in enumerate(kept, 1):
        ending = ENDINGS.get(name, ".txt") if _graph_of(made) is None else GRAPH_FILE
        path = folder / f"{number:02}-{name}{ending}"
        write(str(made), path)
        print(path)


def _graph_of(made: Stage | Graph) -> Graph | None:
    if isinstance(made, GraphStage):
        return made.graph
    return made if isinstance(made, Graph) else None


def _in_order(shown: Inspection) -> Iterator[tuple[str, Stage | Graph]]:
    """All stages by name, with the passes of rewriting in the place of the stage that they make."""
    for name, stage in shown.stages.items():
        if name == "simplified" and shown.passes:
            yield from shown.passes.items()
        else:
            yield name, stage


def write(text: str, output: Path | None) -> None:
    """Write text, with an end of line, to a file, which is replaced in one piece, or to standard output."""
    text = text if text.endswith("\n") else text + "\n"
    if output is None:
        sys.stdout.write(text)
    elif output.parts[:2] == ("/", "dev") or (output.exists() and not output.is_file()):
        output.write_text(text, encoding="utf-8")  # /dev/stdout, a pipe
    else:
        with published(output) as file:
            file.write(text.encode())


COMMAND = Command(
    name="show",
    summary="print, draw or write stages of a model",
    usage="TARGET [--stage STAGE] [options]",
    description="Print or draw one stage of a model's way to machine code:\n\n"
    f"  {' → '.join(STAGES[:5])} →\n  {' → '.join(STAGES[5:])}\n\n{TARGET}",
    examples="""\
  python -m gradloom show train.py:model             the fused train step
  python -m gradloom show train.py:model --stage scheduled
  python -m gradloom show package.models:build --mode predict --stage assembly
  python -m gradloom show train.py:model --output step.svg
  python -m gradloom show graph.ir --stage fused     goes on from a saved stage
  python -m gradloom show train.py:model --dump out/stages
""",
    add_options=_add_options,
    run=_run,
)

"""`reduce`: shrinks a graph that fails a check to a small one that still fails it."""

from __future__ import annotations

import argparse
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TextIO

from gradloom.command.errors import CheckError, CommandError
from gradloom.command.grammar import CODES, Command, near, seconds
from gradloom.command.run import CHECK, CHECK_FUSION, SEED
from gradloom.command.targets import GRAPH_FILE, is_graph, load_graph
from gradloom.compiler.ir import Constant, Graph, Input
from gradloom.compiler.reducer import reduce
from gradloom.runtime.files import published

BUILT_IN = {"compiled": CHECK, "fused": CHECK_FUSION}
"""Checks by name, and the option of `run` that each is."""

PLACE = "{}"
"""What stands for the file in a command."""

LOG = ".log"
"""The ending of the file beside the output that tells what was tried."""

DIFFER = 3
"""The exit code of `run` for results that differ."""


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="GRAPH.ir", help="a graph that fails the check")
    parser.add_argument(
        CHECK, required=True, metavar="CHECK", help="compiled, fused, or a command with {} for the file"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: GRAPH.reduced.ir")
    parser.add_argument("--seconds", type=seconds, default=300.0, metavar="S", help="time to spend (default: 300)")
    parser.add_argument(SEED, default="0", dest="seed", metavar="SEED", help="for inputs of compiled, fused")


def _run(options: argparse.Namespace) -> None:
    if not is_graph(options.target):
        raise CommandError(
            f"Expected a file ending in {GRAPH_FILE}, as `show --output` writes. Received: {options.target}"
        )
    graph = load_graph(options.target)
    output = options.output or Path(options.target).with_suffix(f".reduced{GRAPH_FILE}")
    if output.suffix == LOG:
        raise CommandError(f"--output: Expected another ending than {LOG}, which the log has. Received: {output}")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gradloom-") as folder:
        check = _Check(options.check, options.seed, Path(folder) / "graph.ir", begun + options.seconds)
        if not check(graph):
            raise CheckError(f"{options.target}: does not fail the check {options.check}: nothing to reduce")
        print(f"fails: {check.wanted}", file=sys.stderr)
        with output.with_suffix(LOG).open("w", encoding="utf-8") as log:
            progress = _Progress(output, log, begun)
            reduced = reduce(graph, check, options.seconds, progress)
            log.write(f"{progress.tries} graphs tried\n")
    if time.monotonic() - begun >= options.seconds:
        print(f"stopped after {options.seconds:g} s: a smaller graph may fail, too", file=sys.stderr)
    print(f"{output}: {_size(reduced)}, of {_size(graph)}; {progress.tries} graphs tried, see {log.name}")


class _Check:
    """Whether a graph fails: a child process on its file ends as it did for the first graph, which is the whole one.

    Another kind of failure is none: reduction would else end with a defect that nobody asked about.
    """

    def __init__(self, check: str, seed: str, path: Path, deadline: float) -> None:
        self.wanted = ""
        self._path = path
        self._deadline = deadline
        self._command = _command(check, seed, path)
        self._is_own = check in BUILT_IN

    def __call__(self, graph: Graph) -> bool:
        self._path.write_text(str(graph), encoding="utf-8")
        remaining = max(1.0, self._deadline - time.monotonic())
        try:
            done = subprocess.run(
                self._command, capture_output=True, text=True, errors="replace", timeout=remaining, check=False
            )
        except subprocess.TimeoutExpired:
            if not self.wanted:
                raise CommandError(
                    f"--seconds: Expected time for the check of the whole graph. Received: {remaining:.3g} s, in which "
                    "it did not end"
                ) from None
            return False
        outcome = _outcome(done, self._is_own)
        self.wanted = self.wanted or outcome
        return outcome != "" and outcome == self.wanted


def _command(check: str, seed: str, path: Path) -> list[str]:
    """The command that checks a file; raises `CommandError` where there is none."""
    if check in BUILT_IN:
        return [sys.executable, "-m", "gradloom", "run", str(path), BUILT_IN[check], SEED, seed]
    try:
        words = shlex.split(check)
    except ValueError as error:
        raise CommandError(f"--check: Expected a command. Received: {check} ({error})") from None
    if not any(PLACE in word for word in words):
        raise CommandError(
            f"--check: Expected {', '.join(BUILT_IN)}, or a command with {PLACE} for the file. "
            f"Received: {check}{near(check, BUILT_IN)}"
        )
    return [word.replace(PLACE, str(path)) for word in words]


def _outcome(done: subprocess.CompletedProcess[str], is_own: bool) -> str:
    """How a check failed, in words that are the same for the same kind of failure; "" if it did not."""
    if done.returncode == 0:
        return ""
    if done.returncode < 0:
        return f"crash by {signal.Signals(-done.returncode).name}"
    if not is_own:
        return "a non-zero exit code"
    if done.returncode == DIFFER:
        return "results differ"
    internal = re.search(r"internal error at \S+: \w+", done.stderr)
    return internal.group() if internal else "an error"


class _Progress:
    """Writes the smallest graph so far, and a log of all that were tried: whoever interrupts has both."""

    def __init__(self, output: Path, log: TextIO, begun: float) -> None:
        self.tries = 0
        self._output = output
        self._log = log
        self._begun = begun

    def __call__(self, step: str, graph: Graph, fails: bool) -> None:
        self.tries += 1
        line = f"{time.monotonic() - self._begun:7.1f} s  {step}: {_size(graph)}"
        self._log.write(f"{line}, {'fails' if fails else 'does not fail'}\n")
        self._log.flush()
        if fails:
            with published(self._output) as file:
                file.write(str(graph).encode())
            print(line, file=sys.stderr)


def _size(graph: Graph) -> str:
    nodes = sum(not isinstance(value.op, Input | Constant) for value in graph.live())
    counts = {"node": nodes, "input": len(graph.inputs), "output": len(graph.outputs)}
    return ", ".join(f"{count} {thing}{'' if count == 1 else 's'}" for thing, count in counts.items())


COMMAND = Command(
    name="reduce",
    summary="shrink a graph that fails a check to a small one",
    usage="GRAPH.ir --check CHECK [options]",
    description="Shrink a graph that fails a check: leave out nodes and outputs, put inputs in\n"
    "the place of results, make sizes smaller, while it fails in the same way.\n\n"
    "  compiled   compiled results differ from the interpreter's, or it crashes\n"
    "  fused      fused results differ from unfused ones, or it crashes\n"
    "  a command  exits with another code than 0 for the file in the place of {}\n\n"
    "The smallest graph so far stands in FILE all the time; beside it, in a file\n"
    f"ending in .log, what was tried.\n\n{CODES}",
    examples="""\
  python -m gradloom reduce graph.ir --check compiled
  python -m gradloom reduce graph.ir --check "python check.py {}" --seconds 60
""",
    add_options=_add_options,
    run=_run,
)

"""`run`: compiles a model's prediction or a graph, runs it once, and says what came out."""

from __future__ import annotations

import argparse
import hashlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gradloom import step_graphs
from gradloom.command.errors import CheckError, CommandError
from gradloom.command.grammar import TARGET, Command, near, positive, require_ending
from gradloom.command.targets import is_graph, load_graph, load_model
from gradloom.compiler.ir import Graph, Input
from gradloom.compiler.passes.weight_folding import fold_into_weights
from gradloom.compiler.types import DType, TensorType, as_dtype
from gradloom.drawn_arrays import drawn_arrays
from gradloom.graph_runs import UNFUSED, disagreements, run_graph
from gradloom.runtime.files import published

Arrays = dict[str, np.ndarray]

MOST_LISTED = 6
"""Names of inputs in a line."""

CHECK, CHECK_FUSION, SEED = "--check", "--check-fusion", "--random"


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="TARGET", help="a model or a graph, see above")
    parser.add_argument(
        "--input", action="append", default=[], metavar="F", help="NAME=x.npy, x.npy for the only one, or x.npz"
    )
    parser.add_argument(
        SEED, type=_seed, default=0, dest="seed", metavar="SEED", help="for inputs that are not given (default: 0)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write all results as .npz")
    parser.add_argument(CHECK, action="store_true", help="compare with the interpreter (NumPy)")
    parser.add_argument(CHECK_FUSION, action="store_true", help="compare with code that is not fused")
    parser.add_argument("--batch-size", type=positive, metavar="N", help="samples (default: as given, else 32)")
    parser.add_argument("--dtype", default="float32", help="dtype of drawn features (default: float32)")


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"Expected an integer of 0 or more. Received: {text}")
    return int(text)


@dataclass(frozen=True)
class _Runnable:
    """A graph, the arrays that it comes with, and what runs it compiled on all others."""

    graph: Graph
    supplied: Arrays
    compiled: Callable[[Arrays], Arrays]


def _run(options: argparse.Namespace) -> None:
    require_ending("--output", options.output, ".npz")
    given = _given(options.input)
    runnable = _from_file(options.target) if is_graph(options.target) else _from_model(options, given)
    inputs = {value.op.label: value.op for value in runnable.graph.inputs if isinstance(value.op, Input)}
    wanted = {label: op for label, op in inputs.items() if label not in runnable.supplied}
    arrays = drawn_arrays(runnable.graph, options.seed, runnable.supplied | _assigned(given, wanted))
    # What is run writes onto its arrays.
    results = runnable.compiled({label: array.copy() for label, array in arrays.items()})
    print(_told(wanted, given, options.seed))
    for name, array in results.items():
        print(_summary(name, array))
    if options.output is not None:
        _save(options.output, results)
    if options.check:
        from gradloom.compiler.interpreter import interpret

        with np.errstate(all="ignore"):
            _compare(results, interpret(runnable.graph, arrays), "interpreted")
    if options.check_fusion:
        _compare(results, run_graph(runnable.graph, arrays, UNFUSED), "unfused")


def _from_file(path: str) -> _Runnable:
    graph = load_graph(path)
    return _Runnable(graph, {}, lambda arrays: run_graph(graph, arrays))


def _from_model(options: argparse.Namespace, given: Arrays) -> _Runnable:
    """The predict step of a model, with its weights."""
    from gradloom.execution import CompiledGraph

    model = load_model(options.target)
    model.require_built("run")
    first = next(iter(given.values()), None)
    size = options.batch_size or (len(first) if first is not None and first.ndim else 32)
    dtype = as_dtype(options.dtype)
    if first is not None and not np.issubdtype(first.dtype, np.floating):
        dtype = as_dtype(first.dtype)
    traced = step_graphs.predict_step(model, [TensorType(dtype, (size, *shape)) for shape in model._sample_shapes()])
    supplied = traced.arguments()

    def compiled(arrays: Arrays) -> Arrays:
        folded = CompiledGraph(replace(traced, graph=fold_into_weights(traced.graph)))
        return folded.run({label: array for label, array in arrays.items() if label not in supplied})

    return _Runnable(traced.graph, {label: np.array(array) for label, array in supplied.items()}, compiled)


# inputs and results


def _given(texts: Sequence[str]) -> Arrays:
    """The arrays of `--input`, by name; one without a name is called ""."""
    arrays: Arrays = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or Path(text).exists():
            name, path = "", text
        try:
            loaded = np.load(path, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                arrays[name] = loaded
            else:
                arrays |= {key: loaded[key] for key in loaded.files}
        except (ValueError, EOFError, zipfile.BadZipFile):
            raise CommandError(f"{path}: Expected arrays of numbers, as .npy or .npz. Received: another file") from None
    return arrays


def _assigned(given: Arrays, wanted: Mapping[str, Input]) -> Arrays:
    """The given arrays by input label, in the inputs' dtypes."""
    assigned: Arrays = {}
    data = [label for label, op in wanted.items() if op.role in ("argument", "data")]
    for name, array in given.items():
        label = name or (data[0] if len(data) == 1 else "")
        if label not in wanted:
            raise CommandError(
                f"--input: Expected one of {_listed(wanted)}. Received: {name or 'no name'}{near(name, wanted)}"
            )
        assigned[label] = _cast(array, wanted[label].type.dtype, label)
    return assigned


def _cast(array: np.ndarray, dtype: DType, label: str) -> np.ndarray:
    if not np.can_cast(array.dtype, dtype.numpy, casting="same_kind"):
        raise CommandError(f"--input {label}: Expected {dtype.numpy}. Received: {array.dtype}")
    return array.astype(dtype.numpy)


def _told(wanted: Mapping[str, Input], given: Arrays, seed: int) -> str:
    """A line about where inputs come from."""
    drawn = [label for label in wanted if label not in given]
    if "" in given:
        drawn = [label for label in drawn if wanted[label].role not in ("argument", "data")]
    return f"inputs drawn from seed {seed}: {_listed(drawn)}" if drawn else "inputs: all given"


def _listed(names: Mapping[str, object] | Sequence[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - MOST_LISTED} more" if len(listed) > MOST_LISTED else ""
    return (", ".join(listed[:MOST_LISTED]) or "none") + more


def _summary(name: str, array: np.ndarray) -> str:
    """A line about a result: name, type, range, and a digest by which runs are compared."""
    type_ = TensorType(as_dtype(array.dtype), array.shape)
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:12]
    numbers = ""
    if array.size:
        with np.errstate(all="ignore"):
            numbers = f"  min {array.min():.6g}  mean {array.mean(dtype=np.float64):.6g}  max {array.max():.6g}"
    return f"{name}: {type_}{numbers}  sha256 {digest}"


def _save(path: Path, results: Arrays) -> None:
    """Write an .npz file; `np.savez` would take a result called "file" for another argument."""
    with published(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in results.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _compare(results: Arrays, others: Arrays, what: str) -> None:
    lines = disagreements(results, others)
    if lines:
        more = [f"… and {len(lines) - 3} more results"] if len(lines) > 3 else []
        raise CheckError("\n".join([f"compiled and {what} results differ:", *lines[:3], *more]))
    print(f"compiled and {what} results agree")


COMMAND = Command(
    name="run",
    summary="run a prediction or a graph, and check the results",
    usage="TARGET [options]",
    description="Compile a model's prediction, or a graph, run it once and print what came out.\n"
    "Inputs that are not given are drawn; a model brings its own weights. Checked\n"
    "results may be apart by some thousand roundings of the largest element.\n\n" + TARGET,
    examples="""\
  python -m gradloom run train.py:model --input images.npy --output out.npz
  python -m gradloom run graph.ir --random 7 --check
  python -m gradloom run graph.ir --input x=x.npy --input weights.npz
""",
    add_options=_add_options,
    run=_run,
)

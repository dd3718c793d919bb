"""NaN, ±Inf, −0 and subnormals through every op and every rewrite rule, compiled: as NumPy.

Three things are left open, as the ops' docstrings say: the sign of a zero that comes out of a maximum or a sum, which
NaN a NaN is, and whether a padded zero, or another pixel of a tile, meets an infinite number in a convolution.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest

from compiled import VARIANTS, run, run_program
from gradloom.compiler import pipeline
from gradloom.compiler.choices import NO_CHOICES
from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Graph, Input, Op, Value
from gradloom.compiler.llvm.target import Target, host_levels
from gradloom.compiler.ops.base import Elementwise, TensorOp, for_arithmetic
from gradloom.compiler.ops.contractions import Matmul
from gradloom.compiler.ops.convolution import Conv2D, Conv2DInputGrad, Conv2DKernelGrad
from gradloom.compiler.ops.reductions import Prod, Sum
from gradloom.compiler.passes.algorithms import algorithm_rules
from gradloom.compiler.passes.layout import with_layouts
from gradloom.compiler.passes.rewrite import rewrite
from gradloom.compiler.passes.simplify import RULES
from gradloom.compiler.passes.weight_folding import with_folded_weights
from gradloom.compiler.program import Program
from gradloom.compiler.types import BF16, BOOL, F32, F64, OPEN, DType, TensorType
from op_cases import CASES, DATA_ROWS, OpCase
from op_checks import FOR_FINITE, ZERO_OF_ANY_SIGN, check_case
from rule_cases import CASES as RULE_CASES
from rule_cases import Case, graph_of

Arrays = dict[str, np.ndarray]


def numbers(dtype: DType, kind: str) -> np.ndarray:
    """Special numbers of a float dtype: "open" (not finite), "tiny" (subnormal) or "huge", with zeros and ones."""
    storage = np.float64 if dtype == F64 else np.float32
    tiny, least, most = np.finfo(storage).tiny, np.finfo(storage).smallest_subnormal, np.finfo(storage).max
    if dtype == BF16:
        least, most = np.float32(2.0**-133), np.float32(3e38)
    special = {
        "open": [np.nan, np.inf, -np.inf],
        "tiny": [least, -least, tiny / 2, -tiny / 4, tiny, 5 * least],
        "huge": [most, -most, most / 2, -most / 3],
    }
    return np.array([*special[kind], 0.0, -0.0, 1.0, -1.0], storage).astype(dtype.numpy)


KINDS = ("open", "tiny", "huge")


def all_numbers(dtype: DType) -> np.ndarray:
    """What the operand of an elementwise op may be."""
    if dtype.is_float:
        rest = np.array([0.5, -2.5, 3.0, 88.8, -100.0, -104.5, 709.9, -745.0, 1e30, -1e-30], np.float64)
        with np.errstate(over="ignore"):
            return np.concatenate([*(numbers(dtype, kind) for kind in KINDS), rest.astype(dtype.numpy)])
    if dtype == BOOL:
        return np.array([False, True])
    limits = np.iinfo(dtype.numpy)
    return np.array([limits.min, limits.max, 0, 1, limits.max // 3], dtype.numpy)


def combinations(case: OpCase) -> tuple[OpCase, Arrays]:
    """An elementwise op on all combinations of numbers."""
    grid = list(product(*(range(len(all_numbers(type_.dtype))) for type_ in case.operands)))
    columns = [all_numbers(type_.dtype)[[place[n] for place in grid]] for n, type_ in enumerate(case.operands)]
    return case.with_shapes(*[(len(grid),)] * len(columns)), {f"x{n}": column for n, column in enumerate(columns)}


def drawn(case: OpCase, kind: str, seed: int) -> Arrays:
    """Operands of which the floats are special numbers, the others as the table says."""
    rng = np.random.default_rng(seed)
    arrays = case.sample(seed)
    for n, type_ in enumerate(case.operands):
        if type_.dtype.is_float:
            shape = tuple(DATA_ROWS if size == OPEN else size for size in type_.shape)
            arrays[f"x{n}"] = rng.choice(numbers(type_.dtype, kind), shape)
    return arrays


def has_one_result(case: OpCase, kind: str) -> bool:
    """Whether numbers of a kind have one sum, or product, in whatever order."""
    return kind != "huge" or not (case.length > 1 or isinstance(case.op, Prod))


def versions() -> Iterator[OpCase]:
    """The cases of the table of ops that floats may go through, in both precisions."""
    for line in CASES:
        for case in dict.fromkeys((line, line.in_float64())):
            if isinstance(case.op, Elementwise):
                yield combinations(case)[0]
            elif any(type_.dtype.is_float for type_ in case.operands):
                yield case


TABLE = {f"{place}-{case.name}": case for place, case in enumerate(versions())}


def operands_of(case: OpCase, kind: str, seed: int) -> Arrays:
    return combinations(case)[1] if isinstance(case.op, Elementwise) else drawn(case, kind, seed)


@cache
def results(level: str, variant: str, kind: str, seed: int) -> Mapping[str, np.ndarray]:
    """What one program of all cases computes."""
    graph, program = compiled(level, variant)
    arrays = {
        f"{name}/{label}": np.array(array, order="C")
        for name, case in TABLE.items()
        for label, array in operands_of(case, kind, seed).items()
    }
    return run_program(program, graph, arrays)


@cache
def compiled(level: str, variant: str) -> tuple[Graph, Program]:
    """One graph of all cases, and its program."""
    graph = Graph("special")
    for name, case in TABLE.items():
        inputs = [
            graph.input(f"{name}/x{n}", type_, "data" if OPEN in type_.shape else "argument")
            for n, type_ in enumerate(case.operands)
        ]
        graph.output(name, graph.apply(case.op, *inputs))
    options = pipeline.Options(Target.named(level), cores=2, **VARIANTS[variant])
    return graph, pipeline.compile_graph(graph, options)


def check_op(case: OpCase, got: np.ndarray, operands: Arrays) -> None:
    if isinstance(case.op, FOR_FINITE) and not all(np.isfinite(*for_arithmetic(x)).all() for x in operands.values()):
        return  # see test_passes
    check_case(case, got, operands)
    if case.length > 1 or isinstance(case.op, ZERO_OF_ANY_SIGN) or got.dtype.kind != "f":
        return
    right = case.op.reference(*operands.values())  # type: ignore[attr-defined]
    zero = (got == 0) & (right == 0)
    np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(right[zero]))


WAYS = [(level, variant) for level in host_levels() for variant in VARIANTS]


@pytest.fixture(params=WAYS, ids=lambda way: "-".join(way))
def way(request: pytest.FixtureRequest, times: Callable[[int, int], int]) -> tuple[str, str]:
    """A way to compile: in the short form the last level, as users have it."""
    level, variant = request.param
    if times(0, 1) == 0 and (level, variant) != (host_levels()[-1], "full"):
        pytest.skip("a way that only the full form has")
    return level, variant


@pytest.mark.parametrize("kind", KINDS)
def test_ops(way: tuple[str, str], kind: str, times: Callable[[int, int], int]) -> None:
    wrong = []
    for seed in range(times(1, 6)):
        for name, case in TABLE.items():
            if has_one_result(case, kind):
                try:
                    check_op(case, results(*way, kind, seed)[name], operands_of(case, kind, seed))
                except AssertionError as error:
                    wrong.append(f"{name}, seed {seed}: {error}")
    assert not wrong, f"{len(wrong)} results\n" + "\n".join(wrong[:20])


def test_every_op_is_in_the_table() -> None:
    covered = {case.op.name for case in TABLE.values()}
    known = {name: op for name, op in Op.registry.items() if op.__module__.startswith("gradloom.")}
    assert {name for name, op in known.items() if issubclass(op, TensorOp)} - covered == {"iota", "random_uniform"}


SUBNORMAL = {"add", "subtract", "multiply", "divide", "exp", "expm1", "sum", "matmul", "conv2d", "max_pool", "tanh"}


def test_the_table_has_subnormal_results() -> None:
    found = set()
    for case, seed in product(TABLE.values(), range(6)):
        arrays = operands_of(case, "tiny", seed)
        if all(type_.dtype in (F32, F64) for type_ in case.operands):
            right = case.op.reference(*arrays.values())  # type: ignore[attr-defined]
            if right.dtype.kind == "f" and np.any((right != 0) & (abs(right) < np.finfo(right.dtype).tiny)):
                found.add(case.op.name)
    assert found >= SUBNORMAL


# Rules.


def special_arrays(graph: Graph, seed: int, ordered: bool) -> Arrays:
    """Special numbers for a graph's inputs, with `ordered` such as have one sum in whatever order.

    These are in turn not finite, or tiny for one input and whole for the next: huge numbers overflow in one order
    alone, and next to 1 and −1 a tiny one is lost in one order alone.
    """
    rng = np.random.default_rng(seed)
    arrays = {}
    for place, value in enumerate(graph.inputs):
        assert isinstance(value.op, Input)
        if not value.dtype.is_float:
            pool = all_numbers(value.dtype)
        elif not ordered:
            pool = np.concatenate([numbers(value.dtype, kind) for kind in KINDS])
        elif seed % 2 == 0:
            pool = numbers(value.dtype, "open")
        else:
            tiny = numbers(value.dtype, "tiny")
            pool = tiny[-4:] if (place + seed // 2) % 2 else tiny[:-2]
        arrays[value.op.label] = rng.choice(pool, value.shape)
    return arrays


LESS_THAN_ZERO = "log_of_softmax"
"""The rule whose result is finite where the graph before has −Inf, since a probability underflows."""

PADDING = ("convolve_padded", "slice_input_grad")
"""Rules that change how far zeros surround an array: whether these meet an infinite number is left open."""


def check_rule(case: Case, got: Arrays, wanted: Arrays) -> None:
    for name, right in wanted.items():
        result = got[name]
        assert (result.dtype, result.shape) == (right.dtype, right.shape)
        if right.dtype.kind != "f":
            np.testing.assert_array_equal(result, right)
            continue
        if case.rule in PADDING:
            met = np.isnan(result) | np.isnan(right)
            result, right = result[~met], right[~met]
        np.testing.assert_array_equal(np.isnan(result), np.isnan(right))
        infinite = np.isinf(right)
        if case.rule == LESS_THAN_ZERO:
            infinite &= np.isinf(result)
        np.testing.assert_array_equal(result[infinite], right[infinite])
        finite = np.isfinite(right)
        if case.exact:
            np.testing.assert_array_equal(result[finite], right[finite])
            zero = (right == 0) & case.zero_signs
            np.testing.assert_array_equal(np.signbit(result[zero]), np.signbit(right[zero]))
        else:
            # Relative to the result, down to subnormals: nothing is flushed.
            least = np.finfo(right.dtype).smallest_subnormal
            np.testing.assert_allclose(result[finite], right[finite], rtol=2e-6, atol=4 * least)


@pytest.mark.parametrize("case", RULE_CASES, ids=lambda case: case.rule)
def test_rules(case: Case, times: Callable[[int, int], int]) -> None:
    """The graph before, interpreted, is the oracle of the graph after, interpreted and compiled in every way."""
    graph = graph_of(case)
    rewritten = rewrite(graph, RULES)
    assert case.rule in [firing.rule for firing in rewritten.firings]
    for seed in range(times(2, 8)):
        arrays = special_arrays(graph, seed, ordered=not case.exact or adds_up(graph))
        with np.errstate(all="ignore"):
            wanted = interpret(graph, arrays)
            check_rule(case, interpret(rewritten.graph, arrays), wanted)
        if seed < times(0, 2):
            for level, variant in WAYS:
                got = run(graph, arrays, target=Target.named(level), **VARIANTS[variant])
                check_rule(replace(case, exact=False) if inexact(graph) else case, got, wanted)


def inexact(graph: Graph) -> bool:
    """Whether NumPy and compiled code round differently in some node."""
    return adds_up(graph) or any(value.op.name in ("exp", "log", "power") for value in graph.live())


def adds_up(graph: Graph) -> bool:
    """Whether a graph adds up in an order that NumPy and compiled code need not share."""
    return any(
        isinstance(value.op, Sum | Matmul | Conv2D | Conv2DInputGrad | Conv2DKernelGrad) for value in graph.live()
    )


# Passes that are more than simplification, by the names under which they leave firings.

CHANNELS = 16


def convolution(op: Conv2D | Conv2DInputGrad | Conv2DKernelGrad) -> Graph:
    """A convolution, or a gradient of one, of a size for which Winograd's algorithm is chosen."""
    graph = Graph("convolution")
    images = graph.input("x", TensorType(F32, (3, 12, 12, 32)))
    other = (3, 12, 12, 32) if isinstance(op, Conv2DKernelGrad) else (3, 3, 32, 32)
    graph.output("y", graph.apply(op, images, graph.input("w", TensorType(F32, other))))
    return graph


SAME = ((1, 1), (1, 1))
PASSES: dict[str, tuple[Callable[[], Graph], Callable[[Graph], Any]]] = {
    "winograd_conv2d": (
        lambda: convolution(Conv2D(padding=SAME)),
        lambda graph: rewrite(graph, algorithm_rules(graph, NO_CHOICES)),
    ),
    "winograd_input_grad": (
        lambda: convolution(Conv2DInputGrad((12, 12), padding=SAME)),
        lambda graph: rewrite(graph, algorithm_rules(graph, NO_CHOICES)),
    ),
    "winograd_kernel_grad": (
        lambda: convolution(Conv2DKernelGrad((3, 3), padding=SAME)),
        lambda graph: rewrite(graph, algorithm_rules(graph, NO_CHOICES)),
    ),
    "choose_layouts": (lambda: dense(), lambda graph: with_layouts(graph, 8)),
    "fold_into_weights": (lambda: dense(), with_folded_weights),
}


def dense() -> Graph:
    """A layer with few outputs, scaled and shifted by numbers that are fixed."""
    graph = Graph("dense")
    x = graph.input("x", TensorType(F32, (5, 64)))
    w = graph.input("w", TensorType(F32, (64, 10)), "parameter")
    scale, shift = (graph.input(name, TensorType(F32, (10,)), "parameter") for name in ("scale", "shift"))
    graph.output("y", (x @ w) * scale + shift)
    return graph


def special_in(label: str, value: Value) -> np.ndarray:
    """Ordinary numbers; the first row of one input has special ones here and there, and another one subnormals."""
    assert isinstance(value.op, Input)
    rng = np.random.default_rng([len(value.shape), len(label)])
    array = rng.uniform(0.5, 1.5, value.shape).astype(np.float32)
    if value.op.label == label:
        places = rng.random(array[0].shape) < 0.01
        array[0][places] = rng.choice(numbers(F32, "open"), int(places.sum()))
        array[1][rng.random(array[1].shape) < 0.1] = numbers(F32, "tiny")[3]
    return array


@pytest.mark.parametrize("label", ["x", "w"])
@pytest.mark.parametrize("name", PASSES)
def test_passes(name: str, label: str) -> None:
    """A NaN or an infinity is never lost, and one of the batch spoils no row but its own."""
    build, apply = PASSES[name]
    graph = build()
    rewritten = apply(graph)
    assert name in [firing.rule for firing in rewritten.firings]
    arrays = {value.op.attributes["label"]: special_in(label, value) for value in graph.inputs}
    with np.errstate(all="ignore"):
        wanted = interpret(graph, arrays)["y"]
    for got in (interpret_quietly(rewritten.graph, arrays)["y"], run(graph, arrays)["y"]):
        lost = np.isfinite(got) & ~np.isfinite(wanted)
        assert not lost.any()
        if label == "x" and name != "winograd_kernel_grad":  # a sum over the batch
            np.testing.assert_allclose(got[1:], wanted[1:], rtol=1e-4, atol=1e-4 * np.abs(wanted[1:]).max())


def interpret_quietly(graph: Graph, arrays: Arrays) -> Arrays:
    with np.errstate(all="ignore"):
        return interpret(graph, arrays)


def test_every_rule_and_pass_has_a_case() -> None:
    assert {rule.name for rule in RULES} == {case.rule for case in RULE_CASES}
    graph = convolution(Conv2D())
    named = {rule.name for rule in algorithm_rules(graph, NO_CHOICES)} | {"choose_layouts", "fold_into_weights"}
    assert named == set(PASSES)
    assert set(pipeline.lower(graph).passes) == {"simplify", "layouts", "algorithms"}

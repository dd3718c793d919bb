"""Every op of the table, compiled: alone and in a chain, in both precisions, at all x86 levels, with its gradients."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from gradloom.compiler import pipeline
from gradloom.compiler.autodiff import gradients
from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Graph, Value, building
from gradloom.compiler.llvm.target import Target, host_levels
from gradloom.compiler.ops.arithmetic import FloorDivide, Power, Remainder
from gradloom.compiler.ops.base import Contraction, Elementwise, Movement, Reduction, Scatter
from gradloom.compiler.ops.indexing import Gather
from gradloom.compiler.ops.operands import convert
from gradloom.compiler.types import BOOL, F64, TensorType
from gradloom.runtime.executable import Executable
from op_cases import CASES, OPEN, OpCase
from op_checks import check_case, sample

SEEDS = (0, 1, 2)

Key = tuple[str, bool]  # a case's name in the table, and whether it is the one in float64


def _numbered() -> dict[Key, OpCase]:
    cases = {(f"{place}-{case.name}", False): case for place, case in enumerate(CASES)}
    wide = {(name, True): case.in_float64() for (name, _), case in cases.items()}
    return cases | {key: case for key, case in wide.items() if case.operands != cases[key[0], False].operands}


TABLE = _numbered()
each_case = pytest.mark.parametrize("key", TABLE, ids=lambda key: f"{key[0]}-f64" if key[1] else key[0])


def plain(case: OpCase, operands: list[Value]) -> Value:
    """The op alone."""
    return operands[0].graph.apply(case.op, *operands)


def chained(case: OpCase, operands: list[Value]) -> Value:
    """The op between others that change nothing."""
    around = [neutral(operand) if OPEN not in operand.shape else operand for operand in operands]
    return neutral(operands[0].graph.apply(case.op, *around))


def neutral(x: Value) -> Value:
    """x·1 or ¬¬x."""
    if x.dtype == BOOL:
        return ~~x
    dtype = x.dtype.arithmetic
    return convert(convert(x, dtype) * x.graph.constant(1, dtype), x.dtype)


def all_cases(build: Callable[[OpCase, list[Value]], Value], table: dict[Key, OpCase] = TABLE) -> Graph:
    """One graph of all cases: each has inputs and a result of its own."""
    graph = Graph("cases")
    for (name, wide), case in table.items():
        operands = [
            graph.input(f"{name}{wide}/x{n}", type_, "data" if OPEN in type_.shape else "argument")
            for n, type_ in enumerate(case.operands)
        ]
        result = build(case, operands) if operands else graph.apply(case.op)
        graph.output(f"{name}{wide}", result)
    return graph


@cache
def executable(build: Callable[[OpCase, list[Value]], Value], level: str = "", fuse: bool = True) -> Executable:
    target = Target.named(level) if level else Target.host()
    options = pipeline.Options(target, simplify=build is not chained, fuse=fuse)
    return Executable(pipeline.compile_graph(all_cases(build), options))


@cache
def results(
    build: Callable[[OpCase, list[Value]], Value], seed: int, special: bool, level: str = "", fuse: bool = True
) -> dict[str, np.ndarray]:
    """What the program of all cases computes."""
    arrays = {
        f"{name}{wide}/{label}": np.array(array, order="C")
        for (name, wide), case in TABLE.items()
        for label, array in sample(case, seed, special).items()
    }
    program = executable(build, level, fuse)
    outputs = {
        argument.name: np.full(argument.type.shape, 77, argument.type.dtype.numpy)
        for argument in program.program.arguments
        if argument.role == "result"
    }
    used = {argument.name for argument in program.program.arguments}
    program.run({name: array for name, array in {**arrays, **outputs}.items() if name in used})
    return outputs


def check_all(key: Key, build: Callable[[OpCase, list[Value]], Value], level: str = "", fuse: bool = True) -> None:
    case = TABLE[key]
    for seed in SEEDS:
        for special in (False, True):
            got = results(build, seed, special, level, fuse)[f"{key[0]}{key[1]}"]
            check_case(case, got, sample(case, seed, special))


@each_case
def test_op_alone(key: Key) -> None:
    check_all(key, plain, fuse=False)


@each_case
def test_op_beside_others_in_one_kernel(key: Key) -> None:
    check_all(key, plain)


@each_case
def test_op_in_a_chain(key: Key) -> None:
    if not TABLE[key].operands:
        return
    check_all(key, chained)
    exact = isinstance(TABLE[key].op, Elementwise | Movement | Gather)
    if exact and TABLE[key].op.name != "convert":
        # What is computed around an op changes none of its bits.
        got, alone = (results(build, 0, False)[f"{key[0]}{key[1]}"] for build in (chained, plain))
        np.testing.assert_array_equal(got, alone)


@pytest.mark.parametrize("level", host_levels())
@each_case
def test_op_at_each_level(key: Key, level: str) -> None:
    check_all(key, plain, level)


@each_case
def test_chain_of_elementwise_ops_is_one_kernel(key: Key) -> None:
    case = TABLE[key]
    if not case.operands or isinstance(case.op, Reduction | Contraction | Scatter):
        return
    graph = pipeline.lower(all_cases(chained, {key: case}), pipeline.Options(simplify=False)).fused
    assert len(graph.groups) == 1


# Sizes.

SIZES = [(0, 3), (3, 0), (1, 1), (3, 1), (1, 15), (2, 16), (3, 17), (2, 31), (5, 33), (3, 70), (700, 3), (90, 101)]


def resized(case: OpCase, rows: int, columns: int) -> OpCase:
    """The same case with other sizes: its last axis gets `columns`, the one before `rows`."""
    shapes = []
    for type_ in case.operands:
        wanted = (rows, columns)[2 - type_.rank :]
        shapes.append(tuple(1 if size == 1 else new for size, new in zip(type_.shape, wanted, strict=True)))
    return case.with_shapes(*shapes)


ELEMENTWISE = {
    key: case
    for key, case in TABLE.items()
    if isinstance(case.op, Elementwise) and not key[1] and max(type_.rank for type_ in case.operands) <= 2
}


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_elementwise_ops_of_all_sizes(size: tuple[int, int]) -> None:
    table = {key: resized(case, *size) for key, case in ELEMENTWISE.items()}
    graph = all_cases(plain, table)
    arrays = {
        f"{name}{wide}/{label}": array
        for (name, wide), case in table.items()
        for label, array in case.sample(5, special=True).items()
    }
    for fuse in (False, True):
        program = pipeline.compile_graph(graph, pipeline.Options(fuse=fuse, simplify=fuse))
        outputs = {out.name: np.full(out.value.shape, 77, out.value.dtype.numpy) for out in graph.outputs}
        Executable(program).run({**arrays, **outputs})
        for (name, wide), case in table.items():
            operands = {f"x{n}": arrays[f"{name}{wide}/x{n}"] for n in range(len(case.operands))}
            check_case(case, outputs[f"{name}{wide}"], operands)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf, -0.0, 1e-40, -1e-45], ids=str)
def test_special_values_in_every_lane(special: float) -> None:
    """A special value behaves alike in whole vectors, in partial ones and alone."""
    table = {
        key: case.with_shapes(*[(37,) if type_.rank else () for type_ in case.operands])
        for key, case in ELEMENTWISE.items()
        if not isinstance(case.op, Remainder | FloorDivide | Power)
    }
    graph = all_cases(plain, table)
    arrays = {}
    for (name, wide), case in table.items():
        for label, array in case.sample(3).items():
            if array.dtype.kind == "f" and label == "x0":
                array = np.full_like(array, special)
            arrays[f"{name}{wide}/{label}"] = array
    outputs = {out.name: np.zeros(out.value.shape, out.value.dtype.numpy) for out in graph.outputs}
    Executable(pipeline.compile_graph(graph)).run({**arrays, **outputs})
    for (name, wide), case in table.items():
        operands = {f"x{n}": arrays[f"{name}{wide}/x{n}"] for n in range(len(case.operands))}
        check_case(case, outputs[f"{name}{wide}"], operands)


# Gradients.

SMOOTH = {
    key: case
    for key, case in TABLE.items()
    if case.smooth and key[1] and any(type_.dtype == F64 and OPEN not in type_.shape for type_ in case.operands)
}


def with_gradients(table: dict[Key, OpCase]) -> Graph:
    """All cases with their gradients, and the gradients of a function of the gradients."""
    graph = Graph("gradients")
    with building(graph):
        for (name, _), case in table.items():
            operands = [graph.input(f"{name}/x{n}", type_) for n, type_ in enumerate(case.operands)]
            result = graph.apply(case.op, *operands)
            floats = [operand for operand in operands if operand.dtype.is_float]
            if not result.dtype.is_float:
                continue
            result = result if result.dtype == F64 else result * 1.0
            cotangent = graph.input(f"{name}/c", TensorType(result.dtype, result.shape))
            first = gradients([result], floats, [cotangent])
            weights = [graph.input(f"{name}/w{n}", x.type) for n, x in enumerate(floats)]
            second = gradients(first, [*floats, cotangent], weights)
            for n, gradient in enumerate([*first, *second]):
                graph.output(f"{name}/g{n}", gradient)
    return graph


@cache
def gradient_results(fuse: bool) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Compiled and interpreted gradients of all smooth cases."""
    graph = with_gradients(SMOOTH)
    arrays = {}
    for (name, _), case in SMOOTH.items():
        arrays |= {f"{name}/{label}": array for label, array in case.sample(7).items()}
    rng = np.random.default_rng(7)
    for value in graph.inputs:
        label = value.op.attributes["label"]
        if label not in arrays:
            arrays[label] = rng.normal(size=value.shape).astype(value.dtype.numpy)
    outputs = {out.name: np.full(out.value.shape, 77, out.value.dtype.numpy) for out in graph.outputs}
    used = {value.op.attributes["label"] for value in graph.inputs}
    arrays = {name: array for name, array in arrays.items() if name in used}
    program = pipeline.compile_graph(graph, pipeline.Options(fuse=fuse))
    Executable(program).run({**arrays, **outputs})
    return outputs, interpret(graph, arrays)


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "unfused"])
@pytest.mark.parametrize("key", SMOOTH, ids=lambda key: key[0])
def test_gradients_of_both_orders(key: Key, fuse: bool) -> None:
    got, expected = gradient_results(fuse)
    names = [name for name in expected if name.startswith(f"{key[0]}/")]
    for name in names:
        scale = max(1.0, float(np.abs(expected[name]).max(initial=0)))
        tolerance = 1e-6 if expected[name].dtype == np.float32 else 1e-12
        np.testing.assert_allclose(got[name], expected[name], rtol=tolerance, atol=tolerance * scale, err_msg=name)

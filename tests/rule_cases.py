"""The table of rule cases: for each rewrite rule, graphs on which it fires, and what is left of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gradloom.compiler.ir import Graph, Input, Op, Value
from gradloom.compiler.ops.arithmetic import Add, Divide, Maximum, Multiply, Power, Subtract
from gradloom.compiler.ops.comparison import Less, LogicalAnd, LogicalNot, LogicalOr, Select
from gradloom.compiler.ops.contractions import Matmul
from gradloom.compiler.ops.convolution import Conv2D, Conv2DInputGrad, Conv2DKernelGrad
from gradloom.compiler.ops.elementwise import Convert, Exp, Log, Negative, Sqrt
from gradloom.compiler.ops.indexing import Gather
from gradloom.compiler.ops.markers import StopGradient
from gradloom.compiler.ops.movement import BroadcastTo, Concatenate, Pad, Reshape, Reverse, Slice, Transpose
from gradloom.compiler.ops.reductions import Max, Sum
from gradloom.compiler.types import BOOL, F32, F64, I32, I64, U8, DType, TensorType


class Sketch:
    """Builds a test graph: `n.x(shape)` adds an input, `n(op, …)` a node, `n.c(…)` a literal."""

    def __init__(self) -> None:
        self.graph = Graph("sketch")

    def __call__(self, op: Op, *operands: Value) -> Value:
        return self.graph.apply(op, *operands)

    def x(self, *shape: int, dtype: DType = F32, role: str = "argument") -> Value:
        return self.graph.input(f"x{len(self.graph.inputs)}", TensorType(dtype, shape), role)

    def c(self, value: object, dtype: DType = F32) -> Value:
        return self.graph.constant(np.asarray(value, dtype.numpy))


@dataclass(frozen=True)
class Case:
    """A graph on which `rule` fires: the ops left, and whether every bit stays (else: about the same numbers)."""

    rule: str
    build: Callable[[Sketch], Value | Sequence[Value]]
    left: str
    exact: bool = True
    zero_signs: bool = True


V = 16
"""Elements of a test vector."""


def softmax(n: Sketch, x: Value) -> Value:
    powers = n(Exp(), n(Subtract(), x, n(Reshape((x.shape[0], 1)), n(Max((1,)), x))))
    return n(Divide(), powers, n(Reshape((x.shape[0], 1)), n(Sum((1,)), powers)))


CASES = [
    Case("fold", lambda n: n(Add(), n.x(V), n(Sqrt(), n(Multiply(), n.c(2), n.c(8)))), "constant add"),
    Case("fold", lambda n: n(Transpose((1, 0)), n.c([[1, 2, 3], [-0.0, np.nan, 6]])), "constant"),
    Case("fold", lambda n: n(Multiply(), n.x(3), n(Convert(F32), n(Less(), n.c(1), n.c(2)))), ""),
    Case("literal_last", lambda n: n(Multiply(), n.c(3), n.x(V)), "constant multiply"),
    Case("add_zero", lambda n: n(Add(), n.x(V, dtype=I32), n.c(0, I32)), ""),
    Case("add_zero", lambda n: n(Add(), n.x(V), n.c(-0.0)), ""),
    Case("add_zero", lambda n: n(Add(), n.x(1, V), n.c(np.full((3, 1), -0.0))), "broadcast_to"),
    Case("subtract_zero", lambda n: n(Subtract(), n.x(V), n.c(0)), ""),
    Case("add_negative", lambda n: n(Add(), n.x(V), n(Negative(), n.x(V))), "subtract"),
    Case("add_negative", lambda n: n(Add(), n(Negative(), n.x(V)), n.x(V)), "subtract"),
    Case("subtract_negative", lambda n: n(Subtract(), n.x(V), n(Negative(), n.x(V))), "add"),
    Case("multiply_one", lambda n: n(Multiply(), n.x(V), n.c(1)), ""),
    Case("multiply_one", lambda n: n(Divide(), n.x(V), n.c([1.0] * V)), ""),
    Case("multiply_zero", lambda n: n(Multiply(), n.x(V, dtype=I32), n.c(0, I32)), "constant broadcast_to"),
    Case("multiply_minus_one", lambda n: n(Multiply(), n.x(V), n.c(-1)), "negative"),
    Case("multiply_minus_one", lambda n: n(Divide(), n.x(V), n.c(-1)), "negative"),
    Case("multiply_literals", lambda n: n(Multiply(), n(Multiply(), n.x(V), n.c(4)), n.c(-8)), "constant multiply"),
    Case(
        "multiply_literals",
        lambda n: n(Multiply(), n(Multiply(), n.x(V, dtype=I32), n.c(65537, I32)), n.c(65539, I32)),
        "constant multiply",
    ),
    Case("divide_power_of_two", lambda n: n(Divide(), n.x(V), n.c(32)), "constant multiply"),
    Case("divide_power_of_two", lambda n: n(Divide(), n.x(V), n.c(-0.125)), "constant multiply"),
    Case("negative_negative", lambda n: n(Negative(), n(Negative(), n.x(V))), ""),
    Case("negative_product", lambda n: n(Negative(), n(Multiply(), n.x(V), n.c(3))), "constant multiply"),
    Case("negative_product", lambda n: n(Negative(), n(Divide(), n.x(V), n.c(3))), "constant divide"),
    Case("product_of_negatives", lambda n: n(Multiply(), n(Negative(), n.x(V)), n.c(3)), "constant multiply"),
    Case("product_of_negatives", lambda n: n(Divide(), n(Negative(), n.x(V)), n(Negative(), n.x(V))), "divide"),
    Case("power_literal", lambda n: n(Power(), n.x(V), n.c(0)), "constant broadcast_to"),
    Case("power_literal", lambda n: n(Power(), n.x(V), n.c(1)), ""),
    Case("power_literal", lambda n: n(Power(), n.x(V), n.c(2)), "multiply", exact=False),
    Case("power_literal", lambda n: n(Power(), n.x(V), n.c(-1)), "constant divide", exact=False),
    Case("idempotent", lambda n: n(Maximum(), x := n.x(V), x), ""),
    Case("idempotent", lambda n: n(LogicalAnd(), x := n.x(V, dtype=BOOL), x), ""),
    Case(
        "log_of_softmax",
        lambda n: n(Log(), softmax(n, n.x(4, V))),
        "max reshape subtract exp sum reshape log subtract",
        exact=False,
    ),
    Case("convert_to_same", lambda n: n(Convert(F32), n.x(V)), ""),
    Case("convert_convert", lambda n: n(Convert(F32), n(Convert(F64), n.x(V))), ""),
    Case("convert_convert", lambda n: n(Convert(F32), n(Convert(I64), n.x(V, dtype=U8))), "convert"),
    Case("convert_convert", lambda n: n(Convert(I32), n(Convert(F32), n.x(V, dtype=U8))), "convert"),
    Case("select_known", lambda n: n(Select(), n.c(True, BOOL), n.x(V), n.x(V)), ""),
    Case("select_known", lambda n: n(Select(), n.c([False] * V, BOOL), n.x(V), n.x(1)), "broadcast_to"),
    Case("select_same", lambda n: n(Select(), n.x(V, dtype=BOOL), x := n.x(V), x), ""),
    Case("select_not", lambda n: n(Select(), n(LogicalNot(), n.x(V, dtype=BOOL)), n.x(V), n.x(V)), "select"),
    Case("not_not", lambda n: n(LogicalNot(), n(LogicalNot(), n.x(V, dtype=BOOL))), ""),
    Case("logic_literal", lambda n: n(LogicalAnd(), n.c(True, BOOL), n.x(V, dtype=BOOL)), ""),
    Case("logic_literal", lambda n: n(LogicalOr(), n.x(V, dtype=BOOL), n.c(True, BOOL)), "constant broadcast_to"),
    Case("marker", lambda n: n(StopGradient(), n.x(V)), ""),
    Case("reshape_to_same", lambda n: n(Reshape((2, 3)), n.x(2, 3)), ""),
    Case("reshape_reshape", lambda n: n(Reshape((4, 4)), n(Reshape((2, 8)), n.x(V))), "reshape"),
    Case(
        "reshape_gather",
        lambda n: n(Reshape((2, 4)), n(Gather(), n.x(5, 2, 2), n.c([4, 1], I32))),
        "constant reshape gather",
    ),
    Case(
        "convolve_padded",
        lambda n: n(Conv2D(), n(Pad((0, 1, 0, 0), (0, 1, 2, 0), (0, 0, 0, 0)), n.x(1, 4, 3, 2)), n.x(3, 3, 2, 2)),
        "conv2d",
    ),
    Case(
        "convolve_padded",
        lambda n: n(
            Conv2DKernelGrad((3, 3)), n(Pad((0, 1, 1, 0), (0, 1, 1, 0), (0, 0, 0, 0)), n.x(1, 3, 3, 2)), n.x(1, 3, 3, 2)
        ),
        "conv2d_kernel_grad",
    ),
    Case(
        "slice_input_grad",
        lambda n: n(
            Slice((0, 1, 0, 0), (1, 4, 3, 2), (1, 1, 1, 1)),
            n(Conv2DInputGrad((5, 3), padding=((0, 0), (0, 2))), n.x(1, 3, 3, 2), n.x(3, 3, 2, 2)),
        ),
        "conv2d_input_grad",
    ),
    Case("transpose_identity", lambda n: n(Transpose((0, 1, 2)), n.x(2, 3, 4)), ""),
    Case("transpose_transpose", lambda n: n(Transpose((1, 2, 0)), n(Transpose((1, 2, 0)), n.x(2, 3, 4))), "transpose"),
    Case("transpose_transpose", lambda n: n(Transpose((2, 0, 1)), n(Transpose((1, 2, 0)), n.x(2, 3, 4))), ""),
    Case("transpose_unit_axes", lambda n: n(Transpose((1, 0, 2)), n.x(1, 3, 4)), "reshape"),
    Case("broadcast_to_same", lambda n: n(BroadcastTo((2, 3)), n.x(2, 3)), ""),
    Case("broadcast_broadcast", lambda n: n(BroadcastTo((4, 2, 3)), n(BroadcastTo((2, 3)), n.x(3))), "broadcast_to"),
    Case("broadcast_leading", lambda n: n(BroadcastTo((5, 3)), n(Reshape((1, 3)), n.x(3))), "broadcast_to"),
    Case("move_filled", lambda n: n(Reshape((6,)), n(BroadcastTo((2, 3)), n.x(1, 1))), "reshape broadcast_to"),
    Case("move_filled", lambda n: n(Transpose((1, 0)), n(BroadcastTo((2, 3)), n.x())), "broadcast_to"),
    Case("slice_whole", lambda n: n(Slice((0, 0), (2, 3), (1, 1)), n.x(2, 3)), ""),
    Case("slice_slice", lambda n: n(Slice((1,), (5,), (3,)), n(Slice((1,), (12,), (2,)), n.x(V))), "slice"),
    Case("pad_nothing", lambda n: n(Pad((0,), (0,), (0,)), n.x(V)), ""),
    Case("concatenate_one", lambda n: n(Concatenate(0), n.x(V)), ""),
    Case("concatenate_one", lambda n: n(Concatenate(1), n.x(2, 3), n.x(2, 0), n.x(2, 1)), "concatenate"),
    Case("reverse_unit_axes", lambda n: n(Reverse((0, 1)), n.x(1, 3)), "reverse"),
    Case("reverse_unit_axes", lambda n: n(Reverse(()), n.x(3)), ""),
    Case("reverse_reverse", lambda n: n(Reverse((0, 1)), n(Reverse((1, 2)), n.x(2, 3, 4))), "reverse"),
    Case("broadcast_into_elementwise", lambda n: n(Add(), n.x(2, 3), n(BroadcastTo((2, 3)), n.x(3))), "add"),
    Case("broadcast_into_elementwise", lambda n: n(Add(), n.x(2, 3), n(Reshape((1, 3)), n.x(3))), "add"),
    Case("broadcast_into_elementwise", lambda n: n(Exp(), n(BroadcastTo((2, 3)), n.x(3))), "exp broadcast_to"),
    Case("broadcast_into_elementwise", lambda n: n(Add(), n.x(V), n.c([0.5] * V)), "constant add"),
    Case(
        "reshape_elementwise",
        lambda n: n(Reshape((6,)), n(Multiply(), n.x(2, 3), n.c(0.1))),
        "constant reshape multiply",
    ),
    Case("reduce_unit_axes", lambda n: n(Sum((0,)), n.x(1, V)), "reshape", zero_signs=False),
    Case("reduce_unit_axes", lambda n: n(Max((0, 1)), n.x(1, V, 2)), "reshape max"),
    Case("reduce_unit_axes", lambda n: n(Sum(()), n.x(V)), "", zero_signs=False),
    Case("reduce_reduce", lambda n: n(Max((0, 1)), n(Max((1, 3)), n.x(2, 3, 4, 5))), "max"),
    Case("reduce_reduce", lambda n: n(Sum((0,)), n(Sum((1,)), n.x(2, 3))), "sum", exact=False),
    Case("reduce_transpose", lambda n: n(Max((0, 2)), n(Transpose((2, 1, 0)), n.x(2, 3, 4))), "max"),
    Case("reduce_transpose", lambda n: n(Sum((0,)), n(Transpose((1, 0)), n.x(2, 3))), "sum", exact=False),
    Case(
        "matmul_of_transpose", lambda n: n(Matmul(), n(Transpose((1, 0)), n.x(4, 3)), n.x(4, 5)), "matmul", exact=False
    ),
    Case(
        "matmul_of_transpose",
        lambda n: n(Matmul(False, True), n.x(2, 3, 4), n(Transpose((0, 2, 1)), n.x(2, 4, 5))),
        "matmul",
        exact=False,
    ),
    Case(
        "transpose_of_matmul", lambda n: n(Transpose((1, 0)), n(Matmul(), n.x(3, 4), n.x(4, 5))), "matmul", exact=False
    ),
    Case(
        "transpose_elementwise",
        lambda n: n(Transpose((1, 0)), n(Add(), n(Transpose((1, 0)), n.x(2, 3)), n.x(2))),
        "reshape add",
    ),
]


def graph_of(case: Case) -> Graph:
    sketch = Sketch()
    built = case.build(sketch)
    for number, value in enumerate([built] if isinstance(built, Value) else built):
        sketch.graph.output(f"y{number}", value)
    return sketch.graph


def ops_of(graph: Graph) -> list[str]:
    return [value.op.name for value in graph.live() if not isinstance(value.op, Input)]

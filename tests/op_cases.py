"""The table of op cases: one line says with which operands an op is tested, and the tests are derived from it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from gradloom.compiler.ir import Graph, Op, Value
from gradloom.compiler.ops.arithmetic import (
    Add,
    Divide,
    FloorDivide,
    Maximum,
    Minimum,
    Multiply,
    Power,
    Remainder,
    Subtract,
)
from gradloom.compiler.ops.comparison import (
    Equal,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
    LogicalAnd,
    LogicalNot,
    LogicalOr,
    LogicalXor,
    NotEqual,
    Select,
)
from gradloom.compiler.ops.contractions import Matmul
from gradloom.compiler.ops.convolution import Conv2D, Conv2DInputGrad, Conv2DKernelGrad
from gradloom.compiler.ops.elementwise import (
    Absolute,
    Ceil,
    Convert,
    Erf,
    Exp,
    Expm1,
    Floor,
    Log,
    Log1p,
    Negative,
    Round,
    Sigmoid,
    Sign,
    Sqrt,
    Tanh,
)
from gradloom.compiler.ops.indexing import Gather, ScatterAdd
from gradloom.compiler.ops.markers import CustomGradient, StopGradient
from gradloom.compiler.ops.movement import BroadcastTo, Concatenate, Iota, Pad, Reshape, Reverse, Slice, Transpose
from gradloom.compiler.ops.pooling import MaxPool, MaxPoolGrad, MaxPoolSelect, SumPool, SumPoolGrad
from gradloom.compiler.ops.random_bits import RandomUniform
from gradloom.compiler.ops.reductions import Max, Min, Prod, Sum
from gradloom.compiler.ops.winograd import WinogradConv2D, WinogradConv2DKernelGrad, WinogradKernel
from gradloom.compiler.types import BF16, BOOL, F32, F64, I32, I64, OPEN, U8, TensorType, as_dtype

Sampler = Callable[[np.random.Generator, TensorType], np.ndarray]

DATA_ROWS = 11
"""How many rows a sampled data set has, whose type leaves that open."""

SPECIAL = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 1e-30, -1e-30, 3e38, -3e38, 88.8, -104.5)
"""Floats at which kernels tend to differ from NumPy."""


@dataclass(frozen=True)
class OpCase:
    """An op with operand types, and how their elements are drawn.

    `ulps` is how far a compiled result may be from the reference in float32, in units in the last place of the result
    (0: not at all); for sums and products of many terms `length` is how many, and the bound is relative to the sum of
    magnitudes. `smooth` says that the op has a derivative wherever the samplers draw from.
    """

    op: Op
    operands: tuple[TensorType, ...]
    samplers: tuple[Sampler, ...]
    ulps: float = 0.0
    length: int = 1
    smooth: bool = True

    @property
    def name(self) -> str:
        """What a test's parameter is called."""
        return "-".join([self.op.name, *(re.sub(r"[\[,]", "_", str(type_)).rstrip("]") for type_ in self.operands)])

    def in_float64(self) -> OpCase:
        """The same case with f64 in place of f32."""
        wide = tuple(TensorType(F64 if t.dtype == F32 else t.dtype, t.shape) for t in self.operands)
        return replace(self, operands=wide)

    def with_shapes(self, *shapes: tuple[int, ...]) -> OpCase:
        """The same case with other shapes."""
        types = tuple(TensorType(t.dtype, shape) for t, shape in zip(self.operands, shapes, strict=True))
        return replace(self, operands=types)

    def sample(self, seed: int, special: bool = False) -> dict[str, np.ndarray]:
        """Operands by label; with `special`, a third of the floats are infinite, NaN, zero, huge or tiny."""
        rng = np.random.default_rng(seed)
        arrays = {}
        for place, (type_, sampler) in enumerate(zip(self.operands, self.samplers, strict=True)):
            closed = TensorType(type_.dtype, tuple(DATA_ROWS if size == OPEN else size for size in type_.shape))
            array = np.asarray(sampler(rng, closed), type_.dtype.numpy).reshape(closed.shape)
            if special and type_.dtype.is_float:
                with np.errstate(invalid="ignore"):
                    drawn = rng.choice(np.array(SPECIAL), closed.shape).astype(type_.dtype.numpy)
                array = np.where(rng.random(closed.shape) < 1 / 3, drawn, array)
            arrays[f"x{place}"] = array
        return arrays

    def node(self, graph: Graph) -> Value:
        """The op on inputs x0, x1, … of `graph`."""
        roles = ["data" if OPEN in type_.shape else "argument" for type_ in self.operands]
        inputs = [
            graph.input(f"x{place}", type_, role)
            for place, (type_, role) in enumerate(zip(self.operands, roles, strict=True))
        ]
        return graph.apply(self.op, *inputs)

    def graph(self) -> Graph:
        """The op alone, its result as output "result"."""
        graph = Graph(self.op.name)
        graph.output("result", self.node(graph))
        return graph


def types(text: str) -> tuple[TensorType, ...]:
    """Read types as they are printed, separated by blanks: "f32[3,5] i32[]"."""
    found = re.findall(r"(\w+)\[([^\]]*)\]", text)
    return tuple(
        TensorType(as_dtype(dtype), tuple(OPEN if size == "?" else int(size) for size in sizes.split(",") if size))
        for dtype, sizes in found
    )


def case(op: Op, operands: str, *samplers: Sampler, ulps: float = 0.0, length: int = 1, smooth: bool = True) -> OpCase:
    """A line of the table; the last sampler also serves the operands that have none of their own."""
    read = types(operands)
    filled = (samplers + samplers[-1:] * len(read))[: len(read)]
    return OpCase(op, read, filled, ulps, length, smooth)


# Samplers. Those for smooth cases keep their distance from kinks, poles and ties, so that differences are derivatives.


def normal(rng: np.random.Generator, type_: TensorType) -> np.ndarray:
    return rng.normal(size=type_.shape)


def wide(rng: np.random.Generator, type_: TensorType) -> np.ndarray:
    return 20 * rng.normal(size=type_.shape)


def positive(rng: np.random.Generator, type_: TensorType) -> np.ndarray:
    return rng.uniform(0.5, 3.0, type_.shape)


def nonzero(rng: np.random.Generator, type_: TensorType) -> np.ndarray:
    return rng.uniform(0.5, 3.0, type_.shape) * rng.choice([-1, 1], type_.shape)


def above_minus_one(rng: np.random.Generator, type_: TensorType) -> np.ndarray:
    return rng.uniform(-0.7, 3.0, type_.shape)


def between_integers(rng: np.random.Generator, type_: TensorType) -> np.ndarray:
    return rng.integers(-9, 9, type_.shape) + rng.uniform(0.1, 0.4, type_.shape)


def apart(rng: np.random.Generator, type_: TensorType) -> np.ndarray:
    """No two elements are near each other, nor near an element of `between`."""
    return rng.permutation(type_.size).reshape(type_.shape) - type_.size // 2 + rng.uniform(0, 0.2, type_.shape)


def between(rng: np.random.Generator, type_: TensorType) -> np.ndarray:
    return rng.integers(-8, 8, type_.shape) + rng.uniform(0.4, 0.8, type_.shape)


def integers(rng: np.random.Generator, type_: TensorType) -> np.ndarray:
    low = 0 if type_.dtype == U8 else -9
    return rng.integers(low, 10, type_.shape)


def extreme(rng: np.random.Generator, type_: TensorType) -> np.ndarray:
    """Integers over the whole range, its ends, and small ones."""
    limits = np.iinfo(type_.dtype.numpy)
    ends = np.array([limits.min, limits.max, 0, 1, limits.max // 3], type_.dtype.numpy)
    anywhere = rng.integers(limits.min, limits.max, type_.shape, type_.dtype.numpy, endpoint=True)
    return np.where(rng.random(type_.shape) < 0.5, rng.choice(ends, type_.shape), anywhere)


def bits(rng: np.random.Generator, type_: TensorType) -> np.ndarray:
    return rng.integers(0, 2, type_.shape)


def rows(count: int, beyond: int = 0) -> Sampler:
    """Indices of `count` rows, and of `beyond` more on both sides that do not exist."""
    return lambda rng, type_: rng.integers(-beyond if type_.dtype != U8 else 0, count + beyond, type_.shape)


CASES: list[OpCase] = [
    # Elementwise, one operand.
    case(Negative(), "f32[3,5]", normal),
    case(Negative(), "i32[7]", extreme),
    case(Absolute(), "f32[3,5]", nonzero),
    case(Absolute(), "i64[7]", integers),
    case(Absolute(), "u8[7]", integers),
    case(Sign(), "f32[3,5]", nonzero),
    case(Sign(), "i32[9]", integers),
    case(Sign(), "u8[9]", integers),
    case(Floor(), "f32[3,5]", between_integers),
    case(Ceil(), "f32[3,5]", between_integers),
    case(Round(), "f32[3,5]", between_integers),
    case(Round(), "f32[64]", lambda rng, type_: rng.integers(-9, 9, type_.shape) / 2, smooth=False),
    case(Exp(), "f32[3,5]", normal, ulps=4),
    case(Exp(), "f32[64]", wide, ulps=4, smooth=False),
    case(Expm1(), "f32[3,5]", normal, ulps=4),
    case(Log(), "f32[3,5]", positive, ulps=4),
    case(Log1p(), "f32[3,5]", above_minus_one, ulps=4),
    case(Sqrt(), "f32[3,5]", positive),
    case(Tanh(), "f32[3,5]", normal, ulps=4),
    case(Sigmoid(), "f32[3,5]", normal, ulps=4),
    case(Sigmoid(), "f32[64]", wide, ulps=4, smooth=False),
    case(Erf(), "f32[3,5]", normal, ulps=4),
    case(LogicalNot(), "bool[9]", bits),
    case(Convert(F64), "f32[3,5]", normal),
    case(Convert(F32), "u8[3,5]", integers),
    case(Convert(F32), "i64[9]", extreme),
    case(Convert(I32), "f32[9]", wide, smooth=False),
    case(Convert(I32), "bool[9]", bits),
    case(Convert(I64), "i32[9]", extreme),
    case(Convert(U8), "f32[64]", wide, smooth=False),
    case(Convert(U8), "i32[9]", integers),
    case(Convert(BOOL), "f32[9]", normal, smooth=False),
    case(Convert(BF16), "f32[3,5]", normal, smooth=False),
    case(Convert(F32), "bf16[3,5]", normal, smooth=False),
    case(Convert(I32), "bf16[9]", wide, smooth=False),
    # Elementwise, two operands.
    case(Add(), "f32[3,5] f32[5]", normal),
    case(Add(), "i32[9] i32[9]", extreme),
    case(Subtract(), "f32[3,5] f32[3,1]", normal),
    case(Subtract(), "u8[9] u8[9]", extreme),
    case(Multiply(), "f32[3,5] f32[5]", normal),
    case(Multiply(), "i64[9] i64[]", extreme),
    case(Divide(), "f32[3,5] f32[5]", normal, nonzero),
    case(FloorDivide(), "f32[3,5] f32[5]", between_integers, lambda rng, type_: np.full(type_.shape, 1.0)),
    case(FloorDivide(), "i32[64] i32[64]", extreme, integers),
    case(FloorDivide(), "u8[64] u8[64]", extreme, integers),
    case(Remainder(), "f32[3,5] f32[5]", positive, lambda rng, type_: np.full(type_.shape, 5.0)),
    case(Remainder(), "i32[64] i32[64]", extreme, integers),
    case(Remainder(), "i64[64] i64[64]", integers, integers),
    case(Power(), "f32[3,5] f32[5]", positive, normal, ulps=8),
    case(Maximum(), "f32[3,5] f32[5]", apart, between),
    case(Maximum(), "i32[9] i32[9]", extreme),
    case(Minimum(), "f32[3,5] f32[5]", apart, between),
    case(Minimum(), "u8[9] u8[9]", extreme),
    case(Equal(), "i32[64] i32[]", integers),
    case(Equal(), "bool[9] bool[9]", bits),
    case(NotEqual(), "f32[3,5] f32[5]", apart, between),
    case(Less(), "f32[3,5] f32[5]", apart, between),
    case(Less(), "u8[64] u8[64]", extreme),
    case(LessEqual(), "i64[64] i64[64]", integers),
    case(Greater(), "f32[3,5] f32[5]", apart, between),
    case(GreaterEqual(), "i32[64] i32[64]", integers),
    case(LogicalAnd(), "bool[3,5] bool[5]", bits),
    case(LogicalOr(), "bool[9] bool[9]", bits),
    case(LogicalXor(), "bool[9] bool[9]", bits),
    case(Select(), "bool[3,5] f32[5] f32[3,1]", bits, normal),
    case(Select(), "bool[9] i32[9] i32[]", bits, integers),
    # Movement.
    case(Reshape((5, 6)), "f32[2,3,5]", normal),
    case(Reshape((2, 15, 1)), "f32[2,3,5]", normal),
    case(Reshape((4, 1, 6, 5)), "i32[4,2,15]", integers),
    case(Reshape(()), "f32[1,1]", normal),
    case(Transpose((2, 0, 1)), "f32[2,3,5]", normal),
    case(Transpose((1, 0)), "u8[17,33]", integers),
    case(BroadcastTo((4, 3, 5)), "f32[3,1]", normal),
    case(BroadcastTo((2, 3)), "bool[]", bits),
    case(Slice((1, 0), (4, 9), (1, 2)), "f32[5,9]", normal),
    case(Slice((3,), (3,), (1,)), "f32[5]", normal),
    case(Pad((1, 0), (2, 3), (0, 0)), "f32[3,5]", normal),
    case(Pad((0, 2), (1, 0), (2, 1)), "f32[3,5]", normal),
    case(Pad((2,), (1,), (0,)), "bool[4]", bits),
    case(Concatenate(1), "f32[3,5] f32[3,2] f32[3,4]", normal),
    case(Concatenate(0), "i32[3] i32[0] i32[2]", integers),
    case(Pad((1, 0), (2, 3), (0, 0)), "bf16[3,5]", normal, smooth=False),
    case(Concatenate(1), "bf16[3,5] bf16[3,2]", normal, smooth=False),
    case(Reverse((0,)), "f32[3,5]", normal),
    case(Reverse((0, 2)), "i32[2,3,17]", integers),
    case(Iota((3, 5), 0, I32), "", normal),
    case(Iota((3, 5), 1, F32), "", normal),
    case(Iota((300,), 0, U8), "", normal),
    case(StopGradient(), "f32[3,5]", normal, smooth=False),
    case(CustomGradient(0), "f32[3,5] f32[5]", normal, smooth=False),
    # Reductions.
    case(Sum((1,)), "f32[3,5]", normal, length=5),
    case(Sum((0, 2)), "f32[3,5,4]", normal, length=12),
    case(Sum((0,)), "i32[100,3]", extreme),
    case(Prod((1,)), "f32[3,5]", nonzero, ulps=8),
    case(Prod((0, 2)), "f32[3,2,1]", nonzero, ulps=8),
    case(Prod((0,)), "i64[9]", integers),
    case(Max((1,)), "f32[3,5]", apart),
    case(Max((0, 1)), "f32[3,5]", apart),
    case(Max((0,)), "u8[100,3]", extreme),
    case(Max((1,)), "bool[9,2]", bits),
    case(Min((0,)), "f32[3,5]", apart),
    case(Min((0, 1)), "i32[3,33]", extreme),
    case(Min((1,)), "bool[9,2]", bits),
    # Contractions.
    case(Matmul(False, False), "f32[3,4] f32[4,5]", normal, length=4),
    case(Matmul(True, False), "f32[4,3] f32[4,5]", normal, length=4),
    case(Matmul(False, True), "f32[3,4] f32[5,4]", normal, length=4),
    case(Matmul(True, True), "f32[4,3] f32[5,4]", normal, length=4),
    case(Matmul(False, True), "f32[2,1,3,4] f32[3,5,4]", normal, length=4),
    case(Matmul(False, False), "bf16[7,4] bf16[4,37]", normal, length=4, smooth=False),
    case(Matmul(True, True), "bf16[40,30] bf16[50,40]", normal, length=40, smooth=False),
    case(Matmul(False, True), "bf16[2,1,3,40] bf16[3,5,40]", normal, length=40, smooth=False),
    # Convolutions: 1x1; 3x3 with padding; strides, asymmetric padding and pixels that no window reaches; dilation;
    # groups; depthwise; a stride larger than the window; a window as large as the padded image.
    case(Conv2D(), "f32[2,3,4,5] f32[1,1,5,7]", normal, length=5),
    case(Conv2D(padding=((1, 1), (1, 1))), "f32[2,5,4,3] f32[3,3,3,2]", normal, length=27),
    case(Conv2D((2, 2), ((0, 1), (1, 0))), "f32[1,7,6,2] f32[3,2,2,17]", normal, length=12),
    case(Conv2D((1, 2), ((2, 2), (0, 1)), (2, 3)), "f32[2,6,9,2] f32[3,2,2,3]", normal, length=12),
    case(Conv2D((2, 1), groups=2), "f32[2,5,4,4] f32[2,3,2,6]", normal, length=12),
    case(Conv2D(padding=((1, 1), (1, 1)), groups=5), "f32[1,4,4,5] f32[3,3,1,10]", normal, length=9),
    case(Conv2D((3, 3)), "f32[1,7,8,2] f32[1,2,2,3]", normal, length=4),
    case(Conv2D(padding=((0, 1), (0, 0))), "f32[2,3,2,3] f32[4,2,3,2]", normal, length=24),
    case(Conv2D((2, 2), ((0, 1), (1, 0))), "bf16[1,17,16,9] bf16[3,2,9,17]", normal, length=54, smooth=False),
    case(Conv2D((2, 1), groups=2), "bf16[2,5,4,4] bf16[2,3,2,6]", normal, length=12, smooth=False),
    case(Conv2DInputGrad((3, 4)), "f32[2,3,4,7] f32[1,1,5,7]", normal, length=7),
    case(Conv2DInputGrad((5, 4), padding=((1, 1), (1, 1))), "f32[2,5,4,2] f32[3,3,3,2]", normal, length=18),
    case(Conv2DInputGrad((7, 6), (2, 2), ((0, 1), (1, 0))), "f32[1,3,3,5] f32[3,2,2,5]", normal, length=30),
    case(Conv2DInputGrad((6, 9), (1, 2), ((2, 2), (0, 1)), (2, 3)), "f32[2,6,4,3] f32[3,2,2,3]", normal, length=18),
    case(Conv2DInputGrad((5, 4), (2, 1), groups=2), "f32[2,2,2,6] f32[2,3,2,6]", normal, length=18),
    case(Conv2DInputGrad((7, 8), (3, 3)), "f32[1,3,3,3] f32[1,2,2,3]", normal, length=6),
    case(
        Conv2DInputGrad((7, 6), (2, 2), ((0, 1), (1, 0))),
        "bf16[1,3,3,5] bf16[3,2,2,5]",
        normal,
        length=30,
        smooth=False,
    ),
    case(Conv2DKernelGrad((1, 1)), "f32[2,3,4,5] f32[2,3,4,7]", normal, length=24),
    case(Conv2DKernelGrad((3, 3), padding=((1, 1), (1, 1))), "f32[2,5,4,3] f32[2,5,4,2]", normal, length=40),
    case(Conv2DKernelGrad((3, 2), (2, 2), ((0, 1), (1, 0))), "f32[1,7,6,2] f32[1,3,3,5]", normal, length=9),
    case(Conv2DKernelGrad((3, 2), (1, 2), ((2, 2), (0, 1)), (2, 3)), "f32[2,6,9,2] f32[2,6,4,3]", normal, length=48),
    case(Conv2DKernelGrad((2, 3), (2, 1), groups=2), "f32[2,5,4,4] f32[2,2,2,6]", normal, length=8),
    case(Conv2DKernelGrad((1, 2), (3, 3)), "f32[1,7,8,2] f32[1,3,3,3]", normal, length=9),
    case(
        Conv2DKernelGrad((3, 3), padding=((1, 1), (1, 1))),
        "bf16[2,5,4,3] bf16[2,5,4,2]",
        normal,
        length=40,
        smooth=False,
    ),
    # Convolutions on tiles: both sizes of tiles; parts of tiles; padding.
    case(WinogradKernel(2), "f32[3,3,3,5]", normal, length=9, smooth=False),
    case(WinogradKernel(4), "f32[3,3,2,17]", normal, length=9, smooth=False),
    case(WinogradConv2D(2, ((1, 1), (1, 0))), "f32[2,5,4,3] f32[4,4,3,5]", normal, length=27, smooth=False),
    case(WinogradConv2D(4), "f32[1,10,7,2] f32[6,6,2,17]", normal, length=18, smooth=False),
    case(WinogradConv2DKernelGrad(2, ((1, 1), (1, 1))), "f32[2,4,6,3] f32[2,4,6,5]", normal, length=48, smooth=False),
    case(WinogradKernel(4), "bf16[3,3,2,17]", normal, length=9, smooth=False),
    case(WinogradConv2D(4), "bf16[1,10,7,2] bf16[6,6,2,17]", normal, length=18, smooth=False),
    case(WinogradConv2DKernelGrad(2), "bf16[2,4,6,3] bf16[2,2,4,5]", normal, length=16, smooth=False),
    # Pooling: side by side; overlapping, with padding before, behind and both; a stride larger than the window; ties.
    case(MaxPool((2, 2), (2, 2)), "f32[2,4,6,5]", apart),
    case(MaxPool((3, 2), (2, 1), ((1, 1), (0, 1))), "f32[2,5,4,17]", apart),
    case(MaxPool((1, 2), (2, 3)), "f32[1,5,7,3]", apart),
    case(MaxPool((3, 3), (1, 1), ((2, 2), (1, 0))), "i32[2,2,4,3]", integers),
    case(MaxPool((2, 3), (2, 1), ((0, 1), (1, 1))), "u8[1,3,3,33]", integers),
    case(MaxPoolGrad((2, 2), (2, 2)), "f32[2,4,6,5] f32[2,2,3,5]", apart, normal),
    case(MaxPoolGrad((3, 2), (2, 1), ((1, 1), (0, 1))), "f32[2,5,4,17] f32[2,3,4,17]", apart, normal),
    case(MaxPoolGrad((1, 2), (2, 3)), "f32[1,5,7,3] f32[1,3,2,3]", apart, normal),
    case(MaxPoolGrad((3, 3), (1, 1), ((2, 2), (1, 1))), "f32[1,3,4,4] f32[1,5,4,4]", integers, smooth=False),
    case(MaxPoolSelect((2, 2), (2, 2)), "f32[2,4,6,5] f32[2,4,6,5]", apart, normal),
    case(MaxPoolSelect((3, 2), (2, 1), ((1, 1), (0, 1))), "f32[2,5,4,17] f32[2,5,4,17]", apart, normal),
    case(MaxPoolSelect((3, 3), (1, 1), ((2, 2), (1, 1))), "f32[1,3,4,4] f32[1,3,4,4]", integers, smooth=False),
    case(SumPool((2, 2), (2, 2)), "f32[2,4,6,5]", normal),
    case(SumPool((3, 2), (2, 1), ((1, 1), (0, 1))), "f32[2,5,4,17]", normal),
    case(SumPool((3, 3), (1, 1), ((1, 1), (1, 1))), "f32[2,4,3,3]", normal),
    case(SumPool((1, 2), (2, 3)), "i32[1,5,7,3]", integers),
    case(SumPoolGrad((4, 6), (2, 2), (2, 2)), "f32[2,2,3,5]", normal),
    case(SumPoolGrad((5, 4), (3, 2), (2, 1), ((1, 1), (0, 1))), "f32[2,3,4,17]", normal),
    case(SumPoolGrad((4, 3), (3, 3), (1, 1), ((1, 1), (1, 1))), "f32[2,4,3,3]", normal),
    case(SumPoolGrad((5, 7), (1, 2), (2, 3)), "i32[1,3,2,3]", integers),
    # Random numbers.
    case(RandomUniform((5, 37), 3), "i64[]", extreme),
    case(RandomUniform((2, 3, 4, 5), 0), "i64[]", integers),
    # Rows by index.
    case(Gather(), "f32[7,3] i32[4]", normal, rows(7, beyond=2)),
    case(Gather(), "bf16[7,3] i32[4]", normal, rows(7), smooth=False),
    case(Gather(), "f32[7] i64[2,3]", normal, rows(7)),
    case(Gather(), "u8[?,2,3] i32[5]", integers, rows(DATA_ROWS)),
    case(Gather(), "f32[7,3] u8[]", normal, rows(7)),
    case(ScatterAdd(7), "f32[9,3] i32[9]", normal, rows(7, beyond=2), length=9),
    case(ScatterAdd(4), "f32[2,3] u8[2,3]", normal, rows(4), length=6),
    case(ScatterAdd(3), "i32[9,2] i64[9]", integers, rows(3)),
]

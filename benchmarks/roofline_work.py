"""What a kernel has to do at least: the FLOPs of its contraction and of what is fused with it, and its bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gradloom.compiler.ir import Group, Value
from gradloom.compiler.ops.base import Contraction, Elementwise, Reduction
from gradloom.compiler.ops.contractions import Matmul
from gradloom.compiler.ops.convolution import Conv2D, Conv2DKernelGrad, Convolution
from gradloom.compiler.ops.winograd import TAPS, WinogradConv2D, WinogradConv2DKernelGrad
from gradloom.compiler.pipeline import Lowering
from gradloom.compiler.schedule import Launch
from gradloom.compiler.types import OPEN


def work_of(group: Group) -> tuple[str, str, float, float]:
    """The kind of a group, its name, the FLOPs that it executes, and those of its definition."""
    mapped = [value.type.size for value in group.members if isinstance(value.op, Elementwise)]
    rest = sum(mapped) + sum(v.inputs[0].type.size for v in group.members if isinstance(v.op, Reduction))
    node = next((value for value in group.members if isinstance(value.op, Contraction)), None)
    if node is None:
        sizes = [v.shape for value in group.members for v in (value, *value.inputs)]
        shape = "×".join(map(str, max(sizes, key=math.prod, default=())))
        what = {"map": "map", "rows": "rows", "reduce": "sums"}.get(group.kind, group.kind)
        return "element by element", f"{what} {shape}" if sizes else "borders of zeros", rest, rest
    kind, name, executed, defined = _contraction(node, group.name.split("/")[0].replace(",", ", "))
    return kind, name, executed + rest, defined + rest


def _contraction(node: Value, layer: str) -> tuple[str, str, float, float]:
    op, (a, b) = node.op, (*node.inputs, *node.inputs)[:2]
    if isinstance(op, Matmul):
        depth = op.matrix_a(a.type)[1]
        flops = 2.0 * node.type.size * depth
        return "matrix product", f"{layer}: {node.shape[-2]}×{depth}×{node.shape[-1]}", flops, flops
    if isinstance(op, Convolution):
        y, kernel = (node, b) if isinstance(op, Conv2D) else (b, node) if isinstance(op, Conv2DKernelGrad) else (a, b)
        u, _, c, o = kernel.shape
        size = f"{u}×{u}{'/2' if op.strides[0] > 1 else ''} {c}→{o}, {y.shape[1]}²"
        flops = 2.0 * y.type.size * math.prod(kernel.shape[:3])
        if isinstance(op, Conv2DKernelGrad):
            return "gradient of kernels", f"∂k {size}", flops, flops
        return f"{u}×{u}", size if isinstance(op, Conv2D) else f"∂x {size}", flops, flops
    if isinstance(op, WinogradConv2D | WinogradConv2DKernelGrad):
        y = node if isinstance(op, WinogradConv2D) else b
        c, o = a.shape[3], y.shape[3]
        tiles = y.shape[0] * math.prod(-(-size // op.tile) for size in y.shape[1:3])
        executed, defined = 2.0 * (op.tile + TAPS - 1) ** 2 * tiles * c * o, 2.0 * TAPS**2 * y.type.size * c
        size = f"F({op.tile}×{op.tile}) {c}→{o}, {y.shape[1]}²"
        if y is node:
            return "Winograd", size, executed, defined
        return "gradient of kernels", f"∂k {size}", executed, defined
    return "element by element", f"transform of kernels {a.shape[2]}→{a.shape[3]}", 2.0 * node.type.size * TAPS, 0.0


def compulsory_bytes(launches: Sequence[Launch], lowering: Lowering, batch: int) -> float:
    """Compulsory bytes of launches that are one work: parameters that are replaced are read and written."""
    total = 0.0
    for buffer in {buffer for launch in launches for buffer in launch.buffers}:
        place = lowering.scheduled.places.get(buffer)
        given = lowering.arguments[place.at] if place and isinstance(place.at, int) else None
        twice = given is not None and given.written and given.role != "result"
        twice = twice and any(launch.footprints[buffer].writes for launch in launches if buffer in launch.footprints)
        rows = [batch if size == OPEN else size for size in buffer.type.shape]
        border = buffer.nbytes - buffer.type.nbytes if OPEN not in buffer.type.shape else 0
        whole = math.prod(rows) * buffer.type.dtype.itemsize
        total += whole * (1 + twice) if launches[0].group.members else border
    return total

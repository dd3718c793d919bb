"""What a kernel has to do at least: its FLOPs, its bytes, and the layers that it does them for."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gradloom.compiler.ir import Graph, Group, Value
from gradloom.compiler.kernels.contraction import multiplications_by_kernel
from gradloom.compiler.ops.base import Contraction, Elementwise, Reduction
from gradloom.compiler.ops.contractions import Matmul
from gradloom.compiler.ops.convolution import Conv2D, Conv2DKernelGrad, Convolution
from gradloom.compiler.ops.winograd import TAPS, WinogradConv2D, WinogradConv2DKernelGrad
from gradloom.compiler.pipeline import Lowering
from gradloom.compiler.schedule import Launch
from gradloom.compiler.types import OPEN

ELEMENTWISE = "element by element"
"""The kind of work that is no contraction."""


@dataclass(frozen=True)
class Credit:
    """Whom a part of a kernel's work is done for: a layer, or what stands beside layers, and its gradient or not."""

    path: str
    gradient: bool = False


def work_of(group: Group) -> tuple[str, str, float, float]:
    """The kind of a group, its name, the FLOPs that it executes, and those of its definition."""
    pairs = [flops_of(value) for value in group.members]
    executed, defined = sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)
    node = next((value for value in group.members if isinstance(value.op, Contraction)), None)
    if node is None:
        sizes = [v.shape for value in group.members for v in (value, *value.inputs)]
        shape = "×".join(map(str, max(sizes, key=math.prod, default=())))
        what = {"map": "map", "rows": "rows", "reduce": "sums"}.get(group.kind, group.kind)
        return ELEMENTWISE, f"{what} {shape}" if sizes else "borders of zeros", executed, defined
    kind, name = _contraction(node, group.name.split("/")[0].replace(",", ", "))
    return kind, name, executed, defined


def flops_of(node: Value) -> tuple[float, float]:
    """The FLOPs that a node takes as it is computed, and by its definition.

    A multiply-add is two. Elementwise ops count one for each element of their result, whatever the function;
    reductions one for each of their operand; what moves or chooses numbers by their place counts none. They differ
    where an algorithm spares multiplications: Winograd's, the transformation of whose kernels is not in the definition.
    """
    op, (a, b) = node.op, (*node.inputs, node, node)[:2]
    if isinstance(op, Elementwise):
        return float(node.type.size), float(node.type.size)
    if isinstance(op, Reduction):
        return float(a.type.size), float(a.type.size)
    if isinstance(op, Matmul):
        flops = 2.0 * node.type.size * op.matrix_a(a.type)[1]
        return flops, flops
    if isinstance(op, Convolution):
        image, kernel = _image_and_kernel(node)
        flops = 2.0 * image.type.size * math.prod(kernel.shape[:3])
        return flops, flops
    if isinstance(op, WinogradConv2D | WinogradConv2DKernelGrad):
        y = node if isinstance(op, WinogradConv2D) else b
        c, o = a.shape[3], y.shape[3]
        tiles = y.shape[0] * math.prod(-(-size // op.tile) for size in y.shape[1:3])
        return 2.0 * (op.tile + TAPS - 1) ** 2 * tiles * c * o, 2.0 * TAPS**2 * y.type.size * c
    if isinstance(op, Contraction):
        return 2.0 * node.type.size * TAPS, 0.0
    return 0.0, 0.0


def _image_and_kernel(node: Value) -> tuple[Value, Value]:
    """The result of a convolution, or what takes its place in its gradients, and its kernel."""
    a, b = node.inputs[:2]
    return (node, b) if isinstance(node.op, Conv2D) else (b, node) if isinstance(node.op, Conv2DKernelGrad) else (a, b)


def _contraction(node: Value, layer: str) -> tuple[str, str]:
    op, (a, b) = node.op, (*node.inputs, *node.inputs)[:2]
    if isinstance(op, Matmul):
        return "matrix product", f"{layer}: {node.shape[-2]}×{op.matrix_a(a.type)[1]}×{node.shape[-1]}"
    if isinstance(op, Convolution):
        y, kernel = _image_and_kernel(node)
        u, _, c, o = kernel.shape
        size = f"{u}×{u}{'/2' if op.strides[0] > 1 else ''} {c}→{o}, {y.shape[1]}²"
        if isinstance(op, Conv2DKernelGrad):
            return "gradient of kernels", f"∂k {size}"
        return f"{u}×{u}", size if isinstance(op, Conv2D) else f"∂x {size}"
    if isinstance(op, WinogradConv2D | WinogradConv2DKernelGrad):
        y = node if isinstance(op, WinogradConv2D) else b
        size = f"F({op.tile}×{op.tile}) {a.shape[3]}→{y.shape[3]}, {y.shape[1]}²"
        return ("Winograd", size) if y is node else ("gradient of kernels", f"∂k {size}")
    return ELEMENTWISE, f"transform of kernels {a.shape[2]}→{a.shape[3]}"


def shares_of(launches: Sequence[Launch]) -> list[float]:
    """Which part of its group's work each launch does: a strided convolution's gradient is several products."""
    count = defaultdict[Group, int](int)
    for launch in launches:
        count[launch.group] += 1
    seen = defaultdict[Group, int](int)
    shares = []
    for launch in launches:
        group = launch.group
        node = next((value for value in group.members if isinstance(value.op, Contraction)), None)
        products = [1] if node is None or count[group] == 1 else [n for n in multiplications_by_kernel(node) if n]
        parts = products if len(products) == count[group] else [1] * count[group]
        shares.append(parts[seen[group]] / sum(parts))
        seen[group] += 1
    return shares


def shares_of_nodes(group: Group) -> dict[Value, float]:
    """The parts of a group's work that its nodes do; they add up to 1.

    They share by the FLOPs that they execute, in a group without any by the elements that they write.
    """
    nodes = group.members or group.results
    weights = [flops_of(node)[0] for node in nodes]
    if not any(weights):
        weights = [float(max(1, node.type.size)) for node in nodes]
    total = sum(weights)
    return {node: weight / total for node, weight in zip(nodes, weights, strict=True)}


def credits_of(group: Group, graph: Graph) -> Mapping[Credit, float]:
    """Whom a group works for, with shares that add up to 1.

    A node that belongs to several layers is shared equally. Where no layer is known, it is the user's line that counts.
    """
    shares: dict[Credit, float] = defaultdict(float)
    for node, share in shares_of_nodes(group).items():
        origins = graph.provenance.get(node, frozenset())
        owners = {Credit(origin.layer or _line(origin.source), origin.forward is not None) for origin in origins}
        for owner in owners or {Credit("")}:
            shares[owner] += share / len(owners or {None})
    return {owner: share for owner, share in shares.items() if share}


def _line(source: str) -> str:
    return source.rpartition("/")[2]


def compulsory_bytes(launches: Sequence[Launch], lowering: Lowering, rows: int) -> float:
    """Compulsory bytes of launches that are one work: parameters that are replaced are read and written.

    rows: how many rows of a data set a step reads.
    """
    return sum(bytes_by_argument(launches, lowering, rows))


def bytes_by_argument(launches: Sequence[Launch], lowering: Lowering, rows: int) -> tuple[float, float]:
    """Compulsory bytes of the step's arguments, which it comes back to once a step, and of intermediate results."""
    arguments = intermediate = 0.0
    for buffer in {buffer for launch in launches for buffer in launch.buffers}:
        place = lowering.scheduled.places.get(buffer)
        given = lowering.arguments[place.at] if place and isinstance(place.at, int) else None
        twice = given is not None and given.written and given.role != "result"
        twice = twice and any(launch.footprints[buffer].writes for launch in launches if buffer in launch.footprints)
        sizes = [rows if size == OPEN else size for size in buffer.type.shape]
        border = buffer.nbytes - buffer.type.nbytes if OPEN not in buffer.type.shape else 0
        whole = math.prod(sizes) * buffer.type.dtype.itemsize
        # What clears a border has no other buffer, and leaves the inside as it is.
        nbytes = whole * (1 + twice) if len(launches[0].buffers) > 1 or launches[0].group.members else border
        if given is None:
            intermediate += nbytes
        else:
            arguments += nbytes
    return arguments, intermediate

"""Kernels of contractions: which kind of kernel suits a matrix product, or a convolution."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gradloom.compiler.choices import Division
from gradloom.compiler.ir import Value
from gradloom.compiler.kernels.convolution import products
from gradloom.compiler.kernels.division import PACK_ROWS, divisions
from gradloom.compiler.kernels.inner_product import InnerProduct
from gradloom.compiler.kernels.lowering import Lowered, Machine, Task
from gradloom.compiler.kernels.outer_product import OuterProduct
from gradloom.compiler.kernels.product import MatrixProduct, Product
from gradloom.compiler.kernels.winograd import Forward, lower_winograd_kernel
from gradloom.compiler.kernels.winograd_gradient import KernelGradient
from gradloom.compiler.ops.base import Contraction
from gradloom.compiler.ops.contractions import Matmul
from gradloom.compiler.ops.winograd import WinogradConv2D, WinogradConv2DKernelGrad, WinogradKernel


def lower_contraction(task: Task) -> list[Lowered]:
    """Lower a group of kind "contraction": one kernel, or one for each phase of a strided convolution's gradient."""
    (node,) = (value for value in task.group.members if isinstance(value.op, Contraction))
    if isinstance(node.op, WinogradKernel):
        return [lower_winograd_kernel(task)]
    if isinstance(node.op, WinogradConv2D):
        return [Forward(task).lower()]
    if isinstance(node.op, WinogradConv2DKernelGrad):
        return [KernelGradient(task).lower()]
    if (inner := _inner_product(node, task.lanes)) is not None:
        return [InnerProduct(task, inner).lower()]
    return [OuterProduct(task, product).lower() for product in _products(node)]


def other_divisions(node: Value, machine: Machine) -> list[Division]:
    """The ways to divide a contraction's product, computed by the definition, besides the one of the cost model.

    Where a contraction is several products they are those of the largest.
    """
    lanes = machine.lanes([node.dtype, *(operand.dtype for operand in node.inputs)])
    if _inner_product(node, lanes) is not None or not node.type.size:
        return []
    return divisions(max(_products(node), key=_multiplications), lanes, machine)


def multiplications(node: Value) -> int:
    """How many multiplications the definition of a contraction takes."""
    return sum(multiplications_by_kernel(node))


def multiplications_by_kernel(node: Value) -> list[int]:
    """How many multiplications each of a contraction's kernels does; of none that is 0 there is a kernel."""
    return list(map(_multiplications, _products(node)))


def _multiplications(product: Product) -> int:
    return math.prod(product.batch) * product.rows * product.columns * math.prod(product.depth)


def _products(node: Value) -> Sequence[Product]:
    """The matrix products that a contraction consists of."""
    return [MatrixProduct.of(node)] if isinstance(node.op, Matmul) else products(node)


def _inner_product(node: Value, lanes: int) -> MatrixProduct | None:
    """The product of a contraction whose vector lanes had better lie along the contracted axis."""
    if not isinstance(node.op, Matmul):
        return None
    product, op = MatrixProduct.of(node), node.op
    few_columns = product.columns < 2 * lanes or product.rows < PACK_ROWS
    suits = op.transpose_b and not op.transpose_a and few_columns and product.depth[0] >= lanes
    return product if suits else None

"""Kernels of contractions: which kind of kernel suits a matrix product, or a convolution."""

from __future__ import annotations

from gradloom.compiler.kernels.convolution import products
from gradloom.compiler.kernels.inner_product import InnerProduct
from gradloom.compiler.kernels.lowering import Lowered, Task
from gradloom.compiler.kernels.outer_product import PACK_ROWS, OuterProduct
from gradloom.compiler.kernels.product import MatrixProduct
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
    if not isinstance(node.op, Matmul):
        return [OuterProduct(task, product).lower() for product in products(node)]
    product, op = MatrixProduct.of(node), node.op
    few_columns = product.columns < 2 * task.lanes or product.rows < PACK_ROWS
    if op.transpose_b and not op.transpose_a and few_columns and product.depth[0] >= task.lanes:
        return [InnerProduct(task, product).lower()]
    return [OuterProduct(task, product).lower()]

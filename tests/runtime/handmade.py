"""Programs for tests of the runtime, made of small hand-written kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gradloom.compiler.loops.builder import Builder
from gradloom.compiler.loops.grammar import Buffer, Kernel, nbytes
from gradloom.compiler.program import Argument, Program, Step
from gradloom.compiler.types import F32, I32, I64, DType, TensorType


def tensor(dtype: DType, *shape: int) -> TensorType:
    return TensorType(dtype, shape)


def make_program(
    kernels: Sequence[Kernel],
    schedule: Sequence[Step],
    arguments: Sequence[Argument],
    arena_bytes: int = 0,
    max_threads: int = 8,
) -> Program:
    """Compile kernels and the driver around them."""
    from gradloom.compiler.llvm.codegen import compile_module
    from gradloom.compiler.llvm.driver import emit_driver
    from gradloom.compiler.llvm.emit import emit_kernel, new_module
    from gradloom.compiler.llvm.target import Target

    target = Target.host()
    module = new_module("test", target)
    for kernel in kernels:
        emit_kernel(module, kernel, target)
    scratch_bytes = max((nbytes(kernel.scratch) for kernel in kernels), default=0)
    emit_driver(module, schedule, arguments, arena_bytes, scratch_bytes)
    return Program(
        "test",
        (compile_module(module, target),),
        tuple(arguments),
        arena_bytes,
        scratch_bytes,
        max_threads,
        tuple(map(str, schedule)),
    )


def elementwise_kernel(
    name: str, count: int, function: Callable[..., object], reads: int, dtype: DType = I64
) -> Kernel:
    """`out[i] = function(builder, in0[i], in1[i], …)`, one element a block; the result is the last buffer."""
    b = Builder(name)
    buffers = [b.param(Buffer(f"in{number}", tensor(dtype, count))) for number in range(reads)]
    out = b.param(Buffer("out", tensor(dtype, count)))
    with b.parallel(count) as block:
        b.store(out, block.index, function(b, *(b.load(buffer, block.index) for buffer in buffers)))
    return b.kernel(count)


def neighbour_kernel(name: str, count: int) -> Kernel:
    """`out[i] = in[(i + 1) % count] + 1`, one element a block."""
    b = Builder(name)
    source = b.param(Buffer("in", tensor(I64, count)))
    out = b.param(Buffer("out", tensor(I64, count)))
    with b.parallel(count) as block:
        _, neighbour = b.divmod(block.index + 1, count)
        b.store(out, block.index, b.add(b.load(source, neighbour), 1))
    return b.kernel(count)


def gather_kernel(name: str, rows: int, width: int) -> Kernel:
    """`total[j] += data[rows[i], j]` over the step's rows i; one element j a block."""
    b = Builder(name)
    data = b.param(Buffer("data", tensor(F32, -1, width)))
    chosen = b.param(Buffer("rows", tensor(I32, rows)))
    total = b.param(Buffer("total", tensor(F32, width)))
    with b.parallel(width) as block:
        start = b.load(total, block.index)
        with b.loop(0, rows, initial=[start]) as loop:
            row = b.index(b.load(chosen, loop.index))
            element = b.load(data, b.index_add(b.index_scale(row, width), block.index))
            loop.next(b.add(loop.carried[0], element))
        b.store(total, block.index, loop.results[0])
    return b.kernel(width)

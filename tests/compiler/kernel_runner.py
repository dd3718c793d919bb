"""Runs a kernel of the loop IR on NumPy arrays: compiled, linked into this process and called once."""

import ctypes
import itertools

import numpy as np

from gradloom.compiler.llvm import codegen, emit
from gradloom.compiler.llvm.target import Target
from gradloom.compiler.loops.grammar import Kernel, nbytes

_numbers = itertools.count()


class CompiledKernel:
    """A kernel in machine code, callable on one array per buffer; arrays are read and written in place."""

    def __init__(self, kernel: Kernel, target: Target | None = None, level: int = 2) -> None:
        import llvmlite.binding as llvm

        self.kernel = kernel
        self.target = target or Target.host()
        module = emit.new_module("test", self.target)
        function = emit.emit_kernel(module, kernel, self.target)
        function.linkage = ""
        self.module = module
        library = llvm.JITLibraryBuilder().add_object_img(codegen.compile_module(module, self.target, level))
        library.add_current_process().export_symbol(function.name)
        self._jit = llvm.create_lljit_compiler(use_jit_link=True)
        self._tracker = library.link(self._jit, f"test{next(_numbers)}")
        pointers = [ctypes.c_void_p] * (len(kernel.buffers) + 1)
        signature = ctypes.CFUNCTYPE(None, *pointers, ctypes.c_int64, ctypes.c_int64)
        self._call = signature(self._tracker[function.name])

    def __call__(self, *arrays: np.ndarray, begin: int = 0, end: int | None = None) -> None:
        for buffer, array in zip(self.kernel.buffers, arrays, strict=True):
            assert array.flags.c_contiguous, buffer.name
            assert array.dtype == buffer.type.dtype.numpy, (buffer.name, buffer.type, array.dtype)
            assert array.size >= abs(buffer.type.size), (buffer.name, buffer.type, array.shape)
        scratch = np.zeros(nbytes(self.kernel.scratch) + 64, np.uint8)
        aligned = -(-scratch.ctypes.data // 64) * 64
        end = self.kernel.blocks if end is None else end
        self._call(*(array.ctypes.data for array in arrays), aligned, begin, end)

    def __del__(self) -> None:
        # The library must go before its linker does.
        self._tracker = None


def run_kernel(kernel: Kernel, *arrays: np.ndarray, target: Target | None = None) -> None:
    """Compile `kernel` for `target` and run all of its blocks on the arrays of its buffers, in place."""
    CompiledKernel(kernel, target)(*arrays)

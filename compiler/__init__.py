"""The compiler: graph IR, ops, gradients, passes, loop IR, kernels, LLVM emission."""

"""LLVM: emission of kernels and of the driver around them, targets, code generation."""

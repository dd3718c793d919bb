"""Loop IR: what a kernel is before it becomes LLVM code."""

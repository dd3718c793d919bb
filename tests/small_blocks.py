"""What makes kernels that are small be cut into blocks, so that threads divide them as if they were large."""

from gradloom.compiler import memory, pipeline, schedule
from gradloom.compiler.kernels import lowering

SETTINGS = (
    (lowering, "BLOCK_COST", 16),
    (schedule, "PANELLED_FROM", 64),
    (memory, "SHARED_FROM", 64),
    (pipeline, "PARALLEL_BYTES", 0),
)
"""Module, name and value of each."""

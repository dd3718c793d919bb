"""What makes kernels that are small be cut into blocks and laid out as if they were large."""

from gradloom.compiler import memory, schedule

SMALL_BLOCKS = {"block_cost": 16, "parallel_bytes": 0}
"""Options with which threads divide all that has more than a few elements."""

SETTINGS = (
    (schedule, "PANELLED_FROM", 64),
    (memory, "SHARED_FROM", 64),
)
"""Of layouts: module, name and value of each."""

"""What tests of the compiler share: kernels that threads divide although they are small."""

import pytest

from gradloom.compiler import memory, pipeline, schedule
from gradloom.compiler.kernels import lowering


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut small kernels into as many blocks, and lay out small matrices in panels, as if they were large."""
    monkeypatch.setattr(lowering, "BLOCK_COST", 16)
    monkeypatch.setattr(schedule, "PANELLED_FROM", 64)
    monkeypatch.setattr(memory, "SHARED_FROM", 64)
    monkeypatch.setattr(pipeline, "PARALLEL_BYTES", 0)

"""What tests of the compiler share: layouts of large matrices for small ones."""

import pytest

from small_blocks import SETTINGS


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lay out small matrices in panels, and let results share memory, as if they were large: with `SMALL_BLOCKS`."""
    for setting in SETTINGS:
        monkeypatch.setattr(*setting)

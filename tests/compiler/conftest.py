"""What tests of the compiler share: kernels that threads divide although they are small."""

import pytest

from small_blocks import SETTINGS


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut small kernels into as many blocks, and lay out small matrices in panels, as if they were large."""
    for setting in SETTINGS:
        monkeypatch.setattr(*setting)

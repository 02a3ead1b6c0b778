"""What the tests of the kernels share."""

from collections.abc import Iterator

import pytest

import spikefold as sf
from spikefold import dynamics


@pytest.fixture
def kernels_only() -> Iterator[None]:
    """No silent fall-back to the reference."""
    missing = dynamics.missing_kernels("cpu")
    if missing is not None:
        pytest.skip(missing)
    with sf.backend("fused"):
        yield

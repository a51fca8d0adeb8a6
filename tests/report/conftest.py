"""A picture to draw on."""

import numpy as np
import pytest


@pytest.fixture
def grey() -> np.ndarray:
    """The second image of ``report_cases.make_table``."""
    return np.full((120, 200, 3), 128, dtype=np.uint8)

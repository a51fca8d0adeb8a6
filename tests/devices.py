"""Where the tests run networks: SNIPER_TEST_DEVICE=cuda runs them on a GPU."""

import os

import pytest

DEVICE = os.environ.get("SNIPER_TEST_DEVICE", "cpu")
if DEVICE == "cpu":
    os.environ.setdefault("TRITON_INTERPRET", "1")  # kernels of a GPU run here too, operation by operation
TRAIN_DEVICE = "cpu" if DEVICE == "cpu" else "auto"  # what train.device takes
# A GPU adds gradients up, and chooses its kernels, in another order each time: equal only within rounding.
bit_for_bit = pytest.mark.skipif(DEVICE != "cpu", reason="bit for bit on the CPU alone")

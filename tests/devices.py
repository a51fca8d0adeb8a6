"""Where the tests run networks: SNIPER_TEST_DEVICE=cuda runs them on a GPU."""

import os

DEVICE = os.environ.get("SNIPER_TEST_DEVICE", "cpu")
TRAIN_DEVICE = "cpu" if DEVICE == "cpu" else "auto"  # what train.device takes

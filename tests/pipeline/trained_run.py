"""What the fixture ``trained`` gives."""

from pathlib import Path
from typing import NamedTuple

from sniper.pipeline.train import TrainedRun


class Trained(NamedTuple):
    """A run, and the datasets of it."""

    run: TrainedRun
    train_json: Path
    val_json: Path

"""One trained run that the tests of this folder look at."""

import pytest
from trained_run import Trained

from rectangle_set import TINY, make_set
from sniper.pipeline.train import train


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Four steps of a tiny detector on six images, evaluated on three."""
    folder = tmp_path_factory.mktemp("trained")
    train_json, val_json = make_set(folder / "train"), make_set(folder / "val", images=3, seed=1)
    overrides = [*TINY, f"data.train={train_json}", f"data.evaluate={val_json}"]
    return Trained(train("mobilenetv2", overrides=overrides, root=folder / "runs"), train_json, val_json)

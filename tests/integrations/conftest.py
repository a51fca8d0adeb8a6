"""A small checkpoint that both directions of the hand-over use."""

from pathlib import Path

import pytest

from rectangle_set import TINY, make_set
from sniper.pipeline.train import train


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of four steps of a tiny detector with two levels, on six images."""
    folder = tmp_path_factory.mktemp("handover")
    overrides = [*TINY, f"data.train={make_set(folder / 'train')}"]
    overrides += ["pyramid.levels=[{scale: 2, infer_range_px: [0, 40]}, {scale: 1, infer_range_px: [20, null]}]"]
    return train("mobilenetv2", overrides=overrides, root=folder / "runs").folder

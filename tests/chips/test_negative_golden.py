"""Negative chips of the original's recorded pictures, mined by the package from end to end.

The exact steps (who is covered, who belongs to which chip, which chips stay) are compared in ``test_positive_golden``
with the recorded generator calls fed in; here the package makes its own chips, by the original's rule of what is
covered.
"""

import numpy as np
import pytest
from scenes import Scene, table_of
from test_positive_golden import levels, standard_error, worker_images

from recorded import Golden
from sniper.chips.config import ChipConfig
from sniper.chips.epoch import mine
from sniper.chips.negative import NegativeConfig, Proposals
from sniper.chips.table import ChipKind
from sniper.pyramid import Pyramid


@pytest.mark.parametrize("form", ["resolution", "factor"])
def test_as_many_negative_chips_as_in_the_recorded_runs(golden: Golden, form: str) -> None:
    data = golden.load("chips/chip_worker.npz")
    ranges = [(max(low, 0.0), None if high < 0 else high) for low, high in data[f"{form}/valid_ranges"].tolist()]
    pyramid = Pyramid(
        levels=tuple(
            level.model_copy(update={"train_range_px": limits})
            for level, limits in zip(levels(data, form), ranges, strict=True)
        )
    )
    images = list(worker_images(data, form))
    table = table_of(*[Scene(tuple(im.wh.tolist()), im.boxes[im.is_object].tolist()) for im in images])
    proposed = [im.boxes[~im.is_object] for im in images]
    offsets = np.concatenate(([0], np.cumsum([len(boxes) for boxes in proposed]))).astype(np.int64)
    boxes = np.concatenate(proposed).astype(np.float32)
    proposals = Proposals(offsets, boxes, np.ones(len(boxes), np.float32))
    config = NegativeConfig(covered="overlap", per_image=10_000, found_iou=None)
    ours = np.zeros((len(images), 3))
    for epoch in range(5):
        chips = mine(
            table, pyramid, ChipConfig(stride_px=(56, 56)), seed=0, epoch=epoch, proposals=proposals, negatives=config
        )
        negative = chips.kind == ChipKind.NEGATIVE
        np.add.at(ours, (chips.image_index[negative], chips.level[negative]), 1 / 5)
    theirs = np.stack([image.run_counts[:, 3:6].mean(axis=0) for image in images])
    for level in (0, 2):
        apart = ours[:, level] - theirs[:, level]
        # Chips start at random, so that counts differ by chance: four standard errors, and a little for the rules.
        assert abs(apart.mean()) <= 4 * standard_error(apart) + 0.05 * theirs[:, level].mean(), f"level {level}"
    assert ours.mean(axis=0)[1] < theirs.mean(axis=0)[1], "the original leaves out the middle level's lower bound"
    assert np.corrcoef(ours.sum(axis=1), theirs.sum(axis=1))[0, 1] > 0.9

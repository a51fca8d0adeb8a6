"""Samples into batches."""

import numpy as np
import torch

from sniper.loader.collate import collate
from sniper.loader.sample import Sample
from sniper.pixels.resample import BORDER_RGB
from sniper.structures import ObjectState


def sample(width, height, count, chip=0):
    return Sample(
        pixels=np.full((3, height, width), 7, np.uint8),
        valid_wh=(width - 1, height - 2),
        scale=0.5,
        boxes=np.arange(4 * count, dtype=np.float32).reshape(count, 4),
        labels=np.arange(count, dtype=np.int64),
        state=np.full(count, ObjectState.IGNORED, np.int64),
        range_px=(4.0, np.inf),
        chip=chip,
    )


def test_objects_are_padded_to_the_longest():
    batch = collate([sample(64, 64, 0, 5), sample(64, 64, 3, 9), sample(64, 64, 1, 2)])
    assert batch.pixels.shape == (3, 3, 64, 64)
    assert batch.pixels.is_contiguous()
    assert batch.boxes.shape == (3, 3, 4)
    assert batch.labels.tolist() == [[-1, -1, -1], [0, 1, 2], [0, -1, -1]]
    assert batch.state.tolist() == [[-1, -1, -1], [1, 1, 1], [1, -1, -1]]
    assert batch.boxes[0].abs().sum() == 0
    assert batch.chip_index.tolist() == [5, 9, 2]
    assert batch.valid_hw.tolist() == [[62, 63]] * 3
    assert batch.range_px.tolist() == [[4.0, float("inf")]] * 3
    assert {batch.valid_hw.dtype, batch.chip_index.dtype, batch.labels.dtype} == {torch.int64}
    assert batch.targets()[1]["boxes"].shape == (0, 4)


def test_no_objects_at_all():
    batch = collate([sample(64, 64, 0)])
    assert batch.boxes.shape == (1, 0, 4)
    assert batch.valid.shape == (1, 0)


def test_padded_inputs_of_one_size_stay_and_unequal_ones_are_padded_to_a_multiple_of_128():
    assert collate([sample(50, 30, 0)] * 2).pixels.shape == (2, 3, 30, 50)
    batch = collate([sample(50, 30, 0), sample(20, 65, 0)])
    assert batch.pixels.shape == (2, 3, 128, 128)
    assert (batch.pixels[0, :, :30, :50] == 7).all()
    assert (batch.pixels[0, :, 30:] == torch.tensor(BORDER_RGB)[:, None, None]).all()
    assert (batch.pixels[1, :, :65, 20:] == torch.tensor(BORDER_RGB)[:, None, None]).all()

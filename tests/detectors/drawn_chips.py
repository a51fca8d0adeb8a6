"""Chips with rectangles whose colour tells the class: what every detector with two stages can learn in some steps."""

import math

import torch

from sniper.structures import Batch, ObjectState

VALID, IGNORED, CROWD, EMPTY = (int(ObjectState[name]) for name in ("VALID", "IGNORED", "CROWD", "EMPTY"))


def batch_of(chips, side=192, valid_hw=None, range_px=(0.0, math.inf)):
    """A chip is a list of (box, label, state), drawn as bright rectangles whose colour is the class."""
    longest = max(map(len, chips), default=0)
    boxes = torch.zeros(len(chips), longest, 4)
    labels, state = (torch.full((len(chips), longest), -1) for _ in range(2))
    pixels = torch.rand(len(chips), 3, side, side, generator=torch.Generator().manual_seed(7)) * 0.2
    for i, chip in enumerate(chips):
        for j, (box, label, kind) in enumerate(chip):
            boxes[i, j], labels[i, j], state[i, j] = torch.tensor(box, dtype=torch.float32), label, kind
            x1, y1, x2, y2 = map(int, box)
            pixels[i, label % 3, y1:y2, x1:x2] = 0.9
    return Batch(
        pixels=pixels,
        valid_hw=torch.tensor(valid_hw or [[side, side]] * len(chips)),
        scale=torch.ones(len(chips)),
        boxes=boxes,
        labels=labels,
        state=state,
        range_px=torch.tensor([range_px] * len(chips)),
        chip_index=torch.arange(len(chips)),
    )


CHIPS = [
    [((20, 30, 60, 80), 0, VALID), ((100, 90, 160, 150), 1, VALID), ((110, 20, 150, 50), 2, IGNORED)],
    [((40, 40, 90, 120), 2, VALID), ((120, 120, 180, 180), 0, CROWD)],
]

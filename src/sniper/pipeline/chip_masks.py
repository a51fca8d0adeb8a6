"""Instance masks of chips, for other people's trainers: outlines cut to the chip, run lengths sampled there."""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as coco_mask
from numpy.typing import NDArray

from sniper.chips.table import ChipTable
from sniper.data.columns import MaskBuilder, Masks
from sniper.loader.clipping import clipped_rings
from sniper.loader.image_chips import ChipObjects


def masks_in_chips(masks: Masks, chips: ChipTable, shown: Iterable[tuple[int, ChipObjects]]) -> Masks:
    """The masks of all objects that chips show, chip after chip: (row of ``chips``, its objects), network px.

    Outlines stay outlines, and a run-length mask stays one, sampled at the middle of each pixel of the chip. An object
    without a mask, or of which no outline reaches the chip, has its box there for one.
    """
    builder = MaskBuilder()
    for chip, objects in shown:
        scale, origin = float(chips.scale[chip]), chips.origin_xy[chip].astype(np.float64)
        valid_wh, size_wh = tuple(chips.valid_wh[chip].tolist()), tuple(chips.size_wh[chip].tolist())
        for row, box in zip(objects.rows.tolist(), objects.boxes, strict=True):
            runs = masks.run_length(row)
            if runs is not None:
                builder.add(run_length=json.dumps(_sampled(runs, box, origin, scale, size_wh)).encode())
                continue
            rings = clipped_rings((ring * scale - origin for ring in masks.polygons(row)), valid_wh)
            (x1, y1), (x2, y2) = box[:2].tolist(), box[2:].tolist()
            whole = [[x1, y1, x2, y1, x2, y2, x1, y2]]
            builder.add([ring.ravel().tolist() for ring in rings] or whole)
    return builder.build()


def bitmaps(rings: list[list[NDArray[np.float64]]], size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """(N, H, W) masks of N objects from their rings, (P, 2) each in px of the chip, as COCO's tools draw them."""
    height, width = size_hw
    drawn = np.zeros((len(rings), height, width), np.uint8)
    for mask, own in zip(drawn, rings, strict=True):
        pieces = coco_mask.frPyObjects([ring.ravel().tolist() for ring in own], height, width)
        mask[:] = coco_mask.decode(coco_mask.merge(pieces))
    return drawn


def _sampled(
    runs: dict[str, Any], box: NDArray[np.float32], origin: NDArray[np.float64], scale: float, size_wh: tuple[int, int]
) -> dict[str, Any]:
    """A run-length mask of an image as one of a chip, inside the box of the object there."""
    height, width = runs["size"]
    mask = coco_mask.decode(coco_mask.frPyObjects(runs, height, width) if isinstance(runs["counts"], list) else runs)
    (x1, y1), (x2, y2) = np.floor(box[:2]).astype(int), np.ceil(box[2:]).astype(int)
    x, y = (
        np.clip((np.arange(low, high) + 0.5 + start) / scale, 0, end - 1).astype(int)
        for low, high, start, end in ((x1, x2, origin[0], width), (y1, y2, origin[1], height))
    )
    chip = np.zeros(size_wh[::-1], np.uint8, order="F")
    chip[y1:y2, x1:x2] = mask[y[:, None], x]
    counts = coco_mask.encode(chip)["counts"]
    return {"size": [size_wh[1], size_wh[0]], "counts": counts.decode() if isinstance(counts, bytes) else counts}

"""What the mask branch learns: the polygons of an object, drawn on a small grid over its region, as the original does.

A region's extent is ``x2 - x1``: half-open boxes are right as they are.
"""

from collections.abc import Sequence

import numpy as np
import torch
from faster_coco_eval.core import mask as coco_mask
from numpy.typing import NDArray
from torch import Tensor

ROW = 500  # numbers that an object's polygons may take: class, number of segments, their lengths, their points
MASK_CELLS = 28


def encode_polygons(
    polygons: Sequence[Sequence[NDArray[np.floating]]],
    labels: Sequence[int],
    origin_xy: tuple[float, float],
    scale: float,
) -> NDArray[np.float32]:
    """(N, 500) float32 rows that hold the polygons of N objects, padded with -1.

    ``polygons`` has the segments of each object, x, y, x, y, ... in original px; rows hold network px,
    ``(original - origin) * scale``. Segments of fewer than three points are dropped; so is the first one for which no
    room is left, with all after it.
    """
    rows = np.full((len(polygons), ROW), -1, np.float32)
    origin = np.asarray(origin_xy, np.float32)
    for row, segments, label in zip(rows, polygons, labels, strict=True):
        real = [np.asarray(segment, np.float32) for segment in segments if len(segment) >= 6]
        sizes = np.asarray([segment.size for segment in real], np.int64)
        kept = int((2 + np.arange(1, len(real) + 1) + sizes.cumsum() <= ROW).sum())
        row[0], row[1] = label, kept
        row[2 : 2 + kept] = sizes[:kept]
        if kept:
            points = (np.concatenate(real[:kept]).reshape(-1, 2) - origin) * np.float32(scale)
            row[2 + kept : 2 + kept + points.size] = points.ravel()
    return rows


def mask_targets(rows: Tensor, boxes: Tensor, objects: Tensor, cells: int = MASK_CELLS) -> Tensor:
    """(K, cells, cells) int8: 1 inside the object of each of K regions, 0 outside, -1 throughout if it has none.

    ``rows`` (M, 500) come from ``encode_polygons``, ``boxes`` (K, 4) are regions in network px, ``objects`` (K,) the
    row of each, or -1. Segments are drawn one by one and joined, also where they overlap.
    """
    masks = torch.full((len(boxes), cells, cells), -1, dtype=torch.int8)
    known = torch.where(objects.cpu() >= 0)[0]
    if not len(known):
        return masks.to(boxes.device)
    drawn = _draw(rows.cpu().numpy()[objects.cpu()[known].numpy()], boxes.detach().cpu()[known].double().numpy(), cells)
    masks[known] = torch.from_numpy(drawn)
    return masks.to(boxes.device)


def _draw(rows: NDArray[np.float32], boxes: NDArray[np.float64], cells: int) -> NDArray[np.int8]:
    """(K, cells, cells) masks of one row for each box."""
    segments = rows[:, 1].astype(np.int64)
    place = np.arange(rows.shape[1] if rows.size else ROW)
    end_of_sizes = 2 + segments[:, None]
    sizes = np.where((place >= 2) & (place < end_of_sizes), rows, 0)
    points = (place >= end_of_sizes) & (place < end_of_sizes + sizes.sum(axis=1, keepdims=True))
    owner = np.repeat(np.arange(len(rows)), points.sum(axis=1) // 2)
    across = cells / np.maximum(boxes[:, 2:] - boxes[:, :2], 1)
    xy = (rows[points].reshape(-1, 2).astype(np.float64) - boxes[owner, :2]) * across[owner]

    masks = np.zeros((len(rows), cells, cells), np.int8)
    any_segment = segments > 0
    if any_segment.any():
        cuts = sizes[sizes > 0].astype(np.int64).cumsum()[:-1]
        # COCO's outlines are not the same along both axes; the original draws with x and y exchanged.
        outlines = coco_mask.frPyObjects(np.split(xy[:, ::-1].ravel(), cuts), cells, cells)
        each = coco_mask.decode(outlines).T  # decoded as (y, x, segment) with the axes exchanged: now (segment, y, x)
        first = np.cumsum(segments) - segments
        masks[any_segment] = np.maximum.reduceat(each, first[any_segment], axis=0)
    return masks

"""Proposals, and which of them are false positives: what hard-negative chips are made from.

``docs/method.md``, "Negative chips".
"""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.chips.config import NegativeConfig
from sniper.chips.positive import BLOCK_IMAGES
from sniper.compiled import compiled, read_only, thread_count
from sniper.data.table import AnnotationTable
from sniper.validity import boxes_in_range

CROWD_SHARE = 0.5  # a proposal that lies this far in a region (crowd, group-of) is no false positive


class Proposals(NamedTuple):
    """Class-free boxes of the images of an annotation table, in its order. I images, N boxes."""

    offsets: NDArray[np.int64]  # (I + 1,)
    boxes_xyxy: NDArray[np.float32]  # (N, 4) original px
    scores: NDArray[np.float32]  # (N,)


@compiled
def _gather(
    first: int,
    last: int,
    objects: NDArray[np.float32],
    regions: NDArray[np.bool_],
    found_iou: float,
    near: NDArray[np.float32],
) -> int:
    """Columns of an image's objects: four sides, and a, b, c: a shared area ``s`` with ``a s >= b area + c`` finds it.

    That is IoU >= ``found_iou``, or for a region of many objects a share of the proposal; with an infinite
    ``found_iou`` nothing is gathered. Returns how many there are.
    """
    if found_iou == np.inf:
        return 0
    for row in range(first, last):
        k = row - first
        for side in range(4):
            near[side, k] = objects[row, side]
        if regions[row]:
            near[4, k], near[5, k], near[6, k] = 1, CROWD_SHARE, 0
        else:
            own = (objects[row, 2] - objects[row, 0]) * (objects[row, 3] - objects[row, 1])
            near[4, k], near[5, k], near[6, k] = 1 + found_iou, found_iou, found_iou * own
    return last - first


@compiled
def _on_object(box: NDArray[np.float32], near: NDArray[np.float32], count: int) -> bool:
    """Whether a box finds one of the gathered objects. Without branches, so that it runs in vector registers."""
    zero = np.float32(0)
    x1, y1, x2, y2 = box[0], box[1], box[2], box[3]
    area = (x2 - x1) * (y2 - y1)
    found = 0
    for k in range(count):
        w = max(min(x2, near[2, k]) - max(x1, near[0, k]), zero)
        h = max(min(y2, near[3, k]) - max(y1, near[1, k]), zero)
        shared = w * h
        found |= (near[4, k] * shared >= near[5, k] * area + near[6, k]) & (shared > zero)
    return found != 0


@compiled
def _mark_false_positives(
    start: int,
    stop: int,
    offsets: NDArray[np.int64],
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    object_offsets: NDArray[np.int64],
    objects: NDArray[np.float32],
    regions: NDArray[np.bool_],
    use_image: NDArray[np.bool_],
    min_score: float,
    max_proposals: int,
    found_iou: float,
    keep: NDArray[np.bool_],
) -> None:
    """Mark the false positives of images ``start`` to ``stop``; ``keep`` is all false before."""
    max_count = 1
    for image in range(start, stop):
        max_count = max(max_count, object_offsets[image + 1] - object_offsets[image])
    near = np.empty((7, max_count), np.float32)
    for image in range(start, stop):
        first, last = offsets[image], offsets[image + 1]
        if not use_image[image]:
            continue
        count = _gather(object_offsets[image], object_offsets[image + 1], objects, regions, found_iou, near)
        limit = np.float32(-np.inf)
        extra = last - first
        if 0 < max_proposals < last - first:
            ordered = np.sort(scores[first:last])
            limit = ordered[last - first - max_proposals]
            extra = 0  # of equal scores at the limit, the first ones
            for k in range(last - first - max_proposals, last - first):
                extra += ordered[k] == limit
        for row in range(first, last):
            score = scores[row]
            if not score >= min_score or score < limit:
                continue
            if score == limit:
                if extra == 0:
                    continue
                extra -= 1
            keep[row] = not _on_object(boxes[row], near, count)


def false_positives(table: AnnotationTable, proposals: Proposals, config: NegativeConfig) -> Proposals:
    """The proposals that may make negative chips: good enough, among the best, and not on an object.

    Does not depend on seed or epoch: done once a run.

    Raises:
        ValueError: proposals of another number of images.
    """
    if len(proposals.offsets) != len(table) + 1:
        raise ValueError(f"proposals of {len(proposals.offsets) - 1} images do not fit a table of {len(table)}")
    use_image = np.ones(len(table), np.bool_)
    if not config.empty_images:
        use_image = np.diff(np.concatenate(([0], np.cumsum(~table.ignored)))[table.offsets]) > 0
    if use_image.all() and config.min_score == 0 and config.max_proposals is None and config.found_iou is None:
        return proposals
    keep = np.zeros(len(proposals.scores), np.bool_)

    regions = read_only(table.regions)

    def block(start: int) -> None:
        _mark_false_positives(
            start,
            min(start + BLOCK_IMAGES, len(table)),
            read_only(proposals.offsets),
            read_only(proposals.boxes_xyxy),
            read_only(proposals.scores),
            read_only(table.offsets),
            read_only(table.boxes_xyxy),
            regions,
            use_image,
            config.min_score,
            config.max_proposals or 0,
            np.inf if config.found_iou is None else config.found_iou,
            keep,
        )

    with ThreadPoolExecutor(thread_count()) as threads:
        list(threads.map(block, range(0, len(table), BLOCK_IMAGES)))
    offsets = np.concatenate(([0], np.cumsum(keep)))[proposals.offsets]
    return Proposals(offsets.astype(np.int64), proposals.boxes_xyxy[keep], proposals.scores[keep])


def proposals_shown(
    proposals: Proposals, image_row: int, window_xyxy: NDArray[np.floating], range_px: NDArray[np.floating]
) -> NDArray[np.bool_]:
    """(N,) which of an image's proposals lie wholly in a window (original px) and in a range of sizes, for pictures."""
    own = slice(int(proposals.offsets[image_row]), int(proposals.offsets[image_row + 1]))
    boxes = proposals.boxes_xyxy[own].astype(np.float64)
    window = np.asarray(window_xyxy, dtype=np.float64)
    inside = (boxes[:, :2] >= window[:2] - 0.5) & (boxes[:, 2:] <= window[2:] + 0.5)
    return np.asarray(inside.all(axis=1) & boxes_in_range(boxes, float(range_px[0]), float(range_px[1])))

"""How well a detector sees objects of a size: accuracy by network px, of the same objects at several scales.

``docs/method.md``, "Automatic levels".
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sniper.boxes import sqrt_area
from sniper.data.detections import DetectionTable
from sniper.data.table import AnnotationTable
from sniper.evaluation.coco import evaluate_coco
from sniper.evaluation.config import CocoEvalConfig

MIN_OBJECTS = 15  # of a bin; fewer say little
MIN_AP = 0.05  # at the best scale; objects that are never found say nothing about sizes
OCTAVE = 2**0.5  # ratio of sizes in one bin, of objects and of the curve
ENOUGH = 0.95  # share of the best accuracy at which an object is seen well


class SizeBin(NamedTuple):
    """Objects of one size at one scale."""

    scale: float  # network px per original px
    low_px: float  # original px
    high_px: float
    objects: int
    ap: float  # COCO's AP of them, classes taken together

    @property
    def network_px(self) -> float:
        """The middle of the bin on the padded input."""
        return self.scale * (self.low_px * self.high_px) ** 0.5


class ResponsePoint(NamedTuple):
    """Objects that are shown at one size, whatever their own."""

    network_px: float
    share: float  # of the AP that they have at their best scale, mean; 1 at most
    objects: int


@dataclass(frozen=True, slots=True)
class SizeResponse:
    """What zoom buys a detector on a dataset."""

    bins: tuple[SizeBin, ...]

    def curve(self) -> tuple[ResponsePoint, ...]:
        """Points half an octave apart, smallest size first.

        Each bin is compared with itself at its best scale, so that which objects are small, and how hard they are
        apart from it, has no say.
        """
        best: dict[float, float] = {}
        for one in self.bins:
            best[one.low_px] = max(best.get(one.low_px, 0.0), one.ap)
        shares: dict[int, list[tuple[float, int]]] = {}
        for one in self.bins:
            if best[one.low_px] >= MIN_AP:
                step = round(float(np.log(one.network_px) / np.log(OCTAVE)))
                shares.setdefault(step, []).append((one.ap / best[one.low_px], one.objects))
        return tuple(
            ResponsePoint(
                float(OCTAVE**step),
                float(np.average([share for share, _ in own], weights=[count for _, count in own])),
                sum(count for _, count in own),
            )
            for step, own in sorted(shares.items())
        )

    @property
    def comfortable_px(self) -> float | None:
        """The smallest network size at which objects are seen as well as at any other, within 5 %; None: not told."""
        curve = self.curve()
        if len(curve) < 3:
            return None
        enough = ENOUGH * max(point.share for point in curve)
        return next(point.network_px for point in curve if point.share >= enough)


def size_edges(table: AnnotationTable) -> list[float]:
    """Half-octave edges, original px, from the smallest to the largest object that can be found."""
    sizes = sqrt_area(table.boxes_xyxy)[~table.ignored]
    if not len(sizes):
        return []
    low, high = (float(np.log(max(edge, 1.0)) / np.log(OCTAVE)) for edge in np.quantile(sizes, [0.02, 0.98]))
    return [float(OCTAVE**step) for step in range(int(np.floor(low)), int(np.ceil(high)) + 1)]


def size_bins(
    table: AnnotationTable, detections: DetectionTable, scale: float, edges: Sequence[float]
) -> list[SizeBin]:
    """AP of the objects between neighbouring ``edges`` (original px), of detections that were made at one scale.

    Objects of other sizes are neither to be found nor wrong to find. Bins of few objects are left out.

    Raises:
        DataError: the detections do not fit the table.
    """
    sizes = np.sqrt(table.areas[~table.ignored])
    bins = []
    for low, high in itertools.pairwise(edges):
        objects = int(((sizes >= low) & (sizes < high)).sum())
        if objects >= MIN_OBJECTS:
            between = CocoEvalConfig(small_px=low, large_px=high, class_agnostic=True)
            bins.append(SizeBin(scale, low, high, objects, evaluate_coco(table, detections, between).ap_medium))
    return bins

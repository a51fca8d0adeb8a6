"""A dataset without what a check found wrong."""

from collections import Counter
from typing import NamedTuple

import numpy as np

from sniper.checks.annotations import duplicates
from sniper.checks.config import CheckConfig
from sniper.checks.findings import Kind, Place
from sniper.checks.report import CheckReport
from sniper.data.table import AnnotationTable

_IMAGES_LEFT_OUT = (Kind.UNREADABLE_IMAGE, Kind.SIZE_DIFFERS, Kind.SAME_IMAGE, Kind.IN_TWO_SPLITS)


class Repaired(NamedTuple):
    """A dataset that may be trained on, and what was done to it, a line each."""

    table: AnnotationTable
    changes: list[str]


def repaired(report: CheckReport, dataset: int, config: CheckConfig) -> Repaired | None:
    """Dataset number ``dataset`` of a report, repaired; None where it cannot be read or no image is left.

    Boxes are clipped to their images, and those that are broken or outside are gone, as reading does it. Images that
    cannot be read or have another size than annotated are left out. Of images that show exactly the same in one dataset
    the first stays; of those in two datasets the one that is checked later stays, the evaluation data: they are left
    out of what is learned from. Objects drawn twice as one class stay once.
    """
    table = report.datasets[dataset].table
    if table is None:
        return None
    left_out: dict[int, str] = {}
    for finding in report.findings:
        place = Place(finding.dataset, finding.image_row) if finding.image_row is not None else None
        if finding.kind in (Kind.SAME_IMAGE, Kind.IN_TWO_SPLITS) and finding.badness < 0:
            continue  # they look alike, and a person must say
        goes = finding.twin if finding.kind is Kind.IN_TWO_SPLITS else place
        if finding.kind in _IMAGES_LEFT_OUT and goes is not None and goes.dataset == dataset:
            left_out.setdefault(goes.image_row, finding.kind.value)
    kept = np.setdiff1d(np.arange(len(table)), list(left_out))
    if not len(kept):
        return None
    changes = [f"{count} images left out: {why}" for why, count in Counter(left_out.values()).items()]
    dropped = 0 if table.repairs is None else len(table.repairs)
    changes += [f"{dropped} boxes clipped to their image, or dropped where nothing is inside"] if dropped else []
    fewer = table.select(kept)
    twice = duplicates(fewer, config.duplicate_iou)
    changes += [f"{len(twice)} objects that were drawn twice kept once"] if len(twice) else []
    return Repaired(fewer.without_objects(twice), changes)

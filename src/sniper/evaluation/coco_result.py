"""What a COCO evaluation gives: numbers by name, tables for a terminal, curves."""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

OFFICIAL_DETECTIONS = (1, 10, 100)  # per image and class
AREAS = ("all", "small", "medium", "large")


class ClassScore(NamedTuple):
    """One class. AP is nan for a class without objects."""

    name: str
    objects: int  # ignored ones not counted
    ap: float
    ap50: float


@dataclass(frozen=True, slots=True)
class CocoResult:
    """What COCO reports. All in [0, 1]; nan where there is no object to find."""

    ap: float  # mean over IoU 0.50:0.95, as every number that names no IoU
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar1: float
    ar10: float
    ar100: float
    ar_small: float
    ar_medium: float
    ar_large: float
    ap_maxdets: float  # with max_detections instead of 100 detections
    ap50_maxdets: float
    ar_maxdets: float
    max_detections: int
    classes: tuple[ClassScore, ...]  # empty if class-agnostic
    pr_curves: dict[
        str, tuple[NDArray[np.float64], NDArray[np.float64]]
    ]  # by IoU, with max_detections: recall (101,), precision (101,)
    class_curves: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]  # the same of each class, at IoU 0.5
    images: int
    objects: int  # ignored ones not counted
    detections: int
    what: Literal["boxes", "masks"] = "boxes"  # whose overlap counts

    def as_dict(self) -> dict[str, float]:
        """The numbers under COCO's names (AP, AP50, AP_small, AR100, ...); those with nothing to find are left out.

        ``AP_maxdets``, ``AP50_maxdets`` and ``AR_maxdets`` are there only if more than 100 detections were asked for.
        """
        return {name: number for name, number in self.named().items() if not math.isnan(number)}

    def named(self) -> dict[str, float]:
        """The same, with nan where there is nothing to find."""
        names = ["AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"]
        names += ["AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"]
        names += ["AP_maxdets", "AP50_maxdets", "AR_maxdets"] if self.max_detections > OFFICIAL_DETECTIONS[-1] else []
        return {name: float(getattr(self, name.lower())) for name in names}

    def tables(self) -> list[tuple[str, list[str], list[list[str]]]]:
        """Title, column names and rows of text, ready for a terminal or a page."""
        missing = "", "", ""
        rows = [
            ["AP", *map(_cell, (self.ap, self.ap_small, self.ap_medium, self.ap_large))],
            ["AP50", _cell(self.ap50), *missing],
            ["AP75", _cell(self.ap75), *missing],
            ["AR, 1 detection", _cell(self.ar1), *missing],
            ["AR, 10 detections", _cell(self.ar10), *missing],
            ["AR, 100 detections", *map(_cell, (self.ar100, self.ar_small, self.ar_medium, self.ar_large))],
        ]
        if self.max_detections > OFFICIAL_DETECTIONS[-1]:
            rows.append([f"AP, {self.max_detections} detections", _cell(self.ap_maxdets), *missing])
            rows.append([f"AP50, {self.max_detections} detections", _cell(self.ap50_maxdets), *missing])
            rows.append([f"AR, {self.max_detections} detections", _cell(self.ar_maxdets), *missing])
        counts = f"{self.images} images, {self.objects} objects, {self.detections} detections"
        title = f"COCO{', masks' if self.what == 'masks' else ''}: {counts}"
        found = [(title, ["", *AREAS], rows)]
        if len(self.classes) > 1:
            classes = [[one.name, str(one.objects), _cell(one.ap), _cell(one.ap50)] for one in self.classes]
            found.append(("By class", ["class", "objects", "AP", "AP50"], classes))
        return found


def _cell(number: float) -> str:
    return "-" if math.isnan(number) else f"{number:.3f}"

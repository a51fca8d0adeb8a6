"""The COCO detection protocol: the twelve numbers, per-class scores and precision-recall curves.

The matching itself is faster-coco-eval's, fed from columns; the numbers equal pycocotools'. Two points of the
protocol that are easily overlooked: detections with equal scores keep the order they come in (images by id, in an image
as in the detection table), and an ignored object takes any number of detections: a crowd or group-of by the share of
the detection's own area inside, a difficult object by IoU, as Pascal VOC has it (COCO itself has no such objects).
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from faster_coco_eval.core.coco import COCO
from faster_coco_eval.core.faster_eval_api import COCOeval_faster
from numpy.typing import NDArray

from sniper.boxes import xyxy_to_xywh
from sniper.data.columns import Masks
from sniper.data.detections import DetectionTable
from sniper.data.table import AnnotationTable
from sniper.errors import DataError
from sniper.evaluation.coco_result import AREAS, OFFICIAL_DETECTIONS
from sniper.evaluation.coco_result import ClassScore as ClassScore
from sniper.evaluation.coco_result import CocoResult as CocoResult
from sniper.evaluation.config import CocoEvalConfig
from sniper.evaluation.measured import measured_rows
from sniper.evaluation.protocol import Curve, Score, ScoreTable, split_numbers

_EVERY_AREA = 1e5**2
_CURVE_IOUS = (0.5, 0.75)


@dataclass(frozen=True, slots=True)
class CocoScore(Score):
    """A score of the COCO protocol, with all that it measured."""

    boxes: CocoResult = field(kw_only=True)
    masks: CocoResult | None = None  # where both detections and dataset have masks


@dataclass(frozen=True, slots=True)
class CocoProtocol:
    """Boxes and, where both sides have them, masks, whose numbers are named ``segm_AP``, ``segm_AP50``, ..."""

    config: CocoEvalConfig = field(default_factory=CocoEvalConfig)

    def __call__(self, table: AnnotationTable, detections: DetectionTable) -> CocoScore:
        """Measure detections; see ``evaluate_coco``."""
        boxes = evaluate_coco(table, detections, self.config)
        both = table.masks is not None and detections.masks is not None
        masks = evaluate_coco(table, detections, self.config, iou_type="segm") if both else None
        named = boxes.named()
        tables = boxes.tables()
        if masks is not None:
            named |= {f"segm_{name}": number for name, number in masks.named().items()}
            tables += masks.tables()
        curves, class_curves = (
            {name: Curve(*curve) for name, curve in given.items()} for given in (boxes.pr_curves, boxes.class_curves)
        )
        shown = tuple(ScoreTable(*one) for one in tables)
        numbers, untold = split_numbers(named)
        return CocoScore("coco", numbers, shown, curves, class_curves, untold, boxes=boxes, masks=masks)


def evaluate_coco(
    table: AnnotationTable,
    detections: DetectionTable,
    config: CocoEvalConfig | None = None,
    *,
    iou_type: Literal["bbox", "segm"] = "bbox",
) -> CocoResult:
    """Measure detections on the images that ``detections.image_ids`` lists, those without any detection included.

    ``segm`` compares masks, which both sides must have; an object without one is neither to be found nor wrong to find.

    Images of the table that ``detections`` does not list do not count, so a subset is measured by listing it. Ignored
    objects (``table.ignored``) are neither to be found nor wrong to find.

    Raises:
        DataError: an image id that the table does not have or that comes twice, a label without a class, a number
            that is not finite, no masks where they are to be compared.
    """
    config = config or CocoEvalConfig()
    if iou_type == "segm" and (table.masks is None or detections.masks is None):
        whose = "dataset" if table.masks is None else "detections"
        raise DataError(f"the {whose} of {table.root} have no masks to compare; evaluate boxes, or give some that have")
    rows = measured_rows(table, detections)
    per_image = np.diff(detections.offsets)
    traces = np.zeros(len(table), dtype=bool)
    traces[rows] = True
    objects = np.flatnonzero(np.repeat(traces, np.diff(table.offsets)))
    truth = _entries(
        np.repeat(table.image_ids, np.diff(table.offsets))[objects],
        table.class_ids[table.labels[objects]],
        table.boxes_xyxy[objects],
    )
    columns = (table.areas, table.ignored, table.regions)
    for entry, area, ignored, region in zip(truth, *(column[objects].tolist() for column in columns), strict=True):
        entry["area"], entry["iscrowd"], entry["region"] = area, int(ignored), int(region)
    if iou_type == "segm":
        assert table.masks is not None
        _add_truth(truth, table.masks, objects)
    found = _entries(
        np.repeat(detections.image_ids, per_image), table.class_ids[detections.labels], detections.boxes_xyxy
    )
    for entry, score in zip(found, detections.scores.tolist(), strict=True):
        entry["score"] = score
    if iou_type == "segm":
        assert detections.masks is not None
        # A detection's area is its box's in both cases: so COCO's tools take results that have boxes and masks.
        for entry, mask in zip(found, detections.masks, strict=True):
            entry["segmentation"] = mask
    sizes_wh = table.sizes_wh[rows].tolist()
    facts = {
        "images": [
            {"id": image_id, "width": width, "height": height}
            for image_id, (width, height) in zip(detections.image_ids.tolist(), sizes_wh, strict=True)
        ],
        "categories": [{"id": i, "name": n} for i, n in zip(table.class_ids.tolist(), table.class_names, strict=True)],
    }
    return _evaluate(COCO(facts | {"annotations": truth}), COCO(facts | {"annotations": found}), config, iou_type)


def _add_truth(truth: list[dict[str, Any]], masks: Masks, objects: NDArray[np.int64]) -> None:
    """Masks of the table's ``objects`` in COCO's form. One without a mask is left out of the count."""
    for entry, row in zip(truth, objects.tolist(), strict=True):
        rings = [ring.ravel().tolist() for ring in masks.polygons(row)]
        entry["segmentation"] = rings or masks.run_length(row)
        if entry["segmentation"] is None:
            x, y, width, height = entry["bbox"]
            entry["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
            entry["iscrowd"] = entry["region"] = 1


def _entries(
    image_ids: NDArray[np.integer], class_ids: NDArray[np.integer], boxes_xyxy: NDArray[np.floating]
) -> list[dict[str, Any]]:
    """COCO's form of boxes. Ids count from 1, for 0 means "unmatched" to the evaluator."""
    boxes_xywh = xyxy_to_xywh(boxes_xyxy.astype(np.float64)).tolist()
    return [
        {"id": number, "image_id": i, "category_id": c, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for number, (i, c, box) in enumerate(zip(image_ids.tolist(), class_ids.tolist(), boxes_xywh, strict=True), 1)
    ]


class _Evaluator(COCOeval_faster):  # type: ignore[misc]
    """COCO's matching, in which not every ignored object is a region.

    To the evaluator, ``iscrowd`` says three things: the object is not counted, any number of detections may match it,
    and they match by share. Difficult objects (``iscrowd`` without ``region``) are to match by IoU. An ``ignore`` of
    our own would be overwritten by ``iscrowd``, here as in pycocotools.
    """

    def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: N802, N803  # the library's names
        classes, each = ([catId], True) if self.params.useCats else (self.params.catIds, False)
        truth = self.gt_dataset.get_instances([imgId], classes, each)[0][0]
        for entry in truth:
            entry["iscrowd"] = entry["region"]
        overlaps = super().computeIoU(imgId, catId)
        for entry in truth:
            entry["iscrowd"] = entry["ignore"]
        return overlaps


def _evaluate(truth: COCO, found: COCO, config: CocoEvalConfig, iou_type: str) -> CocoResult:
    # Looking every object up by Python costs time: only where a dataset has difficult ones.
    difficult = any(entry["iscrowd"] and not entry["region"] for entry in truth.anns.values())
    evaluator = (_Evaluator if difficult else COCOeval_faster)(truth, found, iou_type, print_function=lambda *_: None)
    evaluator.params.maxDets = sorted({*OFFICIAL_DETECTIONS, config.max_detections})
    small, large = config.small_px**2, config.large_px**2
    evaluator.params.areaRng = [[0, _EVERY_AREA], [0, small], [small, large], [large, _EVERY_AREA]]
    evaluator.params.areaRngLbl = list(AREAS)
    evaluator.params.useCats = int(not config.class_agnostic)
    if truth.imgs and truth.cats:
        evaluator.evaluate()
        evaluator.accumulate()
        precision, recall = np.asarray(evaluator.eval["precision"]), np.asarray(evaluator.eval["recall"])
    else:
        precision, recall = np.full((10, 101, 0, 4, 4), -1.0), np.full((10, 0, 4, 4), -1.0)
    return _report(precision, recall, evaluator.params, truth, found, config)


def _report(
    precision: NDArray[np.float64],
    recall: NDArray[np.float64],
    params: Any,
    truth: COCO,
    found: COCO,
    config: CocoEvalConfig,
) -> CocoResult:
    """Means over (IoU, recall, class, area, detections) and (IoU, class, area, detections); -1 is nothing to find."""
    one, ten, hundred = (params.maxDets.index(max_count) for max_count in OFFICIAL_DETECTIONS)
    half, three_quarters = (int(np.argmin(np.abs(params.iouThrs - iou))) for iou in _CURVE_IOUS)
    aps = [_mean(precision[:, :, :, area, hundred]) for area in range(len(AREAS))]
    ars = [_mean(recall[:, :, area, hundred]) for area in range(len(AREAS))]
    counts = dict.fromkeys(truth.cats, 0)
    for entry in truth.anns.values():
        counts[entry["category_id"]] += not entry.get("iscrowd", 0)
    classes = []
    if not config.class_agnostic:
        classes = [
            ClassScore(
                str(truth.cats[i].get("name", i)),
                counts[i],
                _mean(precision[:, :, k, 0, hundred]),
                _mean(precision[half, :, k, 0, hundred]),
            )
            for k, i in enumerate(params.catIds if precision.shape[2] else [])
        ]
    curves = {}
    for iou, at in zip(_CURVE_IOUS, (half, three_quarters), strict=True):
        with_objects = precision[at, :, :, 0, -1]
        with_objects = with_objects[:, (with_objects > -1).all(axis=0)]
        mean = with_objects.mean(axis=1) if with_objects.shape[1] else np.full(len(params.recThrs), -1.0)
        curves[f"IoU {iou:.2f}"] = (np.asarray(params.recThrs), mean)
    class_curves = {
        classes[k].name: (np.asarray(params.recThrs), precision[half, :, k, 0, -1])
        for k in sorted(range(len(classes)), key=lambda k: -classes[k].objects)
        if classes[k].objects
    }
    return CocoResult(
        ap=aps[0],
        ap50=_mean(precision[half, :, :, 0, hundred]),
        ap75=_mean(precision[three_quarters, :, :, 0, hundred]),
        ap_small=aps[1],
        ap_medium=aps[2],
        ap_large=aps[3],
        ar1=_mean(recall[:, :, 0, one]),
        ar10=_mean(recall[:, :, 0, ten]),
        ar100=ars[0],
        ar_small=ars[1],
        ar_medium=ars[2],
        ar_large=ars[3],
        ap_maxdets=_mean(precision[:, :, :, 0, -1]),
        ap50_maxdets=_mean(precision[half, :, :, 0, -1]),
        ar_maxdets=_mean(recall[:, :, 0, -1]),
        max_detections=config.max_detections,
        classes=tuple(classes),
        pr_curves=curves,
        class_curves=class_curves,
        images=len(truth.imgs),
        objects=sum(counts.values()),
        detections=len(found.anns),
        what="masks" if params.iouType == "segm" else "boxes",
    )


def _mean(numbers: NDArray[np.float64]) -> float:
    """Mean over what could be told; nan if nothing could."""
    known = numbers[numbers > -1]
    return float(known.mean()) if known.size else math.nan

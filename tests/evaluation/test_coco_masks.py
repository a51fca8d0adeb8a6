"""Masks by the COCO protocol: the same numbers from columns as pycocotools has from the results file."""

import contextlib
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sniper.data.columns import PackedStrings
from sniper.data.detections import DetectionTable
from sniper.data.readers.coco import read_coco
from sniper.data.run_lengths import RunLengths
from sniper.errors import DataError
from sniper.evaluation.coco import CocoProtocol, evaluate_coco

NAMES = ["AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"]
NAMES += ["AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Random polygons of every size, one crowd and one run-length mask; detections are the truth moved and grown."""
    rng = np.random.default_rng(0)
    annotations, rows, boxes, labels, counts = [], [], [], [], []
    for image in range(12):
        for _ in range(int(rng.integers(0, 8))):
            centre, radius = rng.uniform(40, 200, 2), float(np.exp(rng.uniform(np.log(8), np.log(90))))
            angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
            ring = centre + np.stack([np.cos(angles), np.sin(angles)], 1) * radius * rng.uniform(0.6, 1, (9, 1))
            ring = np.clip(ring, 0, [240, 220])
            entry = {"id": len(annotations) + 1, "image_id": image + 1, "category_id": int(rng.integers(2)) + 3}
            segmentation = [ring.ravel().tolist()]
            runs = coco_mask.merge(coco_mask.frPyObjects(segmentation, 220, 240))
            crowd = len(annotations) % 9 == 4
            if crowd or len(annotations) % 9 == 7:
                segmentation = {"size": runs["size"], "counts": runs["counts"].decode()}
            low, size = ring.min(0), np.ptp(ring, axis=0)
            annotations.append(
                {
                    **entry,
                    "segmentation": segmentation,
                    "bbox": [*low.tolist(), *size.tolist()],
                    "area": float(coco_mask.area(runs)),
                    "iscrowd": int(crowd),
                }
            )
            moved = ring + rng.normal(0, radius / 9, 2) if rng.uniform() < 0.8 else ring[:, ::-1]
            found = coco_mask.merge(coco_mask.frPyObjects([moved.ravel().tolist()], 220, 240))
            rows.append(image)
            boxes.append([*moved.min(0), *moved.max(0)])
            labels.append(entry["category_id"] - 3)
            counts.append(found["counts"].decode())
    folder = tmp_path_factory.mktemp("masks")
    document = {
        "images": [{"id": k + 1, "file_name": f"{k}.jpg", "width": 240, "height": 220} for k in range(12)],
        "categories": [{"id": 3, "name": "a"}, {"id": 4, "name": "b"}],
        "annotations": annotations,
    }
    (folder / "truth.json").write_text(json.dumps(document))
    table = read_coco(folder / "truth.json")
    masks = RunLengths(PackedStrings.pack(counts), np.tile(np.asarray([[220, 240]], np.int32), (len(rows), 1)))
    order = rng.permutation(len(rows))
    found = DetectionTable.from_arrays(
        np.asarray(rows)[order], np.asarray(boxes)[order], rng.uniform(0.1, 1, len(rows)), np.asarray(labels)[order],
        None, table.image_ids, masks.take(order),
    )  # fmt: skip
    found.write_coco_results(folder / "predictions.json", table.class_ids)
    return table, found, folder


def test_agrees_with_pycocotools_on_the_results_file(made):
    table, found, folder = made
    assert len(found.labels) > 30
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(folder / "truth.json"))
        official = COCOeval(truth, truth.loadRes(str(folder / "predictions.json")), "segm")
        official.evaluate()
        official.accumulate()
        official.summarize()
    ours = evaluate_coco(table, found, iou_type="segm").as_dict()
    assert 0.2 < ours["AP"] < 0.9
    assert ours != evaluate_coco(table, found).as_dict()
    for name, number in zip(NAMES, official.stats, strict=True):
        assert ours.get(name, -1) == pytest.approx(number, abs=1e-6), name


def test_tables_say_what_they_are_of(made):
    table, found, _ = made
    assert evaluate_coco(table, found, iou_type="segm").tables()[0][0].startswith("COCO, masks: 12 images")
    assert evaluate_coco(table, found).tables()[0][0].startswith("COCO: 12 images")


def test_objects_without_a_mask_neither_count_nor_harm(made):
    table, found, _ = made
    masks = table.masks
    learned = np.flatnonzero(np.diff(masks.ring_offsets) > 0)
    bare = replace(
        table,
        masks=replace(
            masks,
            ring_offsets=np.where(np.arange(len(masks) + 1) > learned[0], masks.ring_offsets - 1, masks.ring_offsets),
            point_offsets=masks.point_offsets[1:] - masks.point_offsets[1],
            points_xy=masks.points_xy[masks.point_offsets[1] :],
        ),
    )
    whole, fewer = evaluate_coco(table, found, iou_type="segm"), evaluate_coco(bare, found, iou_type="segm")
    assert fewer.objects == whole.objects - 1


def test_no_masks_is_one_sentence(made):
    table, found, _ = made
    with pytest.raises(DataError, match=r"detections of .* have no masks"):
        evaluate_coco(table, replace(found, masks=None), iou_type="segm")
    with pytest.raises(DataError, match=r"dataset of .* have no masks"):
        evaluate_coco(replace(table, masks=None), found, iou_type="segm")


def test_the_protocol_measures_masks_where_both_sides_have_them(made):
    table, found, _ = made
    score = CocoProtocol()(table, found)
    boxes, masks = evaluate_coco(table, found).as_dict(), evaluate_coco(table, found, iou_type="segm").as_dict()
    assert score.numbers == boxes | {f"segm_{name}": number for name, number in masks.items()}
    assert [table.title.split(":")[0] for table in score.tables if "images" in table.title] == ["COCO", "COCO, masks"]
    assert CocoProtocol()(table, replace(found, masks=None)).numbers == boxes

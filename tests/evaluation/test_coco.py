"""The COCO protocol: the official numbers, agreement with pycocotools, and the edges."""

import contextlib
import io
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sniper.data.detections import DetectionTable
from sniper.data.table import AnnotationTable
from sniper.errors import DataError
from sniper.evaluation.coco import CocoResult, evaluate_coco
from sniper.evaluation.config import CocoEvalConfig

NAMES = ["AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"]
NAMES += ["AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"]


def make_table(content: dict[str, Any]) -> AnnotationTable:
    """An annotation table from COCO JSON content, without the reader's repairs."""
    class_ids = np.asarray([category["id"] for category in content["categories"]], dtype=np.int64)
    image_ids = np.asarray([image["id"] for image in content["images"]], dtype=np.int64)
    entries: list[dict[str, Any]] = []
    counts = []
    for image_id in image_ids.tolist():
        mine = [entry for entry in content["annotations"] if entry["image_id"] == image_id]
        entries += mine
        counts.append(len(mine))
    xywh = np.asarray([entry["bbox"] for entry in entries], dtype=np.float64).reshape(-1, 4)
    return AnnotationTable(
        root=Path(),
        file_names=tuple(f"{i}.jpg" for i in image_ids.tolist()),
        image_ids=image_ids,
        sizes_wh=np.full((len(image_ids), 2), 10_000, dtype=np.int32),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes_xyxy=np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1).astype(np.float32),
        labels=np.searchsorted(class_ids, [entry["category_id"] for entry in entries]).astype(np.int32),
        flags=np.asarray([entry.get("flags", entry.get("iscrowd", 0)) for entry in entries], dtype=np.uint8),
        areas=np.asarray([entry["area"] for entry in entries], dtype=np.float32),
        annotation_ids=np.arange(1, len(entries) + 1, dtype=np.int64),
        class_names=tuple(category["name"] for category in content["categories"]),
        class_ids=class_ids,
    )


def make_detections(table: AnnotationTable, results: list[dict[str, Any]]) -> DetectionTable:
    """A detection table from COCO results, images as in the annotation table."""
    entries, counts = [], []
    for image_id in table.image_ids.tolist():
        mine = [entry for entry in results if entry["image_id"] == image_id]
        entries += mine
        counts.append(len(mine))
    xywh = np.asarray([entry["bbox"] for entry in entries], dtype=np.float64).reshape(-1, 4)
    return DetectionTable(
        image_ids=table.image_ids,
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes_xyxy=np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1).astype(np.float32),
        scores=np.asarray([entry["score"] for entry in entries], dtype=np.float32),
        labels=np.searchsorted(table.class_ids, [entry["category_id"] for entry in entries]).astype(np.int32),
        levels=np.zeros(len(entries), dtype=np.int16),
    )


def numbers(result: CocoResult) -> list[float]:
    found = result.as_dict()
    return [found.get(name, -1) for name in NAMES]


def by_pycocotools(
    content: dict[str, Any], results: list[dict[str, Any]], max_count: int = 100, use_cats: bool = True
) -> tuple[list[float], np.ndarray]:
    """The twelve numbers and the precision array (IoU, recall, class, area, detections)."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = json.loads(json.dumps(content))
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes(json.loads(json.dumps(results))), "bbox")
        evaluator.params.useCats = int(use_cats)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
        stats = list(evaluator.stats)
        if max_count > 100:
            evaluator.params.maxDets = [1, 10, 100, max_count]
            evaluator.evaluate()
            evaluator.accumulate()
    return stats, evaluator.eval["precision"]


def random_case(seed: int, n_images: int = 12, n_classes: int = 4, crowd: float = 0.15) -> tuple[dict, list[dict]]:
    """Boxes of all sizes with crowds, detections near and far, scores with ties; on a grid that float32 holds exactly.

    Some images have no objects, some no detections, the last class has no objects.
    """
    rng = np.random.default_rng(seed)
    image_ids = np.sort(rng.choice(10_000, n_images, replace=False)) + 1
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image, image_id in enumerate(image_ids.tolist()):
        n = 0 if image == 0 else int(rng.integers(1, 20))
        corner = rng.integers(0, 800, (n, 2)) / 2
        size = np.round(np.exp(rng.uniform(np.log(4), np.log(300), (n, 2))) * 2) / 2
        boxes = np.concatenate([corner, size], axis=1)
        classes = rng.integers(1, n_classes, n)
        for box, category in zip(boxes.tolist(), classes.tolist(), strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category * 3,
                    "bbox": box,
                    "area": box[2] * box[3] * float(rng.choice([1, 0.5])),
                    "iscrowd": int(rng.random() < crowd),
                }
            )
        if image == 1:
            continue
        near = np.repeat(np.arange(n), rng.integers(0, 5, n))
        jitter = np.round(rng.normal(0, 0.12, (len(near), 4)) * np.tile(size[near], 2) * 2) / 2
        moved = boxes[near] + jitter
        far = np.concatenate([rng.integers(0, 400, (8, 2)), rng.integers(4, 200, (8, 2))], axis=1)
        kinds = np.concatenate(
            [np.where(rng.random(len(near)) < 0.9, classes[near], 1), rng.integers(1, n_classes + 1, 8)]
        )
        for box, category in zip(np.concatenate([moved, far]).tolist(), kinds.tolist(), strict=True):
            box[2:] = [max(side, 0.5) for side in box[2:]]
            score = float(rng.integers(0, 16)) / 16
            results.append({"image_id": image_id, "category_id": int(category) * 3, "bbox": box, "score": score})
    categories = [{"id": 3 * i, "name": f"class {i}"} for i in range(1, n_classes + 1)]
    return {
        "images": [{"id": i, "width": 1000, "height": 1000} for i in image_ids.tolist()],
        "annotations": annotations,
        "categories": categories,
    }, results


def official(path: Path, iou_type: str) -> list[float]:
    section = path.read_text().split(f"type={iou_type}")[1].split("type=")[0]
    return [float(number) for number in re.findall(r"= (\d\.\d+)$", section, re.MULTILINE)]


def test_official_numbers(shared_data: Path) -> None:
    folder = shared_data / "coco_eval_reference"
    table = make_table(json.loads((folder / "instances_val2014_100.json").read_text()))
    results = json.loads((folder / "instances_val2014_fakebbox100_results.json").read_text())
    result = evaluate_coco(table, make_detections(table, results))
    expected = official(folder / "val2014_fake_eval_res.txt", "bbox")
    assert [round(number, 3) for number in numbers(result)] == expected


def test_six_digits(shared_data: Path) -> None:
    folder = shared_data / "coco_eval_reference" / "review_odm_test_coco_eval"
    truth, found = folder / "gts" / "sampled_gts_bbox_area.json", folder / "cocoapi_results.json"
    expected = [0.503647, 0.696973, 0.571667, 0.593252, 0.557991, 0.489363]
    expected += [0.386813, 0.593680, 0.595353, 0.654764, 0.603130, 0.553744]
    table = make_table(json.loads(truth.read_text()))
    detections = make_detections(table, json.loads(found.read_text()))
    assert numbers(evaluate_coco(table, detections)) == pytest.approx(expected, abs=6e-7)


@pytest.mark.parametrize("seed", range(12))
def test_agrees_with_pycocotools(seed: int) -> None:
    content, results = random_case(seed, crowd=0.0 if seed == 0 else 0.15)
    table = make_table(content)
    result = evaluate_coco(table, make_detections(table, results))
    expected, precision = by_pycocotools(content, results)
    assert numbers(result) == pytest.approx(expected, abs=1e-6)
    for k, one in enumerate(result.classes):
        own = precision[:, :, k, 0, 2]
        assert one.objects == sum(
            entry["category_id"] == 3 * (k + 1) and not entry["iscrowd"] for entry in content["annotations"]
        )
        if (own > -1).any():
            assert one.ap == pytest.approx(own.mean(), abs=1e-6)
            assert one.ap50 == pytest.approx(own[0].mean(), abs=1e-6)
        else:
            assert math.isnan(one.ap)
            assert math.isnan(one.ap50)
    for row, (name, iou) in zip((0, 5), (("IoU 0.50", 0.5), ("IoU 0.75", 0.75)), strict=True):
        recall, curve = result.pr_curves[name]
        np.testing.assert_allclose(recall, np.linspace(0, 1, 101))
        known = precision[row, :, :, 0, 2]
        np.testing.assert_allclose(curve, known[:, (known > -1).all(axis=0)].mean(axis=1), atol=1e-6, err_msg=str(iou))


@pytest.mark.parametrize("seed", [20, 21])
def test_class_agnostic_agrees_with_pycocotools(seed: int) -> None:
    content, results = random_case(seed)
    table = make_table(content)
    result = evaluate_coco(table, make_detections(table, results), CocoEvalConfig(class_agnostic=True))
    assert numbers(result) == pytest.approx(by_pycocotools(content, results, use_cats=False)[0], abs=1e-6)
    assert result.classes == ()
    assert len(result.tables()) == 1


def test_order_of_detections_decides_only_between_equal_scores() -> None:
    content, results = random_case(30)
    rng = np.random.default_rng(0)
    for result, score in zip(results, rng.permutation(len(results)) / 1024, strict=True):
        result["score"] = float(score)
    table = make_table(content)
    shuffled = [results[i] for i in rng.permutation(len(results))]
    one, other = (evaluate_coco(table, make_detections(table, order)) for order in (results, shuffled))
    assert one.as_dict() == other.as_dict()


def test_more_than_a_hundred_detections() -> None:
    """300 small objects in an image: the official numbers see 100 detections, AP_maxdets all that are asked for."""
    corner = np.stack(np.meshgrid(np.arange(20), np.arange(15)), axis=-1).reshape(-1, 2) * 30.0
    content = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "tree"}],
        "annotations": [
            {"id": i + 1, "image_id": 1, "category_id": 1, "bbox": [*xy, 10, 10], "area": 100, "iscrowd": 0}
            for i, xy in enumerate(corner.tolist())
        ],
    }
    results = [
        {"image_id": 1, "category_id": 1, "bbox": [*xy, 10, 10], "score": 1 - i / 512}
        for i, xy in enumerate(corner.tolist())
    ]
    table = make_table(content)
    detections = make_detections(table, results)
    plain = evaluate_coco(table, detections)
    assert plain.ar100 == pytest.approx(1 / 3)
    assert plain.ap_maxdets == plain.ap
    assert "AP_maxdets" not in plain.as_dict()
    result = evaluate_coco(table, detections, CocoEvalConfig(max_detections=2000))
    assert result.ar_maxdets == result.ap_maxdets == result.as_dict()["AP_maxdets"] == pytest.approx(1)
    assert result.as_dict()["AR100"] == pytest.approx(1 / 3)
    assert any("2000 detections" in row[0] for row in result.tables()[0][2])
    content, results = random_case(40, n_images=3)
    results = results * 5
    table = make_table(content)
    result = evaluate_coco(table, make_detections(table, results), CocoEvalConfig(max_detections=500))
    expected, precision = by_pycocotools(content, results, max_count=500)
    assert numbers(result) == pytest.approx(expected, abs=1e-6)
    last = precision[:, :, :, 0, 3]
    assert result.ap_maxdets == pytest.approx(last[last > -1].mean(), abs=1e-6)


def test_only_the_images_that_were_looked_at_count() -> None:
    content, results = random_case(50)
    table = make_table(content)
    some = table.image_ids[[7, 2, 1, 9]]  # in any order; image 1 has objects and no detections
    fewer = {
        **content,
        "images": [image for image in content["images"] if image["id"] in some],
        "annotations": [entry for entry in content["annotations"] if entry["image_id"] in some],
    }
    part = [entry for entry in results if entry["image_id"] in some]
    everything = make_detections(make_table({**content, "images": [{"id": i} for i in some.tolist()]}), part)
    result = evaluate_coco(table, everything)
    assert result.images == 4
    assert numbers(result) == pytest.approx(by_pycocotools(fewer, part)[0], abs=1e-6)


def test_without_detections_objects_or_images() -> None:
    content, results = random_case(60)
    table = make_table(content)
    nothing_found = evaluate_coco(table, make_detections(table, []))
    assert set(numbers(nothing_found)) == {0.0}
    assert nothing_found.detections == 0
    empty = make_table({**content, "annotations": []})
    for found in (results, []):
        result = evaluate_coco(empty, make_detections(empty, found))
        assert result.as_dict() == {}
        assert math.isnan(result.ap)
        assert result.tables()[0][2][0] == ["AP", "-", "-", "-", "-"]
        assert (result.pr_curves["IoU 0.50"][1] == -1).all()
    no_images = make_table({**content, "images": [], "annotations": []})
    result = evaluate_coco(no_images, make_detections(no_images, []))
    assert (result.images, result.objects, result.as_dict()) == (0, 0, {})
    for name in ("categories", "annotations"):
        content[name] = []
    classless = make_table(content)
    assert evaluate_coco(classless, make_detections(classless, [])).as_dict() == {}


def test_one_box_and_what_is_ignored() -> None:
    content = {
        "images": [{"id": 5}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 1, "bbox": [0, 0, 1, 1], "area": 1, "iscrowd": 0},
            {"id": 2, "image_id": 5, "category_id": 1, "bbox": [50, 50, 40, 40], "area": 1600, "iscrowd": 1},
        ],
    }
    hit = {"image_id": 5, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5}
    in_crowd = {"image_id": 5, "category_id": 1, "bbox": [60, 60, 9, 9], "score": 0.9}
    table = make_table(content)
    result = evaluate_coco(table, make_detections(table, [hit, in_crowd, in_crowd]))
    assert result.ap == pytest.approx(1)  # what lies in a crowd is not wrong, however often
    assert result.objects == 1
    assert result.tables()[0][0] == "COCO: 1 images, 1 objects, 3 detections"
    outside = {**in_crowd, "bbox": [100, 100, 9, 9]}
    assert evaluate_coco(table, make_detections(table, [hit, outside])).ap == pytest.approx(0.5)


def test_sizes_can_be_other_than_cocos() -> None:
    content, results = random_case(70)
    table = make_table(content)
    result = evaluate_coco(table, make_detections(table, results), CocoEvalConfig(small_px=1e4, large_px=1e4 + 1))
    assert result.ap_small == result.ap
    assert "AP_large" not in result.as_dict()


def test_errors_name_the_place() -> None:
    content, results = random_case(80)
    table = make_table(content)
    good = make_detections(table, results)

    def changed(**columns: Any) -> DetectionTable:
        names = ("image_ids", "offsets", "boxes_xyxy", "scores", "labels", "levels")
        return DetectionTable(**({name: getattr(good, name) for name in names} | columns))

    with pytest.raises(DataError, match="image id 99999"):
        evaluate_coco(table, changed(image_ids=np.where(good.image_ids == good.image_ids[3], 99999, good.image_ids)))
    with pytest.raises(DataError, match="more than once"):
        evaluate_coco(table, changed(image_ids=np.repeat(good.image_ids[:1], len(good.image_ids))))
    with pytest.raises(DataError, match="4 classes"):
        evaluate_coco(table, changed(labels=good.labels + 1))
    scores = good.scores.copy()
    scores[-1] = np.nan
    with pytest.raises(DataError, match=f"image {good.image_ids[-1]}.*NaN"):
        evaluate_coco(table, changed(scores=scores))


def test_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    content, results = random_case(100)
    table = make_table(content)
    evaluate_coco(table, make_detections(table, results))
    assert capfd.readouterr() == ("", "")


def test_works_without_torch() -> None:
    code = "import sys, sniper.evaluation.coco; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

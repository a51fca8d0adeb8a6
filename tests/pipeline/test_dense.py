"""Two thousand objects in one image: none is hidden between chips and drawings, and bounds that would are told."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import sniper
from facts import facts
from sniper.data.building import ObjectRows, build_table
from sniper.data.table import AnnotationTable
from sniper.errors import RecipeError
from sniper.inference.config import MergeConfig
from sniper.inference.merge import merge_images
from sniper.pipeline.bounds import hiding_bounds
from sniper.pipeline.chip_source import ChipSource
from sniper.pipeline.detectors import build_detector, resolve_pyramid
from sniper.pipeline.model import Model
from sniper.recipe import Recipe
from sniper.report.palette import class_color

OBJECTS, COLUMNS, CELL = 2000, 50, 36
COLOURS = np.asarray([[255, 0, 0], [0, 255, 0]], np.uint8)  # of the two classes
LEVELS = [{"scale": 1.0}]
ALL = {"merge": {"max_per_image": 3000, "method": "hard"}}  # windows overlap: soft would keep both


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> AnnotationTable:
    """One image of 1,800 x 1,440 px with 2,000 rectangles of 8 to 16 px on noise."""
    folder, rng = tmp_path_factory.mktemp("dense"), np.random.default_rng(0)
    height, width = OBJECTS // COLUMNS * CELL, COLUMNS * CELL
    pixels = rng.integers(60, 120, (height, width, 3), dtype=np.uint8)
    cells = np.stack(np.divmod(np.arange(OBJECTS), COLUMNS)[::-1], axis=1) * CELL
    low = cells + rng.integers(4, 12, (OBJECTS, 2))
    high, labels = low + rng.integers(8, 17, (OBJECTS, 2)), rng.integers(0, 2, OBJECTS)
    for (x1, y1), (x2, y2), label in zip(low, high, labels, strict=True):
        pixels[y1:y2, x1:x2] = COLOURS[label]
    Image.fromarray(pixels).save(folder / "dense.png")
    return build_table(
        ObjectRows(np.zeros(OBJECTS, np.int64), np.concatenate([low, high], axis=1).astype(float), labels),
        source="scene", root=folder, file_names=["dense.png"], image_ids=None,
        sizes_wh=np.asarray([[width, height]]), class_names=("red", "green"), class_ids=np.asarray([1, 2]),
    )  # fmt: skip


def find_rectangles(images: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """A detector without weights: parts of one colour, the larger the surer."""
    found = []
    for image in images:
        parts = []
        for label, colour in enumerate(COLOURS):
            _, _, stats, _ = cv2.connectedComponentsWithStats((image == colour).all(axis=2).astype(np.uint8))
            x, y, width, height, area = stats[1:].T
            boxes = np.stack([x, y, x + width, y + height], axis=1).astype(np.float32)
            parts.append((boxes, 0.5 + area / 1000, np.full(len(boxes), label)))
        found.append(tuple(np.concatenate(column) for column in zip(*parts, strict=True)))
    return found


def _model(scene: AnnotationTable, inference: dict | None = None, *overrides: str) -> Model:
    model = sniper.from_callable(find_rectangles, scene.class_names, levels=LEVELS, inference=inference)
    return replace(model, recipe=model.recipe.changed(overrides))


def test_chips_teach_every_object(scene: AnnotationTable) -> None:
    chips = sniper.ChipDataset(scene, {"levels": LEVELS, "chip_px": 512})
    assert np.array_equal(np.unique(chips.chips.object_rows), np.arange(OBJECTS))
    learned = [len(target["boxes"]) for _, target in chips.__getitems__(range(len(chips)))]
    assert sum(learned) == len(chips.chips.object_rows) >= OBJECTS


def test_a_chip_with_2000_objects_trains_the_reference_detector(scene: AnnotationTable) -> None:
    settings = {
        "pyramid": {"levels": [{"scale": 0.28}], "chip_px": 512},
        "model": {"backbone": "timm/test_resnet", "weights": None, "channels": 16},
        "chips": {"min_side_px": 0},
    }
    recipe, pyramid = resolve_pyramid(Recipe.parse(settings), scene)
    loader = ChipSource(scene, pyramid, recipe.changed(["loader.batch_size=1", "loader.workers=0"])).epoch(0, 0, 0, 1)
    batch = next(iter(loader)).to("cpu")
    assert int(batch.valid.sum()) == OBJECTS
    torch.manual_seed(0)
    losses = build_detector(recipe, 2, pretrained=False).losses(batch)
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()


def test_all_are_found_measured_written_and_drawn(
    scene: AnnotationTable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = _model(scene, ALL, "evaluation.max_detections=2000")
    with caplog.at_level(logging.WARNING):
        done = sniper.evaluate(model, scene)
        (item,) = sniper.predict(model, scene.image_path(0), output=tmp_path).items
    assert not caplog.records
    assert done.result.ap_maxdets == pytest.approx(1, abs=1e-6)
    assert len(item.scores) == OBJECTS
    assert item.cut_score == 0
    assert len(json.loads((tmp_path / "predictions.json").read_text())[0]["detections"]) == OBJECTS
    drawn = cv2.imread(str(tmp_path / "dense.jpg"))[..., ::-1].astype(int)
    x1, y1, x2, _ = scene.boxes_xyxy.astype(int).T
    middle = (x1 + x2) // 2
    # The upper side of each box, to a pixel or two beside it, has its class's colour, but below the panel of counts.
    near = np.stack(
        [np.abs(drawn[np.clip(y1 + k, 0, None), middle] - _colours(scene)).max(axis=1) for k in (-2, -1, 0)]
    )
    missing = np.flatnonzero(near.min(axis=0) > 90)
    assert len(missing) < 40
    assert {tuple(row) for row in np.stack([x1, y1], axis=1)[missing] // 400} <= {(0, 0), (4, 0), (0, 3), (4, 3)}


def _colours(scene: AnnotationTable) -> np.ndarray:
    return np.asarray([class_color(int(label)) for label in scene.labels])


def test_bounds_that_hide_objects_are_told(scene: AnnotationTable, caplog: pytest.LogCaptureFixture) -> None:
    model = _model(scene)
    with caplog.at_level(logging.WARNING):
        found = sniper.predict(model, scene.image_path(0))
    assert found.cut_images == 1
    assert len(found.items[0].scores) == 300
    assert found.items[0].cut_score >= 0.5
    (record,) = caplog.records
    assert "inference.merge.max_per_image=300" in record.getMessage()
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        done = sniper.evaluate(model, scene)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "set inference.merge.max_per_image=3000" in told[0]
    assert "evaluation.max_detections=100, up to" in told[1]
    assert done.result.ap < 0.2


def test_what_a_window_keeps_is_told_with_the_settings_that_keep_more(scene: AnnotationTable) -> None:
    recipe, pyramid = resolve_pyramid(Recipe.load("mobilenetv2", ["pyramid.levels=[{scale: 1.0}]"]), scene)
    of_window, of_image, _ = hiding_bounds(recipe, pyramid, scene)
    assert "inference.merge.max_per_image" in of_image
    assert "model.max_detections=300, model.proposals.keep=300 keep fewer" in of_window
    wanted = int(of_window.split("set model.max_detections=")[1].split(",")[0])
    assert wanted >= 1.4 * 1700
    lifted = recipe.changed(
        [f"model.max_detections={wanted}", f"model.proposals.keep={wanted}", "inference.merge.max_per_image=null",
         "evaluation.max_detections=2000"]
    )  # fmt: skip
    assert hiding_bounds(lifted, pyramid, scene) == []
    assert hiding_bounds(recipe, pyramid, scene.select([])) == []


def test_what_a_bound_cuts_off_is_known_for_every_image() -> None:
    boxes = np.stack([np.arange(6), np.zeros(6), np.arange(6) + 0.5, np.ones(6)], axis=1).astype(np.float32)
    scores = np.asarray([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], np.float32)
    zeros = np.zeros(6, int)
    merged = merge_images(
        np.asarray([0, 4, 4, 6]), boxes, scores, zeros, zeros, [[0, np.inf]], MergeConfig(max_per_image=2)
    )
    assert merged.offsets.tolist() == [0, 2, 2, 4]
    np.testing.assert_allclose(merged.cut_scores, [0.7, 0, 0])


def test_settings_of_a_checkpoint_are_changed_where_it_is_opened(scene: AnnotationTable) -> None:
    with pytest.raises(RecipeError, match=facts("sniper.load_model", "inference.window_px")):
        sniper.predict(_model(scene), scene.image_path(0), overrides=["inference.window_px=512"])

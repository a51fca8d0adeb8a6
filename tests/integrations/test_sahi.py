"""Both directions with SAHI itself; skipped where it is not installed, as it is not part of the extra ``dev``."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_from_sahi import HARD, LEVELS, NAMES, find_colours

import sniper
from devices import DEVICE
from rectangle_set import TINY, make_set
from sniper.boxes import iou
from sniper.errors import CheckpointError, RecipeError
from sniper.pipeline.model import load_model

pytest.importorskip("sahi", reason="SAHI is not installed: pip install 'sniper-detection[sahi]'")

from sahi.models.base import DetectionModel
from sahi.predict import get_prediction, get_sliced_prediction
from sahi.prediction import ObjectPrediction

from sniper.integrations.sahi import SniperDetectionModel


@pytest.fixture(autouse=True)
def _gpus_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """SAHI hides the GPUs of the process when it is told to use the CPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES", ""))


def _scene(size_wh: tuple[int, int] = (300, 200), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size_wh[1], size_wh[0], 3), dtype=np.uint8)


def _sahi(checkpoint: Path, **more: Any) -> SniperDetectionModel:
    return SniperDetectionModel(str(checkpoint), device=DEVICE, confidence_threshold=0.0, **more)


def test_a_slice_is_one_look_of_ours(checkpoint: Path) -> None:
    """One slice that is the whole image: our own single-level inference, box by box."""
    image, model = _scene((150, 120)), load_model(checkpoint, device=DEVICE)
    same = _sahi(checkpoint, inference=model.recipe.inference)
    found = get_prediction(image, same).object_prediction_list
    one = sniper.from_callable(lambda _: [], model.class_names).recipe.pyramid
    recipe = model.recipe.model_copy(update={"pyramid": one})
    path = checkpoint / "slice.png"
    Image.fromarray(image).save(path)
    (own,) = sniper.predict(load_model(checkpoint, device=DEVICE, recipe=recipe), path, min_score=0.0).items
    assert len(found) == len(own.scores) > 0
    np.testing.assert_allclose([one.bbox.to_xyxy() for one in found], own.boxes_xyxy, rtol=1e-6)
    np.testing.assert_allclose([one.score.value for one in found], own.scores, rtol=1e-6)
    assert [one.category.id for one in found] == [model.class_ids[label] for label in own.labels]
    assert [one.category.name for one in found] == [model.class_names[label] for label in own.labels]


def test_a_slice_keeps_no_duplicates_that_sahi_would_join(checkpoint: Path) -> None:
    found = get_prediction(_scene((150, 120)), _sahi(checkpoint)).object_prediction_list
    boxes = np.asarray([one.bbox.to_xyxy() for one in found])
    labels = np.asarray([one.category.id for one in found])
    close = (iou(boxes, boxes) > 0.5) & (labels[:, None] == labels)
    np.testing.assert_array_equal(close, np.eye(len(found), dtype=bool))


@pytest.mark.parametrize("size_wh", [(300, 200), (64, 64), (1, 1)])
def test_sliced_prediction_of_any_size_and_in_batches(checkpoint: Path, size_wh: tuple[int, int]) -> None:
    options: dict[str, Any] = {"slice_height": 128, "slice_width": 128, "verbose": 0, "postprocess_type": "NMS"}
    image = _scene(size_wh)
    single, batched = (
        get_sliced_prediction(image, _sahi(checkpoint), batch_size=size, **options).object_prediction_list
        for size in (1, 4)
    )
    assert len(single) == len(batched)
    assert (len(single) > 0) == (size_wh != (1, 1)), "regions narrower than 2 px are no proposals"
    assert [one.category.id for one in single] == [one.category.id for one in batched]
    np.testing.assert_allclose([one.score.value for one in single], [one.score.value for one in batched], atol=1e-5)
    boxes = np.asarray([one.bbox.to_xyxy() for one in single]).reshape(-1, 4)
    np.testing.assert_allclose(boxes, np.reshape([one.bbox.to_xyxy() for one in batched], (-1, 4)), atol=1e-3)
    assert (boxes >= 0).all()
    assert (boxes <= [*size_wh, *size_wh]).all()


def test_threshold_holds_and_can_be_changed_for_a_call(checkpoint: Path) -> None:
    model, image = _sahi(checkpoint), _scene()
    scores = sorted(one.score.value for one in get_prediction(image, model).object_prediction_list)
    middle = scores[len(scores) // 2]
    fewer = get_prediction(image, model, confidence_threshold=middle).object_prediction_list
    assert sorted(one.score.value for one in fewer) == [score for score in scores if score >= middle]
    assert model.confidence_threshold == 0


def test_image_size_is_a_zoom_and_all_levels_are_a_pyramid_in_each_slice(checkpoint: Path) -> None:
    image = _scene((128, 128))
    pixels = []
    for more in ({}, {"image_size": 256}, {"levels": "all"}):
        model = _sahi(checkpoint, **more)
        found = get_prediction(image, model).object_prediction_list
        assert found
        assert all(0 <= side <= 128 for one in found for side in one.bbox.to_xyxy())
        pixels.append(model.pixels_processed)
    assert pixels == [128 * 128, 256 * 256, 128 * 128 + 256 * 256]


def test_a_loaded_model_names_and_wrong_settings(checkpoint: Path) -> None:
    loaded = load_model(checkpoint, device=DEVICE)
    model = SniperDetectionModel(model=loaded, device=DEVICE)
    assert model.model is loaded
    assert model.category_names == list(loaded.class_names)
    assert model.category_mapping == {"10": "blue", "20": "green", "30": "red"}
    assert (model.num_categories, model.has_mask) == (3, False)
    named = SniperDetectionModel(model=loaded, device=DEVICE, category_mapping={"10": "a", "20": "b", "30": "c"},
                                 confidence_threshold=0.0)  # fmt: skip
    assert {one.category.name for one in get_prediction(_scene(), named).object_prediction_list} <= {"a", "b", "c"}
    with pytest.raises(RecipeError, match="mask_threshold"):
        SniperDetectionModel(model=loaded, device=DEVICE, mask_threshold=0.7)
    with pytest.raises(RecipeError, match=r"image_size.*one level"):
        SniperDetectionModel(model=loaded, device=DEVICE, levels="all", image_size=512)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        SniperDetectionModel("not/there.safetensors", device=DEVICE)


def test_masks_come_along(tmp_path: Path) -> None:
    """Outlines of the rectangles as polygons; SAHI keeps the bounding box of the polygon where there is one."""
    path = make_set(tmp_path / "set")
    content = json.loads(path.read_text())
    for one in content["annotations"]:
        x, y, width, height = one["bbox"]
        one["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    path.write_text(json.dumps(content))
    overrides = [
        *TINY,
        f"data.train={path}",
        "model.masks=true",
        "model.mask_channels=8",
        "pyramid.levels=[{scale: 1}]",
    ]
    run = sniper.train("mobilenetv2", overrides=overrides, root=tmp_path / "runs")
    model = _sahi(run.folder)
    assert model.has_mask
    found = get_sliced_prediction(
        _scene((160, 120)), model, slice_height=100, slice_width=100, batch_size=3, verbose=0, postprocess_type="NMS",
        perform_standard_pred=False,
    ).object_prediction_list  # fmt: skip
    masks = [one.mask for one in found if one.mask is not None]
    assert masks
    assert all(mask.bool_mask.shape == (120, 160) and mask.bool_mask.any() for mask in masks)


class Rectangles(DetectionModel):
    """A SAHI model of somebody else's, which looks at one image after the other."""

    looks = 0

    def load_model(self) -> None:
        self.model = find_colours
        self.category_mapping = {"10": "blue", "20": "green", "30": "red"}

    def perform_inference(self, image: np.ndarray) -> None:
        self.looks += 1
        self._original_predictions = self.model([image])[0]

    def _create_object_prediction_list_from_original_predictions(
        self, shift_amount_list: list | None = None, full_shape_list: list | None = None
    ) -> None:
        shift, shape = shift_amount_list or [0, 0], full_shape_list
        shift, shape = (shift[0] if isinstance(shift[0], list) else shift), (shape[0] if shape else None)
        self._object_prediction_list_per_image = [
            [
                ObjectPrediction(bbox=box, category_id=10 * (label + 1), category_name=NAMES[label], score=score,
                                 shift_amount=shift, full_shape=shape)
                for box, score, label in zip(*(column.tolist() for column in self._original_predictions), strict=True)
            ]
        ]  # fmt: skip


def test_a_model_of_sahi_in_our_inference(tmp_path: Path) -> None:
    path = make_set(tmp_path / "set", images=3)
    theirs = Rectangles(device=DEVICE)
    model = sniper.from_sahi(theirs, levels=LEVELS, inference=HARD)
    assert (model.class_names, model.class_ids) == (NAMES, (10, 20, 30))
    own = sniper.from_callable(find_colours, NAMES, levels=LEVELS, inference=HARD, class_ids=(10, 20, 30))
    done, plain = sniper.evaluate(model, path), sniper.evaluate(own, path)
    assert done.result.ap50 == pytest.approx(1)
    np.testing.assert_array_equal(done.detections.boxes_xyxy, plain.detections.boxes_xyxy)
    assert theirs.looks == 2 * 3


def test_there_and_back_again(checkpoint: Path, tmp_path: Path) -> None:
    """Our checkpoint as SAHI's model, in our inference over the same levels: nothing is lost on the way."""
    path = make_set(tmp_path / "set", images=2)
    ours = load_model(checkpoint, device=DEVICE)
    # Merging once, in the end: inside a slice, everything stays as it was found.
    inside = ours.recipe.inference.model_copy(
        update={"merge": ours.recipe.inference.merge.model_copy(update={"method": "hard", "iou_threshold": 1.0})}
    )
    theirs = SniperDetectionModel(model=ours, device=DEVICE, confidence_threshold=0.0, inference=inside)
    back = sniper.from_sahi(theirs, levels=ours.pyramid.levels, inference=ours.recipe.inference)
    done, plain = sniper.evaluate(back, path), sniper.evaluate(ours, path)
    assert done.result.images == plain.result.images
    assert done.detections.num_objects == plain.detections.num_objects > 0
    np.testing.assert_allclose(np.sort(done.detections.scores), np.sort(plain.detections.scores), atol=1e-4)


def test_remapped_categories_keep_their_names() -> None:
    theirs = Rectangles(device=DEVICE, category_remapping={"10": 7, "20": 5, "30": 6})
    model = sniper.from_sahi(theirs)
    assert dict(zip(model.class_ids, model.class_names, strict=True)) == {7: "blue", 5: "green", 6: "red"}
    with pytest.raises(RecipeError, match="no category_mapping"):
        sniper.from_sahi(Rectangles(device=DEVICE, load_at_init=False))

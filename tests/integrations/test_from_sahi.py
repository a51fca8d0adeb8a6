"""Functions as detectors: in prediction, in evaluation, coarse to fine; and what they may answer."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import sniper
from rectangle_set import make_set
from sniper.backends.callable import CallableBackend
from sniper.errors import RecipeError
from sniper.inference.backend import Want

Columns = tuple[NDArray, NDArray, NDArray]


def find_colours(pictures: list[NDArray[np.uint8]]) -> list[Columns]:
    """Blue, green and red rectangles (classes 0, 1, 2) of ``rectangle_set``."""
    return [_of_one(picture) for picture in pictures]


def _of_one(picture: NDArray[np.uint8]) -> Columns:
    assert picture.dtype == np.uint8
    assert picture.flags.c_contiguous
    rows = []
    for label, channel in enumerate((2, 1, 0)):
        rest = np.delete(picture, channel, axis=2).max(axis=2).astype(int)
        mask = (picture[..., channel] - rest > 90).astype(np.uint8)
        for x, y, width, height, _ in cv2.connectedComponentsWithStats(mask)[2][1:]:
            rows.append([x, y, x + width, y + height, 0.9, label])
    table = np.asarray(rows, float).reshape(-1, 6)
    return table[:, :4], table[:, 4], table[:, 5].astype(int)


LEVELS = [{"scale": 2.0, "infer_range_px": [0, 22]}, {"scale": 1.0, "infer_range_px": [15, None]}]
HARD = {"merge": {"method": "hard", "iou_threshold": 0.3}}
NAMES = ("blue", "green", "red")


@pytest.fixture(scope="module")
def rectangles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("incoming") / "set", images=4)


def test_a_function_is_a_detector_and_its_batch_comes_as_the_pictures_it_was_made_of() -> None:
    seen: list[NDArray[np.uint8]] = []

    def look(pictures: list[NDArray[np.uint8]]) -> list[tuple[list, list, list]]:
        seen.extend(pictures)
        return [([[-5, 2, 9, 400]], [0.5], [1]), ([], [], [])]

    backend = CallableBackend(look, 2)
    inputs = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), dtype=np.uint8)
    found = backend.look(inputs, np.array([[100, 80], [1, 1]]), np.ones(2, np.float32), Want())
    assert [picture.shape for picture in seen] == [(100, 80, 3), (1, 1, 3)]
    np.testing.assert_array_equal(seen[0], inputs[0, :100, :80])
    assert found.boxes.tolist() == [[0, 2, 9, 100]]
    assert (found.labels.tolist(), found.labels.dtype, found.scores.dtype) == ([1], np.int64, np.float32)
    assert found.offsets.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([], "an answer for each of 1 images, got 0"),
        ([([], [])], "boxes, scores and labels of an image, got 2 values"),
        ([([[0, 0, 1, 1]], [0.5, 0.5], [0])], r"got \(1, 4\), \(2,\) and \(1,\)"),
        ([([[0, 0, 1, 1]], [0.5], [2])], "labels from 0 to 1, one for each class name, got 2 to 2"),
        ([(torch.zeros(1, 4), torch.ones(1), torch.full((1,), 7))], "got 7 to 7"),
    ],
)
def test_answers_of_another_form_are_refused(answer: list, said: str) -> None:
    inputs = np.zeros((1, 64, 64, 3), np.uint8)
    with pytest.raises(RecipeError, match=said):
        CallableBackend(lambda _: answer, 2).look(inputs, np.array([[64, 64]]), np.ones(1, np.float32), Want())


def test_prediction_over_levels_finds_each_object_once(rectangles: Path, tmp_path: Path) -> None:
    model = sniper.from_callable(find_colours, NAMES, levels=LEVELS, inference=HARD)
    found = sniper.predict(model, rectangles.parent / "images", output=tmp_path)
    assert [len(item.scores) for item in found.items] == [4, 4, 4, 0]
    written = json.loads((tmp_path / "predictions.json").read_text())
    assert {one["class"] for one in written[0]["detections"]} == set(NAMES)
    assert (tmp_path / "0.jpg").is_file()


def test_evaluation_of_a_function_is_that_of_a_checkpoint(rectangles: Path) -> None:
    model = sniper.from_callable(find_colours, NAMES, levels=LEVELS, inference=HARD)
    assert sniper.evaluate(model, rectangles).result.ap50 == pytest.approx(1)


def test_small_detections_say_where_to_look_closer(rectangles: Path) -> None:
    inference = {**HARD, "focus": {"threshold": 0.5, "min_chip_px": 64}}
    model = sniper.from_callable(find_colours, NAMES, levels=LEVELS, inference=inference)
    done = sniper.evaluate(model, rectangles)
    assert done.result.ap50 == pytest.approx(1)
    assert done.pixel_share < 1, "an image without objects is not looked at closer"


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(RecipeError, match="one id for each"):
        sniper.from_callable(find_colours, NAMES, class_ids=(1, 2))
    with pytest.raises(RecipeError, match=r"did you mean .*scale"):
        sniper.from_callable(find_colours, NAMES, levels=[{"sclae": 1}])
    with pytest.raises(RecipeError, match="no perform_inference"):
        sniper.from_sahi(object())

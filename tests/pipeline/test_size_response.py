"""At what size a detector sees objects well: measured on one of which that is known."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from trained_run import Trained

from rectangle_set import CLASSES, make_set
from sniper.data.source import load_dataset
from sniper.evaluation.size_response import SizeBin, SizeResponse
from sniper.pipeline.from_callable import from_callable
from sniper.pipeline.plan import plan
from sniper.pipeline.size_response import images_with_objects, measure_response, response_scales

NEEDED_PX = 32.0  # what the function below needs to find a rectangle


def find_rectangles(images: list[NDArray[np.uint8]]) -> list[tuple[list[Any], list[Any], list[Any]]]:
    """The coloured rectangles of ``NEEDED_PX`` and more."""
    return [_found(image) for image in images]


def _found(image: NDArray[np.uint8]) -> tuple[list[Any], list[Any], list[Any]]:
    coloured = (np.ptp(image.astype(np.int16), axis=2) > 110).astype(np.uint8)
    _, _, places, _ = cv2.connectedComponentsWithStats(coloured)
    kept = [place[:4].tolist() for place in places[1:] if place[2] * place[3] >= NEEDED_PX**2]
    return [[x, y, x + w, y + h] for x, y, w, h in kept], [0.9] * len(kept), [0] * len(kept)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("response") / "set", images=19)


def test_the_size_from_which_on_a_detector_finds_everything(place: Path) -> None:
    model = from_callable(find_rectangles, CLASSES)
    table = load_dataset(place)
    told: list[int] = []
    response = measure_response(model.backend, table, model.recipe.inference, on_progress=told.append)
    assert sum(told) == 18 * len(response_scales(table)), "the image without objects says nothing"
    shares = {round(point.network_px): point.share for point in response.curve()}
    assert all(share < 0.3 for size, share in shares.items() if size < 0.7 * NEEDED_PX), shares
    assert all(share > 0.9 for size, share in shares.items() if size > 1.5 * NEEDED_PX), shares
    assert response.comfortable_px is not None
    assert NEEDED_PX <= response.comfortable_px <= 1.5 * NEEDED_PX

    made = plan(place, checkpoint=model, recipe="mobilenetv2", calibration_s=0)
    assert made.object_px == round(response.comfortable_px)
    assert made.as_dict()["response"]["comfortable_px"] == response.comfortable_px
    assert any("more zoom buys nothing" in sentence for sentence in made.sentences())
    sizes = [one.levels[0].network_px[2] for one in (made, plan(place, calibration_s=0))]
    assert sizes[0] < sizes[1], "less zoom than the 64 px of an unknown detector"


def test_each_size_is_compared_with_itself() -> None:
    """Small objects are harder at any scale here; that is not what zoom could mend."""
    bins = [SizeBin(scale, low, 2 * low, 20, ap) for low, ap in ((8, 0.2), (16, 0.6)) for scale in (1.0, 2.0, 4.0)]
    assert all(point.share == pytest.approx(1) for point in SizeResponse(tuple(bins)).curve())
    assert SizeResponse(()).comfortable_px is None


def test_images_are_chosen_by_the_seed(place: Path) -> None:
    table = load_dataset(place)
    chosen = [images_with_objects(table, 5, seed).image_ids.tolist() for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert len(chosen[0]) == 5


def test_a_checkpoint_that_finds_nothing_changes_nothing(
    trained: Trained, sniper: Callable[..., Any], tmp_path: Path
) -> None:
    """A few steps of training: it says that it cannot tell, and plans as without it."""
    options = ["--calibration", 0, "--json"]
    done = sniper("plan", trained.val_json, "--checkpoint", trained.run.folder, *options)
    assert done.code == 0, done
    told = json.loads(done.out)
    assert told["response"]["comfortable_px"] is None
    assert told["levels_derived"]
    refused = sniper("plan", trained.val_json, "--checkpoint", tmp_path / "none.safetensors", *options)
    assert refused.code == 2
    assert "none.safetensors" in refused.lines[-1]

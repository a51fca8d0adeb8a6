"""``sniper plan``: what a training would look at, cost and take, and the verdict."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rectangle_set import TINY, make_set
from sniper.data.source import load_dataset
from sniper.data.table import AnnotationTable
from sniper.errors import DataError
from sniper.pipeline.plan import plan
from sniper.recipe import Recipe

Sniper = Callable[..., Any]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("plan") / "set")


def _options() -> list[str]:
    return [argument for setting in TINY for argument in ("--set", setting)]


def test_a_plan_as_json(sniper: Sniper, dataset: Path) -> None:
    done = sniper("plan", dataset, *_options(), "--calibration", 0.5, "--minutes", 3, "--gpus", 2, "--json")
    assert done.code == 0, done
    told = json.loads(done.out)
    assert told["verdict"]["method"] in ("chips", "tiles", "whole")
    assert sum(one["chips"] for one in told["levels"]) == told["coverage"]["chips"]["positive"]
    assert told["ways"][0]["train_megapixels"] == pytest.approx(told["coverage"]["pixels_per_epoch"]["chips"] / 1e6)
    own, gpus = told["budgets"]
    assert own["length"]["minutes"] == gpus["length"]["minutes"] == 3
    assert own["length"]["epochs"] * own["length"]["steps_an_epoch"] * own["step_s"] == pytest.approx(180)
    assert (own["chips_a_step"], gpus["chips_a_step"]) == (2, 4)
    assert told["calibration"]["measured_steps"] >= 1
    assert told["calibration"]["flops_a_chip"] > 1e6
    assert own["memory_mb"] > 100


def test_a_plan_in_words(sniper: Sniper, dataset: Path) -> None:
    done = sniper("plan", dataset, *_options(), "--calibration", 0)
    assert done.code == 0, done
    assert "Ways of training" in done.out
    assert "no times: calibration is off" in done.out
    assert "expected coverage: 100.0%" in done.out


def test_images_that_are_not_there_can_be_planned_for(tmp_path: Path) -> None:
    place = make_set(tmp_path / "set")
    for image in (tmp_path / "set" / "images").iterdir():
        image.unlink()
    made = plan(place, recipe=Recipe.load("mobilenetv2", TINY), calibration_s=0.5)
    assert made.calibration is None
    assert made.budgets == ()
    assert ".png" in str(made.not_calibrated)


def test_test_pixels_are_of_the_evaluation_data(dataset: Path, tmp_path: Path) -> None:
    recipe = Recipe.load("mobilenetv2", [*TINY, "pyramid.levels=[{scale: 1.0}]"])
    other = load_dataset(make_set(tmp_path / "set", images=3))
    larger = AnnotationTable(**{**_columns(other), "sizes_wh": other.sizes_wh * 10})
    own, theirs = (plan(dataset, val=val, recipe=recipe, calibration_s=0) for val in (None, larger))
    assert own.ways[0].test_megapixels == pytest.approx(256 * 128 / 1e6)
    assert theirs.ways[0].test_megapixels > 1600 * 1200 / 1e6
    assert own.ways[0].train_megapixels == theirs.ways[0].train_megapixels


def _columns(table: AnnotationTable) -> dict:
    return {name: getattr(table, name) for name in AnnotationTable.__dataclass_fields__}


def test_a_set_without_objects_cannot_be_planned_for(tmp_path: Path) -> None:
    place = make_set(tmp_path / "set", images=1)
    with pytest.raises(DataError, match="no object to learn"):
        plan(place, recipe=Recipe.load("mobilenetv2", TINY), calibration_s=0)


def test_the_settings_of_a_verdict_are_settings(dataset: Path) -> None:
    """One level of images hardly larger than a chip: whole images serve as well, and train."""
    recipe = Recipe.load("mobilenetv2", [*TINY, "pyramid.levels=[{scale: 1.0}]"])
    made = plan(dataset, recipe=recipe, calibration_s=0)
    assert made.verdict.method == "whole"
    followed = Recipe.load("mobilenetv2", [*TINY, *made.settings])
    assert followed.sampler.method == "whole"
    again = plan(dataset, recipe=followed, calibration_s=0.5)
    assert again.calibration is not None
    assert again.recipe.pyramid.levels[0].long_px == made.verdict.long_px == 160


REAL = {
    "hit_uav/train.json": (None, "chips"),
    "aerial_cars_kit_ais": ("train", "chips"),
    "mask_faces/train.json": (None, "chips"),
    "coco_subset": ("train", "chips"),
    "annotations_only/taco_annotations.json": (None, "chips"),
    "annotations_only/uavvaste_annotations.json": (None, "chips"),
    "annotations_only/visdrone_first50_coco.json": (None, "chips"),
    "fod_a/learn.json": (None, "chips"),
    "bccd": (None, "whole"),
}


@pytest.mark.parametrize("name", REAL)
def test_verdicts_of_real_sets(shared_data: Path, name: str) -> None:
    split, method = REAL[name]
    made = plan(shared_data / name, split=split, calibration_s=0)
    assert made.verdict.method == method, made.verdict
    chips, whole, usual, _ = made.ways
    assert chips.seen >= max(whole.seen, usual.seen) - 0.02
    assert made.coverage.covered > 0.99

"""Nothing stale: every setting changes the key of what is kept, or stands on the list of those that cannot matter."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import torch
from recipe_changes import changes
from torch import nn

from rectangle_set import TINY, make_set
from sniper.data.detection_files import load_detections
from sniper.data.source import load_dataset
from sniper.data.table import AnnotationTable
from sniper.inference.config import ProposeConfig
from sniper.nn.weights_digest import weights_digest
from sniper.pipeline.keys import (
    UNUSED_BY_DETECTIONS,
    UNUSED_BY_FIRST_STAGE,
    UNUSED_BY_PROPOSALS,
    detections_key,
    first_stage_key,
    flattened,
    predictions_key,
    used_settings,
)
from sniper.pipeline.propose import extraction
from sniper.pipeline.train import train
from sniper.pyramid import Pyramid
from sniper.recipe import Recipe

LEVELS: dict[str, Any] = {"pyramid": {"levels": [{"scale": 2}, {"scale": 1}], "chip_px": 256}}
FOCUS = {"inference": {"focus": {"threshold": 0.3, "pixel_budget": 0.5}}}
# A setting may have another valid value in one of these and not in another.
BASES = {
    "epochs": LEVELS,
    "steps": LEVELS | {"train": {"steps": 5, "schedule": "cosine", "step_at": []}} | FOCUS,
    "minutes": LEVELS | {"train": {"minutes": 5, "rate_factors": {"head": 2}}, "negatives": {"proposals": "self"}},
    "own weights": LEVELS | {"model": {"weights": None, "channels": None}},
    "original": LEVELS | {"original": {"network": "sniper_resnet50"}},
}
LISTS = {
    "proposals": UNUSED_BY_PROPOSALS,
    "detections": UNUSED_BY_DETECTIONS,
    "predictions": UNUSED_BY_DETECTIONS,
    "first stage": UNUSED_BY_FIRST_STAGE,
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> AnnotationTable:
    return load_dataset(make_set(tmp_path_factory.mktemp("keys") / "set", images=2))


@pytest.fixture(scope="module")
def detector() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(2, 2)


def _key(kind: str, recipe: Recipe, table: AnnotationTable, detector: nn.Module) -> str:
    if kind == "proposals":
        assert recipe.pyramid.levels != "auto"
        pyramid = Pyramid(levels=recipe.pyramid.levels)
        return extraction(weights_digest(detector), table, pyramid, recipe, ProposeConfig(), "out").key
    if kind == "detections":
        return detections_key(recipe, table, weights_digest(detector), {})
    if kind == "predictions":
        return predictions_key(recipe, "0", {})
    return first_stage_key(recipe, table, weights_digest(detector), 1)


def _listed(name: str, names: Collection[str]) -> bool:
    return name in names or any(one.endswith(".") and name.startswith(one) for one in names)


@pytest.fixture(scope="module")
def every_change() -> list[tuple[Recipe, list[tuple[str, Recipe | None]]]]:
    recipes = [Recipe.parse(settings, name) for name, settings in BASES.items()]
    return [(recipe, list(changes(recipe))) for recipe in recipes]


@pytest.mark.parametrize("kind", LISTS)
def test_every_setting_changes_the_key_or_is_on_the_list(
    kind: str, table: AnnotationTable, detector: nn.Module, every_change
) -> None:
    changed, fixed = set(), set()
    for recipe, others in every_change:
        before = _key(kind, recipe, table, detector)
        for setting, other in others:
            if other is None:
                fixed.add(setting)
                continue
            changed.add(setting)
            same = _key(kind, other, table, detector) == before
            assert same == _listed(setting, LISTS[kind]), setting
    assert fixed <= changed, "a setting that was never changed is not tested"
    assert len(changed) > 150
    assert {"model.proposals.keep", "model.anchors.ratios", "model.mean", "inference.batch_pixels"} <= changed


@pytest.mark.parametrize("kind", LISTS)
def test_the_lists_name_settings_that_there_are(kind: str) -> None:
    there = {name for base in BASES.values() for name in flattened(Recipe.parse(base).model_dump(mode="json"))}
    for one in LISTS[kind]:
        assert any(_listed(name, [one]) for name in there), one
    for name in used_settings(Recipe(), LISTS[kind]):
        assert not _listed(name, LISTS[kind])


def test_the_settings_of_an_extraction_change_its_key(table: AnnotationTable, detector: nn.Module) -> None:
    recipe = Recipe.parse(LEVELS)
    assert recipe.pyramid.levels != "auto"
    pyramid = Pyramid(levels=recipe.pyramid.levels)

    def key(config: ProposeConfig = ProposeConfig(), **given: Any) -> str:  # noqa: B008  frozen
        return extraction(weights_digest(detector), table, pyramid, recipe, config, "out", **given).key

    others = {"nms_iou": 0.5, "max_per_image": 7, "min_score": 0.3, "boxes": "detections", "window_share": 0.5}
    assert set(others) == set(ProposeConfig.model_fields)
    keys = [key(), key(on_bad_image="skip")]
    keys += [key(ProposeConfig.model_validate({name: value})) for name, value in others.items()]
    keys.append(key(ProposeConfig(window_share=0.5), seed=1))
    assert len(set(keys)) == len(keys)
    assert key(seed=1) == key(), "nothing is drawn where every window is looked at"


def test_weights_data_and_their_place_change_every_key(
    table: AnnotationTable, detector: nn.Module, tmp_path: Path
) -> None:
    recipe = Recipe.load("mobilenetv2", [*TINY, "pyramid.levels=[{scale: 1}]"])
    torch.manual_seed(1)
    others = [nn.Linear(2, 2), nn.Linear(2, 3)]
    moved = load_dataset(make_set(tmp_path / "set", images=2))
    fewer = table.select([0])
    for kind in ("proposals", "detections", "first stage"):
        keys = [_key(kind, recipe, table, one) for one in (detector, *others)]
        keys += [_key(kind, recipe, one, detector) for one in (moved, fewer)]
        assert len(set(keys)) == len(keys)
    assert predictions_key(recipe, "0", {"a": 1}) != predictions_key(recipe, "0", {"a": 2})
    assert predictions_key(recipe, "0", {}) != predictions_key(recipe, "1", {})


def test_proposals_of_other_settings_of_the_detector_are_made_anew(tmp_path: Path) -> None:
    data = make_set(tmp_path / "set", images=2)
    settings = [*TINY, f"data.train={data}", "negatives.proposals=auto", "negatives.proposal_epochs=1"]
    for name, keep in (("a", 300), ("b", 20), ("c", 20)):
        said: list[str] = []
        overrides = [*settings, f"model.proposals.keep={keep}", "train.steps=1"]
        train("mobilenetv2", overrides=overrides, root=tmp_path, name=name, log=said.append)
        about = [line for line in said if line.startswith("proposals")]
        assert all("done before" in line for line in about) == (name == "c"), said
    assert len(list((tmp_path / "negatives").iterdir())) == 2
    some, fewer, _ = (load_detections(tmp_path / "train" / name / "proposals.safetensors") for name in "abc")
    assert some.num_objects > fewer.num_objects

"""Traits are read off the detector as it was built."""

import pytest
import torch
from torch import nn

from sniper.detectors.config import CustomConfig
from sniper.detectors.original.config import OriginalConfig
from sniper.detectors.sniper.config import SniperConfig
from sniper.detectors.sniper.network import Sniper, build_sniper
from sniper.detectors.traits import DetectorTraits, promised_traits, traits_of
from sniper.detectors.two_stage import FirstStage
from sniper.detectors.with_focus import with_focus
from sniper.pipeline.detectors import build_detector, settings_of
from sniper.recipe import Recipe, shipped_recipes


@pytest.mark.parametrize("name", shipped_recipes())
def test_what_a_recipe_promises_is_what_is_built(name: str) -> None:
    branches = {"masks", "focus"} & type(Recipe.load(name).model).model_fields.keys()
    for changes in ([], *([f"model.{branch}=true"] for branch in sorted(branches))):
        recipe = Recipe.load(name, changes)
        with torch.device("meta"):
            detector = build_detector(recipe, 3, pretrained=False)
        traits = traits_of(detector)
        assert traits == promised_traits(recipe.model)
        assert traits.predicts_masks == getattr(recipe.model, "masks", False)
        assert traits.has_focus == getattr(recipe.model, "focus", False)
        kept = settings_of(detector)
        if recipe.model.kind == "transformers":  # what a name stands for is written out, and builds the same again
            written = recipe.model_copy(update={"model": kept})
            assert kept.name == recipe.model.name
            with torch.device("meta"):
                assert settings_of(build_detector(written, 3, pretrained=False)) == kept
        else:
            assert kept == recipe.model


def test_the_stride_is_that_of_the_network() -> None:
    assert promised_traits(OriginalConfig(network="sniper_mobilenetv2")).comfortable_px == 128
    assert promised_traits(SniperConfig(stride=8)).comfortable_px == 32


class Nothing(nn.Module):
    pass


class Everything(nn.Module):
    stride, comfortable_px, predicts_masks, focus_stride = 8, 20, True, 16


def test_a_detector_of_ones_own_tells_what_it_wants() -> None:
    assert traits_of(Nothing()) == DetectorTraits("Nothing", 64.0)
    everything = traits_of(Everything())
    assert everything == DetectorTraits("Everything", 20.0, 8, True, True)
    kept = settings_of(Everything())
    assert kept == CustomConfig(name="Everything", stride=8, comfortable_px=20, masks=True, focus=True)
    assert promised_traits(kept) == everything


def test_a_focus_branch_around_a_detector_changes_nothing_else() -> None:
    config = SniperConfig(backbone="timm/test_resnet", weights=None, channels=8, stride=8, masks=True)
    detector = build_sniper(config, 2)
    plain, focused = traits_of(detector), traits_of(with_focus(detector, "backbone", channels=4))
    assert focused == DetectorTraits("WithFocus(Sniper)", plain.comfortable_px, 8, True, True)
    assert settings_of(with_focus(detector, "backbone", channels=4)).kind == "custom"
    assert settings_of(detector) == config


class Changed(Sniper):
    """A user's change of ours, which no recipe can build."""


def test_a_subclass_of_ours_is_a_detector_of_ones_own() -> None:
    config = SniperConfig(backbone="timm/test_resnet", weights=None, channels=8)
    detector = build_sniper(config, 2)
    changed = Changed(FirstStage(detector.backbone, detector.anchors, detector.rpn), detector.head, config)
    assert settings_of(changed) == CustomConfig(name="Changed", stride=16)

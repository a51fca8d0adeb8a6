"""What a user's own detector is and can do decides how it is trained, whatever the recipe says of another one."""

import json
from pathlib import Path

import pytest
from own_detector import Cells
from torch import Tensor, nn

import sniper
from facts import facts
from rectangle_set import TINY, make_set
from sniper.detectors.sniper.config import SniperConfig
from sniper.detectors.sniper.network import build_sniper
from sniper.errors import RecipeError, SniperError
from sniper.recipe import Recipe
from sniper.structures import Batch

SHORT = [one for one in TINY if not one.startswith("model.")]
SHORT = [*[one for one in SHORT if not one.startswith("train.steps")], "train.steps=1", "pyramid.max_scale=16"]


class FineCells(Cells):
    stride = 8


class ComfortableCells(Cells):
    comfortable_px = 48.0
    stride = (8, 16)  # means something else there


class PuzzlingCells(Cells):
    stride = (8, 16)


class OutlinedCells(Cells):
    """Also learns the first corner of each outline, and cannot do without."""

    predicts_masks = True

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.polygons is not None, "a mask branch learns from outlines"
        assert batch.polygons[batch.valid].shape[1] > 4
        return super().losses(batch) | {"mask": self.cells.weight.square().mean()}


def _trained(detector: nn.Module, data: Path, root: Path, *more: str, recipe: str = "mobilenetv2"):
    return sniper.train(recipe, overrides=[*SHORT, f"data.train={data}", *more], detector=detector, root=root)


def _resolved(detector: nn.Module, data: Path, folder: Path, *more: str) -> Recipe:
    """The recipe that training would resolve, at the cost of counting chips."""
    sniper.chip_stats(Recipe.load("mobilenetv2", [*SHORT, *more]), data, output=folder, detector=detector)
    return Recipe.load(folder / "recipe.yaml")


@pytest.mark.parametrize(
    ("kind", "object_px"), [(FineCells, 32), (ComfortableCells, 48), (Cells, 64)], ids=["stride", "size", "unknown"]
)
def test_automatic_levels_go_by_the_detector_that_is_trained(tmp_path: Path, kind: type, object_px: float) -> None:
    data = make_set(tmp_path / "set")
    run = _trained(kind(), data, tmp_path / "auto")
    given = _resolved(Cells(), data, tmp_path / "given", f"pyramid.object_px={object_px}")
    assert run.recipe.pyramid.levels == given.pyramid.levels
    assert Recipe.load(run.folder / "recipe.yaml") == run.recipe
    shown = _resolved(kind(), data, tmp_path / "shown")
    assert (shown.pyramid, shown.model) == (run.recipe.pyramid, run.recipe.model), "what training will look at"


def test_the_network_of_the_recipe_has_no_say(tmp_path: Path) -> None:
    data = make_set(tmp_path / "set")
    run = _trained(Cells(), data, tmp_path / "8", "model.stride=8", "model.focus=true")
    other = _resolved(Cells(), data, tmp_path / "32", "model.stride=32", "model.focus=true")
    assert run.recipe.pyramid == other.pyramid
    assert len(run.recipe.pyramid.levels) == 1, "no scout for a branch that is not there"


def test_a_focus_branch_gets_a_scout_level(tmp_path: Path) -> None:
    data = make_set(tmp_path / "set")
    plain = _resolved(Cells(), data, tmp_path / "plain")
    focused = _trained(sniper.with_focus(Cells(), layer="cells", channels=4), data, tmp_path / "focused").recipe
    assert len(plain.pyramid.levels) == 1
    assert len(focused.pyramid.levels) == 2
    assert focused.pyramid.levels[0] == plain.pyramid.levels[0]
    fine = sniper.with_focus(FineCells(), layer="cells", channels=4)
    assert _resolved(fine, data, tmp_path / "fine").model.stride == 8


def test_a_mask_branch_gets_outlines(tmp_path: Path) -> None:
    data = make_set(tmp_path / "set")
    with pytest.raises(RecipeError, match=facts("mask branch", data.parent / "images", "model.masks")):
        _trained(OutlinedCells(), data, tmp_path / "none")
    document = json.loads(data.read_text())
    for entry in document["annotations"]:
        x, y, w, h = entry["bbox"]
        entry["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    data.write_text(json.dumps(document))
    assert _trained(OutlinedCells(), data, tmp_path / "runs").result.step == 1


def test_what_is_kept_tells_which_detector_it_was(tmp_path: Path) -> None:
    data = make_set(tmp_path / "set")
    run = _trained(FineCells(), data, tmp_path / "runs")
    assert run.recipe.model.model_dump() == {
        "kind": "custom", "name": "FineCells", "stride": 8, "comfortable_px": 32.0, "masks": False, "focus": False,
    }  # fmt: skip
    assert "kind: custom\n  name: FineCells" in (run.folder / "recipe.yaml").read_text()
    model = sniper.load_model(run.checkpoint, detector=FineCells(), device="cpu")
    assert model.recipe == run.recipe
    wanted = r"your own detector FineCells .*pass it as detector="
    for without in (lambda: sniper.load_model(run.checkpoint), lambda: sniper.train(resume=run.folder)):
        with pytest.raises(SniperError, match=wanted) as caught:
            without()
        assert "\n" not in str(caught.value)
    longer = sniper.train(resume=run.folder, detector=FineCells(), overrides=["train.steps=2"])
    assert longer.result.step == 2


def test_a_reference_detector_that_is_passed_is_built_again_without(tmp_path: Path) -> None:
    data = make_set(tmp_path / "set")
    config = SniperConfig(
        backbone="timm/test_resnet", weights=None, channels=8, rpn_channels=8, head_channels=8, head_width=16, stride=8
    )
    run = _trained(build_sniper(config, 3), data, tmp_path)
    assert run.recipe.model == config
    assert sniper.load_model(run.checkpoint, device="cpu").recipe.model == config


def test_a_stride_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=facts("PuzzlingCells.stride", "positive number", "comfortable_px")):
        _trained(PuzzlingCells(), make_set(tmp_path / "set"), tmp_path)

"""``sniper chips``: what training would look at, before it does."""

from pathlib import Path

import cv2
import pytest
from trained_run import Trained

from rectangle_set import TINY
from sniper.pipeline.chips import chip_preview, chip_stats
from sniper.recipe import Recipe


@pytest.mark.parametrize("proposals", ["self", "auto"])
def test_recipes_whose_proposals_come_while_it_trains_can_be_looked_at(
    trained: Trained, tmp_path: Path, proposals: str
) -> None:
    plain = chip_stats(Recipe.load("mobilenetv2", TINY), trained.train_json)
    recipe = Recipe.load("mobilenetv2", [*TINY, f"negatives.proposals={proposals}"])
    assert chip_stats(recipe, trained.train_json).chips == plain.chips
    pictures = chip_preview(recipe, trained.train_json, output=tmp_path, count=1)
    assert [path.name for path in pictures] == ["0-chips.jpg", "0-levels.jpg"]
    assert all(cv2.imread(str(path)) is not None for path in pictures)

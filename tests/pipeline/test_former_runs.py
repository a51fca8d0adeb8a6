"""Runs and checkpoints of the version before: resumed, loaded and fine-tuned under the present names."""

import copy
import logging
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from trained_run import Trained

from devices import DEVICE
from sniper.pipeline.model import load_model
from sniper.pipeline.train import train
from sniper.training.checkpoint import load_weights, save_weights


def _as_before(recipe: dict) -> dict:
    recipe = copy.deepcopy(recipe) | {"original": None}
    del recipe["model"]["kind"]
    recipe["model"]["maps"] = recipe["model"].pop("feature_levels")
    recipe["train"]["warmup_at_most"] = recipe["train"].pop("warmup_max_share")
    recipe["negatives"]["least_finest"] = recipe["negatives"].pop("min_proposals_finest")
    recipe["pyramid"]["max_zoom"] = recipe["pyramid"].pop("max_scale")
    for level in recipe["pyramid"]["levels"]:
        level["factor"], level["most_zoom"] = level.pop("scale"), level.pop("max_scale")
    return recipe


@pytest.fixture
def former(trained: Trained, tmp_path: Path) -> Path:
    """The trained run, as the version before would have left it."""
    folder = Path(shutil.copytree(trained.run.folder, tmp_path / "train" / "former"))
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(_as_before(yaml.safe_load(recipe.read_text()))))
    state = torch.load(folder / "state.pt", weights_only=True)
    state["config"]["warmup_at_most"] = state["config"].pop("warmup_max_share")
    torch.save(state, folder / "state.pt")
    for path in folder.glob("*.safetensors"):
        weights, meta = load_weights(path)
        save_weights(path, weights, meta.model_copy(update={"recipe": _as_before(meta.recipe)}))
    return folder


def test_a_run_goes_on_as_the_same_run(former: Path, trained: Trained, caplog: pytest.LogCaptureFixture) -> None:
    done = train(resume=former)
    assert done.recipe == trained.run.recipe
    assert "no longer the same run" not in caplog.text
    assert "model.maps is now model.feature_levels" in caplog.text


def test_checkpoints_load_without_a_word(former: Path, trained: Trained, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "sniper"):
        model = load_model(former, device=DEVICE)
    assert model.recipe == trained.run.recipe
    assert not caplog.records

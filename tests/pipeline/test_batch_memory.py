"""A batch that no memory holds is refused before the run folder is made."""

import re
from pathlib import Path

import pytest
import torch
from trained_run import Trained

from facts import facts
from rectangle_set import TINY
from sniper.data.source import load_dataset
from sniper.errors import RecipeError
from sniper.pipeline.batch_memory import require_memory
from sniper.pipeline.chip_source import ChipSource
from sniper.pipeline.model import load_model
from sniper.pipeline.train import train


def test_a_batch_beyond_the_memory_is_refused_with_the_number(trained: Trained, tmp_path: Path) -> None:
    overrides = [*TINY, f"data.train={trained.train_json}", "train.device=cpu"]
    with pytest.raises(RecipeError, match=facts("loader.batch_size 10000000", "GB", "free", "chips fit")) as caught:
        train("mobilenetv2", overrides=overrides, batch=10_000_000, root=tmp_path)
    assert not list(tmp_path.iterdir())
    needed, free, fits = re.findall(r"([\d.]+) (?:GB|chips)", str(caught.value))
    assert float(needed) > float(free)
    assert 1 <= int(fits) < 10_000_000
    assert "\n" not in str(caught.value)


def test_looking_ahead_changes_nothing(trained: Trained) -> None:
    model = load_model(trained.run.folder, device="cpu")
    assert model.detector is not None
    recipe, table = model.recipe.changed(["train.device=cpu"]), load_dataset(trained.train_json)
    require_memory(model.detector, ChipSource(table, model.pyramid, recipe))
    before = {name: tensor.clone() for name, tensor in model.detector.state_dict().items()}
    random = torch.random.get_rng_state()
    source = ChipSource(table, model.pyramid, recipe.changed(["loader.batch_size=10000000"]))
    with pytest.raises(RecipeError, match="10000000"):
        require_memory(model.detector, source)
    assert torch.equal(random, torch.random.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.detector.state_dict().items())
    assert not model.detector.training

"""SSH from a recipe to a checkpoint that detects and proposes, with several classes and a focus branch."""

from pathlib import Path

from rectangle_set import TINY, make_set
from sniper.pipeline.model import load_model
from sniper.pipeline.predict import predict
from sniper.pipeline.propose import propose
from sniper.pipeline.train import train

_OF_SNIPER = ("model.channels", "model.rpn", "model.head", "train.steps")
SETTINGS = [
    *(setting for setting in TINY if not setting.startswith(_OF_SNIPER)),
    "model.channels=[8,8,8]", "model.fused_channels=8", "model.backbone=timm/test_resnet", "model.focus=true",
    "model.anchor_match.positive_iou=0.4", "train.steps=1",
]  # fmt: skip


def test_a_run_from_the_recipe_to_detections(tmp_path: Path) -> None:
    data, val = make_set(tmp_path / "train", images=3), make_set(tmp_path / "val", images=2, seed=1)
    run = train("faces/small", overrides=SETTINGS, data=str(data), val=str(val), root=tmp_path / "runs")
    assert run.recipe.model.kind == "ssh"
    assert run.recipe.model.weights is None
    assert len(run.recipe.pyramid.levels) == 2, "the focus branch has a coarse level to look from"
    assert run.evaluation is not None
    model = load_model(run.checkpoint, device="cpu")
    assert model.class_names == ("blue", "green", "red")
    assert model.backend.focus_source == "branch"
    image = next((tmp_path / "val").rglob("*.png"))
    found = predict(model.focused(0.5), image, min_score=0)
    assert len(found.items) == 1
    proposals = propose(model, str(val), tmp_path / "proposals.safetensors").detections
    assert proposals.num_objects > 0
    assert set(proposals.labels.tolist()) == {0}

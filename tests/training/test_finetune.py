"""Starting from a checkpoint of other classes or other branches; and what the optimiser makes of the 2018 settings."""

from pathlib import Path

import pytest
import torch
from tiny import TinyDetector
from torch import nn

from facts import facts
from sniper.errors import CheckpointError, RecipeError
from sniper.training.checkpoint import CheckpointMeta, save_weights
from sniper.training.config import TrainConfig
from sniper.training.finetune import start_from
from sniper.training.optim import build_optimizer, parameter_groups, set_learning_rate


class Classy(nn.Module):
    """Two layers that know the classes, and parts that may be missing."""

    class_layers = {"head.classes": "background", "masks.logits": "pairs"}  # noqa: RUF012

    def __init__(self, classes: int, *, masks: bool = True, focus: bool = False, width: int = 3) -> None:
        super().__init__()
        self.backbone = nn.Linear(2, width)
        self.head = nn.ModuleDict({"classes": nn.Linear(width, classes + 1)})
        if masks:
            self.masks = nn.ModuleDict({"logits": nn.Conv2d(width, 2 * classes, 1)})
        if focus:
            self.focus = nn.Linear(width, 1)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Classy]:
    torch.manual_seed(0)
    former = Classy(3)
    save_weights(tmp_path / "a.safetensors", former.state_dict(), CheckpointMeta(class_names=("cat", "dog", "cow")))
    return tmp_path / "a.safetensors", former


def test_the_same_classes_take_everything(saved: tuple[Path, Classy]) -> None:
    path, former = saved
    detector = Classy(3)
    start = start_from(detector, path, ("cat", "dog", "cow"))
    assert (start.shared_classes, start.at_random, start.unused) == (3, (), ())
    for name, value in detector.state_dict().items():
        assert torch.equal(value, former.state_dict()[name])


def test_rows_follow_their_classes(saved: tuple[Path, Classy]) -> None:
    path, former = saved
    detector = Classy(3, focus=True)
    fresh = detector.head["classes"].weight.detach().clone()
    start = start_from(detector, path, ("bird", "cow", "cat"))
    assert start.shared_classes == 2
    assert start.at_random == ("focus", "head.classes (new classes)", "masks.logits (new classes)")
    new, old = detector.head["classes"].weight, former.head["classes"].weight
    assert torch.equal(new[[0, 2, 3]], old[[0, 3, 1]])
    assert torch.equal(new[1], fresh[1])
    assert torch.equal(detector.masks["logits"].bias[[1, 2, 4, 5]], former.masks["logits"].bias[[2, 0, 5, 3]])
    assert "2 of 3 classes" in start.sentence()
    assert start_from(Classy(1, masks=False), path, ("cow",)).unused == ("masks",)


def test_a_backbone_alone(tmp_path: Path) -> None:
    former = Classy(1)
    state = {name: value for name, value in former.state_dict().items() if name.startswith("backbone")}
    save_weights(tmp_path / "b.safetensors", state, CheckpointMeta())
    detector = Classy(2)
    assert start_from(detector, tmp_path / "b.safetensors", ("x", "y")).at_random == ("head", "masks")
    assert torch.equal(detector.backbone.weight, former.backbone.weight)


def test_what_does_not_fit_is_refused_and_nothing_is_loaded(saved: tuple[Path, Classy]) -> None:
    path, _ = saved
    wider = Classy(3, width=4)
    before = wider.backbone.weight.detach().clone()
    with pytest.raises(CheckpointError, match=facts("backbone.weight", "(3, 2)", "(4, 2)")):
        start_from(wider, path, ("cat", "dog", "cow"))
    assert torch.equal(wider.backbone.weight, before)
    with pytest.raises(CheckpointError, match=facts("backbone, head, masks", "body")):
        start_from(nn.ModuleDict({"body": nn.Linear(1, 1)}), path, ("cat",))
    deeper = Classy(3)
    deeper.backbone = nn.Sequential(nn.Linear(2, 3))
    with pytest.raises(CheckpointError, match=r"has no backbone\.0\.weight"):
        start_from(deeper, path, ("cat", "dog", "cow"))


def test_momentum_of_steps_is_that_of_mxnet() -> None:
    torch.manual_seed(0)
    config = TrainConfig(momentum_of="steps", learning_rate=0.1, weight_decay=0.01, warmup_steps=0)
    layer = nn.Linear(4, 3)
    weight, speed = layer.weight.detach().clone(), torch.zeros(3, 4)
    optimizer = build_optimizer(layer, config)
    for step, rate in enumerate([0.01, 0.05, 0.1, 0.1, 0.01, 0.01]):
        set_learning_rate(optimizer, rate)
        gradient = torch.randn(3, 4, generator=torch.Generator().manual_seed(step))
        layer.weight.grad, layer.bias.grad = gradient.clone(), torch.zeros(3)
        speed = 0.9 * speed - rate * (gradient + 0.01 * weight)
        weight = weight + speed
        optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), weight)


def test_shares_of_the_rate() -> None:
    config = TrainConfig(rate_factors={"head": 0.5, "head.bias": 0.01, "body.0.weight": 2}, learning_rate=0.1)
    detector = TinyDetector()
    optimizer = build_optimizer(detector, config)
    set_learning_rate(optimizer, 0.2)
    names = {id(p): name for name, p in detector.named_parameters()}
    rates = {names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates["head.weight"] == pytest.approx(0.1)
    assert rates["head.bias"] == pytest.approx(0.002)
    assert rates["body.0.weight"] == pytest.approx(0.4)
    assert rates["body.0.bias"] == pytest.approx(0.2)
    with pytest.raises(RecipeError, match=facts("parameter", "hea")):
        parameter_groups(detector, TrainConfig(rate_factors={"hea": 0.1}))

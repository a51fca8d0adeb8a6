"""The detector of things that comes with the package."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sniper.boxes import iou
from sniper.errors import CheckpointError
from sniper.fetch.shipped import shipped
from sniper.new_classes.objects import OBJECTS_FILE
from sniper.pipeline.model import Model, load_model


@pytest.fixture(scope="module")
def objects() -> Model:
    return load_model("sniper/objects", device="cpu")


def test_it_finds_things_on_plain_ground(objects: Model) -> None:
    rng = np.random.default_rng(0)
    picture = rng.normal(150, 4, (400, 500, 3)).clip(0, 255).astype(np.uint8)
    rows, columns = np.mgrid[:400, :500]
    disc = (rows - 120) ** 2 + (columns - 150) ** 2 < 45**2
    picture[disc] = picture[disc] // 2 + [90, 10, 10]
    picture[240:330, 300:420] = picture[240:330, 300:420] // 4 + [10, 60, 30]
    truth = np.array([[105, 75, 196, 166], [300, 240, 420, 330]], np.float32)
    found = objects.detect(picture)
    assert objects.class_names == ("object",)
    assert (iou(truth, found.boxes_xyxy[:6]).max(axis=1) > 0.6).all(), found.boxes_xyxy[:6]


def test_its_trunk_is_imagenets_and_the_rest_is_small(objects: Model) -> None:
    trunk, own = shipped("torchvision/mobilenet_v2"), OBJECTS_FILE
    assert own.stat().st_size < 3.2e6
    state = objects.detector.state_dict()
    for name, tensor in load_file(trunk).items():
        same = state[name.replace("features.", "backbone.body.")]
        assert torch.equal(same, tensor.to(same.dtype)), name
    for name, tensor in load_file(own).items():
        assert torch.equal(state[name], tensor.float()), name
    assert objects.recipe.data.class_agnostic
    assert str(trunk) not in objects.recipe.to_yaml()  # nor where it lies


def test_settings_can_be_changed_and_another_network_is_refused(objects: Model) -> None:
    assert load_model("sniper/objects", overrides=["inference.merge.max_per_image=3"]).recipe != objects.recipe
    with pytest.raises(CheckpointError, match="objects_fp16"):
        load_model("sniper/objects", overrides=["model.head_width=64"])

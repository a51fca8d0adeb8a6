"""torchvision's detectors through the verbs: trained on chips, and as the library has trained them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from facts import facts
from rectangle_set import TINY, make_set
from sniper.detectors.from_torchvision.build import build_torchvision
from sniper.detectors.from_torchvision.config import TorchvisionConfig
from sniper.detectors.from_torchvision.weights import coco_categories, library_weights
from sniper.errors import CheckpointError, RecipeError
from sniper.fetch import Patience, resolve
from sniper.pipeline.evaluate import evaluate
from sniper.pipeline.model import load_model
from sniper.pipeline.train import TrainedRun, train
from sniper.pyramid import Level
from sniper.training.checkpoint import load_weights

SSDLITE, MOBILE = "ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_fpn"
SMALL = [
    *(one for one in TINY if not one.startswith(("model.", "train.steps"))),
    "model.weights=null",
    "model.max_detections=20",
    "model.score_threshold=0",
    "train.steps=2",
    "train.warmup_steps=0",
    "train.schedule=steps",
    "train.step_at=[0.9]",
]


def state_of(run: TrainedRun) -> dict[str, torch.Tensor]:
    return load_weights(run.folder / "last.safetensors").weights


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("data")
    train_json, val_json = make_set(folder / "train"), make_set(folder / "val", images=2, seed=1)
    return [f"data.train={train_json}", f"data.evaluate={val_json}"]


@pytest.fixture(scope="module")
def run(data: list[str], tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """Two steps of the library's smallest detector, evaluated."""
    return train(f"torchvision/{SSDLITE}", overrides=[*SMALL, *data], root=tmp_path_factory.mktemp("runs"))


def test_a_checkpoint_is_the_detector_that_was_trained(run: TrainedRun, data: list[str]) -> None:
    assert run.result.finished
    assert run.evaluation is not None
    assert run.recipe.model == TorchvisionConfig(name=SSDLITE, weights=None, max_detections=20, score_threshold=0.0), (
        "no detector of the user's own"
    )
    model = load_model(run.checkpoint, device="cpu")
    assert model.class_names == ("blue", "green", "red")
    again = evaluate(model, data[1].partition("=")[2])
    assert again.result.ap == pytest.approx(run.evaluation.result.ap, abs=1e-6)
    assert again.detections.num_objects > 0


def test_resuming_is_exact(run: TrainedRun, data: list[str], tmp_path: Path) -> None:
    short = [*SMALL, *data, "train.steps=1"]
    stopped = train(f"torchvision/{SSDLITE}", overrides=short, root=tmp_path)
    done = train(resume=stopped.folder, overrides=["train.steps=2"])
    ours, theirs = state_of(done), state_of(run)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_another_training_takes_over_the_rows_of_its_classes(run: TrainedRun, data: list[str], tmp_path: Path) -> None:
    more = [*SMALL, *data, "train.steps=1", "train.learning_rate=1e-12", "data.classes=[red, blue]"]
    tuned = train(f"torchvision/{SSDLITE}", overrides=more, weights=run.checkpoint, root=tmp_path)
    layer = "net.head.classification_head.module_list.2.1.weight"
    new, old = (state_of(one)[layer].unflatten(0, (6, -1)) for one in (tuned, run))
    torch.testing.assert_close(new, old[:, [0, 3, 1]], atol=1e-6, rtol=1e-4)


# --- the library's weights -------------------------------------------------------------------------------------------


def _sure_of_persons(state: dict[str, torch.Tensor]) -> None:
    """Random networks see all classes everywhere: with these biases persons alone have scores above 0.01."""
    for name, bias in state.items():
        if name.endswith("bias") and ("cls_score" in name or "classification_head" in name) and len(bias) % 91 == 0:
            bias.view(-1, 91)[:, :2] += torch.tensor([5.0, 3.0])


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library's cache with weights of random networks, in its own form and under its own names."""
    folder = tmp_path_factory.mktemp("torch")
    (folder / "hub" / "checkpoints").mkdir(parents=True)
    for name in (SSDLITE, MOBILE):
        torch.manual_seed(0)
        net = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=91)
        _sure_of_persons(net.state_dict())
        torch.save(net.state_dict(), folder / "hub" / "checkpoints" / resolve(f"torchvision/{name}").place.name)
    return folder


@pytest.fixture
def offline(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(cache))
    monkeypatch.setenv("SNIPER_CACHE", str(tmp_path / "none"))
    for proxy in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (150, 220, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.mark.usefixtures("offline")
def test_predict_takes_the_name_of_a_detector(sniper: Callable, photo: Path, tmp_path: Path) -> None:
    done = sniper("predict", f"torchvision/{SSDLITE}", photo, "-o", tmp_path / "out", "--min-score", 0.0)
    assert done.code == 0, done.lines
    found = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert {one["class"] for one in found[0]["detections"]} == {"person"}


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(("name", "source"), [(SSDLITE, "detections"), (MOBILE, "proposals")])
def test_a_library_detector_focuses_by_what_it_has(name: str, source: str, photo: Path) -> None:
    model = load_model(f"torchvision/{name}", device="cpu")
    assert model.backend.focus_source == source
    assert len(model.pyramid.levels) == 2
    assert len(model.class_names) == 80
    assert (model.class_names[0], model.class_names[-1], model.class_ids[-1]) == ("person", "toothbrush", 90)
    levels = Level(long_px=320), Level(long_px=160)
    pyramid = model.recipe.pyramid.model_copy(update={"levels": levels})
    small = replace(model, recipe=model.recipe.model_copy(update={"pyramid": pyramid}))
    found = small.focused(threshold=0.5).detect(photo, min_score=0.01)
    assert len(found) > 0
    assert {model.class_names[label] for label in found.labels} == {"person"}


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", [SSDLITE, MOBILE])
def test_classes_of_coco_are_taken_over_by_name(name: str) -> None:
    classes = ("dog", "no such class", "person")
    torch.manual_seed(1)
    detector = build_torchvision(TorchvisionConfig(name=name), 3, class_names=classes)
    net = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=91).eval()
    net.load_state_dict(torch.load(library_weights(name), weights_only=True))
    of_coco = coco_categories(name)
    places = [0, of_coco.index("dog"), of_coco.index("person")]
    detector.eval()
    pixels = torch.rand(1, 3, 320, 320)
    with torch.no_grad():
        maps = net.backbone(pixels)
        for name_, one in detector.net.backbone(pixels).items():
            torch.testing.assert_close(one, maps[name_])
        if name == SSDLITE:
            new, old = (one.head(list(maps.values()))["cls_logits"] for one in (detector.net, net))
        else:
            region = torch.rand(1, 1024)
            (new, boxes), (old, old_boxes) = (one.roi_heads.box_predictor(region) for one in (detector.net, net))
            rows = [boxes.unflatten(1, (-1, 4))[:, [0, 1, 3]], old_boxes.unflatten(1, (-1, 4))[:, places]]
            torch.testing.assert_close(*rows)
    torch.testing.assert_close(new[..., [0, 1, 3]], old[..., places])


@pytest.mark.usefixtures("offline")
def test_weights_that_cannot_be_had_or_do_not_fit(sniper: Callable, photo: Path, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="sniper download torchvision/fcos_resnet50_fpn"):
        library_weights("fcos_resnet50_fpn", Patience(timeout_s=0.2, retries=0, pause_s=0.01))
    other = cache / "hub" / "checkpoints" / resolve(f"torchvision/{MOBILE}").place.name
    with pytest.raises(CheckpointError, match="expected the state dict of torchvision/ssdlite"):
        build_torchvision(TorchvisionConfig(name=SSDLITE, weights=str(other)), 3)
    (tmp_path / "bad.pth").write_bytes(b"not weights")
    with pytest.raises(CheckpointError, match=facts("bad.pth", "weight file")):
        build_torchvision(TorchvisionConfig(name=SSDLITE, weights=str(tmp_path / "bad.pth")), 3)
    said = sniper("predict", "torchvision/ssdlite320_mobilenet", photo)
    assert said.code == 2
    assert "did you mean torchvision/ssdlite320_mobilenet_v3_large?" in " ".join(said.lines)
    with pytest.raises(RecipeError, match="no stages to freeze"):
        build_torchvision(TorchvisionConfig(name=SSDLITE, frozen_stages=1), 3, pretrained=False)


def test_what_the_library_freezes_stays_as_it_is() -> None:
    detector = build_torchvision(TorchvisionConfig(name=MOBILE), 2, pretrained=False).train()
    body = detector.net.backbone.body
    assert not any(one.training for one in body.modules() if isinstance(one, torch.nn.BatchNorm2d))
    frozen = {name.split(".")[0] for name, one in body.named_parameters() if not one.requires_grad and one.ndim == 4}
    assert frozen == {str(place) for place in range(7)}

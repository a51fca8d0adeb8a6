"""What the README shows works as it stands there."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sniper
from devices import DEVICE, TRAIN_DEVICE
from sniper.detectors.config import CustomConfig
from sniper.detectors.protocol import Detector
from sniper.structures import Images

README = Path(__file__).parents[1] / "README.md"
DETECTORS = README.parent / "docs" / "detectors.md"


def code_behind(marker: str, page: Path = README) -> str:
    found = re.search(rf"<!-- {re.escape(marker)} -->\n```\w+\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    assert found, f"{page.name} has no block behind '{marker}'"
    return found[1]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Three photos of noise with bright squares, as COCO JSON."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(3):
        pixels = rng.integers(0, 80, (120, 160, 3), dtype=np.uint8)
        for _ in range(3):
            x, y = rng.integers(0, 120), rng.integers(0, 80)
            pixels[y : y + 30, x : x + 30] = 240
            box = [int(x), int(y), 30, 30]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": box,
                    "area": 900,
                    "iscrowd": 0,
                }
            )
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 160, "height": 120})
    path = tmp_path / "train.json"
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "square"}]})
    )
    return path


@pytest.mark.parametrize("name", ["RetinaNet", "FasterRCNN"])
def test_own_detector_trains_on_chips_and_detects(dataset: Path, tmp_path: Path, name: str) -> None:
    names: dict[str, type] = {}
    for example in ("example: own detector", "example: detector with background"):
        exec(code_behind(example), names)
    torch.manual_seed(0)
    detector = names[name](classes=1)
    assert isinstance(detector, Detector)
    before = [p.detach().clone() for p in detector.parameters() if p.requires_grad]

    run = sniper.train(
        "mobilenetv2",
        overrides=[
            f"data.train={dataset}",
            "train.steps=1",
            "loader.batch_size=2",
            "pyramid.chip_px=128",
            "train.tensorboard=false",
            f"train.device={TRAIN_DEVICE}",
        ],
        detector=detector,
        root=tmp_path / "runs",
    )
    assert run.result.finished
    assert run.result.step == 1
    assert any(not torch.equal(old, new.cpu()) for old, new in zip(before, detector.parameters(), strict=False))

    images = Images(torch.rand(2, 3, 128, 160), torch.tensor([[128, 160], [100, 90]]), torch.ones(2))
    found = detector.eval().cpu().detect(images)
    assert len(found) == 2
    assert all((one.labels == 0).all() for one in found), "there is one class"
    again = sniper.load_model(run.checkpoint, detector=names[name](classes=1), device=DEVICE)
    assert again.class_names == ("square",)
    assert again.recipe.model == CustomConfig(name=name)


def test_trained_detector_takes_arrays_pil_images_and_paths(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the README names the run folder from here
    sniper.train(
        "mobilenetv2",
        overrides=[
            f"data.train={dataset}",
            "train.steps=1",
            "loader.batch_size=2",
            "pyramid.chip_px=128",
            "model.weights=null",
            "model.score_threshold=0",
            "train.tensorboard=false",
            f"train.device={TRAIN_DEVICE}",
        ],
    )
    path = tmp_path / "0.png"
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    found = []
    for image in (np.asarray(picture), picture, path, str(path)):
        names = {"sniper": sniper, "image": image}
        exec(code_behind("example: detect"), names)
        found.append(names["found"])
        assert names["model"].class_names == ("square",)
    first = found[0]
    assert len(first) > 0
    assert first.boxes_xyxy.shape == (len(first), 4)
    assert first.masks is None
    assert (np.diff(first.scores) <= 0).all()
    for other in found[1:]:
        np.testing.assert_array_equal(other.boxes_xyxy, first.boxes_xyxy)
        np.testing.assert_array_equal(other.scores, first.scores)
        np.testing.assert_array_equal(other.labels, first.labels)


def test_a_network_of_torchvision_becomes_a_detector() -> None:
    names: dict[str, Detector] = {}
    exec(code_behind("example: torchvision network", DETECTORS), names)
    detector = names["detector"]
    assert isinstance(detector, Detector)
    assert detector.focus_stride == 16
    found = detector.eval().detect(Images(torch.rand(1, 3, 64, 64), torch.tensor([[64, 64]]), torch.ones(1)))
    assert set(found[0].labels.tolist()) <= {0, 1, 2}


def test_a_network_of_transformers_becomes_a_detector() -> None:
    pytest.importorskip("transformers")
    names: dict[str, Detector] = {}
    exec(code_behind("example: transformers network", DETECTORS), names)
    detector = names["detector"]
    assert isinstance(detector, Detector)
    found = detector.eval().detect(Images(torch.rand(1, 3, 64, 64), torch.tensor([[64, 64]]), torch.ones(1)))
    assert set(found[0].labels.tolist()) <= {0, 1, 2}


def test_newcomer_blocks_are_there() -> None:
    assert code_behind("newcomer: demo").split() == ["pip", "install", ".", "sniper", "demo"]
    assert code_behind("newcomer: test").splitlines() == ['pip install -e ".[dev]"', "pytest"]

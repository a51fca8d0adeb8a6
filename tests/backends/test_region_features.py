"""What describes regions to new classes: the trunk of the detector, or of another network on crops."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.ops import roi_align

from sniper.backends.callable import CallableBackend
from sniper.backends.region_features import CropFeatures, DetectorFeatures, squares
from sniper.backends.torch import TorchBackend
from sniper.detectors.protocol import RegionDescriber
from sniper.detectors.sniper.config import SniperConfig
from sniper.detectors.sniper.network import Sniper, build_sniper
from sniper.errors import CheckpointError, RecipeError
from sniper.nn.config import AnchorConfig
from sniper.nn.crop_trunk import CropTrunk, build_crop_trunk

SCALE = np.ones(2, np.float32)
VALID = np.array([[96, 128], [80, 100]], np.int64)
BOXES = np.array([[10, 12, 60, 70], [0, 0, 128, 96]], np.float32)


@pytest.fixture(scope="module")
def inputs() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (2, 96, 128, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def detector() -> Sniper:
    torch.manual_seed(0)
    config = SniperConfig(
        backbone="timm/test_resnet", weights=None, channels=16, rpn_channels=16, head_channels=8, head_width=16,
        anchors=AnchorConfig(scales=(1, 2)), score_threshold=0,
    )  # fmt: skip
    return build_sniper(config, 2).eval()


@pytest.fixture(scope="module")
def trunk() -> CropTrunk:
    torch.manual_seed(0)
    return build_crop_trunk("test_resnet", None)


def test_features_are_means_of_the_maps_of_the_trunk(detector: Sniper, inputs: np.ndarray) -> None:
    assert isinstance(detector, RegionDescriber)
    source = DetectorFeatures(TorchBackend(detector), "1")
    given = [BOXES, BOXES[:1]]
    found = source.describe(inputs, VALID, SCALE, given, max_regions=0)
    assert found.offsets.tolist() == [0, 2, 3]
    assert found.scores.tolist() == [0, 0, 0]
    backend = source.backend
    with backend.computing():
        maps = backend.network.backbone.body(backend.network.normalise(backend.images(inputs, VALID, SCALE)))
    for row, box in enumerate([*BOXES, BOXES[0]]):
        image, expected = int(row == 2), []
        for one in maps:
            step = maps[0].shape[2] // one.shape[2]
            fine = one.repeat_interleave(step, 2).repeat_interleave(step, 3)
            region = torch.from_numpy(np.concatenate([[image], box])[None]).float()
            cut = roi_align(fine, region, 4, 1 / 16, sampling_ratio=2, aligned=True).mean((2, 3))[0]
            expected.append(cut / cut.norm())
        assert np.allclose(found.features[row], torch.cat(expected), atol=1e-5)


def test_regions_are_the_detections_without_their_classes(detector: Sniper, inputs: np.ndarray) -> None:
    source = DetectorFeatures(TorchBackend(detector), "1")
    found = source.describe(inputs, VALID, SCALE, [BOXES, BOXES[:0]], max_regions=7)
    first, second = (found.scores[found.offsets[k] : found.offsets[k + 1]] for k in (0, 1))
    assert (len(first), len(second)) == (9, 7)
    assert (np.diff(first[:7]) <= 0).all()
    assert first[7:].tolist() == [0, 0]
    alone = source.describe(inputs[1:], VALID[1:], SCALE[1:], max_regions=7)
    assert np.allclose(alone.features, found.features[9:], atol=1e-5)
    assert np.allclose(alone.boxes, found.boxes[9:], atol=1e-3)


def test_crops_show_their_region_and_nothing_else(trunk: CropTrunk) -> None:
    pixels = np.full((1, 64, 64, 3), 120, np.uint8)
    pixels[0, 20:40, 20:40] = (250, 20, 20)
    moved = np.roll(pixels, 8, axis=(1, 2))
    box = np.array([[22, 22, 38, 38]], np.float32)
    source = CropFeatures(CallableBackend(lambda images: [(box, [0.9], [0])] * len(images), 1), trunk)
    whole = np.array([[64, 64]], np.int64)
    here = source.describe(pixels, whole, SCALE[:1])
    there = source.describe(moved, whole, SCALE[:1], [box + 8], max_regions=0)
    ground = source.describe(pixels, whole, SCALE[:1], [np.array([[44, 44, 60, 60]], np.float32)], max_regions=0)
    assert here.scores.tolist() == pytest.approx([0.9])
    assert np.allclose(here.features, there.features, atol=1e-5)
    assert np.abs(here.features - ground.features).max() > 1e-3
    nothing = CropFeatures(CallableBackend(lambda images: [(box[:0], [], [])] * len(images), 1), trunk)
    assert nothing.describe(pixels, whole, SCALE[:1]).features.shape == (0, trunk.channels)


def test_squares_keep_the_middle() -> None:
    found = squares(torch.tensor([[10.0, 20.0, 30.0, 60.0]]))
    assert torch.allclose(found, torch.tensor([[-2.0, 18.0, 42.0, 62.0]]))


def test_trunks_by_name_and_file(trunk: CropTrunk, tmp_path: Path) -> None:
    file = tmp_path / "trunk.safetensors"
    save_file({name: value.clone() for name, value in trunk.body.state_dict().items()}, file)
    again = build_crop_trunk("timm/test_resnet", str(file))
    crops = torch.rand(2, 3, trunk.side_px, trunk.side_px)
    with torch.inference_mode():
        assert torch.equal(again.eval()(crops), trunk(crops))
    with pytest.raises(RecipeError, match="test_resnott"):
        build_crop_trunk("test_resnott", None)
    with pytest.raises(CheckpointError, match="cannot read the weights"):
        build_crop_trunk("test_resnet", str(tmp_path / "none.pth"))


def test_who_cannot_describe_says_what_can() -> None:
    with pytest.raises(RecipeError, match=r"cannot describe regions itself.*--features"):
        DetectorFeatures(CallableBackend(lambda images: [([], [], [])] * len(images), 1, name="mine"), "1")

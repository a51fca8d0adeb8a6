"""The torch backend: a private, folded copy of a detector that any number of threads may run."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from devices import DEVICE
from sniper.backends.torch import TorchBackend, packed, to_host, unpacked
from sniper.detectors.protocol import Outputs
from sniper.detectors.sniper.config import SniperConfig
from sniper.detectors.sniper.network import Sniper, build_sniper
from sniper.detectors.with_focus import with_focus
from sniper.errors import RecipeError
from sniper.inference.backend import Want
from sniper.inference.config import InferenceConfig, ProposeConfig
from sniper.inference.detect import detect_images
from sniper.inference.images import ImageDetections, ImageInput
from sniper.inference.proposing import propose_images
from sniper.pyramid import Level, Pyramid
from sniper.structures import Images

PYRAMID = Pyramid(levels=(Level(scale=2.0), Level(scale=1.0)))
EVERYTHING = InferenceConfig.model_validate({"window_px": 256})
FOCUSED = InferenceConfig.model_validate({"window_px": 256, "focus": {"threshold": 0.3}})


def tiny(**config: object) -> Sniper:
    """A reference detector with random weights that says a lot."""
    settings = {
        "backbone": "torchvision/mobilenet_v2", "weights": None, "channels": 16, "rpn_channels": 16, "head_channels": 8,
        "head_width": 16, "mask_channels": 8, "focus_channels": 8, "score_threshold": 0.0, "max_detections": 40,
    }  # fmt: skip
    torch.manual_seed(0)
    return build_sniper(SniperConfig.model_validate(settings | config), 3)


def scenes(count: int = 8) -> list[NDArray[np.uint8]]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (150, 200, 3), dtype=np.uint8) for _ in range(count)]


def found_in(backend: TorchBackend, pixels: NDArray[np.uint8], config: InferenceConfig) -> ImageDetections:
    return next(detect_images(backend, [ImageInput(0, pixels)], PYRAMID, config))


def same(one: ImageDetections, other: ImageDetections) -> bool:
    columns = ("boxes_xyxy", "scores", "labels", "levels")
    masks = (None if found.masks is None else list(found.masks) for found in (one, other))
    first, second = masks
    return first == second and all(np.array_equal(getattr(one, name), getattr(other, name)) for name in columns)


@pytest.mark.parametrize("kind", ["focus", "masks", "with_focus"])
def test_eight_threads_on_one_model_find_what_one_finds(kind: str) -> None:
    detector: nn.Module = tiny(focus=kind == "focus", masks=kind == "masks")
    if kind == "with_focus":
        detector = with_focus(detector, "backbone", channels=8)
    backend = TorchBackend(detector, device=DEVICE)
    config = (EVERYTHING if kind == "masks" else FOCUSED).model_copy(update={"window_px": 128})
    small = [np.ascontiguousarray(pixels[::2, ::2]) for pixels in scenes()]
    alone = [found_in(backend, pixels, config) for pixels in small]
    assert all(len(one) for one in alone)
    for _ in range(2):
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda pixels: found_in(backend, pixels, config), small))
        assert all(same(one, other) for one, other in zip(alone, together, strict=True))


def test_a_detector_in_training_is_left_alone() -> None:
    detector = tiny(focus=True).to(DEVICE).train()
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    modules = [type(module) for module in detector.modules()]
    backend = TorchBackend(detector, device=DEVICE)
    found_in(backend, scenes(1)[0], FOCUSED)
    assert all(module.training for module in detector.modules())
    assert [type(module) for module in detector.modules()] == modules
    after = detector.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    first = found_in(backend, scenes(1)[0], EVERYTHING)
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter += 1
    assert same(found_in(backend, scenes(1)[0], EVERYTHING), first), "the copy is its own"


def test_norms_are_folded_for_detection_and_extraction_alike() -> None:
    backend = TorchBackend(tiny(), device=DEVICE)
    ran: list[nn.Module] = []
    for module in backend.network.modules():
        module.register_forward_hook(lambda module, given, output: ran.append(module))
    list(propose_images(backend, [ImageInput(0, scenes(1)[0])], PYRAMID, EVERYTHING, ProposeConfig()))
    assert any(isinstance(module, nn.Conv2d) for module in ran)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in ran)


class Counting(Sniper):
    """Counts its forward passes, over all copies."""

    passes: list[int]

    def outputs(self, images: Images, **wanted: bool) -> Outputs:
        self.passes.append(len(images))
        return super().outputs(images, **wanted)


@pytest.mark.parametrize("branch", [True, False])
def test_a_batch_is_one_forward_pass_whatever_is_wanted_of_it(branch: bool) -> None:
    detector = tiny(focus=branch, masks=True)
    detector.__class__ = Counting
    Counting.passes = []
    backend = TorchBackend(detector, device=DEVICE)
    assert backend.focus_source == ("branch" if branch else "proposals")
    inputs = np.stack([scenes(1)[0][:128, :192]] * 2)
    valid_hw, scale = np.array([[128, 192], [100, 80]]), np.ones(2, np.float32)
    looked = backend.look(inputs, valid_hw, scale, Want(focus=True, features=True))
    assert Counting.passes == [2]
    assert looked.focus is not None
    assert looked.focus.shape == (2, 8, 12)
    assert looked.features is not None
    assert len(looked.features) == 2
    assert looked.offsets[-1] == len(looked.boxes) == len(looked.scores) == len(looked.labels) > 0
    proposals = backend.look(inputs, valid_hw, scale, Want("proposals"))
    assert set(proposals.labels) == {0}
    assert (proposals.focus, proposals.features) == (None, None)


@pytest.mark.parametrize("share", [1.0, 1e-9])
def test_proposals_come_from_everywhere_whatever_autofocus_would_leave_out(share: float) -> None:
    backend = TorchBackend(tiny(focus=True), device=DEVICE)
    config = ProposeConfig(window_share=share)
    blind = InferenceConfig.model_validate({"window_px": 256, "focus": {"threshold": 1.0}})
    found = [
        next(propose_images(backend, [ImageInput(0, scenes(1)[0])], PYRAMID, inference, config))
        for inference in (EVERYTHING, blind)
    ]
    assert same(*found)
    assert found[1].pixels_processed == (found[1].pixels_full if share == 1 else 0)


def test_several_tensors_travel_as_one() -> None:
    tensors = [
        torch.rand(3, 4), torch.zeros(0, 4), torch.arange(3), torch.zeros(0, dtype=torch.int64),
        torch.rand(2, 1, 3).half(), torch.rand(1, 5),
    ]  # fmt: skip
    for array, tensor in zip(unpacked(packed(tensors).numpy(), tensors), tensors, strict=True):
        assert array.shape == tuple(tensor.shape)
        np.testing.assert_array_equal(array, tensor.numpy())
    for array, tensor in zip(to_host([tensor.to(DEVICE) for tensor in tensors]), tensors, strict=True):
        np.testing.assert_array_equal(array, tensor.numpy())


def test_what_is_no_detector_or_cannot_be_copied_is_refused() -> None:
    with pytest.raises(RecipeError, match="Linear is no detector"):
        TorchBackend(nn.Linear(1, 1))
    detector = tiny()
    detector.stream = (number for number in range(3))
    with pytest.raises(RecipeError, match="Sniper cannot be copied"):
        TorchBackend(detector)

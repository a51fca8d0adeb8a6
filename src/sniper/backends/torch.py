"""A torch detector behind inference: on its device, in its precision, norms folded, from a private copy."""

import copy
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sniper.detectors.protocol import (
    Detector,
    FocusDetector,
    MaskDetector,
    MultiOutput,
    Outputs,
    Proposer,
)
from sniper.errors import RecipeError
from sniper.inference.backend import Looked, Want
from sniper.inference.focus_source import FALLBACK_STRIDE, map_of_small
from sniper.nn.folding import fold_norms
from sniper.nn.fused_activation import fuse_activations
from sniper.structures import Detections, Images

Precision = Literal["fp32", "bf16", "fp16"]

REGIONS_AT_ONCE = 64  # bounds the memory of the mask branch
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchBackend:
    """Satisfies ``inference.backend.Backend``.

    The network is a copy of the detector as it is now, in evaluation mode, with norms folded into convolutions once.
    Nothing of it changes afterwards, so that any number of threads may use it; the detector itself may go on training.
    """

    def __init__(
        self, detector: nn.Module, *, device: torch.device | str = "cpu", precision: Precision = "fp32"
    ) -> None:
        """Copy ``detector`` (see ``detectors.protocol``) to ``device``; ``precision`` is the arithmetic of the network.

        Raises:
            RecipeError: it is no detector, or cannot be copied.
        """
        if not isinstance(detector, Detector):
            raise RecipeError(f"{type(detector).__name__} is no detector: it needs the methods losses and detect")
        self.name = type(detector).__name__
        self.device, self.precision = torch.device(device), precision
        self.network = _private_copy(detector).to(self.device)
        fold_norms(self.network)
        if self.device.type == "cpu" and precision == "fp32":
            fuse_activations(self.network)

    @cached_property
    def proposes(self) -> bool:
        """Whether the detector proposes regions without a class."""
        return isinstance(self.network, Proposer)

    @cached_property
    def predicts_masks(self) -> bool:
        """Whether the detector has a mask branch."""
        return isinstance(self.network, MaskDetector) and self.network.predicts_masks

    @cached_property
    def focus_source(self) -> Literal["branch", "proposals", "detections"]:
        """A focus branch; else proposals, where they come from the same forward pass; else inference's detections."""
        if isinstance(self.network, FocusDetector) and self.network.focus_stride is not None:
            return "branch"
        return "proposals" if isinstance(self.network, MultiOutput) and self.proposes else "detections"

    @cached_property
    def focus_stride(self) -> int | None:
        """Network px per cell of the focus maps."""
        if self.focus_source == "branch":
            assert isinstance(self.network, FocusDetector)
            return self.network.focus_stride
        return FALLBACK_STRIDE if self.focus_source == "proposals" else None

    def look(
        self, inputs: NDArray[np.uint8], valid_hw: NDArray[np.int64], scale: NDArray[np.float32], want: Want
    ) -> Looked:
        """Run the network once on a batch; see ``Backend.look``. One transfer to the device, one back."""
        images = self.images(inputs, valid_hw, scale, want.kept_px)
        with self.computing():
            outputs = self._outputs(images, want)
        regions = outputs.proposals if want.regions == "proposals" else outputs.detections
        assert regions is not None
        columns = _columns(regions)
        marking = outputs.proposals if want.focus and self.focus_source == "proposals" else None
        markers = [] if marking is None else _columns(marking)[:2]
        focus = [] if outputs.focus is None else [outputs.focus.float()]
        features = outputs.features or []
        if self.device.type != "cpu":
            features = [one.half() for one in features]
        boxes, scores, labels, *rest = to_host([*columns, *markers, *focus, *features])
        offsets = _offsets(regions)
        maps = rest[0] if focus else None
        if marking is not None:
            maps = _maps(rest[0], rest[1], _offsets(marking), inputs.shape[1:3])
        kept = rest[len(rest) - len(features) :] if want.features else None
        return Looked(boxes, scores, labels, offsets, maps, kept)

    def masks(
        self, features: NDArray[np.floating], boxes: NDArray[np.floating], labels: NDArray[np.integer]
    ) -> NDArray[np.float32]:
        """Masks of some boxes of one padded input; see ``Backend.masks``."""
        assert isinstance(self.network, MaskDetector)
        shared = torch.from_numpy(np.array(features, np.float32)).to(self.device)
        every_box = torch.from_numpy(np.ascontiguousarray(boxes, np.float32)).to(self.device)
        every_label = torch.from_numpy(np.ascontiguousarray(labels, np.int64)).to(self.device)
        starts = range(0, max(len(every_box), 1), REGIONS_AT_ONCE)
        pieces = [slice(start, start + REGIONS_AT_ONCE) for start in starts]
        with torch.inference_mode():
            parts = [self.network.predict_masks(shared, every_box[some], every_label[some]).float() for some in pieces]
            return torch.cat(parts).cpu().numpy()

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Inside, the network computes in its precision and without gradients. Both are a thread's own."""
        half = self.precision != "fp32"
        with torch.inference_mode(), torch.autocast(self.device.type, dtype=_DTYPES[self.precision], enabled=half):
            yield

    def images(
        self,
        inputs: NDArray[np.uint8],
        valid_hw: NDArray[np.int64],
        scale: NDArray[np.float32],
        kept_px: tuple[tuple[float, float], ...] | None = None,
    ) -> Images:
        """The batch on the device; its pixels are in NHWC order already."""
        images = Images(
            pixels=torch.from_numpy(inputs).permute(0, 3, 1, 2),
            valid_hw=torch.from_numpy(valid_hw),
            scale=torch.from_numpy(scale),
            kept_px=None if kept_px is None else torch.tensor(kept_px, dtype=torch.float32),
        )
        if self.device.type == "cuda":
            images = images.pin_memory()
        return images.to(self.device, channels_last=True)

    def _outputs(self, images: Images, want: Want) -> Outputs:
        """One forward pass, with all that it is asked for."""
        network, proposals = self.network, want.regions == "proposals"
        if isinstance(network, MultiOutput):
            by_proposals = want.focus and self.focus_source == "proposals"
            return network.outputs(
                images,
                detections=not proposals,
                proposals=proposals or by_proposals,
                focus=want.focus and not by_proposals,
                features=want.features,
            )
        if proposals and isinstance(network, Proposer):
            return Outputs(proposals=network.propose(images))
        assert isinstance(network, Detector)
        return Outputs(network.detect(images))


def _private_copy(detector: nn.Module) -> nn.Module:
    try:
        network = copy.deepcopy(detector)
    except Exception as error:  # whatever a user's module holds that cannot be copied
        raise RecipeError(
            f"{type(detector).__name__} cannot be copied ({error}), and inference runs a copy of the detector; keep "
            "what cannot be copied out of the module"
        ) from error
    return network.eval().requires_grad_(False)


def to_host(tensors: list[Tensor]) -> list[NDArray]:
    """The tensors as arrays; from another device all in one transfer."""
    if all(tensor.device.type == "cpu" for tensor in tensors):
        return [tensor.numpy() for tensor in tensors]
    return unpacked(packed(tensors).cpu().numpy(), tensors)


def packed(tensors: list[Tensor]) -> Tensor:
    """The bytes of all tensors, one after the other."""
    return torch.cat([tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in tensors])


def unpacked(content: NDArray[np.uint8], like: list[Tensor]) -> list[NDArray]:
    """The arrays whose bytes ``packed`` put together; shapes and types are those of ``like``."""
    ends = np.cumsum([tensor.numel() * tensor.element_size() for tensor in like])
    # Copies: a part need not begin where its type may.
    return [
        np.frombuffer(part.tobytes(), _NUMPY[tensor.dtype]).reshape(tensor.shape)
        for part, tensor in zip(np.split(content, ends[:-1]), like, strict=True)
    ]


_NUMPY = {torch.float32: np.float32, torch.float16: np.float16, torch.int64: np.int64}


def _columns(regions: list[Detections]) -> list[Tensor]:
    """Boxes, scores and labels of all padded inputs, one after the other."""
    return [
        torch.cat([one.boxes.float().reshape(-1, 4) for one in regions]),
        torch.cat([one.scores.float() for one in regions]),
        torch.cat([one.labels.long() for one in regions]),
    ]


def _offsets(regions: list[Detections]) -> NDArray[np.int64]:
    return np.cumsum([0, *(len(one) for one in regions)]).astype(np.int64)


def _maps(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], offsets: NDArray[np.int64], padded_hw: tuple[int, ...]
) -> NDArray[np.float32]:
    """(B, h, w) focus maps of proposals."""
    size = (padded_hw[0], padded_hw[1])
    rows = [slice(start, stop) for start, stop in itertools.pairwise(offsets)]
    return np.stack([map_of_small(boxes[own], scores[own], size) for own in rows])

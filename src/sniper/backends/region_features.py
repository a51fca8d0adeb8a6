"""What describes regions to new classes: the detector's own trunk, or another network that sees a crop of each."""

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import roi_align

from sniper.backends.torch import TorchBackend
from sniper.detectors.protocol import RegionDescriber
from sniper.errors import RecipeError
from sniper.inference.backend import Backend, Want
from sniper.inference.config import MergeConfig
from sniper.inference.merge import nms
from sniper.inference.regions import MAX_REGIONS, REGION_NMS_IOU, Described
from sniper.nn.crop_trunk import CONTEXT, CROPS_AT_ONCE, CropTrunk
from sniper.nn.weights_digest import weights_digest

MAX_CROPS = 16  # of a padded input: each is a forward pass of the trunk
_NMS = MergeConfig(method="hard", iou_threshold=REGION_NMS_IOU, score_threshold=0, max_per_image=None)


class DetectorFeatures:
    """Satisfies ``inference.regions.RegionSource`` by one pass of the detector, which finds and describes."""

    name = "detector"

    def __init__(self, backend: Backend, digest: str) -> None:
        """Describe by the network of ``backend``; ``digest`` is that of its weights before norms were folded.

        Raises:
            RecipeError: it has no features of its own to describe with.
        """
        if not isinstance(backend, TorchBackend) or not isinstance(backend.network, RegionDescriber):
            raise RecipeError(
                f"{backend.name} cannot describe regions itself; name a network that does: --features, a model of timm "
                "or torchvision/<model>"
            )
        self.backend: TorchBackend = backend
        self._network, self._digest = backend.network, digest

    def digest(self) -> str:
        """SHA-256 of the detector."""
        return self._digest

    def describe(
        self,
        inputs: NDArray[np.uint8],
        valid_hw: NDArray[np.int64],
        scale: NDArray[np.float32],
        given: list[NDArray[np.float32]] | None = None,
        *,
        max_regions: int = MAX_REGIONS,
    ) -> Described:
        """Regions and their features; see ``RegionSource.describe``."""
        extra = [torch.from_numpy(one).to(self.backend.device) for one in given or _nothing(len(inputs))]
        with self.backend.computing():
            images = self.backend.images(inputs, valid_hw, scale)
            found = self._network.describe_regions(images, extra, max_regions=max_regions, nms_iou=REGION_NMS_IOU)
        columns = [torch.cat([getattr(one, name) for one in found]) for name in ("boxes", "scores", "features")]
        boxes, scores, features = (column.float().cpu().numpy() for column in columns)
        return Described(boxes, scores, features, _offsets([len(one.scores) for one in found]))


class CropFeatures:
    """Satisfies ``inference.regions.RegionSource`` by any detector and a trunk that sees a crop of each region."""

    def __init__(self, backend: Backend, trunk: CropTrunk, device: torch.device | str = "cpu") -> None:
        """Regions of ``backend``, their classes dropped, as ``trunk`` describes them on ``device``."""
        self.backend, self.name = backend, trunk.name
        self._digest = hashlib.sha256(f"{self.name} {weights_digest(trunk)}".encode()).hexdigest()
        self._trunk, self._device = trunk.eval().requires_grad_(False).to(device), torch.device(device)

    def digest(self) -> str:
        """SHA-256 of the trunk."""
        return self._digest

    def describe(
        self,
        inputs: NDArray[np.uint8],
        valid_hw: NDArray[np.int64],
        scale: NDArray[np.float32],
        given: list[NDArray[np.float32]] | None = None,
        *,
        max_regions: int = MAX_REGIONS,
    ) -> Described:
        """Regions and the features of their crops; see ``RegionSource.describe``."""
        extra = given or _nothing(len(inputs))
        boxes, scores = list(extra), [np.zeros(len(one), np.float32) for one in extra]
        if max_regions:
            looked = self.backend.look(inputs, valid_hw, scale, Want())
            for row in range(len(inputs)):
                own = looked.rows(row)
                best = nms(looked.boxes[own], looked.scores[own], np.zeros_like(looked.labels[own]), _NMS)
                kept = best.keep[: min(max_regions, MAX_CROPS)]
                boxes[row] = np.concatenate([looked.boxes[own][kept], boxes[row]])
                scores[row] = np.concatenate([looked.scores[own][kept], scores[row]])
        counts = [len(one) for one in boxes]
        every = np.concatenate(boxes).astype(np.float32)
        features = self._features(inputs, np.repeat(np.arange(len(inputs)), counts), every)
        return Described(every, np.concatenate(scores).astype(np.float32), features, _offsets(counts))

    @torch.inference_mode()
    def _features(
        self, inputs: NDArray[np.uint8], image: NDArray[np.int64], boxes: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """(N, D) of boxes in network px of the padded inputs ``image``."""
        # Before regions are cut out: beyond the border is the mean colour then.
        pixels = self._trunk.normalised(torch.from_numpy(inputs).to(self._device))
        regions = torch.cat((torch.from_numpy(image).float()[:, None], squares(torch.from_numpy(boxes))), dim=1)
        side = self._trunk.side_px
        parts = [
            self._trunk(roi_align(pixels, some, side, aligned=True)).float().cpu()
            for some in torch.split(regions.to(self._device), CROPS_AT_ONCE)
        ]
        return torch.cat(parts).numpy() if parts else np.zeros((0, self._trunk.channels), np.float32)


def squares(boxes: Tensor) -> Tensor:
    """(N, 4) squares around boxes, a little larger than their longer side: crops keep the shape of what they show."""
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1, keepdim=True) * (1 + CONTEXT) / 2
    return torch.cat((middle - half, middle + half), dim=1)


def _nothing(count: int) -> list[NDArray[np.float32]]:
    return [np.zeros((0, 4), np.float32)] * count


def _offsets(counts: list[int]) -> NDArray[np.int64]:
    return np.cumsum([0, *counts]).astype(np.int64)

"""What torchvision's detectors have in common here: a batch of padded inputs in, losses or detections out.

The library's own ``forward`` resizes its inputs. Chips and windows come at the right scale, so the parts of the network
(``backbone``, ``head``, ``rpn``, ``roi_heads``) are called in its place; none of them is changed.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sniper.detectors.from_torchvision.config import TorchvisionConfig
from sniper.detectors.from_torchvision.geometry import geometry_of, maps_of
from sniper.detectors.from_torchvision.unlearned import IgnoreRule
from sniper.detectors.one_pass import OnePass
from sniper.detectors.protocol import Outputs
from sniper.nn.class_rows import ClassRows
from sniper.nn.config import FocusConfig
from sniper.nn.evaluating import evaluating
from sniper.nn.focus_head import FocusHead, focus_loss_of, focus_probability
from sniper.structures import Batch, Detections, Images

FOCUS_STRIDE = 16  # a focus branch has the map with this stride, or the next coarser one


class TorchvisionDetector(OnePass, ABC):
    """A network of torchvision that satisfies ``detectors.protocol.Detector`` and ``MultiOutput``.

    Its weights are named ``net...``, those of a focus branch ``focus...``.
    """

    first_label: ClassVar[int]  # of the network's own labels: 1 where there is a background class
    step_px: ClassVar[int] = 32  # inputs are padded to a multiple of this ...
    min_px: ClassVar[int] = 32  # ... and to at least this

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: Any,
        *,
        config: TorchvisionConfig | None = None,
        rule: IgnoreRule | None = None,
        focus_channels: int | None = None,
        focus_labels: FocusConfig | None = None,
    ) -> None:
        super().__init__()
        self.net, self.config = net, config
        self.rule, self.focus_labels = rule or IgnoreRule(), focus_labels or FocusConfig()
        self.geometry = geometry_of(net.backbone)
        self.register_buffer("mean", torch.tensor(net.transform.image_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(net.transform.image_std).view(3, 1, 1), persistent=False)
        strides = [one.stride for one in self.geometry]
        self.focus_map = next((k for k, stride in enumerate(strides) if stride >= FOCUS_STRIDE), len(strides) - 1)
        channels = self.geometry[self.focus_map].channels
        self.focus = None if focus_channels is None else FocusHead(channels, channels=focus_channels)
        self._still: list[nn.Module] = []  # a plain list: these modules already belong to the net

    # What depends on the classes, for fine-tuning.
    @property
    @abstractmethod
    def class_layers(self) -> Mapping[str, ClassRows]:
        """The rows of each layer that depends on the classes."""

    @abstractmethod
    def _losses(self, maps: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """The library's losses, under its names, without what ignored objects take out."""

    @abstractmethod
    def _found(self, maps: dict[str, Tensor], padded_hw: tuple[int, int]) -> list[dict[str, Tensor]]:
        """The library's detections of each padded input."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The library's losses of the batch under its names, and ``focus`` with a focus branch.

        What is drawn at random is drawn from the default generator of the device.
        """
        maps = self.maps(batch)
        losses = self._losses(maps, batch)
        if self.focus is None:
            return losses
        logits, stride = self._focus_logits(maps, batch), self.stride
        return losses | {"focus": focus_loss_of(logits, batch, stride, self.focus_labels, self.focus.recall)}

    @torch.no_grad()
    def outputs(
        self,
        images: Images,
        *,
        detections: bool = True,
        proposals: bool = False,
        focus: bool = False,
        features: bool = False,
    ) -> Outputs:
        """What is asked for and there are branches for, from one forward pass; ``detectors.protocol.MultiOutput``."""
        with evaluating(self):
            maps = self.maps(images)
            found = self._regions(maps, images, detections=detections, proposals=proposals)
            return found._replace(
                focus=focus_probability(self._focus_logits(maps, images)) if focus and self.focus is not None else None,
                features=self._mask_features(maps) if features else None,
            )

    @property
    def stride(self) -> int:
        """Network px per cell of the map that a focus branch has."""
        return self.geometry[self.focus_map].stride

    @property
    def comfortable_px(self) -> float:
        """Object size that it sees best, sqrt(area) in network px."""
        return 64.0 if self.config is None else self.config.builder.comfortable_px

    def maps(self, images: Images) -> dict[str, Tensor]:
        """The feature maps by the library's names, finest first, of the input padded to ``padded_hw``."""
        return maps_of(self.net.backbone, self._normalised(images))

    def padded_hw(self, images: Images) -> tuple[int, int]:
        """Size of the network's input, px: that of the padded inputs, rounded up to what the strides divide."""
        height, width = images.pixels.shape[2:]
        return self._rounded(height), self._rounded(width)

    def hold(self, modules: list[nn.Module]) -> None:
        """Keep these modules of the net as they are, also in training: no gradient, stored statistics."""
        self._still = modules
        for module in modules:
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> "TorchvisionDetector":
        """Training mode, except for what is held."""
        super().train(mode)
        for module in self._still:
            module.eval()
        return self

    def _rounded(self, side: int) -> int:
        return max(math.ceil(side / self.step_px) * self.step_px, self.min_px)

    def _normalised(self, images: Images) -> Tensor:
        """(B, 3, H, W) pixels for the backbone."""
        return images.normalised(self.mean, self.std, self.padded_hw(images))

    def _regions(self, maps: dict[str, Tensor], images: Images, *, detections: bool, proposals: bool) -> Outputs:
        """Detections, and proposals where there are any."""
        return Outputs(self._all_shown(self._found(maps, self.padded_hw(images)), images) if detections else None)

    def _all_shown(self, found: list[dict[str, Tensor]], images: Images) -> list[Detections]:
        return [self._shown(one, valid_hw) for one, valid_hw in zip(found, images.valid_hw, strict=True)]

    def _shown(self, found: dict[str, Tensor], valid_hw: Tensor) -> Detections:
        """The library's detections of one input, clipped to its valid region; what lies over padding goes."""
        limit = valid_hw.flip(0).repeat(2).to(found["boxes"].dtype)
        boxes = found["boxes"].minimum(limit)
        kept = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        return Detections(boxes[kept], found["scores"][kept], found["labels"][kept] - self.first_label)

    def _focus_logits(self, maps: dict[str, Tensor], images: Images) -> Tensor:
        """(B, 1, h, w) of the cells that the padded inputs have, without what was padded here."""
        assert self.focus is not None
        rows, columns = (math.ceil(side / self.stride) for side in images.pixels.shape[2:])
        logits: Tensor = self.focus(list(maps.values())[self.focus_map])
        return logits[:, :, :rows, :columns]

    def _mask_features(self, maps: dict[str, Tensor]) -> list[Tensor] | None:
        """What masks are predicted of, one tensor for each input; None without a mask branch."""
        return None


def as_float(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a head gives, in single precision: losses are not for half."""
    return {name: value.float() for name, value in outputs.items()}

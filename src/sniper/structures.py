"""What flows between the loader, a detector and the code around it (torch).

The shape alphabet of the whole package: B images of a batch, N boxes (padded to the longest), A anchors,
R regions, C classes, L levels, H and W pixels. "Network px" are pixels of the padded input that a detector sees;
``original px = (network px + origin) / scale``.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional


class ObjectState(IntEnum):
    """What a chip may teach about an object in it."""

    EMPTY = -1  # a padded slot, no object
    VALID = 0  # in range and assigned to this chip: learned
    IGNORED = 1  # there, but out of range or another chip's: neither object nor background
    CROWD = 2  # a region with unlabelled objects inside: nothing in it is background


REFINED = 2.0  # by this ratio, the size of a detection may differ from that of the anchor or region it comes from


@dataclass(slots=True)
class Images:
    """A batch of padded inputs.

    ``pixels`` leave the loader as uint8 (little to move) and become floating point RGB in [0, 1] in ``to``;
    mean and deviation are each detector's own affair. Pictures lie in the top-left corner of their padded input.
    """

    pixels: Tensor  # (B, 3, H, W) RGB
    valid_hw: Tensor  # (B, 2) int64: rows and columns that show the picture; the rest is padding
    scale: Tensor  # (B,) float32: network px per original px
    # (B, 2) float32: only detections of these sizes will be kept, sqrt(area) in network px; None: all. A hint.
    kept_px: Tensor | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        return self.pixels.shape[0]

    def to(self, device: torch.device | str, *, channels_last: bool = False) -> Self:
        """Everything on ``device``, pixels as float in [0, 1]."""
        moved = self._mapped(lambda column: column.to(device, non_blocking=True))
        pixels = moved["pixels"]
        if pixels.dtype == torch.uint8:
            pixels = pixels.to(torch.float32).div_(255)
        if channels_last:
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        moved["pixels"] = pixels
        return replace(self, **moved)

    def valid_mask(self) -> Tensor:
        """(B, 1, H, W) bool: pixels that show the picture."""
        rows, columns = self._valid_sides()
        return rows[:, None, :, None] & columns[:, None, None, :]

    def _valid_sides(self) -> tuple[Tensor, Tensor]:
        """(B, H) rows and (B, W) columns that show the picture, bool."""
        height, width = self.pixels.shape[2:]
        rows = torch.arange(height, device=self.pixels.device) < self.valid_hw[:, :1]
        columns = torch.arange(width, device=self.pixels.device) < self.valid_hw[:, 1:]
        return rows, columns

    def normalised(self, mean: Tensor, std: Tensor, padded_hw: tuple[int, int] | None = None) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] less ``mean``, by ``std`` (3, 1, 1); uint8 pixels are brought to [0, 1] first.

        Padding becomes 0, the mean colour, whatever the loader put there; with ``padded_hw`` it reaches that far.
        """
        pixels = self.pixels if self.pixels.is_floating_point() else self.pixels.float() / 255
        if pixels.device.type == "cpu" and pixels.is_contiguous(memory_format=torch.channels_last):
            normalised = self._normalised_rows(pixels, mean, std)
        else:
            normalised = ((pixels - mean) / std).mul_(self.valid_mask())
        height, width = pixels.shape[2:] if padded_hw is None else padded_hw
        more = width - pixels.shape[3], height - pixels.shape[2]
        return functional.pad(normalised, (0, more[0], 0, more[1])) if any(more) else normalised

    def _normalised_rows(self, pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """The same numbers, (B, 3, H, W) in NHWC order: whole rows at a time take a fifth of what three channels do."""
        batch, channels, height, width = pixels.shape
        rows, columns = self._valid_sides()
        values = pixels.permute(0, 2, 3, 1).reshape(batch, height, width * channels)
        values = (values - mean.flatten().repeat(width)).div_(std.flatten().repeat(width))
        values.mul_(rows.to(values.dtype).unsqueeze(2))
        values.mul_(columns.to(values.dtype).repeat_interleave(channels, 1).unsqueeze(1))
        return values.view(batch, height, width, channels).permute(0, 3, 1, 2)

    def may_keep(self, sizes_px: Tensor) -> Tensor:
        """(B, N) bool: whether boxes of (N,) or (B, N) size, sqrt(area) in network px, may end as detections to keep.

        A box that is not final yet may still come out ``REFINED`` times as large, or as small.
        """
        if self.kept_px is None:
            return torch.ones((len(self), sizes_px.shape[-1]), dtype=torch.bool, device=sizes_px.device)
        low, high = self.kept_px[:, :1], self.kept_px[:, 1:]
        return (sizes_px * REFINED > low) & (sizes_px < high * REFINED)

    def pin_memory(self) -> Self:
        """Page-locked copies, for overlapped transfers to a GPU."""
        return replace(self, **self._mapped(Tensor.pin_memory))

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """Every tensor, changed; what is None stays as it is."""
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: change(column) for name, column in columns.items() if column is not None}


@dataclass(slots=True)
class Batch(Images):
    """Chips with what they may teach. Boxes are padded to the longest chip; see ``state``."""

    boxes: Tensor  # (B, N, 4) float32 xyxy, network px, clipped to the content
    labels: Tensor  # (B, N) int64 class index from 0; -1 in empty slots and for difficult objects
    state: Tensor  # (B, N) int64, an ObjectState each
    range_px: Tensor  # (B, 2) float32: valid range as sqrt(area), network px; the upper end may be inf
    chip_index: Tensor  # (B,) int64: row in the epoch's chip table
    polygons: Tensor | None = None  # (B, N, P) float32 outlines, network px, as ``nn.mask_targets`` encodes them
    known_classes: Tensor | None = None  # (B, C) bool: classes that the chip's image was checked for; None: all

    @property
    def valid(self) -> Tensor:
        """(B, N) bool: objects to learn."""
        return self.state == ObjectState.VALID

    @property
    def ignored(self) -> Tensor:
        """(B, N) bool: objects that are neither learned nor background."""
        return self.state == ObjectState.IGNORED

    @property
    def crowd(self) -> Tensor:
        """(B, N) bool: regions of unlabelled objects."""
        return self.state == ObjectState.CROWD

    def targets(self, first_label: int = 1) -> list[dict[str, Tensor]]:
        """The valid objects of each chip as torchvision's detectors take them: ``boxes`` and ``labels``.

        ``boxes`` are (N, 4) float32 xyxy in network px, ``labels`` (N,) int64 from ``first_label``. Detectors with a
        background class keep 0 for it (Faster R-CNN, Mask R-CNN, SSD); RetinaNet and FCOS have none and take 0. What
        ``detect`` returns is counted from 0 in any case.
        """
        return [
            {"boxes": boxes[valid], "labels": labels[valid] + first_label}
            for boxes, labels, valid in zip(self.boxes, self.labels, self.valid, strict=True)
        ]


@dataclass(slots=True)
class Detections:
    """What a detector found on one padded input, or in one image."""

    boxes: Tensor  # (N, 4) xyxy; network px from a detector
    scores: Tensor  # (N,) in [0, 1]
    labels: Tensor  # (N,) int64 class index from 0

    def __len__(self) -> int:
        return self.boxes.shape[0]

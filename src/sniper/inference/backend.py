"""The seam between inference and a network: NumPy in, NumPy out.

A backend owns device, precision and weights. Inference asks it for padded inputs of one batch at a time, from several
threads if the caller wishes, and never sees a tensor. B padded inputs, N boxes, h x w cells of a focus map.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Want(NamedTuple):
    """What a batch is asked for."""

    regions: Literal["detections", "proposals"] = "detections"  # finished detections, or class-free boxes (labels 0)
    focus: bool = False  # focus maps too, if the backend has a ``focus_stride``
    features: bool = False  # what ``masks`` needs later, if the backend ``predicts_masks``
    # Of each padded input: sizes of the detections that are kept, sqrt(area), low <= size < high, network px. A backend
    # may leave out what is outside, to save time. None: all sizes.
    kept_px: tuple[tuple[float, float], ...] | None = None


@dataclass(frozen=True, slots=True)
class Looked:
    """What a network says about B padded inputs. Rows of input ``b`` are ``offsets[b]:offsets[b + 1]``."""

    boxes: NDArray[np.float32]  # (N, 4) xyxy, network px of their padded input
    scores: NDArray[np.float32]  # (N,) in [0, 1]
    labels: NDArray[np.int64]  # (N,) class index from 0
    offsets: NDArray[np.int64]  # (B + 1,)
    focus: NDArray[np.float32] | None = None  # (B, h, w) probability that a cell shows a small object
    features: list[NDArray[np.floating]] | None = None  # B of (F, h, w), for ``Backend.masks``

    def rows(self, row: int) -> slice:
        """The rows of one padded input."""
        return slice(int(self.offsets[row]), int(self.offsets[row + 1]))


class Backend(Protocol):
    """One network. ``look`` and ``masks`` are re-entrant: several threads may call them at once."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def focus_source(self) -> Literal["branch", "proposals", "detections"]:
        """What its focus maps are made of: a focus branch, or else small proposals.

        ``detections``: it gives no maps, and inference makes them of its small detections.
        """
        ...

    @property
    def focus_stride(self) -> int | None:
        """Network px per cell of its focus maps; None: it gives none."""
        ...

    @property
    def proposes(self) -> bool:
        """Whether it can be asked for class-free proposals."""
        ...

    @property
    def predicts_masks(self) -> bool:
        """Whether it gives features, and masks of them."""
        ...

    def look(
        self, inputs: NDArray[np.uint8], valid_hw: NDArray[np.int64], scale: NDArray[np.float32], want: Want
    ) -> Looked:
        """Run the network once on a batch.

        Args:
            inputs: (B, H, W, 3) RGB; images lie in the top-left corner, the rest is padding.
            valid_hw: (B, 2) rows and columns that show the image.
            scale: (B,) network px per original px.
            want: what to return; the rest is not computed.
        """
        ...

    def masks(
        self, features: NDArray[np.floating], boxes: NDArray[np.floating], labels: NDArray[np.integer]
    ) -> NDArray[np.float32]:
        """(N, M, M) probabilities that the middle of each cell of a grid over a box is inside the object.

        ``features`` (F, h, w) are those of one padded input, ``boxes`` (N, 4) in its network px, ``labels`` (N,).
        """
        ...

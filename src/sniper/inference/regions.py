"""The seam between new classes and what describes regions to them: boxes whatever their class, with features."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sniper.inference.backend import Backend

MAX_REGIONS = 50  # described in a padded input at most, best first
REGION_NMS_IOU = 0.5  # of the regions of a padded input, before they are described


@dataclass(frozen=True, slots=True)
class Described:
    """Regions of B padded inputs. Rows of input ``b`` are ``offsets[b]:offsets[b + 1]``; given boxes come last."""

    boxes: NDArray[np.float32]  # (N, 4) xyxy, network px of their padded input
    scores: NDArray[np.float32]  # (N,) objectness in [0, 1]; 0 of given boxes
    features: NDArray[np.float32]  # (N, D)
    offsets: NDArray[np.int64]  # (B + 1,)


class RegionSource(Protocol):
    """Finds regions and describes them. Re-entrant, as a backend is."""

    @property
    def name(self) -> str:
        """What describes: ``detector``, or the name of a trunk."""
        ...

    @property
    def backend(self) -> Backend:
        """What finds the regions."""
        ...

    def digest(self) -> str:
        """SHA-256 of what describes: features of another are not comparable."""
        ...

    def describe(
        self,
        inputs: NDArray[np.uint8],
        valid_hw: NDArray[np.int64],
        scale: NDArray[np.float32],
        given: list[NDArray[np.float32]] | None = None,
        *,
        max_regions: int = MAX_REGIONS,
    ) -> Described:
        """Find at most ``max_regions`` in each padded input, and describe them and the ``given`` boxes.

        ``inputs``, ``valid_hw`` and ``scale`` are those of ``Backend.look``; ``given`` are B of (G, 4), network px.
        """
        ...

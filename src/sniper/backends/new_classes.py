"""A detector whose regions are named by learned classes: what the rest of inference sees as one more network."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sniper.errors import DataError
from sniper.inference.backend import Looked, Want
from sniper.inference.regions import RegionSource
from sniper.new_classes.head import ClassHead

MIN_OBJECTNESS = 0.05  # regions that are less likely an object are not asked for a class


class NewClassBackend:
    """Satisfies ``inference.backend.Backend``: score = objectness times the probability of the class.

    Regions whose best class is less probable than the head's threshold are rejected: they show none of the classes.
    Levels, windows, AutoFocus and merging go on as with the detector alone, whose focus maps are used.
    """

    predicts_masks = False  # they are made for the classes of the detector

    def __init__(self, regions: RegionSource, head: ClassHead, threshold: float | None = None) -> None:
        """Name the regions of ``regions`` by ``head``; ``threshold`` in place of its own, 0 rejects nothing.

        Raises:
            DataError: the classes were learned from features of another network.
        """
        if regions.digest() != head.features.digest:
            raise DataError(
                f"the classes {', '.join(head.class_names[:5])} were learned from features of another network than "
                f"{regions.backend.name} ({regions.name}); give the checkpoint that they were learned with, or learn "
                "them again"
            )
        self.regions, self.head = regions, head
        self.threshold = head.calibration.threshold if threshold is None else threshold
        self.name = f"{regions.backend.name} with learned classes"

    @property
    def proposes(self) -> bool:
        """Whether the detector proposes regions."""
        return self.regions.backend.proposes

    @property
    def focus_source(self) -> Literal["branch", "proposals", "detections"]:
        """That of the detector."""
        return self.regions.backend.focus_source

    @property
    def focus_stride(self) -> int | None:
        """That of the detector."""
        return self.regions.backend.focus_stride

    def look(
        self, inputs: NDArray[np.uint8], valid_hw: NDArray[np.int64], scale: NDArray[np.float32], want: Want
    ) -> Looked:
        """Regions with the best class of each; see ``Backend.look``. Focus maps cost another pass of the detector."""
        detector = self.regions.backend
        if want.regions == "proposals":
            return detector.look(inputs, valid_hw, scale, want._replace(features=False))
        found = self.regions.describe(inputs, valid_hw, scale)
        probability = self.head.probabilities(found.features)
        labels = probability.argmax(axis=1)
        best = probability[np.arange(len(labels)), labels]
        kept = np.flatnonzero((found.scores >= MIN_OBJECTNESS) & (best >= self.threshold))
        focus = None
        if want.focus:
            regions: Literal["detections", "proposals"] = "proposals" if detector.proposes else "detections"
            focus = detector.look(inputs, valid_hw, scale, Want(regions, focus=True)).focus
        return Looked(
            found.boxes[kept],
            found.scores[kept] * best[kept],
            labels[kept].astype(np.int64),
            np.searchsorted(kept, found.offsets).astype(np.int64),
            focus,
        )

    def masks(
        self, features: NDArray[np.floating], boxes: NDArray[np.floating], labels: NDArray[np.integer]
    ) -> NDArray[np.float32]:
        """Not possible: ``predicts_masks`` is false."""
        raise NotImplementedError("learned classes have no masks")

"""What a check finds: of one kind, in one image or dataset, with the boxes that are meant."""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Kind(Enum):
    """What may be wrong (a training suffers from it) or suspicious (look at it); the value is its name."""

    UNREADABLE_ANNOTATIONS = "unreadable annotations"
    UNREADABLE_IMAGE = "unreadable image"
    SIZE_DIFFERS = "size differs"
    IN_TWO_SPLITS = "image in two datasets"
    OUTSIDE = "box outside the image"
    BROKEN_BOX = "broken box"
    NOT_IN_PIXELS = "boxes not in pixels"
    NO_OBJECTS = "no objects"
    CLIPPED = "box over the edge"
    TINY = "tiny box"
    HUGE = "huge box"
    DUPLICATE_BOX = "box drawn twice"
    SAME_IMAGE = "image given twice"
    CROWDED = "crowded image"
    RARE_CLASS = "rare class"
    VALUE_RANGE = "value range"

    @property
    def is_wrong(self) -> bool:
        """Whether a dataset with it should not be trained on as it is."""
        return self in _WRONG


_WRONG = frozenset(
    {
        Kind.UNREADABLE_ANNOTATIONS,
        Kind.UNREADABLE_IMAGE,
        Kind.SIZE_DIFFERS,
        Kind.IN_TWO_SPLITS,
        Kind.OUTSIDE,
        Kind.BROKEN_BOX,
        Kind.NOT_IN_PIXELS,
        Kind.NO_OBJECTS,
    }
)


class Place(NamedTuple):
    """An image of a dataset, by their places in the list of datasets and in the table."""

    dataset: int
    image_row: int


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """One thing that is wrong or suspicious."""

    kind: Kind
    dataset: int
    detail: str  # a sentence's worth, without the file
    image_row: int | None = None  # None: of the dataset as a whole
    annotation_ids: NDArray[np.int64] | None = None  # (K,)
    boxes_xyxy: NDArray[np.floating] | None = None  # (K, 4) original px, as written
    twin: Place | None = None  # the other image of a pair
    badness: float = 0.0  # the worst of a kind are shown first


class Boxes(NamedTuple):
    """K boxes of one dataset, in the order of its images."""

    image_rows: NDArray[np.int64]  # (K,) ascending
    annotation_ids: NDArray[np.int64]  # (K,)
    boxes_xyxy: NDArray[np.floating]  # (K, 4) original px
    badness: NDArray[np.floating]  # (K,)


def by_image(kind: Kind, dataset: int, boxes: Boxes, one: str, many: str, worst: str) -> list[Finding]:
    """A finding for each image that has such boxes.

    ``one`` and ``many`` (with ``{count}``) say what they are, ``worst`` (with ``{worst}``) how bad the worst one is.
    """
    if not len(boxes.image_rows):
        return []
    starts = np.flatnonzero(np.diff(boxes.image_rows, prepend=-1))
    stops = np.append(starts[1:], len(boxes.image_rows))
    top = np.maximum.reduceat(boxes.badness, starts)
    found = []
    for start, stop, bad in zip(starts.tolist(), stops.tolist(), top.tolist(), strict=True):
        text = one if stop - start == 1 else many.format(count=stop - start)
        found.append(
            Finding(
                kind,
                dataset,
                text + worst.format(worst=abs(bad)),
                int(boxes.image_rows[start]),
                boxes.annotation_ids[start:stop],
                boxes.boxes_xyxy[start:stop],
                badness=bad,
            )
        )
    return found

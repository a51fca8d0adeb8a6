"""Labels that were verified for whole images, without boxes, as OpenImages has them."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sniper.data.columns import ragged_rows
from sniper.errors import DataError


@dataclass(frozen=True, slots=True, eq=False)
class ImageLabels:
    """Which classes an image was checked for. I images, V labels.

    ``labels[offsets[i]:offsets[i + 1]]`` are those of image ``i``. A class that is not listed was not checked: its
    objects may be there without boxes.
    """

    offsets: NDArray[np.int64]  # (I + 1,)
    labels: NDArray[np.int32]  # (V,) index into the table's class names
    confidence: NDArray[np.float32]  # (V,) 1: verified present, 0: verified absent, between: a machine's guess

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def of_image(self, image_row: int) -> slice:
        """Rows of the labels of an image."""
        return slice(int(self.offsets[image_row]), int(self.offsets[image_row + 1]))

    @property
    def present(self) -> NDArray[np.bool_]:
        """(V,) a person saw an object of the class in the image."""
        return np.asarray(self.confidence == 1)

    @property
    def absent(self) -> NDArray[np.bool_]:
        """(V,) a person saw that the image has no object of the class."""
        return np.asarray(self.confidence == 0)

    def check(self, images: int, classes: int) -> None:
        """Refuse labels that do not fit a table of so many images and classes.

        Raises:
            DataError: a column has another type or length, or a label or confidence is out of range.
        """
        for name, dtype in (("offsets", np.int64), ("labels", np.int32), ("confidence", np.float32)):
            if (found := getattr(self, name).dtype) != dtype:
                raise DataError(f"column {name} of the image labels is {found}, not {np.dtype(dtype)}")
        count = len(self.labels)
        if len(self) != images or len(self.confidence) != count:
            raise DataError(f"image labels are of {len(self)} images, and the table has {images}; give a row for each")
        if self.offsets[0] != 0 or self.offsets[-1] != count or (np.diff(self.offsets) < 0).any():
            raise DataError(f"offsets of image labels must rise from 0 to their number, {count}")
        good = (self.labels >= 0) & (self.labels < classes) & (self.confidence >= 0) & (self.confidence <= 1)
        if not good.all():
            row = int(np.argmin(good))
            raise DataError(
                f"image label {row} is class {self.labels[row]} with confidence {self.confidence[row]}; "
                f"classes are 0..{classes - 1}, confidence is 0 to 1"
            )

    def take(self, image_rows: NDArray[np.int64]) -> Self:
        """Labels of the given images, in their order."""
        rows, offsets = ragged_rows(self.offsets, image_rows)
        return type(self)(offsets, self.labels[rows], self.confidence[rows])

    def relabelled(self, new_label: NDArray[np.int32]) -> Self:
        """Labels by the classes' new places; those of classes with -1 are left out.

        Args:
            new_label: (C,) for each class its new index, or -1.
        """
        labels = new_label[self.labels]
        kept = labels >= 0
        offsets = np.concatenate(([0], np.cumsum(kept)))[self.offsets].astype(np.int64)
        return type(self)(offsets, labels[kept].astype(np.int32), self.confidence[kept])
